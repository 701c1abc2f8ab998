//! Reloads, restarts and foreign changes of the tunnel, during which sessions continue.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use bastiond::internals::outcome::ComponentName;
use bastiond_tunnel::key::{PrivateKey, PublicKey};
use bastiond_tunnel::tun::TunInterface;
use bastiond_tunnel::udp::UdpPair;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::traffic::{self, Flood, HeldConnection, Reflector};
use sandbox::world::{World, addresses as at};

use super::{ADA, BOB, Client, INSIDE, peer, pings, seen, tunnel, with_laptop, world};
use crate::gateway::{
    FAST, NEVER, Result, SOON, component, ensure, ensure_eq, installation, our_routes, report, text, trial, wait_for,
    wait_until_ok,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_reload_changes_only_the_differences", reload),
        trial("a_new_private_key_is_used_after_a_reload", rotate),
        trial("a_restarted_tunnel_process_gets_its_interface_and_initiates_handshakes_with_the_active_peers", restart),
        trial("a_restart_or_crash_of_the_daemon_is_no_gap_in_the_tunnel", kept),
        trial("an_upgrade_from_0_1_0_passes_the_descriptors_of_the_tunnel_on", from_0_1_0),
        trial("a_deleted_tunnel_is_created_again", deleted),
        trial("foreign_changes_of_the_tunnel_are_reverted", drift),
        trial("down_removes_the_tunnel", down),
    ]
}

fn reload() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let (installation, daemon, _ada) = with_laptop(&world, "wi-reload", "", "10.100.0.0/24,10.0.0.0/16")?;
    let mut held = HeldConnection::open(world.laptop(), web.address(), SOON)?;
    let before = peer(&installation, "ada")?;
    let bob = Client::start(world.server(), "wi-reload-bob", BOB)?;
    let config = std::fs::read_to_string(installation.config_path())?;
    installation.write_config(&format!("{config}{}", bob.block("bob", ", \"192.168.77.0/24\"")))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("Bob is let in", SOON, || Ok(peer(&installation, "bob").is_ok()))?;
    let bastion = report(&installation)?.tunnel.and_then(|tunnel| tunnel.public_key).ok_or("no key")?;
    bob.meets(bastion, "10.100.0.0/24")?;
    ensure(pings(world.server(), INSIDE, SOON)?, "Bob's tunnel works")?;
    held.exchange(SOON)?;
    let after = peer(&installation, "ada")?;
    ensure_eq((after.last_handshake_unix, after.endpoint), (before.last_handshake_unix, before.endpoint))?;
    let changes = component(&installation, ComponentName::Wireguard)?.last_changes;
    ensure_eq(changes, vec!["peer bob added".to_owned()])?;
    let routes = our_routes(&world)?;
    ensure(routes.contains("192.168.77.0/24 dev wi-reload"), routes)?;
    // With another port, the daemon initiates a handshake with Bob, who is not behind NAT.
    installation.write_config(
        &format!("{config}{}", bob.block("bob", "")).replace("addresses", "listen_port = 51999\naddresses"),
    )?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("the port is another one", SOON, || {
        Ok(report(&installation)?.tunnel.is_some_and(|tunnel| tunnel.listen_port == 51999))
    })?;
    wait_for("Bob follows", SOON, || pings(world.server(), INSIDE, Duration::from_millis(200)))?;
    ensure_eq(our_routes(&world)?, String::new())?;
    // The old port again, and Bob is removed: Ada's session continues.
    installation.write_config(&config)?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("Bob is out", SOON, || Ok(peer(&installation, "bob").is_err()))?;
    ensure(!pings(world.server(), INSIDE, NEVER)?, "Bob still gets in")?;
    held.exchange(Duration::from_secs(5))?;
    ensure_eq(peer(&installation, "ada")?.endpoint.map(|endpoint| endpoint.ip()), Some(at::HOME.into()))
}

