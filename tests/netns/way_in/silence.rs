//! A peer that does not answer: one line says so, and its name is resolved again.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bastiond::internals::outcome::ComponentName;
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use sandbox::world::addresses as at;

use super::{BOB, Client, peer, pings, serving, tunnel, world};
use crate::gateway::{Result, SOON, component, ensure, ensure_eq, installation, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_peer_that_does_not_answer_has_one_line_in_the_log_with_its_name", one_line),
        trial("a_peer_whose_name_moves_is_back_after_20_seconds_of_unanswered_packets", moves),
    ]
}

/// The office's second address.
const MOVED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);

fn one_line() -> Result {
    let world = world()?;
    let office = Client::start(world.server(), "wi-dead-off", BOB)?;
    let installation = installation(&world)?;
    let endpoint = format!("endpoint = \"{}:51999\"\npersistent_keepalive = 1\n", at::SERVER);
    installation.write_config(&tunnel("wi-dead", &format!("{}{endpoint}", office.block("office", ""))))?;
    let (daemon, bastion) = serving(&installation)?;
    // Nobody listens on that port.
    let silent = format!("peer office ({}:51999) does not answer", at::SERVER);
    wait_for("it is logged", 20 * SOON, || Ok(daemon.log().contains(&silent)))
        .map_err(|error| format!("{error:?}: {}", daemon.log()))?;
    std::thread::sleep(Duration::from_secs(12));
    let log = daemon.log();
    ensure_eq(log.matches("does not answer").count(), 1)?;
    ensure(!log.contains("HANDSHAKE") && !log.contains("CONNECTION_EXPIRED"), log)?;
    // Somebody listens there at last.
    office.wg("listen-port 51999")?;
    office.wg(&format!("peer {bastion} allowed-ips 10.100.0.0/24"))?;
    let again = format!("peer office ({}:51999) answers again", at::SERVER);
    wait_for("it is logged", 20 * SOON, || Ok(daemon.log().contains(&again)))?;
    ensure_eq(daemon.log().matches(" answer").count(), 2)
}

/// A file over `/etc/hosts`, in the mount namespace of this process and its children.
fn hosts_file() -> Result<std::path::PathBuf> {
    let (_, path) = tempfile::NamedTempFile::new()?.keep().map_err(|error| error.error)?;
    std::fs::copy("/etc/hosts", &path)?;
    mount(Some(&path), "/etc/hosts", None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(path)
}

fn moves() -> Result {
    let world = world()?;
    let hosts = hosts_file()?;
    let former = std::fs::read_to_string(&hosts)?;
    let name = |address: Ipv4Addr| std::fs::write(&hosts, format!("{former}{address} office.test\n"));
    name(at::SERVER)?;
    let office = Client::start(world.server(), "wi-move-off", BOB)?;
    office.wg("listen-port 51820")?;
    let installation = installation(&world)?;
    let endpoint = "endpoint = \"office.test:51820\"\npersistent_keepalive = 25\n";
    installation.write_config(&tunnel("wi-move", &format!("{}{endpoint}", office.block("office", ""))))?;
    let (daemon, bastion) = serving(&installation)?;
    office.wg(&format!("peer {bastion} allowed-ips 10.100.0.0/24"))?;
    wait_for("the office answers", 4 * SOON, || pings(world.bastion(), BOB, Duration::from_millis(500)))?;
    // The office gets another address, and its name, too. It does not know where the bastion is.
    world.server().ip(&format!(
        "addr del {}/24 dev eth0\naddr add {MOVED}/24 dev eth0\nroute replace default via {} dev eth0",
        at::SERVER,
        at::API
    ))?;
    office.wg(&format!("peer {bastion} remove"))?;
    office.wg(&format!("peer {bastion} allowed-ips 10.100.0.0/24"))?;
    name(MOVED)?;
    let lost = Instant::now();
    ensure(!pings(world.bastion(), BOB, Duration::from_millis(500))?, "the office has not moved")?;
    wait_for("the office answers again", Duration::from_secs(60), || {
        pings(world.bastion(), BOB, Duration::from_millis(500))
    })
    .map_err(|error| format!("{error:?}: {:?} {}", component(&installation, ComponentName::Wireguard), daemon.log()))?;
    let took = lost.elapsed();
    ensure(took < Duration::from_secs(30), format!("it took {took:?}"))?;
    ensure_eq(peer(&installation, "office")?.endpoint.map(|endpoint| endpoint.ip()), Some(MOVED.into()))
}
