//! Our implementation with others: handshakes and traffic, initiated by either side, over both families, and preshared
//! keys.

use bastiond_tunnel::key::PrivateKey;
use libtest_mimic::Trial;
use sandbox::star::{Family, Star};
use sandbox::tunnel::Program;

use super::site::{Reach, Site, exchange, ours};
use crate::gateway::{Result, ensure, ensure_eq, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("wireguard_go_and_we_exchange_packets_whichever_side_initiates", || {
            whoever_begins(&Program::wireguard_go())
        }),
        trial("boringtun_and_we_exchange_packets_whichever_side_initiates", || whoever_begins(&Program::boringtun())),
        gotatun("gotatun_and_we_exchange_packets_whichever_side_initiates", || whoever_begins(&Program::gotatun())),
        trial("wireguard_go_and_we_connect_only_with_the_same_preshared_key", || preshared(&Program::wireguard_go())),
        trial("boringtun_and_we_connect_only_with_the_same_preshared_key", || preshared(&Program::boringtun())),
        gotatun("gotatun_and_we_connect_only_with_the_same_preshared_key", || preshared(&Program::gotatun())),
    ]
}

/// gotatun wants a newer compiler than the rest of the project. Where it is not there, its trials are shown as ignored.
fn gotatun(name: &'static str, test: fn() -> Result) -> Trial {
    trial(name, test).with_ignored_flag(!Program::gotatun().is_installed())
}

fn whoever_begins(theirs: &Program) -> Result {
    for (first, second, outside) in [(&ours(), theirs, Family::V4), (theirs, &ours(), Family::V6)] {
        begins(first, second, outside)
            .map_err(|error| format!("{} begins: {}", first.path().display(), error.message().unwrap_or_default()))?;
    }
    Ok(())
}

fn begins(first: &Program, second: &Program, outside: Family) -> Result {
    let star = Star::with_hosts(2)?;
    let (first, second) = (Site::start(&star, 0, first)?, Site::start(&star, 1, second)?);
    second.meets(&first, Reach::Unknown)?;
    first.meets(&second, Reach::At(outside))?;
    exchange(&first, &second)?;
    exchange(&second, &first)?;
    let endpoints = (first.peer(&second)?.endpoint, second.peer(&first)?.endpoint);
    ensure_eq(endpoints, (Some(second.outside(outside)), Some(first.outside(outside))))
}

fn preshared(theirs: &Program) -> Result {
    let star = Star::with_hosts(2)?;
    let (us, them) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, theirs)?);
    let (right, wrong) = (PrivateKey::generate().to_base64(), PrivateKey::generate().to_base64());
    let preshared = |words: String| format!("{words} preshared-key /dev/stdin");
    them.interface.set_with_key(&preshared(us.as_peer(Reach::At(Family::V4))), &right)?;
    us.interface.set_with_key(&preshared(them.as_peer(Reach::At(Family::V4))), &wrong)?;
    ensure(us.is_cut_off_from(&them)?, "the wrong key is as good as the right one")?;
    ensure(them.is_cut_off_from(&us)?, "the wrong key is as good as the right one, when they begin")?;
    ensure_eq(us.peer(&them)?.latest_handshake, None)?;
    us.interface.set_with_key(&preshared(format!("peer {}", them.public_key())), &right)?;
    exchange(&us, &them)?;

    // The same from the start, and they begin.
    let star = Star::with_hosts(2)?;
    let (us, them) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, theirs)?);
    us.interface.set_with_key(&preshared(them.as_peer(Reach::Unknown)), &right)?;
    them.interface.set_with_key(&preshared(us.as_peer(Reach::At(Family::V4))), &right)?;
    exchange(&them, &us)?;
    ensure(us.peer(&them)?.preshared, "the key is not shown")
}
