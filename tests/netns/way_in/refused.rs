//! Whom the tunnel refuses: counted and shown by name.

use std::net::{Ipv4Addr, SocketAddr};

use bastiond_tunnel::key::PrivateKey;
use libtest_mimic::Trial;
use sandbox::traffic;
use sandbox::world::addresses as at;

use super::{ADA, BOB, Client, INSIDE, pings, with_laptop, world};
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, report, text, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("an_unknown_key_and_a_foreign_source_are_shown_by_name", refused)]
}

fn refused() -> Result {
    let world = world()?;
    let (installation, daemon, ada) = with_laptop(&world, "wi-ref", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the tunnel works")?;
    let bastion = report(&installation)?.tunnel.and_then(|tunnel| tunnel.public_key).ok_or("no key")?;
    // Somebody whose key is not in the configuration, and somebody with a former key of the bastion.
    let stranger = Client::start(world.server(), "wi-ref-str", BOB)?;
    stranger.meets(bastion, "10.100.0.0/24")?;
    ensure(!pings(world.server(), INSIDE, NEVER)?, "a stranger gets in")?;
    let refused = || -> Result<_> { report(&installation)?.tunnel.and_then(|it| it.refused).ok_or("none".into()) };
    wait_for("the unknown key is counted", SOON, || Ok(!refused()?.unknown_keys.is_empty()))?;
    let known = refused()?.unknown_keys.remove(0);
    ensure_eq((known.address, known.public_key), (at::SERVER.into(), stranger.public_key()))?;
    stranger.wg(&format!("peer {bastion} remove"))?;
    stranger.meets(PrivateKey::generate().public(), "10.100.0.0/24")?;
    ensure(!pings(world.server(), INSIDE, NEVER)?, "a stranger gets in")?;
    wait_for("the other server's key is counted", SOON, || Ok(refused()?.wrong_server_key.times > 0))?;
    // Ada sends from an address that is not hers.
    let foreign = Ipv4Addr::new(10, 9, 9, 9);
    world.laptop().ip(&format!("addr add {foreign}/32 dev {}", ada.interface))?;
    let from = SocketAddr::from((foreign, 40000));
    ensure(traffic::udp_probe_from(world.laptop(), from, (at::WEB, 53), NEVER).is_err(), "a foreign source")?;
    wait_for("the foreign source is counted", SOON, || Ok(!refused()?.foreign_sources.is_empty()))?;
    let source = refused()?.foreign_sources.remove(0);
    ensure_eq((source.name.as_deref(), source.address), (Some("ada"), foreign.into()))?;
    ensure(source.packets > 0, format!("{source:?}"))?;
    let shown = text(&installation.ctl(&["status"])?.stdout);
    for words in [
        format!("REFUSED unknown key from {} (", at::SERVER),
        format!("): {}", stranger.public_key()),
        format!("REFUSED ada sends from {foreign}, which is not its own ("),
        "REFUSED a handshake for another server's public key, or a former one (".to_owned(),
    ] {
        ensure(shown.contains(&words), format!("no {words:?} in {shown}"))?;
    }
    // Once in the journal, by the check of the peers.
    let line = format!("ada sends from {foreign}");
    wait_for("the journal has it", 6 * SOON, || Ok(daemon.log().contains(&line)))?;
    ensure_eq(daemon.log().matches(&line).count(), 1)?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, format!("{ADA} is let in as before"))
}
