//! `frejus lab status`: what there is, how its lines are, and how each node says that it stands.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use frejus_lab::store::{Place, Record};
use frejus_lab::{Member, Quality, Router};
use serde::Serialize;

use crate::cli::arguments::Output;
use crate::cli::screen;
use crate::client::Client;
use crate::failure::{ExitCode, Failure};

/// Of the JSON.
const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    name: String,
    directory: String,
    hosts: Vec<HostReport>,
    nats: Vec<NatReport>,
    cuts: Vec<(String, String)>,
    dark: Vec<String>,
}

#[derive(Debug, Serialize)]
struct HostReport {
    name: String,
    behind: Option<String>,
    address: Ipv4Addr,
    public: Ipv4Addr,
    ipv6: Option<Ipv6Addr>,
    link: LinkReport,
    node: Option<NodeReport>,
}

#[derive(Debug, Serialize)]
struct NatReport {
    name: String,
    class: &'static str,
    /// The class, and what is not ordinary about it.
    manner: String,
    behind: Option<String>,
    outside: Ipv4Addr,
    inside: String,
    isolation: bool,
    proxy: bool,
    link: LinkReport,
}

#[derive(Debug, Serialize)]
struct LinkReport {
    delay_ms: u128,
    loss_percent: u8,
    rate_bits: Option<u64>,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    /// As in `frejus status`; `stopped` where there is none, `silent` where it does not answer.
    state: String,
    addresses: Vec<IpAddr>,
    /// The class that the node has found out.
    nat: Option<String>,
    pid: i32,
    socket: String,
    /// Why it was not ready when the laboratory was built.
    trouble: Option<String>,
}

pub(super) fn run(place: &Place, output: Output) -> Result<(), Failure> {
    let record = place.load()?;
    let report = report(place, &record)?;
    if output.json { screen::print_json(&report) } else { screen::print(text(&report)) }
}

fn report(place: &Place, record: &Record) -> Result<Report, Failure> {
    let lab = &record.lab;
    Ok(Report {
        schema: SCHEMA,
        name: place.name().to_owned(),
        directory: place.directory().display().to_string(),
        hosts: lab.members().iter().map(|member| host(member, record)).collect::<Result<_, _>>()?,
        nats: lab.routers().iter().map(|router| nat(router, record)).collect::<Result<_, _>>()?,
        cuts: lab.cuts().to_vec(),
        dark: lab.dark().to_vec(),
    })
}

fn host(member: &Member, record: &Record) -> Result<HostReport, Failure> {
    Ok(HostReport {
        name: member.host.name.clone(),
        behind: member.behind().map(str::to_owned),
        address: member.host.local,
        public: member.host.public,
        ipv6: member.ipv6,
        link: link(record.lab.link_of(&member.host.name)?),
        node: node(record, &member.host.name),
    })
}

fn nat(router: &Router, record: &Record) -> Result<NatReport, Failure> {
    Ok(NatReport {
        name: router.host.name.clone(),
        class: router.nat.class.word(),
        manner: router.nat.to_string(),
        behind: router.behind().map(str::to_owned),
        outside: router.host.public,
        inside: router.lan(),
        isolation: router.isolated(),
        proxy: router.proxy().is_some(),
        link: link(record.lab.link_of(&router.host.name)?),
    })
}

const fn link(quality: Quality) -> LinkReport {
    LinkReport {
        delay_ms: quality.delay.as_millis(),
        loss_percent: quality.loss_percent,
        rate_bits: quality.rate,
    }
}

/// As the node says, now.
fn node(record: &Record, host: &str) -> Option<NodeReport> {
    let node = record.nodes.iter().find(|node| node.host == host)?;
    let answer = Client::new(&node.socket()).and_then(|client| client.status());
    let (state, addresses, nat) = match answer {
        Ok(status) => {
            (status.state.to_string(), status.node.addresses.clone(), Some(status.nat.class.to_string()))
        }
        Err(failure) if failure.code == ExitCode::NotRunning => ("stopped".to_owned(), Vec::new(), None),
        Err(_) => ("silent".to_owned(), Vec::new(), None),
    };
    Some(NodeReport {
        state,
        addresses,
        nat,
        pid: node.service.pid,
        socket: node.socket().display().to_string(),
        trouble: node.trouble.clone(),
    })
}

fn text(report: &Report) -> String {
    let mut text = format!("laboratory {} in {}\n\n", report.name, report.directory);
    let dash = |word: &Option<String>| screen::or_dash(word.clone());
    let hosts = report.hosts.iter().map(|host| {
        let node = host.node.as_ref();
        vec![
            host.name.clone(),
            dash(&host.behind),
            host.address.to_string(),
            host.link.words(),
            screen::or_dash(node.map(|node| node.state.clone())),
            screen::or_dash(node.and_then(|node| node.addresses.first()).map(ToString::to_string)),
            screen::or_dash(node.and_then(|node| node.nat.clone())),
        ]
    });
    let heading = ["HOST", "BEHIND", "ADDRESS", "LINE", "NODE", "VIRTUAL", "FINDS"];
    text.push_str(&screen::columns(&heading, &[], hosts.collect()));
    if !report.nats.is_empty() {
        let nats = report.nats.iter().map(|nat| {
            let mut manner = nat.manner.clone();
            for (_, word) in
                [(nat.isolation, ", isolates"), (nat.proxy, ", proxy")].iter().filter(|(said, _)| *said)
            {
                manner.push_str(word);
            }
            let (outside, inside) = (nat.outside.to_string(), nat.inside.clone());
            vec![nat.name.clone(), dash(&nat.behind), outside, inside, nat.link.words(), manner]
        });
        let heading = ["NAT", "BEHIND", "OUTSIDE", "INSIDE", "LINE", "CLASS"];
        let _ = write!(text, "\n{}", screen::columns(&heading, &[], nats.collect()));
    }
    for (one, other) in &report.cuts {
        let _ = write!(text, "\ncut: {one} and {other}; frejus lab mend {one} {other}");
    }
    for name in &report.dark {
        let _ = write!(text, "\ndark: {name}; frejus lab light {name}");
    }
    if !report.cuts.is_empty() || !report.dark.is_empty() {
        text.push('\n');
    }
    text
}

impl LinkReport {
    fn words(&self) -> String {
        if (self.delay_ms, self.loss_percent, self.rate_bits) == (0, 0, None) {
            return "plain".to_owned();
        }
        let rate = self.rate_bits.map(|rate| format!(", {} kbit/s", rate / 1000)).unwrap_or_default();
        format!("{} ms, {} %{rate}", self.delay_ms, self.loss_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_names_what_is_not_as_it_was_built() {
        let link = || link(Quality::delayed(20));
        let report = Report {
            schema: SCHEMA,
            name: "lab".into(),
            directory: "/run/frejus/lab/lab".into(),
            hosts: vec![HostReport {
                name: "a".into(),
                behind: Some("home-a".into()),
                address: Ipv4Addr::new(192, 168, 10, 2),
                public: Ipv4Addr::new(203, 0, 113, 10),
                ipv6: None,
                link: link(),
                node: None,
            }],
            nats: Vec::new(),
            cuts: vec![("a".into(), "b".into())],
            dark: Vec::new(),
        };
        assert_eq!(
            text(&report),
            "laboratory lab in /run/frejus/lab/lab\n\n\
             HOST  BEHIND  ADDRESS       LINE        NODE  VIRTUAL  FINDS\n\
             a     home-a  192.168.10.2  20 ms, 0 %  -     -        -\n\n\
             cut: a and b; frejus lab mend a b\n"
        );
    }
}
