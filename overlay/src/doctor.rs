//! Why a path is what it is, and what would make it direct: one sentence each, from what both sides know.
//!
//! Owns: [`Side`], what a side tells of itself and of what it tried; [`Diagnosis`]. Pure. Never: a probe.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::document::NatClass;
use crate::guess::Ports;
use crate::mapping::MappingProtocol;
use crate::node::Method;

/// What a side knows of itself, and what it tried towards the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// What stands in front of it.
    pub class: NatClass,
    /// How that chooses ports.
    pub ports: Ports,
    /// Where others see it, at most [`Self::PLACES`].
    pub external: Vec<SocketAddr>,
    /// How its router was asked for a port, if it gave one.
    pub mapped: Option<MappingProtocol>,
    /// Whether its router takes for a flow to itself what comes in before the node has spoken.
    pub careless: bool,
    /// Whether super peers answer it by UDP.
    pub udp: bool,
    /// The other's places, at most [`Self::TRIED`].
    pub tried: Vec<Tried>,
}

/// A place of the other side, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Where.
    pub at: SocketAddr,
    /// Probes sent there.
    pub sent: u32,
    /// Answers to them.
    pub answered: u32,
    /// Probes of the other side that came from there.
    pub heard: u32,
}

impl Side {
    /// Places where others see a node.
    pub const PLACES: usize = 4;
    /// Places that one was told of or heard from.
    pub const TRIED: usize = 16;

    fn sent(&self) -> u32 {
        self.tried.iter().map(|tried| tried.sent).sum()
    }

    fn heard(&self) -> u32 {
        self.tried.iter().map(|tried| tried.heard).sum()
    }

    /// Whether its router gives every destination another port.
    const fn is_symmetric(&self) -> bool {
        matches!(self.ports, Ports::Counted(_) | Ports::Scattered)
    }
}

/// How the two speak now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Straight.
    Direct {
        /// How that was found.
        method: Method,
        /// Whether in a TCP connection.
        over_tcp: bool,
    },
    /// Through a relay.
    Relay,
    /// Not at all.
    Nothing,
}

/// What a user is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Why the path is what it is.
    pub why: String,
    /// What would make it direct, the easiest first; empty where nothing needs to be done.
    pub mend: Vec<String>,
}

fn says(why: impl Into<String>, mend: &[&str]) -> Diagnosis {
    Diagnosis { why: why.into(), mend: mend.iter().map(|mend| (*mend).to_owned()).collect() }
}

const OPEN_A_PORT: &str =
    "switch on UPnP, NAT-PMP or PCP on either router, or forward UDP 51860 there to the machine";
const OPEN_TCP: &str = "forward TCP 51860 on either router to the machine, and name the address there: frejus up --advertise ADDR:51860";
const ONE_ROUTER: &str = "switch client isolation off there, or hairpinning (NAT loopback) on";
const ONE_CARRIER: &str =
    "if each has a router of its own behind a carrier's, switch on UPnP, NAT-PMP or PCP on both of them";
const SHUT: &str = "let that router drop what nobody inside has asked for, instead of taking it for itself: a firewall on its outer side";

fn wait_for(peer: &str) -> String {
    format!("keep traffic flowing and look again: frejus ping {peer} --until-direct")
}

/// The diagnosis of `here` and `there`, which are called so; `there` is unknown while it does not answer.
#[must_use]
pub fn diagnose(found: Found, (a, here): (&str, &Side), (b, there): (&str, Option<&Side>)) -> Diagnosis {
    let Some(there) = there else {
        let why = match found {
            Found::Nothing => format!("{b} does not answer, neither straight nor through a relay"),
            _ => format!("{b} does not tell about its side"),
        };
        return says(why, &["see whether frejus is up there: frejus status"]);
    };
    match found {
        Found::Direct { method, over_tcp } => {
            let carrier = if over_tcp { over_tcp_since((a, here), (b, there)) } else { String::new() };
            says(direct(method, (a, here), (b, there)) + &carrier, &[])
        }
        Found::Relay | Found::Nothing => relayed((a, here), (b, there)),
    }
}

