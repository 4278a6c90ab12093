//! What topologies may say.

use super::*;

fn refused(text: &str) -> String {
    Topology::parse(text).unwrap_err().to_string()
}

#[test]
fn the_examples_can_be_built() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let mut count = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let read = Topology::read(&path).unwrap_or_else(|trouble| panic!("{trouble}"));
        assert!(!read.nodes.is_empty(), "{}: nothing runs on it", path.display());
        count += 1;
    }
    assert!(count >= 4, "{count} examples");
}

#[test]
fn everything_that_can_be_said_of_a_nat_is_understood() {
    let read = Topology::parse(
        "[[nat]]\nname = 'n'\nclass = 'port-restricted'\nhairpin = true\ncareless = true\nrejects = true\n\
         lifetime = '30s'\nisolation = true\nmtu = 1280\nudp = false\ntcp = [443]\nipv6 = true\nrivals = 20\n\
         port_mapping = true\nlink = { delay = '20ms', loss = 1, rate = '10M' }\n\
         [[nat]]\nname = 'p'\nclass = 'symmetric-random'\nbehind = 'n'\nproxy = { user = 'u', password = 'w' }\n",
    )
    .unwrap();
    let [n, p] = &read.nats[..] else { panic!("two") };
    assert_eq!(
        n.nat().unwrap().to_string(),
        "port-restricted, hairpin, careless, rejects, no UDP, maps ports, TCP to 443 only, mappings live 30 s"
    );
    assert_eq!(n.link.quality().rate, Some(10_000_000));
    assert_eq!(p.nat().unwrap().to_string(), "symmetric-random, no UDP, no TCP");
    assert!(!format!("{read:?}").contains("\"w\""), "a password is not for logs");
    assert_eq!(read.internet(), ROUTABLE);
}

#[test]
fn what_cannot_be_built_is_refused_by_name() {
    let nat = |rest: &str| format!("[[nat]]\nname = 'n'\nclass = 'full-cone'\n{rest}");
    for (text, word) in [
        (nat("haripin = true"), "line 4"),
        (nat("behind = 'm'"), "`m`"),
        (nat("behind = 'n'"), "circle"),
        (nat("[[host]]\nname = 'n'"), "taken"),
        (nat("[[host]]\nname = 'wan'"), "taken"),
        (nat("[[host]]\nname = 'a b'"), "no name"),
        (nat("[[host]]\nname = 'a'\nbehind = 'n'\naddress = '203.0.113.9'"), "a is behind a NAT"),
        (nat("lifetime = '30'"), "line 4, `lifetime`: `30` is no time"),
        (nat("mtu = 'wide'"), "line 4, `mtu`: "),
        (nat("proxy = 'open'"), "line 4, `proxy`: "),
        (nat("hairpin = maybe"), "line 4, `hairpin`: "),
        (nat("link = { loss = 1, delay = 20 }"), "line 4, `delay`: "),
        (nat("mtu = 9000"), "n: mtu = 9000"),
        (nat("tcp = [1, 2, 3, 4, 5]"), "four ports"),
        (nat("link = { rate = 'fast' }"), "no rate"),
        ("[[nat]]\nname = 'n'\nclass = 'symmetric-random'\nhairpin = true".into(), "no hairpin"),
        ("[[nat]]\nname = 'n'\nclass = 'cone'".into(), "unknown variant"),
        ("[[node]]\nhost = 'x'".into(), "no such host"),
        ("[[host]]\nname = 'x'\n[[node]]\nhost = 'x'".into(), "founder"),
    ] {
        assert!(refused(&text).contains(word), "{text}\n{}", refused(&text));
    }
}

#[test]
fn times_and_rates() {
    assert_eq!(read_duration("20ms"), Ok(Duration::from_millis(20)));
    assert_eq!(read_duration("30s"), Ok(Duration::from_secs(30)));
    assert!(read_duration("s").is_err() && read_duration("-1s").is_err() && read_duration("1h").is_err());
    assert_eq!(read_rate("512K"), Ok(512_000));
    assert!(read_rate("0M").is_err() && read_rate("99999999999999999G").is_err());
}
