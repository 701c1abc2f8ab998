//! Sessions that last: renewed after two minutes, and over after three.
//!
//! The protocol's times (<https://www.wireguard.com/papers/wireguard.pdf>, section 6.1) are real here, once; the unit
//! tests of the data plane turn a clock by hand.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sandbox::star::{Family, Star};
use sandbox::traffic::{Flood, Reflector};
use sandbox::tunnel::Program;

use super::site::{Reach, Site, ours};
use crate::gateway::{Result, ensure, ensure_eq, trial, wait_for};

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("sessions_are_renewed_after_two_minutes_without_a_lost_packet", renewed)]
}

/// Nothing is renewed until shortly before Rekey-After-Time, 120 s, ...
const UNTIL_THEN: Duration = Duration::from_secs(115);
/// ... and everything shortly after it.
const SHORTLY: Duration = Duration::from_secs(15);
/// Datagrams a second of each flood: each of them is one that may be lost.
const RATE: u32 = 200;

fn renewed() -> Result {
    let star = Star::with_hosts(4)?;
    let us = Site::start(&star, 0, &ours())?;
    let mut programs = vec![Program::wireguard_go(), Program::boringtun()];
    programs.extend(Some(Program::gotatun()).filter(Program::is_installed));
    let mut peers = Vec::new();
    for (number, program) in (1..).zip(&programs) {
        let peer = Site::start(&star, number, program)?;
        // Who begins renews. wireguard-go begins, and we begin with the others.
        let begins = if number == 1 { (&peer, &us) } else { (&us, &peer) };
        begins.1.meets(begins.0, Reach::Unknown)?;
        begins.0.meets(begins.1, Reach::At(Family::V4))?;
        ensure(begins.0.reaches(begins.1)?, format!("nothing passes with {}", program.path().display()))?;
        peers.push(peer);
    }
    let handshakes =
        || -> Result<Vec<Option<u64>>> { peers.iter().map(|peer| Ok(us.peer(peer)?.latest_handshake)).collect() };
    let first = handshakes()?;
    let start = Instant::now();
    let reflectors: Vec<Reflector> = peers
        .iter()
        .map(|peer| Reflector::udp(peer.namespace(), (peer.v4(), 7)))
        .collect::<std::result::Result<_, _>>()?;
    let floods: Vec<Flood> = reflectors
        .iter()
        .map(|reflector| Flood::start(us.namespace(), reflector.address(), RATE))
        .collect::<std::result::Result<_, _>>()?;
    std::thread::sleep(UNTIL_THEN);
    ensure_eq(handshakes()?, first.clone())?;
    wait_for("all sessions are renewed", SHORTLY, || {
        Ok(handshakes()?.iter().zip(&first).all(|(now, first)| now > first))
    })?;
    // The session after the next is no different, but the packets that were on their way are.
    std::thread::sleep(Duration::from_secs(3));
    let elapsed = start.elapsed();
    let lost: Vec<_> = floods.into_iter().map(|flood| flood.stop().lost).collect();
    ensure_eq(lost, vec![vec![]; peers.len()])
        .map_err(|error| format!("within {elapsed:?}, by {programs:?}: {}", error.message().unwrap_or_default()).into())
}
