//! boringtun behind the seam keeps the seam's promises.

use std::time::Duration;

use frejus::clock::Clock;
use frejus::wireguard::Wireguard;
use frejus_overlay::timing::Instant;
use frejus_overlay::tunnel::Crypto;
use frejus_overlay::tunnel_contract::{self as contract, World};
use x25519_dalek::StaticSecret;

/// boringtun reads the real clock, so time really passes here.
struct Real(Clock);

impl World for Real {
    fn crypto(&mut self, seed: u64) -> Box<dyn Crypto> {
        let mut secret = [0x5a; 32];
        // Not the first byte: its three lowest bits do not count (RFC 7748, section 5).
        secret[8..16].copy_from_slice(&seed.to_le_bytes());
        Box::new(Wireguard::new(StaticSecret::from(secret), self.0.clone()))
    }

    fn now(&mut self) -> Instant {
        self.0.instant()
    }

    fn pass(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

macro_rules! promises {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            contract::$name(&mut Real(Clock::start()));
        })+
    };
}

promises!(
    handshake_and_data,
    responder_waits_for_the_initiator,
    replays_are_refused,
    lost_response,
    restart_of_one_side,
    rekey,
    simultaneous_initiation,
    strangers_and_the_initiators_name,
    garbage_and_truncation,
    reordering,
    sealed_messages,
);
