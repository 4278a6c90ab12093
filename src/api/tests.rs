//! Server and client over a real socket, with a thread in the control plane's place.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::*;
use crate::client::Client;
use crate::report::samples;

/// A node whose control plane answers with `answer`, until it is dropped.
struct FakeNode {
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl FakeNode {
    fn new(answer: impl FnMut(Question) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = ControlSocket::bind(&Self::path(&dir)).unwrap();
        let (questions, asked) = crossbeam_channel::bounded(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let control = std::thread::spawn(move || asked.iter().for_each(answer));
        let api = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let shutdown = async { stopped.await.unwrap_or_default() };
            runtime.block_on(serve(socket, questions, shutdown)).unwrap();
        });
        Self { dir, stop: Some(stop), threads: vec![api, control] }
    }

    fn path(dir: &tempfile::TempDir) -> std::path::PathBuf {
        dir.path().join("control.sock")
    }

    fn client(&self) -> Client {
        Client::new(&Self::path(&self.dir)).unwrap()
    }

    fn end(mut self) {
        drop(self.stop.take());
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 0, "the socket is taken away");
    }
}

#[test]
fn every_question_reaches_the_control_plane_and_comes_back() {
    let (seen, asked) = mpsc::channel();
    let node = FakeNode::new(move |question| {
        seen.send(format!("{question:?}").split(" reply").next().unwrap().to_owned()).unwrap();
        match question {
            Question::Status { reply } => reply.send(Ok(samples::status())).unwrap(),
            Question::Peers { reply } => reply.send(Ok(samples::peers())).unwrap(),
            Question::Netcheck { reply } => reply.send(Ok(samples::netcheck())).unwrap(),
            Question::Doctor { reply, .. } => reply.send(Ok(samples::doctor())).unwrap(),
            Question::Ping { reply, .. } => reply.send(Ok(samples::ping_reply(samples::direct()))).unwrap(),
            Question::Resolve { reply, .. } => reply.send(Ok(samples::resolve())).unwrap(),
            Question::Invite { reply, .. } => reply.send(Ok(Code::new("a-code"))).unwrap(),
            Question::Down { reply } => reply.send(Ok(())).unwrap(),
        }
    });
    let client = node.client();
    assert_eq!(client.status().unwrap(), samples::status());
    assert_eq!(client.peers().unwrap(), samples::peers());
    assert_eq!(client.ping("b", Duration::from_secs(90)).unwrap(), samples::ping_reply(samples::direct()));
    assert_eq!(client.resolve("b").unwrap(), samples::resolve());
    assert_eq!(client.invite(&InviteRequest::default()).unwrap().reveal(), "a-code");
    assert_eq!(client.netcheck().unwrap(), samples::netcheck());
    assert_eq!(client.doctor("b").unwrap(), samples::doctor());
    assert_eq!(client.down(), Ok(()));
    assert_eq!(client.pid().unwrap(), Some(std::process::id()));
    let asked: Vec<String> = asked.try_iter().collect();
    assert_eq!(asked[2], "Ping { peer: \"b\", timeout: 60s,");
    assert!(asked[4].contains("expires: 86400s"), "{}", asked[4]);
    assert_eq!(asked.len(), 8);
    node.end();
}

#[test]
fn a_failure_keeps_its_code_on_the_way() {
    let failure = Failure::new(ExitCode::NoSuchPeer, "no peer is called x", "frejus peers lists them");
    let sent = failure.clone();
    let node = FakeNode::new(move |question| {
        if let Question::Ping { reply, .. } = question {
            reply.send(Err(sent.clone())).unwrap();
        }
    });
    let client = node.client();
    assert_eq!(client.ping("x", Duration::from_secs(1)), Err(failure));
    assert_eq!(client.status().unwrap_err().what, "the node is stopping", "an answer dropped");
    node.end();
}

#[test]
fn a_full_queue_is_told_as_busy() {
    let (questions, _asked) = crossbeam_channel::bounded(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(ask(&questions, THINKING, |reply| Question::Status { reply }));
    assert_eq!(answer.unwrap_err().what, "the node is busy");
}

/// What the node answers to raw bytes.
fn raw(node: &FakeNode, request: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(FakeNode::path(&node.dir)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A server that closes on bytes it has not read resets the connection behind its answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn what_is_no_question_is_refused() {
    let node = FakeNode::new(drop);
    let close = "host: x\r\nconnection: close\r\n";
    let lost = raw(&node, &format!("GET /v2/x HTTP/1.1\r\n{close}\r\n"));
    assert!(lost.starts_with("HTTP/1.1 400") && lost.contains("GET /v2/x"), "{lost}");
    let method = raw(&node, &format!("GET /v1/down HTTP/1.1\r\n{close}\r\n"));
    assert!(method.starts_with("HTTP/1.1 400"), "{method}");
    let garbage = raw(&node, &format!("POST /v1/ping HTTP/1.1\r\n{close}content-length: 2\r\n\r\n{{}}"));
    assert!(garbage.starts_with("HTTP/1.1 400") && garbage.contains("missing field"), "{garbage}");
    let body = "x".repeat(LONGEST_BODY + 1);
    let length = body.len();
    let huge =
        raw(&node, &format!("POST /v1/ping HTTP/1.1\r\n{close}content-length: {length}\r\n\r\n{body}"));
    assert!(huge.starts_with("HTTP/1.1 413"), "{huge}");
    node.end();
}

#[test]
fn an_unfinished_request_does_not_keep_the_node_from_ending() {
    use std::io::Write;
    let node = FakeNode::new(drop);
    let mut stream = std::os::unix::net::UnixStream::connect(FakeNode::path(&node.dir)).unwrap();
    stream.write_all(b"POST /v1/ping HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();
    node.end();
}

#[test]
fn only_root_and_the_owner_may_ask() {
    assert!(permitted(Caller { uid: Some(0) }, 1000));
    assert!(permitted(Caller { uid: Some(1000) }, 1000));
    assert!(!permitted(Caller { uid: Some(1001) }, 1000));
    assert!(!permitted(Caller { uid: None }, 0));
}

#[test]
fn nobody_there_is_not_running() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let code = |path: &Path| Client::new(path).unwrap().status().unwrap_err().code;
    assert_eq!(code(&path), ExitCode::NotRunning);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_eq!(code(&path), ExitCode::NotRunning);
}
