//! What stands beyond the pairs of classes: one NAT around both, carriers, IPv6, careless, rejecting, forgetful and busy
//! routers, hosts of one port. Each cell says the best path there is, and how soon it was found.
//!
//! Mappings of 30 s and a router that reboots under traffic are in `paths`, a path MTU of 1280 in `path_mtu`, ports that
//! a router opens in `port_mapping`.

use std::time::Duration;

use frejus_netns::daemon::{LIMIT, PeerPath};
use frejus_netns::lab::Plan;
use frejus_netns::matrix::drive;
use frejus_netns::scene::{class_of, invited, three_super_peers};
use frejus_netns::traffic::PingStream;
use frejus_netns::wait::look_for;
use frejus_netns::{Daemon, Host, Lab, Nat, NatClass, Quality, ability};

/// An ordinary punch takes less than one; a path that is found later than this is found by luck.
const SOON: Duration = Duration::from_secs(10);

/// A pair that has had this much time stays on the relay: more than all rounds of a search.
const IN_VAIN: Duration = Duration::from_secs(12);

/// A birthday guess takes at most 21 s, and waits for a flow that lasts.
const GUESS: Duration = Duration::from_secs(26);

/// Time for the class of a NAT; what is not known after it is not found out.
const CLASS: Duration = Duration::from_secs(10);

/// Flows that others begin, a second: a household that loads web pages without end.
const RIVALS: u32 = 20;

/// Seconds between two packets.
const PACE: f32 = 0.1;

/// A network of three super peers and two nodes that have not spoken yet.
struct Pair {
    a: Daemon,
    b: Daemon,
    super_peers: [Daemon; 3],
    /// Dropped last, so that it can keep evidence.
    lab: Lab,
}

/// What two nodes came to.
#[derive(Debug)]
struct Way {
    a: PeerPath,
    b: PeerPath,
    took: Option<Duration>,
    lost: u32,
}

impl Pair {
    fn join(mut lab: Lab, [a, b]: [&Host; 2]) -> Self {
        let super_peers = three_super_peers(&mut lab);
        let [a, b] = [a, b].map(|host| Daemon::join(host, &invited(&super_peers[0], "peer")));
        a.wait_ready();
        b.wait_ready();
        let known = look_for(CLASS, || Some((class_of(&a)?, class_of(&b)?)));
        assert!(known.is_some(), "a class is unknown: {} {}", a.verb(&["netcheck"]), b.verb(&["netcheck"]));
        Self { a, b, super_peers, lab }
    }

    /// A sends, B answers, until both are direct or `patience` is over.
    fn way(&self, what: &str, patience: Duration) -> Way {
        let way = meet(&self.a, &self.b, patience);
        eprintln!("{what}: {} {} after {:?}", way.a.kind, way.a.method, way.took);
        way
    }
}

impl Way {
    /// Asserts that it is direct, found so by both, and that nothing was lost until then.
    fn goes_direct(self, methods: &[&str]) -> Self {
        assert!(self.took.is_some(), "not direct: {self:?}");
        for path in [&self.a, &self.b] {
            assert_eq!(path.kind, "direct", "{self:?}");
            assert!(methods.contains(&path.method.as_str()), "by none of {methods:?}: {self:?}");
        }
        assert_eq!(self.lost, 0, "{self:?}");
        self
    }

    /// Asserts that it goes through a relay, and that nothing was lost.
    fn is_relayed(&self) {
        assert_eq!((self.a.kind.as_str(), self.b.kind.as_str()), ("relay", "relay"), "{self:?}");
        assert_eq!(self.lost, 0, "{self:?}");
    }
}

fn meet(a: &Daemon, b: &Daemon, patience: Duration) -> Way {
    let (ids, to) = ([a.id(), b.id()], b.ipv4().to_string());
    let stream = PingStream::start(&a.host, &to, PACE);
    let path = |from: &Daemon, id: &str| from.path_to(id).filter(|path| path.kind == "direct");
    let found = look_for(patience, || path(a, &ids[1]).zip(path(b, &ids[0])));
    // A path is only good for something if it carries what comes next.
    stream.wait_replies(10, LIMIT);
    let lost = stream.finish().lost();
    let [now_a, now_b] = [(a, &ids[1]), (b, &ids[0])].map(|(from, id)| from.path_to(id).unwrap_or_default());
    Way { a: now_a, b: now_b, took: found.map(|(_, took)| took), lost }
}

