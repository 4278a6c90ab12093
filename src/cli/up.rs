//! `frejus up`: enrols if asked to, then runs the node here or in the background.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::arguments::{Common, Up};
use super::{detach, enrol, screen};
use crate::client::Client;
use crate::config::Config;
use crate::daemon;
use crate::failure::{ExitCode, Failure};
use crate::offload::{Offload, Wishes};
use crate::options::{Code, CreateOptions, IfEnrolled, InviteRequest, UpOptions};
use crate::paths_on_disk::{Home, Roots};
use crate::report::State;
use crate::stream::Proxy;

/// How long the founder's node may take until it can make a code.
const FIRST_CODE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn run(common: &Common, roots: &Roots, up: Up) -> Result<(), Failure> {
    if up.name.is_some() && up.create.is_none() && up.join.is_none() {
        return Err(Failure::usage("--name without --create or --join", "a node is named when it joins"));
    }
    // In the background, standard output is the code's alone: CODE=$(frejus up --create … --detach).
    let mut progress: Box<dyn FnMut(&str)> =
        if up.detach { Box::new(|line| screen::say(line)) } else { Box::new(show) };
    let (home, founded) = enrol(common, roots, &up, progress.as_mut())?;
    let config = enrol::config(common, roots, home.network.as_deref())?;
    let detached = up.detach;
    let background = up.background;
    let proxy = enrol::proxy(&config)?;
    let options = options(up, config, home, proxy);
    if detached {
        return detach::run(&options, common.verbose, founded);
    }
    if background {
        detach::leave_the_session()?;
    }
    if founded {
        let socket = options.socket.clone();
        // Ends with the process at the latest: the node is what this process is for.
        std::thread::spawn(move || hand_out(first_code(&socket)));
    }
    daemon::up(options, progress.as_mut())
}

/// One line a change; a reader who has gone does not stop the node.
fn show(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Founds or joins if asked to; gives the node's home, and whether a network was founded just now.
fn enrol(
    common: &Common,
    roots: &Roots,
    up: &Up,
    progress: &mut dyn FnMut(&str),
) -> Result<(Home, bool), Failure> {
    let selection = common.selection();
    if let Some(network) = &up.create {
        let home = selection.home_of(roots, network);
        let config = enrol::config(common, roots, Some(network))?;
        let created = daemon::create(&CreateOptions {
            network: network.clone(),
            state: home.state.clone(),
            prefix: up.prefix,
            name: up.name.clone().or(config.name),
            passport_life: up.passport_life,
            listen: if up.listen.is_empty() { config.listen } else { up.listen.clone() },
            if_enrolled: IfEnrolled::Keep,
        })?;
        if created.fresh {
            progress(&format!("founded {network}, network ID {}", created.network_id));
        }
        return Ok((home, created.fresh));
    }
    if let Some(code) = &up.join {
        let options = enrol::join_options(common, roots, code, up.name.clone())?;
        let joined = daemon::join(&options, progress)?;
        let mut home = selection.home_of(roots, &joined.network);
        home.state = joined.state;
        return Ok((home, false));
    }
    let home = selection.home(roots)?;
    if !home.state.is_dir() {
        let what = format!("no node is enrolled in {}", home.state.display());
        return Err(Failure::new(ExitCode::NotEnrolled, what, "frejus up --join CODE, or --create NETWORK"));
    }
    Ok((home, false))
}

/// The command line goes before the configuration.
fn options(up: Up, config: Config, home: Home, proxy: Option<Proxy>) -> UpOptions {
    let first = |said: Vec<_>, configured| if said.is_empty() { configured } else { said };
    UpOptions {
        state: home.state,
        socket: home.socket,
        listen: first(up.listen, config.listen),
        directory_listen: up.directory_listen.or(config.directory_listen),
        https: !up.no_https && config.stream.https.unwrap_or(true),
        proxy,
        advertise: first(up.advertise, config.advertise),
        relay_rate: up.relay_rate.or(config.relay_rate),
        queues: up.queues.or(config.queues),
        tun: up.tun.or(config.tun),
        mtu: up.mtu.or(config.mtu),
        offload: wishes(&up.no_offload, &up.offload, config.offload),
        port_mapping: up.port_mapping || !up.no_port_mapping && config.port_mapping.enabled.unwrap_or(true),
        transport: up.transport.or(config.transport).unwrap_or_default(),
        cipher: up.cipher.or(config.cipher).unwrap_or_default(),
    }
}

fn wishes(without: &[Offload], with: &[Offload], configured: Wishes) -> Wishes {
    let with = with.iter().fold(configured, |wishes, which| wishes.with(*which));
    without.iter().fold(with, |wishes, which| wishes.without(*which))
}

/// Waits until the founder's node is up, and asks it for a code for one peer.
pub(super) fn first_code(socket: &Path) -> Result<Code, Failure> {
    let client = Client::new(socket)?;
    let began = Instant::now();
    loop {
        let answer = client.status();
        match answer {
            Ok(status) if status.state != State::Starting => return client.invite(&InviteRequest::default()),
            Err(failure) if began.elapsed() >= FIRST_CODE => return Err(failure),
            _ if began.elapsed() >= FIRST_CODE => {
                return Err(Failure::new(ExitCode::TimedOut, "the node is not up yet", "wait until it is"));
            }
            _ => std::thread::sleep(INTERVAL),
        }
    }
}

/// Prints the code on a line of its own, or says how to get one.
pub(super) fn hand_out(code: Result<Code, Failure>) {
    match code {
        Ok(code) => {
            show(code.reveal());
            screen::hint(
                "this code is for one peer, within 24 hours: frejus up --join CODE; frejus invite makes more",
            );
        }
        Err(failure) => {
            screen::say(format_args!(
                "frejus: no code yet, {}: {}; then frejus invite",
                failure.what, failure.mend
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::arguments::{Arguments, Verb};

    #[test]
    fn the_command_line_goes_before_the_configuration() {
        let line = ["frejus", "up", "--listen", "0.0.0.0:1", "--mtu", "1400", "--no-offload", "udp_gso"];
        let Verb::Up(up) = Arguments::try_parse_from(line).unwrap().verb else { panic!("not up") };
        let config = Config {
            listen: vec!["0.0.0.0:2".parse().unwrap()],
            advertise: vec!["192.0.2.1:2".parse().unwrap()],
            tun: Some("vpn0".into()),
            mtu: Some(1300),
            offload: Wishes {
                udp_gso: Some(true),
                udp_gro: Some(true),
                tun_tso: Some(false),
                ..Wishes::default()
            },
            ..Config::default()
        };
        let home = Home { network: None, state: "/s".into(), socket: "/s/control.sock".into() };
        let options = options(up, config, home, None);
        assert_eq!(options.listen, ["0.0.0.0:1".parse().unwrap()]);
        assert_eq!(options.advertise, ["192.0.2.1:2".parse().unwrap()]);
        assert_eq!((options.tun.as_deref(), options.mtu), (Some("vpn0"), Some(1400)));
        assert!(options.offload.off().eq([Offload::TunTso, Offload::UdpGso]));
        assert_eq!(options.offload.udp_gro, Some(true));
        assert!(options.port_mapping);
    }
}
