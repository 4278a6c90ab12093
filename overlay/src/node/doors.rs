//! The further sockets of this node, and the questions to super peers that were asked by them.
//!
//! Owns: which numbers are taken, and whom a STUN answer concerns. Never: what a door is good for.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use rand_core::Rng;

use super::{Node, Output};
use crate::id::NodeId;
use crate::limits::DOORS;
use crate::locator::{DoorId, Endpoint, Locator, is_public};
use crate::peer::Peer;
use crate::stun;

/// Questions remembered: some rounds of predictions with several peers.
const QUESTIONS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Doors {
    open: BTreeSet<DoorId>,
    last: u16,
    questions: VecDeque<(stun::Transaction, NodeId, DoorId, usize)>,
}

#[cfg(test)]
impl Doors {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

impl Node {
    /// A fresh socket, unless there are too many.
    pub(super) fn open_door(&mut self) -> Option<DoorId> {
        if self.doors.open.len() >= DOORS {
            return None;
        }
        let mut door = DoorId(self.doors.last.wrapping_add(1));
        while self.doors.open.contains(&door) || door >= DoorId::SURVEY {
            door = DoorId(door.0.wrapping_add(1));
        }
        self.doors.last = door.0;
        self.doors.open.insert(door);
        self.outputs.push_back(Output::OpenDoor(door));
        Some(door)
    }

    pub(super) fn close_door(&mut self, door: DoorId) {
        if self.doors.open.remove(&door) {
            self.outputs.push_back(Output::CloseDoor(door));
        }
    }

    /// Ask the first, or the second, super peer where it sees a door; the answer concerns the search for `node`.
    pub(super) fn ask_where(&mut self, node: NodeId, door: DoorId, which: usize) {
        let Some(at) = self.observers().get(which).copied() else { return };
        let mut transaction = stun::Transaction::default();
        self.rng.fill_bytes(&mut transaction);
        if self.doors.questions.len() == QUESTIONS {
            self.doors.questions.pop_front();
        }
        self.doors.questions.push_back((transaction, node, door, which));
        self.transmit(Locator::Direct(Endpoint::by_door(door, at)), &stun::request(transaction));
    }

    /// A super peer answered; whom that concerns.
    pub(super) fn answered_where(&mut self, answer: &stun::Answer) -> Option<(NodeId, DoorId, usize)> {
        let at = self.doors.questions.iter().position(|(asked, ..)| *asked == answer.transaction)?;
        let (_, node, door, which) = self.doors.questions.remove(at)?;
        Some((node, door, which))
    }

    /// Where super peers answer such questions: our homes, then others that we know, one place each.
    fn observers(&self) -> Vec<SocketAddr> {
        let homes = self.homes.ids().filter_map(|home| self.peers.get(&home).and_then(Peer::direct_remote));
        let others = self.homes.known().filter_map(|place| {
            let public = |at: &SocketAddr| at.is_ipv4() && is_public(at.ip());
            place.whereabouts.candidates.iter().map(|candidate| candidate.at).find(public)
        });
        let mut places: Vec<SocketAddr> = Vec::new();
        for at in homes.filter(Endpoint::is_main).map(|home| home.at).chain(others) {
            if at.is_ipv4() && !places.contains(&at) {
                places.push(at);
            }
        }
        places
    }
}
