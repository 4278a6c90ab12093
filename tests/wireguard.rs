//! boringtun behind the seam keeps the seam's promises.

use std::time::Duration;

use frejus::clock::Clock;
use frejus::options::TransportPolicy;
use frejus::transport::Transport;
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
    ($module:path => $($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            use $module as promises;
            promises::$name(&mut Real(Clock::start()));
        })+
    };
}

promises!(
    contract::keys =>
    keys_take_over,
    keys_open_once_and_for_their_receiver,
    a_window_of_8192,
    an_answerer_waits_for_the_offerer,
    a_repeated_answer_changes_nothing,
    only_the_last_offer_is_answered,
    what_was_altered_makes_other_keys,
    what_was_not_offered_is_refused,
    keys_of_others_and_of_other_roles_differ,
    new_keys_follow_old_ones,
    a_side_that_was_started_anew_is_served_at_once,
    both_may_offer_at_once,
    the_agreement_itself_goes_under_wireguards_keys,
    a_partial_checksum_never_arrives_as_a_complete_one,
);

#[test]
fn who_insists_carries_no_data_without_keys() {
    let clock = Clock::start();
    let mut insisting = |_| -> Box<dyn Crypto> {
        let transport = Transport { policy: TransportPolicy::Require, ..Transport::default() };
        Box::new(Wireguard::new(StaticSecret::from([0x77; 32]), clock.clone()).carrying(transport))
    };
    contract::keys::who_insists_carries_no_data_without_keys(&mut Real(clock.clone()), &mut insisting);
}

promises!(
    contract =>
    handshake_and_data,
    responder_waits_for_the_initiator,
    replays_are_refused,
    lost_response,
    a_forgery_swallows_nothing,
    restart_of_one_side,
    rekey,
    simultaneous_initiation,
    initiations_that_cross_ours,
    strangers_and_the_initiators_name,
    garbage_and_truncation,
    reordering,
    sealed_messages,
);