/// Two hosts behind one router.
fn one_router(test: &str, nat: impl Into<Nat>, isolated: bool) -> Option<Pair> {
    let mut lab = Lab::new(test)?;
    lab.route(&Plan { isolated, ..Plan::home("router", nat.into()) });
    let [a, b] = ["a", "b"].map(|name| lab.behind("router", name));
    Some(Pair::join(lab, [&a, &b]))
}

/// Two homes of their own.
fn two_routers(test: &str, nats: [Nat; 2], quality: Quality) -> Option<Pair> {
    let mut lab = Lab::new(test)?;
    let [a, b] = [("a", nats[0]), ("b", nats[1])].map(|(name, nat)| lab.home_with(name, nat, quality));
    Some(Pair::join(lab, [&a, &b]))
}

#[test]
fn hosts_of_one_lan_speak_there_whatever_the_class() {
    let hairpin = Nat::from(NatClass::PortRestricted).hairpin();
    for nat in [NatClass::SymmetricRandom.into(), NatClass::SymmetricSequential.into(), hairpin] {
        let Some(pair) = one_router("one_lan", nat, false) else { return };
        let way = pair.way(&format!("one LAN, {nat}"), SOON).goes_direct(&["local"]);
        assert!(way.a.remote.starts_with(&format!("{}:", pair.b.host.local)), "{way:?}");
    }
}

#[test]
fn isolated_hosts_meet_by_the_hairpin() {
    for class in [NatClass::FullCone, NatClass::PortRestricted] {
        let nat = Nat::from(class).hairpin();
        let Some(pair) = one_router("isolated_hairpin", nat, true) else { return };
        let way = pair.way(&format!("isolated, {nat}"), SOON).goes_direct(&["hairpin"]);
        assert!(way.a.remote.starts_with(&format!("{}:", pair.b.host.public)), "{way:?}");
    }
}

#[test]
fn isolated_hosts_without_a_hairpin_have_a_relay() {
    for class in [NatClass::PortRestricted, NatClass::SymmetricRandom] {
        let Some(pair) = one_router("isolated", class, true) else { return };
        pair.way(&format!("isolated, {class}"), IN_VAIN).is_relayed();
    }
}

/// Two homes of one carrier.
fn one_carrier(test: &str, carrier: Nat) -> Option<Pair> {
    let mut lab = Lab::new(test)?;
    lab.route(&Plan { carrier: true, ..Plan::home("carrier", carrier) });
    let [a, b] = ["a", "b"].map(|name| {
        let router = format!("router-{name}");
        lab.route(&Plan { behind: Some("carrier"), ..Plan::home(&router, NatClass::PortRestricted.into()) });
        lab.behind(&router, name)
    });
    Some(Pair::join(lab, [&a, &b]))
}

#[test]
fn homes_of_one_carrier_meet_where_it_hairpins() {
    let carrier = Nat::from(NatClass::PortRestricted).hairpin();
    let Some(pair) = one_carrier("carrier_hairpin", carrier) else { return };
    pair.way("one carrier that hairpins", SOON).goes_direct(&["hairpin"]);
}

/// The real miniupnpd opens no port while its own address is a carrier's, and says so in a refusal that names the address.
#[test]
fn homes_of_one_carrier_whose_routers_say_where_they_are_meet_there() {
    if !ability::program("carrier_refused", "miniupnpd") {
        return;
    }
    let Some(mut lab) = Lab::new("carrier_refused") else { return };
    lab.route(&Plan { carrier: true, ..Plan::home("carrier", NatClass::PortRestricted.into()) });
    let hosts = ["a", "b"].map(|name| {
        let router = format!("router-{name}");
        let nat = Nat::from(NatClass::PortRestricted).mapping();
        lab.route(&Plan { behind: Some("carrier"), ..Plan::home(&router, nat) });
        lab.behind(&router, name)
    });
    hosts.iter().for_each(|host| lab.map_ports(host));
    let middle = lab.router(&hosts[1]).public;
    let pair = Pair::join(lab, [&hosts[0], &hosts[1]]);
    let way = pair.way("one carrier, routers that name their places", SOON).goes_direct(&["punched"]);
    assert_eq!(way.a.remote, format!("{middle}:51860"), "{way:?}");
}

