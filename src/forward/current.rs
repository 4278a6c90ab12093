//! Streams→TUN: what was read from TCP connections, opened like any datagrams.
//!
//! Owns: the opener of the streams' thread. Never: a stream.

use std::net::SocketAddr;
use std::sync::Arc;

use frejus_overlay::locator::{Endpoint, StreamId, Via};

use super::Published;
use super::opener::{Joined, Opener};
use crate::clock::Clock;
use crate::stream::{Inward, Run};

/// See the module.
pub(super) struct Current {
    table: Arc<Published>,
    opener: Opener,
    clock: Clock,
}

impl Current {
    pub(super) const fn new(table: Arc<Published>, opener: Opener, clock: Clock) -> Self {
        Self { table, opener, clock }
    }
}

impl Inward for Current {
    fn take(&mut self, id: StreamId, from: SocketAddr, arena: &mut [u8], runs: &[Run]) {
        let now = self.clock.instant();
        let table = self.table.snapshot();
        let sender = Endpoint { via: Via::Stream(id), at: from };
        for run in runs {
            let joined = Joined { end: run.end, stride: run.stride, sender, local: None };
            self.opener.handle(&table, arena, run.start, joined, now);
        }
        self.opener.flush(arena);
    }
}
