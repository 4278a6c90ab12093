//! One question a subject, the first true answer, and nothing that lies.

use std::net::Ipv4Addr;

use super::*;
use crate::document::{Passport, Roles};
use crate::id::RecordKey;
use crate::port::CommandId;
use crate::record::Record;
use crate::testing::{Town, node, now, tunnel_key};

const A: u8 = 1;
const HOME: u8 = 50;
const OTHER_HOME: u8 = 51;

struct Story {
    town: Town,
    resolver: Resolver,
}

fn address(n: u8) -> Subject {
    Subject::Address4(Ipv4Addr::new(10, 93, 1, n))
}

impl Story {
    fn new() -> Self {
        let town = Town::new();
        let resolver = Resolver::new(town.network.clone(), 1000);
        Self { town, resolver }
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.resolver.poll_output()).collect()
    }

    /// Begin a look-up of A's address; the question's ID.
    fn ask(&mut self, homes: usize) -> u32 {
        assert_eq!(self.resolver.resolve(&address(A), homes, now(0)), Known::Soon);
        self.resolver.next_id
    }

    /// A home says where node `n` is.
    fn home_says(&mut self, id: u32, home: u8, n: Option<u8>, ms: u64) {
        let contact = n.map(|n| self.town.contact(n, Roles::PEER));
        let (credential, whereabouts) = contact.map(|c| (c.credential, c.whereabouts)).unzip();
        self.resolver.handle_answer(node(home), id, credential.as_ref(), whereabouts, now(ms));
    }

    fn table_says(&mut self, id: CommandId, record: &Record, ms: u64) {
        self.resolver.handle_reply(&Reply::Found { id, value: record.encode() }, now(ms));
    }

    fn table_ends(&mut self, id: CommandId, ms: u64) {
        self.resolver.handle_reply(&Reply::Finished { id, ok: false }, now(ms));
    }

    fn passport(&self, n: u8) -> Record {
        Record::Passport(self.town.credential(n, Roles::PEER))
    }

    fn place(&self, n: u8) -> Record {
        Record::Whereabouts(self.town.contact(n, Roles::PEER))
    }
}

/// How a look-up ended, if it did.
fn end(outputs: &[Output]) -> Option<Option<Found>> {
    outputs.iter().find_map(|output| match output {
        Output::Done { found, .. } => Some(*found),
        Output::Ask { .. } | Output::Command(_) => None,
    })
}

const fn lease_walk(id: u32) -> CommandId {
    (id as u64) << 1
}

const fn place_walk(id: u32) -> CommandId {
    lease_walk(id) | 1
}

#[test]
fn one_look_up_a_subject_however_many_ask() {
    let mut story = Story::new();
    let id = story.ask(1);
    for _ in 0..100 {
        assert_eq!(story.resolver.resolve(&address(A), 1, now(1)), Known::Soon);
    }
    let key = RecordKey::passport(&story.town.network.id, &address(A));
    let asked = vec![
        Output::Ask { id, subject: address(A) },
        Output::Command(Command::Lookup { id: lease_walk(id), key }),
    ];
    assert_eq!(story.outputs(), asked);
    story.home_says(id, HOME, Some(A), 30);
    let outputs = story.outputs();
    assert_eq!(outputs.iter().filter(|o| matches!(o, Output::Done { .. })).count(), 1);
    assert_eq!(story.resolver.resolve(&address(A), 1, now(31)), Known::Yes(node(A)));
}

#[test]
fn the_home_wins_and_the_walk_is_cancelled() {
    let mut story = Story::new();
    let id = story.ask(2);
    story.outputs();
    story.home_says(id, HOME, Some(A), 30);
    let outputs = story.outputs();
    assert!(outputs.contains(&Output::Command(Command::Cancel { id: lease_walk(id) })));
    let from_home = (Source::SuperPeer, Duration::from_millis(30));
    let found = Found { node: node(A), lease: from_home, whereabouts: Some(from_home) };
    assert_eq!(end(&outputs), Some(Some(found)));
    // The loser's answers mean nothing any more.
    story.table_says(lease_walk(id), &story.passport(A), 40);
    story.home_says(id, OTHER_HOME, None, 40);
    assert_eq!(story.outputs(), []);
}

