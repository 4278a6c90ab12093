//! The simulator's model of the cryptographic seam keeps the seam's promises, as boringtun does.

use std::time::Duration;

use frejus_overlay::id::TunnelKey;
use frejus_overlay::timing::{Instant, UnixTime};
use frejus_overlay::tunnel::Crypto;
use frejus_overlay::tunnel_contract::{self as contract, World};
use frejus_sim::crypto::{Clock, ModelCrypto};
use frejus_sim::dice::Dice;
use frejus_sim::keys::Policy;

/// Virtual time; every node that is made has randomness of its own.
struct Model {
    clock: Clock,
    made: u64,
}

impl Model {
    fn new() -> Self {
        let clock = Clock::default();
        clock.set(Instant::from_start(Duration::from_secs(1)));
        Self { clock, made: 0 }
    }

    fn make(&mut self, seed: u64, policy: Policy) -> Box<dyn Crypto> {
        self.made += 1;
        let key = TunnelKey([seed as u8; 32]);
        let dice = Dice::new(self.made, "contract");
        Box::new(ModelCrypto::new(key, dice, self.clock.clone(), UnixTime(1_800_000_000)).carrying(policy))
    }
}

impl World for Model {
    fn crypto(&mut self, seed: u64) -> Box<dyn Crypto> {
        self.make(seed, Policy::Prefer)
    }

    fn now(&mut self) -> Instant {
        // Two handshakes at one instant would carry the same timestamp.
        self.pass(Duration::from_micros(1));
        self.clock.now()
    }

    fn pass(&mut self, time: Duration) {
        self.clock.set(self.clock.now() + time);
    }
}

#[test]
fn transport_keys() {
    contract::keys::all(&mut Model::new());
}

#[test]
fn who_insists_carries_no_data_without_keys() {
    let mut model = Model::new();
    let mut other = Model { clock: model.clock.clone(), made: 100 };
    contract::keys::who_insists_carries_no_data_without_keys(&mut model, &mut |seed| {
        other.make(seed, Policy::Require)
    });
}

#[test]
fn wireguard() {
    contract::all(&mut Model::new());
}
