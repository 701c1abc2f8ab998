//! Peers whose access ends at a time.

use std::time::{Duration, SystemTime};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::traffic::{ContinuousDownload, DownloadServer, Flood, Reflector};
use sandbox::world::addresses as at;

use super::{BOB, Client, peer, pings, seen, with_laptop, world};
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, our_routes, report, text, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_peer_is_out_on_the_second_that_its_access_expires_and_others_lose_nothing", expires),
        trial("a_disabled_peer_is_out_and_gets_in_when_it_is_enabled_again", disabled),
    ]
}

/// What a download has received after this time.
fn received_after(download: &ContinuousDownload, wait: Duration) -> u64 {
    std::thread::sleep(wait);
    download.received()
}

fn expires() -> Result {
    let world = world()?;
    let server = DownloadServer::start(world.web(), (at::WEB, 80))?;
    let echo = Reflector::udp(world.web(), (at::WEB, 53))?;
    let (installation, daemon, ada) = with_laptop(&world, "wi-expiry", "", "10.100.0.0/24,10.0.0.0/16")?;
    let bob = Client::start(world.server(), "wi-expiry-bob", BOB)?;
    // The longest time that a reload may take here, and the rest of the second.
    let expires = SystemTime::UNIX_EPOCH
        + Duration::from_secs(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 8);
    let written = humantime::format_rfc3339_seconds(expires).to_string();
    let config = std::fs::read_to_string(installation.config_path())?;
    let ada_until = format!("{}expires = {written}\n", ada.block("ada", ", \"192.168.77.0/24\""));
    let config = config.replace(&ada.block("ada", ""), &format!("{ada_until}{}", bob.block("bob", "")));
    installation.write_config(&config)?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("Bob is let in", SOON, || Ok(peer(&installation, "bob").is_ok()))?;
    let bastion = report(&installation)?.tunnel.and_then(|tunnel| tunnel.public_key).ok_or("no key")?;
    bob.meets(bastion, "10.100.0.0/24,10.0.0.0/16")?;
    ensure(our_routes(&world)?.contains("192.168.77.0/24 dev wi-expiry"), our_routes(&world)?)?;

    let download = ContinuousDownload::start(world.laptop(), server.address(), Duration::from_secs(20))?;
    let flood = Flood::start(world.server(), echo.address(), 100)?;
    let left = || expires.duration_since(SystemTime::now()).unwrap_or_default();
    ensure(left() > Duration::from_secs(1), "the set-up took too long")?;
    // A tenth of a second before, it still flows; one second after, nothing does.
    let before = received_after(&download, left().saturating_sub(Duration::from_millis(300)));
    ensure(left() > Duration::ZERO, "the clock")?;
    let at_the_end = received_after(&download, Duration::from_millis(150));
    ensure(at_the_end > before, "the download ended before its time")?;
    let stopped = received_after(&download, left() + Duration::from_secs(1));
    let later = received_after(&download, Duration::from_secs(1));
    ensure_eq(later, stopped)?;
    ensure(!pings(world.laptop(), super::INSIDE, NEVER)?, "Ada still gets in")?;
    ensure_eq(our_routes(&world)?, String::new())?;
    let flood = flood.stop();
    ensure_eq((flood.lost.len(), flood.sent > 300), (0, true))?;

    let tunnel = report(&installation)?.tunnel.ok_or("no tunnel")?;
    let names: Vec<_> = tunnel.peers.iter().map(|peer| peer.name.clone().unwrap_or_default()).collect();
    ensure_eq(names, vec!["bob".to_owned()])?;
    let status = text(&installation.ctl(&["status"])?.stdout);
    ensure(status.contains(&format!("OUT ada: expired {written}")), status)?;
    ensure(daemon.log().contains("the access of peer ada has expired"), daemon.log())?;
    // An expiry in the past is no error, for a start neither.
    installation.ctl(&["check"])?.status.success().then_some(()).ok_or_else(|| "the file is refused".into())
}

fn disabled() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let (installation, daemon, ada) = with_laptop(&world, "wi-disabled", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure_eq(seen(world.laptop(), &web), Ok(super::ADA.into()))?;
    let config = std::fs::read_to_string(installation.config_path())?;
    let block = ada.block("ada", "");
    installation.write_config(&config.replace(&block, &format!("{block}enabled = false\n")))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("Ada is out", SOON, || Ok(peer(&installation, "ada").is_err()))?;
    ensure(!pings(world.laptop(), super::INSIDE, NEVER)?, "a disabled peer gets in")?;
    let status = text(&installation.ctl(&["status"])?.stdout);
    ensure(status.contains("OUT ada: disabled"), status)?;
    installation.write_config(&config)?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("Ada is in again", Duration::from_secs(20), || Ok(seen(world.laptop(), &web) == Ok(super::ADA.into())))?;
    Ok(())
}
