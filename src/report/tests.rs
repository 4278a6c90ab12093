//! The shapes that scripts rely on.

use serde::de::DeserializeOwned;

use super::*;

fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(report: &T, text: &str) {
    assert_eq!(serde_json::to_string(report).unwrap(), text.replace('\n', ""));
    assert_eq!(&serde_json::from_str::<T>(text).unwrap(), report);
}

#[test]
fn netcheck_has_the_promised_shape() {
    golden(
        &samples::netcheck(),
        r#"{"schema":1,"class":"symmetric-sequential","mapping":"address-and-port-dependent",
"filtering":"unknown","external":["203.0.113.11:40211"],"hairpin":false,"port_mapping":"pcp","udp":true,"tcp":false,
"tls443":true,"super_peers":[{"name":"s","rtt_ms":20.125},{"name":"t","rtt_ms":null}],"step":1,
"notes":["only 2 super peers answered: one more is needed to tell the class of the NAT"]}"#,
    );
}

#[test]
fn status_has_the_promised_shape() {
    golden(
        &samples::status(),
        r#"{"schema":1,"state":"degraded",
"network":{"name":"mymed","id":"netid","prefix":"10.93.0.0/16","prefix6":"fd12:3456:789a::/48"},
"node":{"id":"nodeid-b","name":"b","roles":["peer"],"addresses":["10.93.4.7","fd12:3456:789a::7"],
"tun":"frejus0","mtu":1280,"listen":["0.0.0.0:51860","[::]:51860"],"advertised":["203.0.113.11:51860"]},
"nat":{"class":"port-restricted","port_mapping":"nat-pmp","mapped":"203.0.113.11:51860"},
"nat_classes":{"open":2,"port-restricted":31},
"super_peers":[{"name":"s","id":"nodeid-s","rtt_ms":20.125,"transport":"udp","home":true}],
"directory":{"mode":"client","peers":12,"published":{"lease":true,"whereabouts":false}},
"streams":{"listen":["0.0.0.0:51860"],"refused":["0.0.0.0:443: taken"],"open":1},
"offload":{"udp_gro":{"on":true,"why":null},"udp_gso":{"on":false,"why":"this kernel has none"}},
"socket_buffers":{"send":2097152,"receive":8388608},
"ciphers":[{"name":"chacha20-poly1305","seal_1420_ns":1020},{"name":"aes-256-gcm","seal_1420_ns":736}],
"attention":[{"what":"the clock is 90 s slow","mend":"timedatectl set-ntp true"}],
"counters":{"packets_out":1234,"packets_in":2345,"dropped":{"no-route":2,"spoofed":1}}}"#,
    );
}

#[test]
fn peers_have_the_promised_shape() {
    golden(
        &samples::peers(),
        r#"{"schema":1,"peers":[
{"name":"b","id":"nodeid-b","addresses":["10.93.4.7","fd12:3456:789a::7"],"roles":["peer"],
"path":{"kind":"direct","transport":"udp","remote":"203.0.113.11:40211","via":null,"method":"punched",
"rtt_ms":12.34,"loss":0.0,"mtu":1420,"since_s":75},"handshake_age_s":42,"cipher":"aes-256-gcm","post_quantum":true,
"rx_bytes":1536,"tx_bytes":5242880},
{"name":"printer","id":"nodeid-p","addresses":["10.93.4.200"],"roles":["super-peer","login-server"],
"path":{"kind":"relay","transport":"tls","remote":"203.0.113.101:443","via":"s","method":null,
"rtt_ms":null,"loss":0.25,"mtu":1420,"since_s":3},"handshake_age_s":null,"cipher":"chacha20-poly1305","post_quantum":false,
"rx_bytes":0,"tx_bytes":148},
{"name":"new","id":"nodeid-n","addresses":[],"roles":[],"path":null,
"handshake_age_s":null,"cipher":null,"post_quantum":null,"rx_bytes":0,"tx_bytes":0}]}"#,
    );
}

#[test]
fn ping_has_the_promised_shape() {
    golden(
        &samples::ping(),
        r#"{"schema":1,"peer":"b","replies":[{"seq":1,"rtt_ms":12.34,
"path":{"kind":"direct","transport":"udp","remote":"203.0.113.11:40211","via":null,"method":"punched",
"rtt_ms":12.34,"loss":0.0,"mtu":1420,"since_s":75}}],"sent":2,"received":1}"#,
    );
}

#[test]
fn resolve_has_the_promised_shape() {
    golden(
        &samples::resolve(),
        r#"{"schema":1,"query":"b","address":"10.93.4.7","node":{"id":"nodeid-b","name":"b"},
"lease":{"issuer":"s","expires":"2026-11-20T10:37:50Z"},
"whereabouts":{"sequence":12,"age_s":34,"candidates":[{"kind":"host","at":"192.168.1.2:51860"},
{"kind":"reflexive","at":"203.0.113.11:40211"}]},
"stages":[{"stage":"lease","source":"cache","elapsed_ms":0.02},
{"stage":"whereabouts","source":"super-peer","elapsed_ms":41.5}]}"#,
    );
}

#[test]
fn a_reader_overlooks_fields_that_were_added() {
    let text = r#"{"schema":1,"peers":[],"later":true}"#;
    assert_eq!(serde_json::from_str::<Peers>(text).unwrap().peers, []);
}
