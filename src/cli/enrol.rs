//! `frejus create`, `join` and `invite`: how a node comes to its state, and others to theirs.

use std::io::Read;

use super::arguments::{Common, Create, Invite, Join};
use super::screen;
use crate::client::Client;
use crate::config::Config;
use crate::daemon;
use crate::failure::{ExitCode, Failure};
use crate::options::{Code, CreateOptions, IfEnrolled, InviteRequest, JoinOptions, Joined};
use crate::paths_on_disk::Roots;
use crate::stream::Proxy;

/// The longest text that is taken for a code.
const LONGEST_CODE: u64 = 16 << 10;

/// The configuration that the user names, or else that of the network, if that has one.
pub(super) fn config(common: &Common, roots: &Roots, network: Option<&str>) -> Result<Config, Failure> {
    match (&common.config, network) {
        (Some(file), _) => Config::read(file),
        (None, Some(network)) => Config::read_if_there(&roots.config_of(network)),
        (None, None) => Ok(Config::default()),
    }
}

pub(super) fn create(common: &Common, roots: &Roots, create: &Create) -> Result<(), Failure> {
    let network = &create.network_name;
    if common.network.as_ref().is_some_and(|other| other != network) {
        return Err(Failure::usage(format!("-n names another network than {network}"), "leave -n out"));
    }
    let config = config(common, roots, Some(network))?;
    let created = daemon::create(&CreateOptions {
        network: network.clone(),
        state: common.selection().home_of(roots, network).state,
        prefix: create.prefix,
        name: create.name.clone().or(config.name),
        passport_life: create.passport_life,
        listen: Vec::new(),
        if_enrolled: IfEnrolled::Refuse,
    })?;
    screen::print_line(created.network_id)
}

pub(super) fn join(common: &Common, roots: &Roots, join: &Join) -> Result<(), Failure> {
    let options = join_options(common, roots, &join.code, join.name.clone())?;
    let joined = daemon::join(&options, &mut |line| screen::say(line))?;
    if !joined.fresh {
        screen::hint(format_args!("already in {}: the code was not used", joined.network));
    }
    screen::print_line(who(&joined))
}

pub(super) fn join_options(
    common: &Common,
    roots: &Roots,
    code: &str,
    name: Option<String>,
) -> Result<JoinOptions, Failure> {
    let state =
        common.state.clone().or_else(|| common.network.as_ref().map(|network| roots.state_of(network)));
    let config = config(common, roots, common.network.as_deref())?;
    let proxy = proxy(&config)?;
    Ok(JoinOptions { code: read_code(code)?, state, name: name.or(config.name), proxy })
}

/// `b 10.93.4.7 fd12:3456:789a::7`: one line that `read name address4 address6` takes apart.
fn who(joined: &Joined) -> String {
    let mut words = vec![joined.name.clone()];
    words.extend(joined.addresses.iter().map(ToString::to_string));
    words.join(" ")
}

pub(super) fn invite(common: &Common, roots: &Roots, invite: &Invite) -> Result<(), Failure> {
    let one_only = invite.name.is_some() || invite.address.is_some();
    if invite.uses > 1 && one_only {
        let what = format!("{} nodes can't share one name or address", invite.uses);
        return Err(Failure::usage(what, "leave out --uses, or --name and --address"));
    }
    let request = InviteRequest {
        role: invite.role.into(),
        uses: invite.uses,
        expires: invite.expires,
        name: invite.name.clone(),
        address: invite.address,
    };
    let place = common.selection().place(roots)?;
    let code = match Client::new(&place.socket)?.invite(&request) {
        Err(failure) if failure.code == ExitCode::NotRunning => {
            let founder = place.state.filter(|state| state.is_dir()).ok_or(failure)?;
            daemon::invite_offline(&founder, request).map(Code::new)?
        }
        answer => answer?,
    };
    screen::print_line(code.reveal())
}

/// The HTTP proxy to use: of the configuration, or of the environment.
pub(super) fn proxy(config: &Config) -> Result<Option<Proxy>, Failure> {
    if let Some(said) = &config.proxy {
        return said.proxy().map(Some);
    }
    Proxy::from_environment().map_err(|what| Failure::usage(what, "set it to http://HOST:PORT, or unset it"))
}

/// The code itself, `-` for standard input, or `@FILE`.
fn read_code(argument: &str) -> Result<Code, Failure> {
    let (text, source) = if argument == "-" {
        (limited(std::io::stdin().lock(), "standard input")?, "standard input")
    } else if let Some(file) = argument.strip_prefix('@') {
        let open = std::fs::File::open(file).map_err(|error| unreadable(file, &error))?;
        (limited(open, file)?, file)
    } else {
        (argument.to_owned(), "the argument")
    };
    let code = text.trim();
    if code.is_empty() {
        return Err(Failure::usage(format!("no code in {source}"), "give a code, - or @FILE"));
    }
    if code.contains(char::is_whitespace) {
        return Err(Failure::usage(
            format!("more than a code in {source}"),
            "give the one line of frejus invite",
        ));
    }
    Ok(Code::new(code))
}

fn limited(from: impl Read, source: &str) -> Result<String, Failure> {
    let mut text = String::new();
    from.take(LONGEST_CODE).read_to_string(&mut text).map_err(|error| unreadable(source, &error))?;
    Ok(text)
}

fn unreadable(source: &str, error: &std::io::Error) -> Failure {
    let what = format!("no code from {source}: {error}");
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Failure::new(ExitCode::NotPermitted, what, "run it as root"),
        _ => Failure::usage(what, "give a code, - or @FILE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_comes_from_the_argument_or_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("@{}", dir.path().join(name).display());
        std::fs::write(dir.path().join("code"), "abc\n").unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        std::fs::write(dir.path().join("two"), "abc\ndef\n").unwrap();
        std::fs::write(dir.path().join("bytes"), [0xff, 0xfe]).unwrap();
        assert_eq!(read_code(" abc").unwrap().reveal(), "abc");
        assert_eq!(read_code(&at("code")).unwrap().reveal(), "abc");
        for wrong in ["", &at("empty"), &at("two"), &at("bytes"), &at("none")] {
            assert_eq!(read_code(wrong).unwrap_err().code, ExitCode::Usage, "{wrong}");
        }
    }

    #[test]
    fn who_joined_is_one_line_of_words() {
        let joined = Joined {
            network: "mymed".into(),
            state: "/s".into(),
            name: "b".into(),
            addresses: vec!["10.93.4.7".parse().unwrap(), "fd12::7".parse().unwrap()],
            fresh: true,
        };
        assert_eq!(who(&joined), "b 10.93.4.7 fd12::7");
    }
}