#[test]
fn homes_of_one_carrier_without_a_hairpin_have_a_relay() {
    let Some(pair) = one_carrier("carrier_plain", NatClass::PortRestricted.into()) else { return };
    pair.way("one carrier without a hairpin", IN_VAIN).is_relayed();
}

#[test]
fn a_cone_under_a_symmetric_carrier_is_as_good_as_the_carrier() {
    for (other, methods, patience) in
        [(NatClass::AddressRestricted, ["punched"], SOON), (NatClass::PortRestricted, ["guessed"], GUESS)]
    {
        let Some(mut lab) = Lab::new("cone_under_symmetric") else { return };
        lab.route(&Plan { carrier: true, ..Plan::home("carrier", NatClass::SymmetricRandom.into()) });
        lab.route(&Plan { behind: Some("carrier"), ..Plan::home("inner", NatClass::FullCone.into()) });
        let (a, b) = (lab.behind("inner", "a"), lab.home("b", other));
        let pair = Pair::join(lab, [&a, &b]);
        pair.way(&format!("cone under a symmetric carrier, {other}"), patience).goes_direct(&methods);
    }
}

#[test]
fn ipv6_is_punched_where_ipv4_has_only_a_relay() {
    let Some(mut lab) = Lab::new("ipv6_firewalls") else { return };
    let [a, b] = ["a", "b"].map(|name| lab.home(name, NatClass::SymmetricRandom));
    let addresses = [&a, &b].map(|host| lab.give_ipv6(host));
    let pair = Pair::join(lab, [&a, &b]);
    let way = pair
        .way("IPv6, a stateful firewall on both sides", SOON)
        .goes_direct(&["punched", "reversed", "public"]);
    assert!(way.a.remote.starts_with(&format!("[{}]:", addresses[1])), "{way:?}");
    assert!(way.b.remote.starts_with(&format!("[{}]:", addresses[0])), "{way:?}");
}

/// How often a cell is run whose outcome is a matter of time: `NAT_RUNS`, or once.
fn runs() -> u32 {
    std::env::var("NAT_RUNS").map_or(1, |runs| runs.parse().expect("NAT_RUNS is a number"))
}

#[test]
fn a_careless_router_is_not_spoilt_by_the_first_packet() {
    let careful = Nat::from(NatClass::PortRestricted);
    let careless = careful.careless();
    for (what, nats) in [("A", [careless, careful]), ("B", [careful, careless])] {
        for run in 1..=runs() {
            let Some(pair) = two_routers("careless_one", nats, Quality::default()) else { return };
            pair.way(&format!("{what} behind a careless router, run {run}"), SOON).goes_direct(&["punched"]);
        }
    }
}

/// Without a router between, both must speak while the other's word is on its way, which takes a line that is longer than a
/// machine is late: two on one switch stay on the relay.
#[test]
fn two_careless_routers_are_crossed_at_once() {
    let careless = Nat::from(NatClass::PortRestricted).careless();
    for delay in [2, 10] {
        for run in 1..=runs() {
            let quality = Quality::delayed(delay);
            let Some(pair) = two_routers("careless_two", [careless; 2], quality) else { return };
            let what = format!("two careless routers, {} ms apart, run {run}", 2 * delay);
            pair.way(&what, SOON).goes_direct(&["punched"]);
        }
    }
}

