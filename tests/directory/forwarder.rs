//! A forwarded TCP port that can be taken away again.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

pub(crate) struct Forwarder {
    at: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Forwarder {
    pub(crate) fn start(outside: TcpListener, inside: SocketAddr) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let at = outside.local_addr().expect("bound");
        let flag = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            for caller in outside.incoming() {
                if flag.load(Ordering::Acquire) {
                    return;
                }
                join(caller.expect("a caller"), inside);
            }
        });
        Self { at, stopped, thread }
    }

    /// New callers are refused from now on; those that are through stay.
    pub(crate) fn stop(self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes it; it may have been woken by a caller already.
        let _ = TcpStream::connect(self.at);
        self.thread.join().expect("no panic");
    }
}

fn join(caller: TcpStream, inside: SocketAddr) {
    let Ok(callee) = TcpStream::connect(inside) else { return };
    for (mut from, mut to) in [(caller.try_clone(), callee.try_clone()), (Ok(callee), Ok(caller))]
        .map(|(from, to)| (from.expect("a descriptor"), to.expect("a descriptor")))
    {
        std::thread::spawn(move || {
            // The connection is over, one way or another.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
