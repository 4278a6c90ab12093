//! The binary as a script sees it: exit codes, one line of error, JSON on standard output and nothing else.
#![expect(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use frejus::api::{self, ControlSocket};
use frejus::failure::{ExitCode, Failure};
use frejus::options::Code;
use frejus::question::Question;
use frejus::report::{
    Counters, Directory, DirectoryMode, Method, Nat, NatClass, Network, Node, Path as Way, PathKind, Peers,
    PingReply, Published, Role, SCHEMA, SocketBuffers, State, Status, Transport,
};

/// Runs the binary with nothing of this environment in its way.
fn frejus(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_frejus"))
        .args(arguments)
        .env_remove("FREJUS_SOCKET")
        .env_remove("FREJUS_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The one line that a failure prints.
#[track_caller]
fn fails(output: &Output, code: i32) -> String {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.starts_with("frejus: "), "{error}");
    error.to_owned()
}

fn status(state: State) -> Status {
    Status {
        schema: SCHEMA,
        state,
        network: Network {
            name: "mymed".into(),
            id: "netid".into(),
            prefix: "10.93.0.0/16".into(),
            prefix6: "fd12:3456:789a::/48".into(),
        },
        node: Node {
            id: "nodeid".into(),
            name: "a".into(),
            roles: vec![Role::SuperPeer, Role::LoginServer],
            addresses: vec!["10.93.0.1".parse().unwrap()],
            tun: "frejus0".into(),
            mtu: 1280,
            listen: vec!["0.0.0.0:51860".parse().unwrap()],
            advertised: Vec::new(),
        },
        nat: Nat { class: NatClass::Open, port_mapping: None, mapped: None },
        nat_classes: Default::default(),
        super_peers: Vec::new(),
        directory: Directory {
            mode: DirectoryMode::Server,
            peers: 1,
            published: Published { lease: true, whereabouts: true },
        },
        ciphers: Vec::new(),
        streams: frejus::report::Streams::default(),
        offload: BTreeMap::new(),
        socket_buffers: SocketBuffers::default(),
        attention: Vec::new(),
        counters: Counters::default(),
    }
}

fn echo(kind: PathKind) -> PingReply {
    let direct = kind == PathKind::Direct;
    PingReply {
        schema: SCHEMA,
        peer: "b".into(),
        address: "10.93.4.7".parse().unwrap(),
        rtt_ms: 12.5,
        path: Way {
            kind,
            transport: Transport::Udp,
            remote: "203.0.113.11:40211".parse().unwrap(),
            via: (!direct).then(|| "s".into()),
            method: direct.then_some(Method::Punched),
            rtt_ms: Some(12.5),
            loss: 0.0,
            mtu: 1420,
            since_s: 1,
        },
        guessing: false,
    }
}

/// Answers for a node that knows `b` by a relay, `d` directly, `silent` not at all, and no other peer.
fn answer(question: Question, state: State) {
    match question {
        Question::Status { reply } => drop(reply.send(Ok(status(state)))),
        Question::Peers { reply } => drop(reply.send(Ok(Peers { schema: SCHEMA, peers: Vec::new() }))),
        Question::Ping { peer, reply, .. } => drop(reply.send(match peer.as_str() {
            "b" => Ok(echo(PathKind::Relay)),
            "d" => Ok(echo(PathKind::Direct)),
            "silent" => Err(Failure::new(ExitCode::Unreachable, "no echo", "look at it")),
            other => Err(Failure::new(ExitCode::NoSuchPeer, format!("no peer {other}"), "frejus peers")),
        })),
        Question::Resolve { reply, .. } => {
            drop(reply.send(Err(Failure::new(ExitCode::NoSuchPeer, "no such peer", "frejus peers"))));
        }
        Question::Invite { reply, .. } => drop(reply.send(Ok(Code::new("the-code")))),
        Question::Doctor { reply, .. } => {
            drop(reply.send(Err(Failure::new(ExitCode::NoSuchPeer, "no such peer", "frejus peers"))));
        }
        Question::Netcheck { reply } => {
            drop(reply.send(Err(Failure::new(ExitCode::Other, "no survey", "try again"))));
        }
        Question::Down { reply } => drop(reply.send(Ok(()))),
    }
}

/// A node's control socket, served until the process of the test ends.
fn node(state: State) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let socket = ControlSocket::bind(&path).unwrap();
    let (questions, asked) = crossbeam_channel::bounded(4);
    std::thread::spawn(move || asked.iter().for_each(|question| answer(question, state)));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(api::serve(socket, questions, std::future::pending())).unwrap();
    });
    (dir, path)
}