/// What goes from one home's router to another's passes a router of the internet, as it nearly always does.
fn put_a_hop_between(lab: &Lab, homes: [&Host; 2]) {
    let hop = "203.0.113.250";
    lab.wan().sh(&format!(
        "ip addr add {hop}/24 dev br0
         sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.br0.send_redirects=0"
    ));
    for [from, to] in [homes, [homes[1], homes[0]]] {
        let router = lab.router(from);
        router.sh(&format!("ip route add {}/32 via {hop} dev wan0", to.public));
        let routes = router.ok(&["ip", "route", "get", &to.public.to_string()]);
        assert!(routes.contains(hop), "{routes}");
    }
}

/// The called side's first packet dies at the hop, and has opened its own router by then.
#[test]
fn two_careless_routers_with_a_hop_between_are_crossed_at_no_distance() {
    let careless = Nat::from(NatClass::PortRestricted).careless();
    for run in 1..=runs() {
        let Some(mut lab) = Lab::new("careless_hop") else { return };
        let [a, b] = ["a", "b"].map(|name| lab.home(name, careless));
        put_a_hop_between(&lab, [&a, &b]);
        let pair = Pair::join(lab, [&a, &b]);
        pair.way(&format!("two careless routers, a hop between, run {run}"), SOON).goes_direct(&["punched"]);
    }
}

#[test]
fn a_router_that_answers_with_errors_is_punched() {
    for class in [NatClass::PortRestricted, NatClass::AddressRestricted, NatClass::Firewalled] {
        let nats = [Nat::from(class).rejecting(); 2];
        let Some(pair) = two_routers("rejecting", nats, Quality::default()) else { return };
        pair.way(&format!("both {}", nats[0]), SOON).goes_direct(&["punched", "public", "reversed"]);
    }
}

#[test]
fn two_routers_that_forget_at_once_are_punched_again() {
    let nats = [Nat::from(NatClass::PortRestricted); 2];
    let Some(pair) = two_routers("reboots", nats, Quality::default()) else { return };
    pair.way("before the reboots", SOON).goes_direct(&["punched"]);
    let stream = PingStream::start(&pair.a.host, &pair.b.ipv4().to_string(), PACE);
    stream.wait_replies(10, LIMIT);
    for node in [&pair.a, &pair.b] {
        pair.lab.reboot_router(&node.host);
    }
    stream.wait_replies(50, LIMIT);
    let gap = stream.finish().longest_gap;
    let way = pair.way("after the reboots", SOON);
    eprintln!("both routers rebooted: silent for {gap:?} (target 3 s)");
    way.goes_direct(&["punched"]);
}

#[test]
fn hosts_of_one_port_are_both_punched() {
    for class in [NatClass::FullCone, NatClass::PortRestricted] {
        let Some(mut lab) = Lab::new("one_port") else { return };
        let (a, b) = (lab.home("a", class), lab.home("b", NatClass::PortRestricted));
        let second = lab.neighbour(&a, "a2");
        let pair = Pair::join(lab, [&a, &b]);
        let second = Daemon::join(&second, &invited(&pair.super_peers[0], "peer"));
        second.wait_ready();
        for node in [&pair.a, &second] {
            let listens = node.status().unwrap_or_default()["node"]["listen"].to_string();
            assert!(listens.contains(":51860"), "of one port: {listens}");
        }
        pair.way(&format!("the first behind one {class}"), SOON)
            .goes_direct(&["punched", "public", "reversed"]);
        let way = meet(&second, &pair.b, SOON);
        eprintln!("the second: {} {} after {:?}", way.a.kind, way.a.method, way.took);
        way.goes_direct(&["punched", "public", "reversed"]);
    }
}

#[test]
fn prediction_holds_while_others_use_ports_up() {
    const RUNS: u64 = 6;
    let classes = [NatClass::PortRestricted, NatClass::SymmetricSequential];
    let mut found = 0;
    for seed in 1..=RUNS {
        let Some(record) = drive::run(classes, seed, Some(RIVALS)) else { return };
        eprintln!("{RIVALS} rivals a second, run {seed}: {record:?}");
        assert!(record.connected, "{record:?}");
        found += u64::from(record.kind == "direct");
    }
    assert!(found * 10 >= RUNS * 7, "{found} of {RUNS} runs");
}
