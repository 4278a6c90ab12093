//! When a node finds out whether TCP passes, and what its users are told meanwhile.

use super::*;
use crate::stream::{Passage, TRIAL, Tried};

const REACHED: Tried = Tried { own: Passage::Open, https: Passage::Blocked };

fn tried(world: &mut World, id: RequestId) -> Option<Tried> {
    match world.host(A).answers.remove(&id)? {
        Answer::Netcheck(found) => Some(found.tried),
        other => panic!("{other:?}"),
    }
}

fn report(world: &mut World) {
    let clock = world.clock();
    world.host(A).node.handle_tried(REACHED, clock);
    world.run(100);
}

#[test]
fn only_a_user_has_it_tried_and_only_once_in_a_while() {
    let mut world = World::with_peers(&[A]);
    world.run(20_000);
    assert_eq!(world.host(A).tried.len(), 0, "nobody asked");
    let id = world.request(A, Request::Netcheck);
    assert_eq!(world.host(A).tried, [[address(LOGIN)]]);
    report(&mut world);
    world.run(1500);
    assert_eq!(tried(&mut world, id), Some(REACHED));
    let again = [world.request(A, Request::Netcheck), world.request(A, Request::Netcheck)];
    world.run(1500);
    assert_eq!(again.map(|id| tried(&mut world, id)), [Some(REACHED); 2], "known already");
    assert_eq!(world.host(A).tried.len(), 1);
    world.run(5000);
    world.request(A, Request::Netcheck);
    assert_eq!(world.host(A).tried.len(), 2, "it may be different by then");
}

#[test]
fn an_answer_waits_for_the_trial_and_not_for_ever() {
    let mut world = World::with_peers(&[A]);
    let id = world.request(A, Request::Netcheck);
    world.run(TRIAL.as_millis() as u64);
    assert_eq!(tried(&mut world, id), None, "it may still come");
    world.run(300);
    assert_eq!(tried(&mut world, id), Some(Tried::default()), "nothing was found out");
    report(&mut world);
    let late = world.request(A, Request::Netcheck);
    world.run(1500);
    assert_eq!(tried(&mut world, late), Some(Tried::default()), "what comes too late belongs to nothing");
}

#[test]
fn nothing_is_tried_where_no_super_peer_is_known() {
    let mut world = World::new();
    world.start(A, Roles::PEER, &[]);
    let id = world.request(A, Request::Netcheck);
    assert_eq!(tried(&mut world, id), Some(Tried::default()));
    assert_eq!(world.host(A).tried.len(), 0);
}