#[test]
fn the_table_wins_in_two_stages() {
    let mut story = Story::new();
    let id = story.ask(1);
    story.outputs();
    story.table_says(lease_walk(id), &story.passport(A), 50);
    let key = RecordKey::whereabouts(&story.town.network.id, &node(A));
    assert_eq!(story.outputs(), [Output::Command(Command::Lookup { id: place_walk(id), key })]);
    story.table_ends(lease_walk(id), 60);
    assert_eq!(story.outputs(), []);
    story.table_says(place_walk(id), &story.place(A), 90);
    let stage = |ms| (Source::Dht, Duration::from_millis(ms));
    let found = Found { node: node(A), lease: stage(50), whereabouts: Some(stage(90)) };
    let outputs = story.outputs();
    assert_eq!(end(&outputs), Some(Some(found)));
    assert!(outputs.contains(&Output::Command(Command::Cancel { id: place_walk(id) })));
}

#[test]
fn answers_that_lie_are_as_good_as_none() {
    let mut story = Story::new();
    let id = story.ask(2);
    story.outputs();
    story.home_says(id, HOME, Some(2), 10);
    let forged = story.town.contact(9, Roles::PEER).whereabouts;
    let credential = story.town.credential(A, Roles::PEER);
    story.table_says(lease_walk(id), &story.passport(2), 20);
    let mut altered = story.passport(A).encode();
    altered[100] ^= 1;
    story.resolver.handle_reply(&Reply::Found { id: lease_walk(id), value: altered }, now(20));
    story.resolver.handle_reply(&Reply::Found { id: lease_walk(id), value: vec![] }, now(20));
    assert_eq!(end(&story.outputs()), None);
    // True about who, false about where: the first is kept, the second is not.
    story.resolver.handle_answer(node(OTHER_HOME), id, Some(&credential), Some(forged), now(30));
    assert_eq!(story.resolver.place(&node(A), now(30)), None);
    story.table_ends(lease_walk(id), 40);
    let found = end(&story.outputs()).unwrap().unwrap();
    assert_eq!((found.node, found.whereabouts), (node(A), None));
}

#[test]
fn a_home_that_answers_twice_does_not_speak_for_the_other() {
    let mut story = Story::new();
    let id = story.ask(2);
    story.table_ends(lease_walk(id), 10);
    story.home_says(id, HOME, None, 20);
    story.home_says(id, HOME, None, 420);
    assert_eq!(end(&story.outputs()), None, "the other home still owes its answer");
    story.home_says(id, OTHER_HOME, Some(A), 450);
    assert_eq!(end(&story.outputs()).flatten().map(|found| found.node), Some(node(A)));
}

#[test]
fn nobody_is_believed_for_a_while_and_not_longer() {
    let mut story = Story::new();
    let id = story.ask(1);
    story.home_says(id, HOME, None, 20);
    story.table_ends(lease_walk(id), 30);
    assert_eq!(end(&story.outputs()), Some(None));
    assert_eq!(story.resolver.resolve(&address(A), 1, now(5029)), Known::No);
    assert_eq!(story.outputs(), []);
    assert_eq!(story.resolver.resolve(&address(A), 1, now(5030)), Known::Soon);
}

#[test]
fn a_node_that_shows_up_is_not_absent_any_more() {
    let mut story = Story::new();
    let id = story.ask(1);
    story.home_says(id, HOME, None, 20);
    story.table_ends(lease_walk(id), 30);
    assert!(story.resolver.learn_place(&story.town.place(A, 1), now(40)));
    assert_eq!(story.resolver.resolve(&address(A), 1, now(50)), Known::Yes(node(A)));
}

#[test]
fn what_is_known_ends_with_its_record() {
    let mut story = Story::new();
    story.resolver.learn_place(&story.town.place(A, 1), now(0));
    assert_eq!(story.resolver.resolve(&address(A), 1, now(899_000)), Known::Yes(node(A)));
    assert_eq!(story.resolver.resolve(&address(A), 1, now(900_000)), Known::Soon);
    // The passport is still good: only the second stage is walked.
    let key = RecordKey::whereabouts(&story.town.network.id, &node(A));
    let id = place_walk(story.resolver.next_id);
    assert!(story.outputs().contains(&Output::Command(Command::Lookup { id, key })));
    let month = 30 * 86_400_000;
    assert_eq!(story.resolver.node_of(&address(A), now(month - 1000)), Some(node(A)));
    assert_eq!(story.resolver.node_of(&address(A), now(month)), None);
}

#[test]
fn silence_is_asked_again_and_ends_after_eight_seconds() {
    let mut story = Story::new();
    story.ask(1);
    let mut asked = Vec::new();
    let mut ms = 0;
    loop {
        let outputs = story.outputs();
        if outputs.iter().any(|output| matches!(output, Output::Ask { .. })) {
            asked.push(ms);
        }
        if end(&outputs) == Some(None) {
            break;
        }
        let due = story.resolver.poll_timeout().unwrap();
        ms = u64::try_from(due.since_start().as_millis()).unwrap();
        story.resolver.handle_timeout(now(ms));
        assert!(story.resolver.poll_timeout().is_none_or(|next| next > due));
    }
    assert_eq!((asked, ms), (vec![0, 400, 1000, 2000, 4000], 8000));
}

