//! The tunnel as a path of the status: the port that somebody closes, and a site that is silent.

use std::net::Ipv4Addr;
use std::time::Duration;

use bastiond::internals::health::{PathReport, PathState};
use bastiond::internals::report::Health;
use libtest_mimic::Trial;
use sandbox::daemon::Installation;
use sandbox::world::addresses as at;

use super::{BOB, Client, pings, serving, tunnel, with_laptop, world};
use crate::gateway::{Result, SOON, ensure, ensure_eq, installation, report, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_foreign_rule_that_drops_the_tunnels_packets_is_noticed_and_a_laptop_that_is_away_is_no_fault", port),
        trial("one_silent_site_is_shown_and_several_are_a_lost_tunnel", sites),
    ]
}

/// The peers are checked every 5 s.
const NOTICED: Duration = Duration::from_secs(45);
/// The address of a second site in the tunnel.
const LAB: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 4);

/// The path of this name.
fn path(installation: &Installation<'_>, name: &str) -> Result<PathReport> {
    let found = report(installation)?.paths.into_iter().find(|report| report.path.to_string() == name);
    found.ok_or_else(|| format!("there is no path {name}").into())
}

fn becomes(installation: &Installation<'_>, name: &str, state: PathState) -> Result {
    let waited = wait_for(&format!("{name} is {state}"), NOTICED, || {
        Ok(path(installation, name).is_ok_and(|report| report.state == state))
    });
    waited.map(drop).map_err(|_| format!("{name} is not {state}: {:#?}", report(installation)).into())
}

fn port() -> Result {
    let world = world()?;
    let (installation, daemon, ada) = with_laptop(&world, "wi-port", "", "10.100.0.0/24")?;
    let bastion = report(&installation)?.tunnel.and_then(|tunnel| tunnel.public_key).ok_or("no key")?;
    ada.wg(&format!("peer {bastion} persistent-keepalive 1"))?;
    becomes(&installation, "tunnel wi-port", PathState::Ok)?;
    wait_for("the gateway is healthy", SOON, || Ok(report(&installation)?.health == Health::Healthy))?;
    world
        .bastion()
        .nft("table inet stranger { chain in { type filter hook input priority 10; udp dport 51820 drop; }; }")?;
    becomes(&installation, "tunnel wi-port", PathState::Lost)?;
    let lost = path(&installation, "tunnel wi-port")?;
    ensure(lost.detail.starts_with("packets for UDP 51820 come in, and none gets past"), lost.detail)?;
    ensure_eq(report(&installation)?.health, Health::Degraded)?;
    let others = report(&installation)?.paths.into_iter().filter(|report| report.path.kind() != "tunnel");
    // What has not passed yet since the start is not blamed.
    let blamed: Vec<PathReport> = others.filter(|report| report.state == PathState::Lost).collect();
    ensure(blamed.is_empty(), format!("{blamed:?}"))?;
    world.bastion().nft("delete table inet stranger")?;
    becomes(&installation, "tunnel wi-port", PathState::Ok)?;
    let log = daemon.log();
    ensure(log.matches("tunnel wi-port is lost").count() == 1 && log.contains("tunnel wi-port is ok"), log)?;
    // Ada closes her laptop.
    drop(ada);
    std::thread::sleep(Duration::from_secs(12));
    ensure_eq(path(&installation, "tunnel wi-port")?.state, PathState::Ok)?;
    wait_for("the gateway is healthy", SOON, || Ok(report(&installation)?.health == Health::Healthy))?;
    Ok(())
}

fn sites() -> Result {
    let world = world()?;
    let office = Client::start(world.server(), "wi-paths-off", BOB)?;
    let lab = Client::start(world.server(), "wi-paths-lab", LAB)?;
    let installation = installation(&world)?;
    let mut blocks = String::new();
    for (site, name, port) in [(&office, "office", 51_820), (&lab, "lab", 51_821)] {
        site.wg(&format!("listen-port {port}"))?;
        blocks.push_str(&site.block(name, ""));
        let endpoint = format!("endpoint = \"{}:{port}\"\npersistent_keepalive = 1\n", at::SERVER);
        blocks.push_str(&endpoint);
    }
    installation.write_config(&tunnel("wi-paths", &blocks))?;
    let (_daemon, bastion) = serving(&installation)?;
    for site in [&office, &lab] {
        site.wg(&format!("peer {bastion} allowed-ips 10.100.0.1/32"))?;
    }
    for name in ["tunnel wi-paths to office", "tunnel wi-paths to lab", "tunnel wi-paths"] {
        becomes(&installation, name, PathState::Ok)?;
    }
    // A session's keepalives want no answer, but a ping does.
    let goes_silent = |inside: Ipv4Addr, name: &str| -> Result {
        let waited = wait_for(&format!("{name} is lost"), NOTICED, || {
            pings(world.bastion(), inside, Duration::from_millis(300))?;
            Ok(path(&installation, name)?.state == PathState::Lost)
        });
        waited.map(drop).map_err(|_| format!("{:#?}", report(&installation)).into())
    };
    drop(office);
    goes_silent(BOB, "tunnel wi-paths to office")?;
    let one = report(&installation)?;
    ensure_eq(path(&installation, "tunnel wi-paths")?.state, PathState::Ok)?;
    ensure_eq(path(&installation, "tunnel wi-paths to lab")?.state, PathState::Ok)?;
    ensure_eq(one.health, Health::Healthy)?;
    let detail = path(&installation, "tunnel wi-paths to office")?.detail;
    ensure_eq(detail.as_str(), "nothing comes from it; other peers are well")?;
    drop(lab);
    goes_silent(LAB, "tunnel wi-paths to lab")?;
    becomes(&installation, "tunnel wi-paths", PathState::Lost)?;
    let detail = path(&installation, "tunnel wi-paths")?.detail;
    ensure(detail.starts_with("nothing comes back from any of 2 sites"), detail)?;
    ensure_eq(report(&installation)?.health, Health::Degraded)
}
