//! What a node leaves on its host: nothing, however it ended.

use frejus_netns::daemon::{frejus, state_of, text};
use frejus_netns::scene::{first_ping, founder};
use frejus_netns::{Daemon, Host, Lab, NatClass};

/// Everything of a host that a network tool can change.
fn belongings(host: &Host) -> String {
    let state = state_of(host);
    let sockets = format!("find {} -type s 2>/dev/null || true", state.display());
    let questions = [
        "ip -d link",
        "ip addr",
        "ip route show table all | sort",
        "ip -6 route show table all | sort",
        "ip rule; ip -6 rule",
        "nft list ruleset",
        "cat /etc/resolv.conf",
        "ls -la /run/frejus 2>/dev/null | grep -v '^total' || true",
        "sysctl net.ipv4.ip_forward net.ipv4.conf.all.rp_filter net.ipv6.conf.all.forwarding",
        &sockets,
    ];
    questions.map(|question| format!("# {question}\n{}", host.sh(question))).join("\n")
}

#[test]
fn down_sigterm_and_kill_leave_nothing() {
    let Some(mut lab) = Lab::new("down_leaves_nothing") else { return };
    let (_s, code) = founder(&mut lab);
    let host = lab.home("a", NatClass::PortRestricted);
    let before = belongings(&host);
    let mut a = Daemon::join(&host, &code);
    a.wait_ready();
    let id = a.id();
    let during = belongings(&host);
    assert!(during.contains(&a.tun()) && during != before, "a running node is seen:\n{during}");

    let down = a.verb(&["down"]);
    assert_eq!(down.code, 0, "{down}");
    assert!(!a.process().is_alive(), "`down` returns when the node has ended");
    assert_eq!(belongings(&host), before, "after `down`");

    a.restart();
    a.wait_ready();
    assert_eq!(a.terminate(), 0, "SIGTERM is an orderly end");
    assert_eq!(belongings(&host), before, "after SIGTERM");

    a.restart();
    a.wait_ready();
    a.kill();
    let down = a.verb(&["down"]);
    assert!([0, 3].contains(&down.code), "cleaned up, or nothing was running: {down}");
    assert_eq!(belongings(&host), before, "after kill -9 and `down`");

    a.restart();
    a.wait_ready();
    assert_eq!(a.id(), id, "and the node is still itself");
}

#[test]
fn a_detached_node_is_ready_when_the_command_returns() {
    let Some(mut lab) = Lab::new("detach") else { return };
    let (s, code) = founder(&mut lab);
    let host = lab.home("a", NatClass::PortRestricted);
    let before = belongings(&host);
    let state = state_of(&host);
    let verb = |argv: &[&str]| frejus(&host, &[argv, &["--state", text(&state)]].concat());
    let up = verb(&["up", "--join", &code, "--detach"]);
    assert_eq!(up.code, 0, "{up}");
    let ready = verb(&["status", "--check", "ready"]);
    assert_eq!(ready.code, 0, "{ready}");
    first_ping(&host, &s.ipv4().to_string());
    let down = verb(&["down"]);
    assert_eq!(down.code, 0, "{down}");
    assert_eq!(belongings(&host), before, "after `down`");
}