fn with_socket(socket: &Path, words: &str) -> Output {
    let mut arguments: Vec<&str> = words.split(' ').collect();
    arguments.extend(["--socket", socket.to_str().unwrap()]);
    frejus(&arguments)
}

#[test]
fn wrong_usage_is_two() {
    let help = frejus(&[]);
    assert_eq!((help.status.code(), text(&help.stderr).contains("Usage: frejus")), (Some(2), true));
    for words in [
        &["dance"][..],
        &["ping"],
        &["ping", "b", "-c", "0"],
        &["ping", "b", "--timeout", "0s"],
        &["help", "dance"],
        &["wait", "--direct"],
        &["wait", "--timeout", "30"],
        &["up", "--create", "a", "--join", "b"],
        &["up", "--listen", "51860"],
        &["up", "--mtu", "900"],
        &["up", "--name", "b"],
        &["create", "my net"],
        &["invite", "--role", "login-server"],
        &["invite", "--uses", "2", "--name", "b"],
        &["join", "@/nonexistent"],
        &["completions", "cmd"],
    ] {
        let output = frejus(words);
        assert!(output.stdout.is_empty(), "{words:?}");
        fails(&output, 2);
    }
}

#[test]
fn no_node_running_is_three() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_str().unwrap();
    for verb in ["status", "peers", "ping b", "resolve b", "down", "wait --timeout 200ms"] {
        let words: Vec<&str> = verb.split(' ').chain(["--state", state]).collect();
        let error = fails(&frejus(&words), 3);
        assert!(error.contains(state) && error.contains("frejus up"), "{error}");
    }
}

#[test]
fn the_socket_comes_from_the_environment_too() {
    let output = Command::new(env!("CARGO_BIN_EXE_frejus"))
        .arg("status")
        .env("FREJUS_SOCKET", "/nonexistent/frejus.sock")
        .output()
        .unwrap();
    assert!(fails(&output, 3).contains("/nonexistent/frejus.sock"));
}

#[test]
fn not_enrolled_is_five() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("none");
    let error = fails(&frejus(&["up", "--state", state.to_str().unwrap()]), 5);
    assert!(error.contains(state.to_str().unwrap()), "{error}");
}

#[test]
fn a_bad_configuration_is_ten() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("mymed.toml");
    std::fs::write(&config, "mtu = 1400\nmtoo = 1\n").unwrap();
    let (state, config) = (dir.path().to_str().unwrap(), config.to_str().unwrap());
    let error = fails(&frejus(&["up", "--state", state, "--config", config]), 10);
    assert!(error.contains(&format!("{config}, line 2: unknown field `mtoo`")), "{error}");
}

#[test]
fn status_prints_json_and_checks() {
    for (state, code) in [(State::Ready, 0), (State::Starting, 12), (State::Degraded, 12)] {
        let (_dir, socket) = node(state);
        let output = with_socket(&socket, "status --json --check ready");
        assert_eq!(output.status.code(), Some(code));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["state"], state.to_string());
        let output = with_socket(&socket, "status");
        assert_eq!(output.status.code(), Some(0));
        let table = text(&output.stdout);
        assert!(table.starts_with(&format!("a in mymed: {state}\n")), "no colours in a pipe: {table}");
    }
}

