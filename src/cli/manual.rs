//! `frejus completions`, `man` and `version`: what the definition of the command line says of itself.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::roff::{Roff, bold, roman};
use clap_mangen::{Man, generate_to};

use super::arguments::{Arguments, Completions, Output, START};
use super::screen;
use crate::failure::{ExitCode, Failure};
use crate::report::SCHEMA;

pub(super) fn completions(wanted: Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(wanted.shell, &mut Arguments::command(), "frejus", &mut script);
    screen::print(String::from_utf8_lossy(&script))
}

pub(super) fn version(output: Output) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if output.json {
        return screen::print_json(&serde_json::json!({ "schema": SCHEMA, "version": version }));
    }
    screen::print_line(format_args!("frejus {version}"))
}

pub(super) fn man(dir: &Path) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| {
        let what = format!("manual pages in {}: {error}", dir.display());
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                Failure::new(ExitCode::NotPermitted, what, "name a directory of your own")
            }
            _ => Failure::other(what, "name another directory"),
        }
    };
    fs::create_dir_all(dir).map_err(cannot)?;
    // A page for each verb, and none for the help about it.
    generate_to(Arguments::command().disable_help_subcommand(true), dir).map_err(cannot)?;
    fs::write(dir.join("frejus.1"), front_page().map_err(cannot)?).map_err(cannot)
}

/// `frejus(1)`: what is made from the definition, and what every verb has in common.
fn front_page() -> std::io::Result<Vec<u8>> {
    let man = Man::new(Arguments::command().disable_help_subcommand(true)).manual("frejus");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_subcommands_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut more = Roff::new();
    more.control("SH", ["EXAMPLES"]).control("nf", []).text([roman(START)]).control("fi", []);
    definitions(&mut more, "EXIT STATUS", ExitCode::TABLE.map(|(code, what)| (code.to_string(), what)));
    definitions(&mut more, "FILES", FILES.map(|(file, what)| (file.to_owned(), what)));
    definitions(&mut more, "ENVIRONMENT", ENVIRONMENT.map(|(name, what)| (name.to_owned(), what)));
    more.to_writer(&mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}

const FILES: [(&str, &str); 3] = [
    (
        "/etc/frejus/NETWORK.toml",
        "configuration, optional: listen, directory_listen, advertise, relay_rate, queues, tun, mtu, name, transport, cipher, \
         and under [offload] tun_tso, tun_uso, tcp_coalescing, udp_coalescing, tun_checksum, udp_gso, udp_gro = true or \
         false; under [stream] https = false keeps a super peer off TCP 443; under [proxy] \
         url = \"http://USER:PASSWORD@HOST:PORT\" and password_file name the HTTP proxy that leads out of this network",
    ),
    ("/var/lib/frejus/NETWORK/", "state: identity, passport, caches; with --detach also frejus.log"),
    ("/run/frejus/NETWORK.sock", "control socket of the running node: HTTP and JSON"),
];

const ENVIRONMENT: [(&str, &str); 4] = [
    ("FREJUS_SOCKET", "control socket, unless --socket, --state or --network is given"),
    ("FREJUS_LOG", "what is logged, as in frejus=debug,libp2p=info; goes before --verbose"),
    (
        "FREJUS_PROXY, https_proxy, ALL_PROXY",
        "HTTP proxy to connect through where nothing else gets through, unless the configuration names one",
    ),
    ("NO_COLOR", "if set, nothing is coloured"),
];

fn definitions<const N: usize>(page: &mut Roff, heading: &str, rows: [(String, &str); N]) {
    page.control("SH", [heading]);
    for (term, meaning) in rows {
        page.control("TP", []);
        page.text([bold(term)]);
        page.text([roman(meaning)]);
    }
}
