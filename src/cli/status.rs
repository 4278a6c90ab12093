//! `frejus status`.

use std::fmt::Write;

use super::arguments::{Check, Status as Arguments};
use super::screen::{self, Colours};
use crate::client::Client;
use crate::failure::{ExitCode, Failure};
use crate::report::{CipherCost, Counters, Directory, Nat, NatClass, Role, SocketBuffers, State, Status};

pub(super) fn run(client: &Client, arguments: Arguments) -> Result<(), Failure> {
    let status = client.status()?;
    if arguments.output.json {
        screen::print_json(&status)?;
    } else {
        screen::print(table(&status, Colours::of_stdout()))?;
    }
    match arguments.check {
        Some(Check::Ready) if status.state != State::Ready => Err(not_ready(&status)),
        _ => Ok(()),
    }
}

fn not_ready(status: &Status) -> Failure {
    let what = format!("{} is {}", status.network.name, status.state);
    match status.attention.first() {
        Some(first) => Failure::new(ExitCode::Degraded, format!("{what}, {}", first.what), &first.mend),
        None => Failure::new(ExitCode::Degraded, what, "frejus wait, or look at the node's log"),
    }
}

fn table(status: &Status, colours: Colours) -> String {
    let node = &status.node;
    let state = match status.state {
        State::Ready => colours.good(status.state),
        State::Starting | State::Degraded | State::Stopping => colours.warning(status.state),
    };
    let mut text =
        format!("{} in {}: {state}\n\n", colours.bold(&node.name), colours.bold(&status.network.name));
    let mut line = |label: &str, value: String| writeln!(text, "  {label:<12} {value}").expect("memory");
    line("addresses", screen::list(&node.addresses, "  "));
    line("roles", screen::list(&node.roles, ", "));
    line("device", format!("{}, MTU {}", node.tun, node.mtu));
    line("listening", screen::list(&node.listen, "  "));
    if !node.advertised.is_empty() {
        line("advertised", screen::list(&node.advertised, "  "));
    }
    line("nat", nat(&status.nat, status.super_peers.len()));
    if !status.nat_classes.is_empty() {
        let counted = status.nat_classes.iter().map(|(class, nodes)| format!("{class} {nodes}"));
        line("nats seen", counted.collect::<Vec<_>>().join(", "));
    }
    line("directory", directory(&status.directory));
    if !status.ciphers.is_empty() {
        line("ciphers", ciphers(&status.ciphers));
    }
    line("packets", counters(&status.counters));
    if !status.offload.is_empty() {
        line("offload", offload(status));
    }
    line("network", format!("{}  {}", status.network.prefix, status.network.prefix6));
    line("network id", status.network.id.clone());
    line("node id", node.id.clone());
    text.push('\n');
    text.push_str(&super_peers(status));
    text.push_str(&attention(status, colours));
    text
}

/// `super_peers`: how many are known besides this node.
fn nat(nat: &Nat, super_peers: usize) -> String {
    let why = match (nat.class, super_peers) {
        (NatClass::Unknown, 0) => " (no other super peer yet, three are needed to tell)",
        (NatClass::Unknown, 1) => " (two more super peers are needed to tell; see frejus netcheck)",
        (NatClass::Unknown, 2) => " (one more super peer is needed to tell; see frejus netcheck)",
        (NatClass::Unknown, _) => " (see frejus netcheck)",
        _ => "",
    };
    match (nat.port_mapping, nat.mapped) {
        (Some(how), Some(at)) => format!("{}{why}, {at} open by {how}", nat.class),
        _ => format!("{}{why}", nat.class),
    }
}

fn ciphers(costs: &[CipherCost]) -> String {
    let each: Vec<String> =
        costs.iter().map(|cost| format!("{} {} ns", cost.name, cost.seal_1420_ns)).collect();
    format!("{} for 1420 bytes", each.join(", "))
}