#[test]
fn ping_ends_with_the_code_of_what_it_found() {
    let (_dir, socket) = node(State::Ready);
    let json = |output: &Output| -> serde_json::Value { serde_json::from_slice(&output.stdout).unwrap() };
    for (words, code, sent, received) in [
        ("ping d -c 1 --json --require-direct", 0, 1, 1),
        ("ping d --until-direct --json", 0, 1, 1),
        ("ping b -c 1 --json", 0, 1, 1),
        ("ping b -c 1 --json --require-direct", 8, 1, 1),
        ("ping b -c 2 --json --until-direct", 8, 2, 2),
        ("ping silent -c 1 --json", 7, 1, 0),
    ] {
        let output = with_socket(&socket, words);
        assert_eq!(output.status.code(), Some(code), "{words}: {}", text(&output.stderr));
        assert_eq!((&json(&output)["sent"], &json(&output)["received"]), (&sent.into(), &received.into()));
    }
    assert!(fails(&with_socket(&socket, "ping nobody"), 6).contains("no peer nobody"));
    fails(&with_socket(&socket, "resolve nobody"), 6);
    let lines = with_socket(&socket, "ping d -c 1");
    assert!(
        text(&lines.stdout).starts_with(
            "reply from b (10.93.4.7): seq=1 time=12.5 ms via direct 203.0.113.11:40211, punched\n--- b: 1 sent"
        ),
        "{}",
        text(&lines.stdout)
    );
}

#[test]
fn wait_ends_with_the_code_of_what_it_waited_for() {
    let (_dir, socket) = node(State::Ready);
    for (words, code) in [
        ("wait", 0),
        ("wait --peer b", 0),
        ("wait --peer d --direct", 0),
        ("wait --peer b --direct --timeout 300ms", 9),
        ("wait --peer silent --timeout 300ms", 9),
        ("wait --peer nobody --timeout 300ms", 6),
    ] {
        let output = with_socket(&socket, words);
        assert_eq!(output.status.code(), Some(code), "{words}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
    let (_dir, starting) = node(State::Starting);
    assert!(fails(&with_socket(&starting, "wait --timeout 300ms"), 9).contains("300 ms"));
}

#[test]
fn wait_waits_for_a_node_that_is_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let late = dir.path().join("late.sock");
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_frejus"))
        .args(["wait", "--timeout", "20s", "--socket", late.to_str().unwrap()])
        .spawn()
        .unwrap();
    let (_dir, socket) = node(State::Ready);
    std::os::unix::fs::symlink(&socket, &late).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

#[test]
fn invite_prints_the_code_and_nothing_else() {
    let (_dir, socket) = node(State::Ready);
    let output = with_socket(&socket, "invite --role client --expires 7d");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "the-code\n"));
    assert!(output.stderr.is_empty());
}

#[test]
fn down_removes_what_a_killed_node_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let state = dir.path().to_str().unwrap();
    assert_eq!(frejus(&["down", "--state", state]).status.code(), Some(0));
    assert!(!socket.exists());
    fails(&frejus(&["down", "--state", state]), 3);
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = frejus(&["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("until-direct"), "{shell}");
    }
}

#[test]
fn a_manual_page_for_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("share/man1");
    assert!(frejus(&["man", pages.to_str().unwrap()]).status.success());
    for verb in [
        "up",
        "down",
        "status",
        "peers",
        "ping",
        "resolve",
        "wait",
        "invite",
        "join",
        "create",
        "completions",
        "man",
        "version",
    ] {
        let page = std::fs::read_to_string(pages.join(format!("frejus-{verb}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{verb}");
    }
    let front = std::fs::read_to_string(pages.join("frejus.1")).unwrap();
    assert!(front.contains(".SH \"EXIT STATUS\"") && front.contains("no such peer"), "{front}");
}

#[test]
fn the_version_in_both_forms() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(text(&frejus(&["version"]).stdout), format!("frejus {version}\n"));
    assert_eq!(text(&frejus(&["--version"]).stdout), format!("frejus {version}\n"));
    let json = frejus(&["version", "--json"]);
    assert_eq!(text(&json.stdout), format!("{{\"schema\":1,\"version\":\"{version}\"}}\n"));
}