#[test]
fn a_late_timeout_asks_once_and_leaves_a_later_deadline() {
    let mut story = Story::new();
    story.ask(1);
    story.outputs();
    story.resolver.handle_timeout(now(2500));
    assert_eq!(story.outputs().len(), 1);
    assert!(story.resolver.poll_timeout().unwrap() > now(2500).instant);
}

#[test]
fn the_newer_of_two_is_kept() {
    let mut story = Story::new();
    assert!(story.resolver.learn_place(&story.town.place(A, 5), now(0)));
    assert!(!story.resolver.learn_place(&story.town.place(A, 4), now(0)));
    assert!(!story.resolver.learn_place(&story.town.place(A, 5), now(0)));
    assert_eq!(story.resolver.place(&node(A), now(0)).unwrap().whereabouts.sequence, 5);
    story.resolver.forget_place(&node(A));
    assert!(story.resolver.learn_place(&story.town.place(A, 4), now(0)), "wrong ones do not count");

    let serial = |serial| Passport { serial, ..story.town.passport(2, Roles::PEER) };
    for n in [7, 6, 8] {
        story.resolver.learn_member(&story.town.member(&serial(n)), now(0));
    }
    assert_eq!(story.resolver.member(&node(2), now(0)).unwrap().passport.serial, 8);
}

#[test]
fn a_node_that_got_another_address_does_not_keep_the_old_one() {
    let mut story = Story::new();
    let old = story.town.passport(A, Roles::PEER);
    let new =
        Passport { address4: [10, 93, 7, 7].into(), name: "other".to_owned(), serial: 2, ..old.clone() };
    story.resolver.learn_member(&story.town.member(&old), now(0));
    story.resolver.learn_member(&story.town.member(&new), now(0));
    assert_eq!(story.resolver.node_of(&address(A), now(0)), None);
    assert_eq!(story.resolver.node_of(&Subject::Name("node1".to_owned()), now(0)), None);
    assert_eq!(story.resolver.node_of(&Subject::Name("other".to_owned()), now(0)), Some(node(A)));
    assert_eq!(story.resolver.subjects.len(), 3);
}

#[test]
fn two_passports_for_one_address_do_not_mix() {
    let mut story = Story::new();
    let id = story.ask(1);
    // Node 2 held the address before; its passport is still valid, and nobody knows where it is.
    let before = Passport { address4: [10, 93, 1, A].into(), ..story.town.passport(2, Roles::PEER) };
    let before = story.town.sign_passport(&before);
    story.resolver.handle_answer(node(HOME), id, Some(&before), None, now(10));
    story.table_says(lease_walk(id), &story.passport(A), 20);
    story.table_says(place_walk(id), &story.place(A), 30);
    let found = end(&story.outputs()).unwrap().unwrap();
    assert_eq!(found.node, node(A), "the one whose place was found");
}

#[test]
fn look_ups_are_bounded() {
    let mut story = Story::new();
    let subject = |n: usize| Subject::Name(format!("nobody{n}"));
    for n in 0..LOOKUPS {
        assert_eq!(story.resolver.resolve(&subject(n), 0, now(0)), Known::Soon);
    }
    assert_eq!(story.resolver.resolve(&subject(LOOKUPS), 0, now(0)), Known::No);
    story.resolver.handle_timeout(now(8000));
    for n in 0..LOOKUPS {
        assert_eq!(story.resolver.resolve(&subject(1000 + n), 0, now(8001)), Known::Soon);
    }
    story.resolver.handle_timeout(now(16_001));
    assert!(story.resolver.absent.len() <= LOOKUPS);
    assert_eq!(story.resolver.poll_timeout(), None);
}

#[test]
fn a_question_about_a_node_walks_for_both_at_once() {
    let mut story = Story::new();
    assert_eq!(story.resolver.resolve(&Subject::Node(node(A)), 0, now(0)), Known::Soon);
    let id = story.resolver.next_id;
    assert_eq!(story.outputs().len(), 2, "two walks, and no home to ask");
    story.table_says(place_walk(id), &story.place(A), 20);
    let outputs = story.outputs();
    assert_eq!(end(&outputs).flatten().map(|found| found.node), Some(node(A)));
    assert_eq!(story.resolver.place(&node(A), now(20)).unwrap().whereabouts.tunnel_key, tunnel_key(A));
    let cancels = outputs.iter().filter(|output| matches!(output, Output::Command(Command::Cancel { .. })));
    assert_eq!(cancels.count(), 2);
}