/// The steps of docs/operations/rotate-keys.md.
fn rotate() -> Result {
    let world = world()?;
    let (installation, daemon, ada) = with_laptop(&world, "wi-rotate", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the tunnel works")?;
    let key = PrivateKey::generate();
    std::fs::write(installation.state_directory().join("wireguard.key"), format!("{}\n", key.to_base64().as_str()))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("the status shows the new public key", SOON, || {
        Ok(report(&installation)?.tunnel.and_then(|tunnel| tunnel.public_key) == Some(key.public()))
    })?;
    ensure(!pings(world.laptop(), INSIDE, NEVER)?, "a client with the old public key gets in")?;
    ada.meets(key.public(), "10.100.0.0/24,10.0.0.0/16")?;
    ensure(pings(world.laptop(), INSIDE, Duration::from_secs(20))?, "a client with the new public key gets in")
}

/// The number of an interface, which would differ for a new one.
fn index(world: &World, interface: &str) -> Result<Option<String>> {
    let output = world.bastion().command("ip").args(["-o", "link", "show", interface]).output()?;
    Ok(text(&output.stdout).split(':').next().map(str::to_owned).filter(|index| !index.is_empty()))
}

/// Sockets that other processes left would be seen as well.
fn sockets(world: &World) -> Result<String> {
    let listed = ["--udp", "--listening", "--numeric", "--extended", "--no-header", "sport = :51820"];
    let output = world.bastion().command("ss").args(listed).output()?;
    let listed = text(&output.stdout);
    let mut inodes: Vec<&str> = listed.split_whitespace().filter(|word| word.starts_with("ino:")).collect();
    inodes.sort_unstable();
    ensure(!inodes.is_empty(), "the tunnel has no sockets")?;
    Ok(inodes.join(" "))
}

fn restart() -> Result {
    let world = world()?;
    let web = Reflector::udp(world.web(), (at::WEB, 53))?;
    let (installation, _daemon, _ada) = with_laptop(&world, "wi-restart", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure(traffic::udp_probe(world.laptop(), web.address(), SOON).is_ok(), "the tunnel works")?;
    // SIGKILL leaves no time to save anything, so the state must be saved before.
    let memory = installation.runtime_directory().join("wireguard-wi-restart.json");
    wait_for("the laptop is remembered", Duration::from_secs(8), || {
        Ok(std::fs::read_to_string(&memory).is_ok_and(|text| text.contains("192.0.2.7")))
    })?;
    let before = (index(&world, "wi-restart")?, sockets(&world)?);
    let processes = installation.tunnel_processes()?;
    ensure_eq(processes.len(), 1)?;
    let flood = Flood::start(world.laptop(), web.address(), 100)?;
    std::thread::sleep(Duration::from_millis(300));
    installation.kill_tunnel()?;
    let stopped = Instant::now();
    wait_for("another process runs", SOON, || {
        let now = installation.tunnel_processes()?;
        Ok(now.len() == 1 && now != processes)
    })?;
    wait_for("the laptop is connected again", SOON, || {
        Ok(peer(&installation, "ada").is_ok_and(|ada| ada.last_handshake_unix.is_some()))
    })?;
    let took = stopped.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    let flood = flood.stop();
    ensure_eq((index(&world, "wi-restart")?, sockets(&world)?), before)?;
    // On its own a client notices after 15 s.
    ensure(flood.longest_gap < Duration::from_secs(3), format!("a gap of {:?}", flood.longest_gap))?;
    println!("connected again {took:?} after the kill; the longest gap was {:?}", flood.longest_gap);
    wait_until_ok("every component is ok", SOON, &installation)?;
    ensure(component(&installation, ComponentName::Wireguard)?.totals.repairs >= 1, "the repair is not counted")
}

fn kept() -> Result {
    let world = world()?;
    let web = Reflector::udp(world.web(), (at::WEB, 53))?;
    let (installation, mut daemon, ada) = with_laptop(&world, "wi-kept", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure(traffic::udp_probe(world.laptop(), web.address(), SOON).is_ok(), "the tunnel works")?;
    let state = || -> Result<_> { Ok((index(&world, "wi-kept")?, sockets(&world)?, installation.tunnel_processes()?)) };
    let before = state()?;
    let session = peer(&installation, "ada")?;
    ensure_eq(installation.stored_descriptor_names(), Vec::<String>::new())?;
    let flood = Flood::start(world.laptop(), web.address(), 200)?;
    std::thread::sleep(Duration::from_millis(300));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        daemon.signal(signal)?;
        ensure(daemon.wait_for_exit(Duration::from_secs(5))?.is_some(), "the daemon ends")?;
        ensure_eq(state()?, before.clone())?;
        // Without a daemon, wg(8) is still answered, and what only a daemon can do is refused.
        let shown = world.bastion().command("wg").args(["show", "wi-kept", "peers"]).output()?;
        ensure_eq(text(&shown.stdout), format!("{}\n", ada.public_key()))?;
        let port = world.bastion().command("wg").args(["set", "wi-kept", "listen-port", "51999"]).output()?;
        ensure(!port.status.success(), "a port was changed without a daemon")?;
        daemon = installation.start()?;
        daemon.wait_until_ready();
        wait_until_ok("every component is ok", SOON, &installation)?;
        let now = peer(&installation, "ada")?;
        ensure_eq((now.last_handshake_unix, now.endpoint), (session.last_handshake_unix, session.endpoint))?;
        let changes = component(&installation, ComponentName::Wireguard)?.totals.changes;
        ensure_eq(changes, 0)?;
    }
    std::thread::sleep(Duration::from_millis(300));
    let flood = flood.stop();
    ensure_eq(state()?, before)?;
    ensure_eq((flood.lost.len(), flood.sent > 100), (0, true))?;
    // The new daemon gives sockets as the former one did; the next pass restores the configuration.
    let port =
        world.bastion().command("wg").args(["set", "wi-kept", "listen-port", "51999", "fwmark", "7"]).output()?;
    ensure(port.status.success(), text(&port.stderr))?;
    ensure(installation.ctl(&["reconcile"])?.status.success(), "reconcile")?;
    ensure_eq(report(&installation)?.tunnel.map(|tunnel| tunnel.listen_port), Some(51820))?;

    // Without a tunnel its process ends.
    installation.write_config(FAST)?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("the interface is gone", SOON, || Ok(index(&world, "wi-kept")?.is_none()))?;
    wait_for("the process has ended", SOON, || Ok(installation.tunnel_processes()?.is_empty()))?;
    let socket = std::path::Path::new("/run/wireguard/wi-kept.sock");
    wait_for("the socket for wg is gone", SOON, || Ok(!socket.exists()))?;
    Ok(())
}

/// What a daemon of 0.1.0 left with systemd: one queue and two sockets.
fn from_0_1_0() -> Result {
    let world = world()?;
    let installation = installation(&world)?;
    let (tun, pairs) = world
        .bastion()
        .run(|| -> Result<_> { Ok((TunInterface::open("wi-former", 1)?, UdpPair::bind(51820, 0, 1)?)) })?;
    installation.store_descriptor("tun-wi-former", tun.queues[0].as_fd().try_clone_to_owned()?);
    for socket in pairs.iter().flat_map(|pair| pair.sockets()) {
        installation.store_descriptor("udp-wi-former-0", socket.as_fd().try_clone_to_owned()?);
    }
    drop((tun, pairs));
    let before = (index(&world, "wi-former")?, sockets(&world)?);
    ensure(before.0.is_some(), "the interface exists")?;
    installation.write_config(&tunnel("wi-former", ""))?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    wait_until_ok("every component is ok", SOON, &installation)?;
    ensure_eq((index(&world, "wi-former")?, sockets(&world)?), before)?;
    ensure_eq(installation.tunnel_processes()?.len(), 1)?;
    wait_for("systemd keeps nothing any more", SOON, || Ok(installation.stored_descriptor_names().is_empty()))?;
    Ok(())
}

fn deleted() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let (installation, _daemon, _ada) = with_laptop(&world, "wi-deleted", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    world.bastion().ip("link del wi-deleted")?;
    // Until then the report is that of before the deletion.
    let repairs = || -> Result<u64> { Ok(component(&installation, ComponentName::Wireguard)?.totals.repairs) };
    wait_for("it is made again", SOON, || Ok(repairs()? == 1))?;
    wait_until_ok("every component is ok again", SOON, &installation)?;
    wait_for("the peer is there again", SOON, || Ok(peer(&installation, "ada").is_ok()))?;
    wait_for("a handshake with the laptop is initiated", SOON, || {
        Ok(peer(&installation, "ada")?.last_handshake_unix.is_some())
    })?;
    wait_for("the laptop is back", SOON, || Ok(seen(world.laptop(), &web) == Ok(ADA.into())))?;
    ensure_eq(repairs()?, 1)
}

fn drift() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let (installation, _daemon, ada) = with_laptop(&world, "wi-drift", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    let repairs = || -> Result<u64> { Ok(component(&installation, ComponentName::Wireguard)?.totals.repairs) };
    let roamed = peer(&installation, "ada")?.endpoint;
    let key = PrivateKey::generate().public();
    let set = format!("set wi-drift peer {} remove peer {key} allowed-ips 10.100.0.9/32", ada.public_key());
    let output = world.bastion().command("wg").args(set.split(' ')).output()?;
    ensure(output.status.success(), text(&output.stderr))?;
    world.bastion().ip("link set wi-drift mtu 1300\naddr del 10.100.0.1/24 dev wi-drift")?;
    wait_for("the tunnel is as configured", SOON, || {
        let tunnel = report(&installation)?.tunnel.ok_or("no tunnel")?;
        let addresses = world.bastion().ip("addr show dev wi-drift")?;
        let keys: Vec<PublicKey> = tunnel.peers.iter().map(|peer| peer.public_key).collect();
        Ok(keys == [ada.public_key()] && addresses.contains("mtu 1420") && addresses.contains("10.100.0.1/24"))
    })?;
    ensure(repairs()? >= 1, "the repair is counted")?;
    // The peer was removed with its session, so the next packet creates a new one.
    wait_for("Ada gets in", Duration::from_secs(20), || Ok(seen(world.laptop(), &web) == Ok(ADA.into())))?;
    ensure_eq(peer(&installation, "ada")?.endpoint.map(|it| it.ip()), roamed.map(|it| it.ip()))
}

fn down() -> Result {
    let world = world()?;
    let (installation, mut daemon, _ada) = with_laptop(&world, "wi-down", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the tunnel works")?;
    let output = installation.ctl(&["down"])?;
    ensure(output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))?;
    ensure(text(&output.stdout).contains("wi-down removed"), text(&output.stdout))?;
    ensure(daemon.wait_for_exit(SOON)?.is_some(), "the daemon has not ended")?;
    ensure(!world.bastion().links()?.contains_key("wi-down"), "the interface exists")?;
    ensure_eq(world.cloud().routes(world.private_network_id()).len(), 0)?;
    ensure_eq(our_routes(&world)?, String::new())?;
    ensure(!installation.runtime_directory().join("wireguard-wi-down.json").exists(), "the peers are remembered")?;
    ensure(
        installation.state_directory().join("wireguard.key").exists(),
        "the key is gone, and every peer would need a new one",
    )
}