/// Where UDP does not pass.
fn blocked<'a>(sides: [(&'a str, &Side); 2]) -> Vec<&'a str> {
    let is_blocked = |side: &Side| !side.udp || side.class == NatClass::UdpBlocked;
    sides.into_iter().filter(|(_, side)| is_blocked(side)).map(|(name, _)| name).collect()
}

fn over_tcp_since(here: (&str, &Side), there: (&str, &Side)) -> String {
    match blocked([here, there]).as_slice() {
        [] => ", over TCP".to_owned(),
        names => format!(", over TCP, since UDP does not pass at {}", names.join(" and ")),
    }
}

fn direct(method: Method, (a, here): (&str, &Side), (b, there): (&str, &Side)) -> String {
    let counting = |side: &Side| matches!(side.ports, Ports::Counted(_));
    match method {
        Method::Local => format!("{a} and {b} are in one network, and speak there without leaving it"),
        Method::Hairpin => {
            format!(
                "{a} and {b} are behind one router, which sends back inside what goes to its outer address"
            )
        }
        Method::Public => format!("{b} has an address that everybody reaches"),
        Method::Reversed => format!("{a} has an address that everybody reaches, and {b} was asked to dial"),
        Method::Mapped => {
            let (whose, side) = if there.mapped.is_some() { (b, there) } else { (a, here) };
            let how = side.mapped.map_or("", |protocol| protocol.name());
            format!(
                "the router of {whose} opened a port for it{}{how}",
                if how.is_empty() { "" } else { " by " }
            )
        }
        Method::Predicted => {
            let whose = if counting(here) && counting(there) {
                "both routers give".to_owned()
            } else {
                format!("the router of {} gives", if counting(here) { a } else { b })
            };
            format!("{whose} every destination the next port in sequence, and it was predicted")
        }
        Method::Guessed => {
            let whose = if here.ports == Ports::Scattered { a } else { b };
            format!("the router of {whose} gives every destination a random port, and one was guessed")
        }
        _ => format!("{a} and {b} opened their routers for each other by sending at the same time"),
    }
}

fn relayed((a, here): (&str, &Side), (b, there): (&str, &Side)) -> Diagnosis {
    let blocked = blocked([(a, here), (b, there)]);
    if !blocked.is_empty() {
        let why = format!(
            "UDP does not pass at {}, and no TCP connection of {a} and {b} stands, so that everything goes by TCP to a super peer",
            blocked.join(" and ")
        );
        return says(why, &["let UDP out there, in the firewall or at the provider", OPEN_TCP, &wait_for(b)]);
    }
    let ips = |side: &Side| side.external.iter().map(SocketAddr::ip).collect::<BTreeSet<_>>();
    if !ips(here).is_disjoint(&ips(there)) {
        let why = format!(
            "{a} and {b} are behind one router, or one carrier's, which lets them reach each other neither inside nor by its outer address"
        );
        return says(why, &[ONE_ROUTER, ONE_CARRIER]);
    }
    match (here.ports, there.ports) {
        (Ports::Scattered, Ports::Scattered) => says(
            format!("the router of {b} gives every destination a random port, and so does that of {a}"),
            &[OPEN_A_PORT],
        ),
        (Ports::Scattered, Ports::Counted(_)) | (Ports::Counted(_), Ports::Scattered) => says(
            format!("the routers of {a} and {b} give every destination another port, one of them at random"),
            &[OPEN_A_PORT],
        ),
        (Ports::Scattered, Ports::Kept) | (Ports::Kept, Ports::Scattered) => says(
            format!(
                "the router of {} gives every destination a random port: a direct path must be guessed, which takes up to 20 s of traffic",
                if here.is_symmetric() { a } else { b }
            ),
            &[&wait_for(b), OPEN_A_PORT],
        ),
        (Ports::Unknown, _) | (_, Ports::Unknown) => says(
            format!(
                "what stands in front of {} was not found out",
                if here.ports == Ports::Unknown { a } else { b }
            ),
            &[
                "have three super peers that it reaches (two tell where it is seen, a third who may send there), and see frejus netcheck there",
                OPEN_A_PORT,
            ],
        ),
        _ => lost((a, here), (b, there)),
    }
}

