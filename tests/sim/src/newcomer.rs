//! A newcomer with a code: the enrolment's state machine over the simulated network.
//!
//! Owns: the loop around [`Enrolment`]. Never: what it decides.

use std::time::Duration;

use frejus_overlay::code::Code;
use frejus_overlay::enrolment::{EnrolError, Enrolment};
use frejus_overlay::timing::Instant;

use crate::crypto::ModelCrypto;
use crate::dice::Dice;
use crate::founder::Keys;
use crate::host::Disk;
use crate::world::World;

impl World {
    /// Let the host of this name join with `code`; how long it took. Its node is not started yet.
    ///
    /// # Errors
    /// As the newcomer is told.
    pub fn join(&mut self, name: &str, code: &Code) -> Result<Duration, EnrolError> {
        let (id, begun) = (self.id(name), self.now());
        let keys = Keys::new(self.seed, name);
        let began = self.hosts[id.0].began();
        let dice = Dice::new(self.seed, &format!("enrolment of {name}"));
        let mut crypto = ModelCrypto::new(keys.tunnel_key, dice, self.clock(), began);
        let mut enrolment = Enrolment::new(code, keys.key.clone(), keys.tunnel_key, Some(name.to_owned()));
        enrolment.handle_timeout(self.hosts[id.0].now(begun), &mut crypto);
        loop {
            while let Some((to, bytes)) = enrolment.poll_output() {
                self.transmit(id, to, &bytes);
            }
            if let Some(outcome) = enrolment.outcome() {
                let enrolled = outcome?;
                let (network, genesis, credential) =
                    (enrolled.network, enrolled.genesis, enrolled.credential);
                let known = vec![enrolled.contact];
                self.hosts[id.0].disk =
                    Some(Disk { network, genesis, keys, credential, known, ledger: None });
                return Ok(self.now().since(begun));
            }
            let deadline = enrolment.poll_timeout().expect("no outcome yet");
            self.run_until_mail(name, deadline);
            let now = self.hosts[id.0].now(self.now());
            for (from, bytes) in std::mem::take(&mut self.hosts[id.0].unclaimed) {
                enrolment.handle_datagram(from, &bytes, now, &mut crypto);
            }
            if self.now() >= deadline {
                enrolment.handle_timeout(now, &mut crypto);
            }
        }
    }

    fn run_until_mail(&mut self, name: &str, deadline: Instant) {
        let id = self.id(name);
        let patience = deadline.since(self.now());
        self.run_until(patience, |world| !world.hosts[id.0].unclaimed.is_empty());
    }
}