fn directory(directory: &Directory) -> String {
    let published = match (directory.published.lease, directory.published.whereabouts) {
        (true, true) => "lease and whereabouts published",
        (true, false) => "lease published, whereabouts not yet",
        (false, true) => "whereabouts published, lease not yet",
        (false, false) => "nothing published yet",
    };
    let s = if directory.peers == 1 { "" } else { "s" };
    format!("{}, {} neighbour{s}, {published}", directory.mode, directory.peers)
}

fn counters(counters: &Counters) -> String {
    let total: u64 = counters.dropped.values().sum();
    let mut text = format!("{} out, {} in, {total} dropped", counters.packets_out, counters.packets_in);
    let reasons: Vec<String> = counters
        .dropped
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !reasons.is_empty() {
        write!(text, " ({})", reasons.join(", ")).expect("memory");
    }
    text
}

fn offload(status: &Status) -> String {
    let off: Vec<&str> =
        status.offload.iter().filter(|(_, offload)| !offload.on).map(|(name, _)| name.as_str()).collect();
    let all = if off.is_empty() { "all on".to_owned() } else { format!("on, but not {}", off.join(", ")) };
    let SocketBuffers { send, receive } = status.socket_buffers;
    format!("{all}; {} KiB may wait to be sent, {} KiB to be read", send >> 10, receive >> 10)
}

fn super_peers(status: &Status) -> String {
    if status.super_peers.is_empty() {
        let is_one = status.node.roles.contains(&Role::SuperPeer);
        return if is_one { "no other super peer yet\n" } else { "no super peer in use\n" }.to_owned();
    }
    let rows = status.super_peers.iter().map(|super_peer| {
        vec![
            super_peer.name.clone(),
            screen::or_dash(super_peer.rtt_ms.map(screen::milliseconds)),
            super_peer.transport.to_string(),
            if super_peer.home { "home".to_owned() } else { String::new() },
        ]
    });
    screen::columns(&["SUPER PEER", "RTT", "OVER", ""], &[1], rows.collect())
}

fn attention(status: &Status, colours: Colours) -> String {
    let mut text = String::new();
    for item in &status.attention {
        let what = colours.warning(format_args!("! {}", item.what));
        write!(text, "\n{what}\n  mend it: {}\n", item.mend).expect("memory");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_table_that_ends_with_what_needs_attention() {
        assert_eq!(
            table(&samples::status(), Colours::new(false)),
            "\
b in mymed: degraded

  addresses    10.93.4.7  fd12:3456:789a::7
  roles        peer
  device       frejus0, MTU 1280
  listening    0.0.0.0:51860  [::]:51860
  advertised   203.0.113.11:51860
  nat          port-restricted, 203.0.113.11:51860 open by nat-pmp
  nats seen    open 2, port-restricted 31
  directory    client, 12 neighbours, lease published, whereabouts not yet
  ciphers      chacha20-poly1305 1020 ns, aes-256-gcm 736 ns for 1420 bytes
  packets      1234 out, 2345 in, 3 dropped (no-route 2, spoofed 1)
  offload      on, but not udp_gso; 2048 KiB may wait to be sent, 8192 KiB to be read
  network      10.93.0.0/16  fd12:3456:789a::/48
  network id   netid
  node id      nodeid-b

SUPER PEER      RTT  OVER
s           20.1 ms  udp   home

! the clock is 90 s slow
  mend it: timedatectl set-ntp true
"
        );
    }

    #[test]
    fn the_check_tells_the_first_thing_to_mend() {
        let mut status = samples::status();
        let failure = not_ready(&status);
        assert_eq!(failure.code, ExitCode::Degraded);
        assert_eq!(
            failure.to_string(),
            "mymed is degraded, the clock is 90 s slow: timedatectl set-ntp true"
        );
        status.state = State::Starting;
        status.attention.clear();
        assert_eq!(
            not_ready(&status).to_string(),
            "mymed is starting: frejus wait, or look at the node's log"
        );
    }
}