#[test]
fn a_reader_that_goes_is_no_failure() {
    use std::io::Read;
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_frejus"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(error, "");
}

#[test]
fn a_node_that_hangs_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let client = frejus::client::Client::new(&socket).unwrap();
    let (questions, _never_answered) = crossbeam_channel::bounded(4);
    let served = ControlSocket::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(api::serve(served, questions, std::future::pending())).unwrap();
    });
    let failure = client.ping("b", Duration::ZERO).unwrap_err();
    assert_eq!(failure.code, ExitCode::TimedOut, "{failure}");
}

#[test]
fn help_is_a_verb_too() {
    let all = frejus(&["help"]);
    assert!(all.status.success() && text(&all.stdout).contains("Usage: frejus"), "{all:?}");
    for verb in ["up", "ping", "lab"] {
        let (word, flag) = (frejus(&["help", verb]), frejus(&[verb, "--help"]));
        assert!(
            word.status.success() && text(&word.stdout).contains(&format!("Usage: frejus {verb}")),
            "{word:?}"
        );
        assert_eq!(text(&word.stdout), text(&flag.stdout));
    }
}

/// A socket at which somebody listens and nobody ever answers: a process that was stopped.
#[test]
fn a_stopped_node_is_named_with_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let _stopped = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let verbs = ["status", "peers", "netcheck", "down"].map(|verb| {
        let socket = socket.clone();
        std::thread::spawn(move || (verb, std::time::Instant::now(), with_socket(&socket, verb)))
    });
    for thread in verbs {
        let (verb, began, output) = thread.join().unwrap();
        let error = fails(&output, 9);
        assert!(error.contains(&format!("kill -9 {}; frejus down", std::process::id())), "{verb}: {error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{verb}: {:?}", began.elapsed());
    }
    let began = std::time::Instant::now();
    fails(&with_socket(&socket, "wait --timeout 300ms"), 9);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn nothing_is_founded_where_the_node_could_not_listen() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("s");
    let create = |listen: &str| {
        frejus(&["up", "--create", "mymed", "--listen", listen, "--state", state.to_str().unwrap()])
    };
    let error = fails(&create("192.0.2.77:51860"), 1);
    assert!(
        error.contains("192.0.2.77:51860 is no address of this machine: give one of `ip address`"),
        "{error}"
    );
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = fails(&create(&taken.local_addr().unwrap().to_string()), 11);
    assert!(error.contains("is taken"), "{error}");
    assert!(!state.join("genesis").exists() && !state.join("passport").exists());
}

#[test]
fn a_member_joins_again_without_a_code_being_used() {
    use frejus::state::StateDir;
    use frejus_overlay::code::{Code as JoinCode, Door};
    use frejus_overlay::id::TunnelKey;
    use frejus_overlay::timing::UnixTime;

    let dir = tempfile::tempdir().unwrap();
    let (state, other) = (dir.path().join("s"), dir.path().join("t"));
    for (state, network) in [(&state, "mymed"), (&other, "elsewhere")] {
        let made = frejus(&["create", network, "--name", "a", "--state", state.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
    }
    let saved = StateDir::open(&state).unwrap().load().unwrap();
    // Nobody is at its door: whoever asked there would fail.
    let code = JoinCode {
        network: saved.network.id,
        network_name: "mymed".into(),
        secret: [1; 16],
        doors: vec![Door { tunnel_key: TunnelKey([1; 32]), addresses: vec!["127.0.0.1:9".parse().unwrap()] }],
        expires: UnixTime(u64::MAX / 2),
    };
    let join = |state: &Path| frejus(&["join", &code.reveal(), "--state", state.to_str().unwrap()]);
    let again = join(&state);
    assert!(again.status.success(), "{again:?}");
    assert!(text(&again.stdout).starts_with("a 10."), "{again:?}");
    let error = fails(&join(&other), 11);
    assert!(error.contains("holds a node of the network elsewhere"), "{error}");
}
