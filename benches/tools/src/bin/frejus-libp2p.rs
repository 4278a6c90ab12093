//! What libp2p itself keeps resident: a directory alone, which has met another, stored a record there and found it.
//! Prints MB (2²⁰ bytes) more than the same program held before: `{"mb":N}`. The other directory is a process of its own.
#![allow(clippy::print_stdout, reason = "its answer")]

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use frejus::directory::{Checked, Directory, DirectoryConfig, DirectoryHandle};
use frejus_overlay::id::{NetworkId, NodeId, RecordKey};
use frejus_overlay::port::{Command, Reply};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::runtime::{Builder, Runtime};

/// Nothing here takes longer, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// The argument that makes it the other one.
const OTHER: &str = "--other";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some(OTHER) {
        return other();
    }
    let before = resident()?;
    let mut program = Program::new(std::env::current_exe()?);
    let mut other = program.arg(OTHER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let measured = measure(BufReader::new(other.stdout.take().ok_or("no pipe")?));
    // It ends with its input.
    drop(other.stdin.take());
    other.wait()?;
    println!(r#"{{"mb":{:.1}}}"#, (measured? - before) / 1024.0);
    Ok(())
}

/// A server that says where it is, and stays until its input ends.
fn other() -> Result<(), Box<dyn std::error::Error>> {
    let (_runtime, directory, _replies) = start(2)?;
    println!("{}", directory.listening().first().ok_or("it listens nowhere")?);
    io::copy(&mut io::stdin(), &mut io::sink())?;
    directory.stop();
    Ok(())
}

fn measure(mut other: impl BufRead) -> Result<f64, Box<dyn std::error::Error>> {
    let mut line = String::new();
    other.read_line(&mut line)?;
    let at: SocketAddr = line.trim().parse()?;
    let (_runtime, directory, replies) = start(1)?;
    ask(&directory, Command::Neighbours(vec![(node(2)?, vec![at])]))?;
    let (key, value, life) = (RecordKey([7; 32]), vec![7; 400], Duration::from_secs(3600));
    ask(&directory, Command::Publish { id: 1, key, value, life })?;
    until(&replies, |reply| matches!(reply, Reply::Finished { id: 1, ok: true, .. }))?;
    ask(&directory, Command::Lookup { id: 2, key })?;
    until(&replies, |reply| matches!(reply, Reply::Found { id: 2, .. }))?;
    let held = resident()?;
    directory.stop();
    Ok(held)
}

/// As the daemon starts it.
fn start(seed: u8) -> Result<(Runtime, DirectoryHandle, Receiver<Reply>), Box<dyn std::error::Error>> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let config = DirectoryConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        server: true,
        ..DirectoryConfig::new(NetworkId([9; 32]), [seed; 32])
    };
    let (sender, replies) = channel();
    let check = Arc::new(|_: &RecordKey, _: &[u8]| Ok(Checked { sequence: 1, expires_in: PATIENCE }));
    // Whoever has its answer no longer listens.
    let forward = move |reply| _ = sender.send(reply);
    let directory = Directory::spawn(runtime.handle(), config, check, Box::new(forward))?;
    Ok((runtime, directory, replies))
}

fn node(seed: u8) -> Result<NodeId, Box<dyn std::error::Error>> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).map_err(|_| "no key")?;
    Ok(NodeId(pair.public_key().as_ref().try_into()?))
}

fn ask(directory: &DirectoryHandle, command: Command) -> Result<(), &'static str> {
    if directory.send(command) { Ok(()) } else { Err("the directory takes no more commands") }
}

fn until(replies: &Receiver<Reply>, wanted: impl Fn(&Reply) -> bool) -> Result<(), &'static str> {
    loop {
        match replies.recv_timeout(PATIENCE) {
            Ok(reply) if wanted(&reply) => return Ok(()),
            Ok(_) => {}
            Err(_) => return Err("the other directory does not answer"),
        }
    }
}

/// In KiB.
fn resident() -> io::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok());
    figure.ok_or_else(|| io::Error::other("no VmRSS in /proc/self/status"))
}