/// The classes would allow a direct path: what became of the probes?
fn lost((a, here): (&str, &Side), (b, there): (&str, &Side)) -> Diagnosis {
    let arrived = |from: &Side, to: &Side| (from.sent(), to.heard());
    let careless: Vec<&str> =
        [(a, here), (b, there)].iter().filter(|(_, side)| side.careless).map(|(name, _)| *name).collect();
    if !careless.is_empty() && here.sent() + there.sent() > 0 {
        let whose = match careless.as_slice() {
            [one] => format!("the router of {one} takes"),
            _ => format!("the routers of {a} and {b} take"),
        };
        let why = format!(
            "{whose} what comes in before the inside has spoken for a flow of its own, and then the inside's packets leave by a port that nobody was told"
        );
        return says(why, &[SHUT, OPEN_A_PORT]);
    }
    let filter = "see that no firewall between them drops UDP";
    match (arrived(here, there), arrived(there, here)) {
        ((0, _), (0, _)) => {
            says(format!("{a} and {b} have not tried yet: they do so while traffic flows"), &[&wait_for(b)])
        }
        ((sent, 0), (_, 0)) => says(
            format!("none of the probes arrived: {sent} of {a}, {} of {b}", there.sent()),
            &[filter, OPEN_A_PORT],
        ),
        ((sent, 0), _) => says(
            format!(
                "{b} hears nothing of {sent} probes of {a}, which hears {b}: something drops them on the way"
            ),
            &[filter, OPEN_A_PORT],
        ),
        (_, (sent, 0)) => says(
            format!(
                "{a} hears nothing of {sent} probes of {b}, which hears {a}: something drops them on the way"
            ),
            &[filter, OPEN_A_PORT],
        ),
        _ => says(
            format!("probes arrive at both, and the direct path of {a} and {b} is about to be used"),
            &[&wait_for(b)],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(class: NatClass, ports: Ports, last: u8) -> Side {
        let external = vec![SocketAddr::from(([203, 0, 113, last], 51860))];
        Side { class, ports, external, mapped: None, careless: false, udp: true, tried: Vec::new() }
    }

    fn why(found: Found, here: &Side, there: &Side) -> String {
        diagnose(found, ("a", here), ("b", Some(there))).why
    }

    fn tried(sent: u32, heard: u32) -> Tried {
        Tried { at: "203.0.113.9:7".parse().unwrap(), sent, answered: 0, heard }
    }

    #[test]
    fn two_random_routers_are_told_what_would_help() {
        let (a, b) = (
            side(NatClass::SymmetricRandom, Ports::Scattered, 1),
            side(NatClass::SymmetricRandom, Ports::Scattered, 2),
        );
        let told = diagnose(Found::Relay, ("a", &a), ("b", Some(&b)));
        assert_eq!(told.why, "the router of b gives every destination a random port, and so does that of a");
        assert!(told.mend[0].contains("UDP 51860"));
        let cone = side(NatClass::PortRestricted, Ports::Kept, 3);
        let told = diagnose(Found::Relay, ("a", &a), ("b", Some(&cone)));
        assert!(told.mend[0].ends_with("frejus ping b --until-direct"), "{told:?}");
    }

    #[test]
    fn every_reason_names_whose_it_is() {
        let cone = |last| side(NatClass::PortRestricted, Ports::Kept, last);
        let random = |last| side(NatClass::SymmetricRandom, Ports::Scattered, last);
        let counting = side(NatClass::SymmetricSequential, Ports::Counted(1), 3);
        assert!(why(Found::Relay, &random(1), &cone(2)).starts_with("the router of a gives"));
        assert!(why(Found::Relay, &cone(1), &random(2)).starts_with("the router of b gives"));
        assert!(why(Found::Relay, &counting, &random(2)).contains("one of them at random"));
        assert!(why(Found::Relay, &cone(1), &cone(1)).contains("behind one router"));
        let blocked = Side { udp: false, ..cone(2) };
        assert!(why(Found::Relay, &cone(1), &blocked).starts_with("UDP does not pass at b"));
        let unknown = side(NatClass::Unknown, Ports::Unknown, 4);
        assert!(why(Found::Relay, &cone(1), &unknown).contains("in front of b"));
        assert!(diagnose(Found::Nothing, ("a", &cone(1)), ("b", None)).why.contains("does not answer"));
    }

    #[test]
    fn what_arrived_decides_where_the_classes_would_do() {
        let cone = |last, sent, heard| Side {
            tried: vec![tried(sent, heard)],
            ..side(NatClass::PortRestricted, Ports::Kept, last)
        };
        assert!(why(Found::Relay, &cone(1, 0, 0), &cone(2, 0, 0)).contains("have not tried"));
        assert!(
            why(Found::Relay, &cone(1, 4, 0), &cone(2, 3, 0))
                .contains("none of the probes arrived: 4 of a, 3 of b")
        );
        assert!(
            why(Found::Relay, &cone(1, 4, 3), &cone(2, 3, 0)).starts_with("b hears nothing of 4 probes of a")
        );
        assert!(
            why(Found::Relay, &cone(1, 4, 0), &cone(2, 3, 4)).starts_with("a hears nothing of 3 probes of b")
        );
    }

    #[test]
    fn a_careless_router_is_named() {
        let tried = |careless, last| Side {
            tried: vec![tried(4, 0)],
            careless,
            ..side(NatClass::PortRestricted, Ports::Kept, last)
        };
        let told = diagnose(Found::Relay, ("a", &tried(false, 1)), ("b", Some(&tried(true, 2))));
        assert!(told.why.starts_with("the router of b takes what comes in before"), "{told:?}");
        assert!(told.mend[0].contains("drop what nobody inside has asked for"), "{told:?}");
        let both = why(Found::Relay, &tried(true, 1), &tried(true, 2));
        assert!(both.starts_with("the routers of a and b take what"), "{both}");
        assert!(!why(Found::Relay, &tried(false, 1), &tried(false, 2)).contains("comes in before"));
    }

    #[test]
    fn direct_paths_say_how() {
        let cone = side(NatClass::PortRestricted, Ports::Kept, 1);
        let counting = side(NatClass::SymmetricSequential, Ports::Counted(1), 2);
        let mapped = Side { mapped: Some(MappingProtocol::Upnp), ..cone.clone() };
        for (method, there, word) in [
            (Method::Punched, &cone, "at the same time"),
            (Method::Predicted, &counting, "the router of b gives"),
            (Method::Mapped, &mapped, "the router of b opened a port for it by upnp"),
            (Method::Local, &cone, "in one network"),
            (Method::Hairpin, &cone, "behind one router"),
        ] {
            let told = diagnose(Found::Direct { method, over_tcp: false }, ("a", &cone), ("b", Some(there)));
            assert!(told.why.contains(word) && told.mend.is_empty(), "{told:?}");
        }
        let blocked = Side { udp: false, ..cone.clone() };
        let over_tcp =
            |here, there| why(Found::Direct { method: Method::Punched, over_tcp: true }, here, there);
        assert!(over_tcp(&cone, &blocked).ends_with("same time, over TCP, since UDP does not pass at b"));
        assert!(over_tcp(&blocked, &blocked).ends_with("at a and b"));
        assert!(over_tcp(&cone, &cone).ends_with("same time, over TCP"));
    }
}
