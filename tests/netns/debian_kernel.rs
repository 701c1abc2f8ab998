//! Tests that need a kernel such as Debian's: its WireGuard as the peer of our data plane, and the flowtable.
//!
//! `scripts/test-vm` runs these on Debian's kernels, with `BASTIOND_DEBIAN_KERNEL=1`. Elsewhere they are ignored.

use std::collections::BTreeMap;
use std::time::Duration;

use bastiond::internals::health::PathState;
use bastiond::internals::nat::Nat;
use bastiond::internals::outcome::ComponentName;
use bastiond_tunnel::key::PublicKey;
use libtest_mimic::Trial;
use sandbox::daemon::{Daemon, Installation};
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Direction, DownloadServer, HeldConnection, Packet, Reflector, Sniffer};
use sandbox::world::{World, addresses as at};

use crate::gateway::{
    FAST, NEVER, Result, SOON, component, ensure, ensure_eq, healthy, installation, report, text, trial, wait_for,
};
use crate::health::{NOTICED, becomes, one_network};
use crate::table::{config_with_fast_path, listed, reconcile, site};
use crate::way_in::{ADA, Client, OFFICE_HOST, seen, serving, tunnel, world};

/// The environment variable that enables these tests.
const DEBIAN_KERNEL: &str = "BASTIOND_DEBIAN_KERNEL";
/// A preshared key as `wg genpsk` prints it.
const SHARED: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";
/// Bytes of a transfer: thousands of packets, but few for an emulated machine.
const BULK: u64 = 4 << 20;
const A_WHILE: Duration = Duration::from_secs(20);

pub(crate) fn trials() -> Vec<Trial> {
    let elsewhere = std::env::var_os(DEBIAN_KERNEL).is_none();
    let trials = vec![
        trial("the_kernels_wireguard_initiates_handshakes_with_our_tunnel", kernel_calls),
        trial("our_tunnel_initiates_handshakes_with_the_kernels_wireguard", kernel_is_called),
        trial("an_established_flow_takes_the_fast_path_where_the_kernels_is_reliable", fast_path),
        trial("a_table_with_a_fast_path_is_recognised_and_a_new_link_changes_it", table_with_fast_path),
        trial("a_flow_takes_the_normal_path_where_the_fast_path_is_disabled", no_fast_path),
        trial("the_later_answers_of_a_probe_come_by_the_fast_path", probed_fast_path),
        trial("a_path_is_lost_while_the_fast_path_loses_packets", lossy_fast_path),
    ];
    trials.into_iter().map(|trial| trial.with_ignored_flag(elsewhere)).collect()
}

/// An office on the internet host with the kernel's WireGuard and a network behind it: its configuration block and its
/// client.
fn office<'w>(world: &'w World, interface: &str) -> Result<(Client<'w>, String)> {
    let office = Client::of_kernel(world.server(), interface, ADA)?;
    office.wg("listen-port 51821")?;
    world.server().ip(&format!("addr add {OFFICE_HOST}/32 dev lo"))?;
    let block = office.block("office", ", \"192.168.77.0/24\"");
    Ok((office, format!("{block}preshared_key = \"{SHARED}\"\n")))
}

/// Configures the bastion as the office's peer. With `endpoint` the office can initiate handshakes.
fn knows(office: &Client<'_>, world: &World, interface: &str, bastion: PublicKey, endpoint: &str) -> Result {
    let shared = tempfile::NamedTempFile::new()?;
    std::fs::write(shared.path(), SHARED)?;
    let shared = shared.path().display();
    office.wg(&format!("peer {bastion} preshared-key {shared} {endpoint} allowed-ips 10.100.0.0/24,10.0.0.0/16"))?;
    world.server().ip(&format!("route replace 10.0.0.0/16 dev {interface}"))?;
    Ok(())
}

/// Transfers data in both directions and compares every byte.
fn exchanges(world: &World) -> Result {
    for (source, client) in [((world.web(), at::WEB), world.server()), ((world.server(), OFFICE_HOST), world.web())] {
        let source = DownloadServer::start(source.0, (source.1, 0))?;
        let download = traffic::download(client, source.address(), BULK, A_WHILE)?;
        ensure_eq((download.bytes, download.intact), (BULK, true))?;
        println!("{BULK} bytes in {:?}", download.elapsed);
    }
    Ok(())
}

/// Whether `wg` reports a handshake of the office.
fn has_handshake(namespace: &Namespace, interface: &str) -> Result<bool> {
    let shown = text(&namespace.command("wg").args(["show", interface, "latest-handshakes"]).output()?.stdout);
    Ok(shown.split_whitespace().nth(1).is_some_and(|when| when != "0"))
}

fn kernel_calls() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let (office, block) = office(&world, "wi-dk-calls")?;
    let installation = installation(&world)?;
    installation.write_config(&tunnel("wi-dk1", &block))?;
    let (_daemon, bastion) = serving(&installation)?;
    let shown = text(&installation.ctl(&["status"])?.stdout);
    ensure(shown.contains("MTU 1420; userspace"), shown)?;
    knows(&office, &world, "wi-dk-calls", bastion, &format!("endpoint {}:51820", at::BASTION))?;
    ensure(!has_handshake(world.server(), "wi-dk-calls")?, "no handshake has begun yet")?;
    wait_for("the office gets in", A_WHILE, || Ok(seen(world.server(), &web) == Ok(ADA.into())))?;
    ensure(has_handshake(world.server(), "wi-dk-calls")?, "the kernel tells of a handshake")?;
    wait_for("private hosts reach the office", A_WHILE, || {
        let _intranet = Reflector::tcp(world.server(), (OFFICE_HOST, 80))?;
        Ok(traffic::tcp_connects(world.web(), (OFFICE_HOST, 80), SOON).is_ok())
    })?;
    exchanges(&world)
}

fn kernel_is_called() -> Result {
    let world = world()?;
    let (office, block) = office(&world, "wi-dk-called")?;
    let intranet = Reflector::tcp(world.server(), (OFFICE_HOST, 80))?;
    let installation = installation(&world)?;
    installation.write_config(&tunnel("wi-dk2", &format!("{block}endpoint = \"{}:51821\"\n", at::SERVER)))?;
    let (_daemon, bastion) = serving(&installation)?;
    // The office has no endpoint of the bastion, so it cannot initiate.
    knows(&office, &world, "wi-dk-called", bastion, "")?;
    wait_for("a private host reaches the office", A_WHILE, || Ok(seen(world.web(), &intranet) == Ok(at::WEB.into())))?;
    ensure(has_handshake(world.server(), "wi-dk-called")?, "the kernel tells of a handshake")?;
    exchanges(&world)
}

/// The conntrack entry of the flow between these two.
fn tracked(world: &World, port: u16) -> Result<String> {
    let output =
        world.bastion().command("conntrack").args(["-L", "-p", "tcp", "--dport", &port.to_string()]).output()?;
    ensure(output.status.success(), text(&output.stderr))?;
    Ok(text(&output.stdout))
}

fn fast_path() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let detail = component(&installation, ComponentName::Nat)?.detail;
    ensure(detail.ends_with("; fast path: flowtable"), detail)?;
    let mut held = HeldConnection::open(world.web(), server.address(), SOON)?;
    // Two packets in each direction establish the flow. Later packets take the fast path.
    for _ in 0..5 {
        held.exchange(SOON)?;
    }
    let flow = tracked(&world, 8080)?;
    ensure(flow.contains("[OFFLOAD]"), flow)?;
    held.exchange(SOON)?;
    // A transfer has the same translation as on the normal path.
    let source = DownloadServer::start(world.server(), (at::SERVER, 0))?;
    let download = traffic::download(world.web(), source.address(), BULK, A_WHILE)?;
    ensure_eq((download.bytes, download.intact), (BULK, true))?;
    ensure_eq(held.seen().ip(), at::BASTION.into())?;
    ensure(traffic::tcp_connects(world.server(), held.seen(), NEVER).is_err(), "the way of a flow is open to others")
}

fn table_with_fast_path() -> Result {
    let host = Namespace::create("fast-table")?;
    for name in ["eth0", "eth1", "eth2", "ens10.7"] {
        host.ip(&format!("link add {name} type dummy\nlink set {name} up"))?;
    }
    let memory = tempfile::tempdir()?;
    let mut nat = Nat::load(memory.path(), memory.path());
    for name in ["one-network", "everything", "one-network"] {
        let (config, site) = (config_with_fast_path(name)?, site(name)?);
        let loaded = reconcile(&host, &mut nat, &config, &site);
        ensure_eq((loaded.changes.len(), loaded.problems), (1, Vec::new()))?;
        ensure_eq(reconcile(&host, &mut nat, &config, &site).changes, Vec::new())?;
        // In the format of any version of nft.
        let mut successor = Nat::load(memory.path(), memory.path());
        ensure_eq(reconcile(&host, &mut successor, &config, &site).changes, Vec::new())?;
        let listing = listed(&host, &[])?;
        ensure(listing.contains("flowtable fastpath"), listing.clone())?;
        ensure_eq(listing.contains("ens10.7"), name == "everything")?;
    }
    Ok(())
}

fn no_fast_path() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[nat]\nfastpath = false\n"))?;
    let _daemon = healthy(&installation)?;
    let mut held = HeldConnection::open(world.web(), server.address(), SOON)?;
    for _ in 0..5 {
        held.exchange(SOON)?;
    }
    let flow = tracked(&world, 8080)?;
    ensure(flow.contains("ESTABLISHED") && !flow.contains("OFFLOAD"), flow)
}

/// The interface of the probes of the private network.
const PROBE: &str = "probe-0a000000";

/// A daemon with the fast path on, whose path to the internet is proven.
fn with_fast_path<'w>(world: &'w World, fastpath: &str) -> Result<(Installation<'w>, Daemon)> {
    let installation = installation(world)?;
    installation.write_config(&format!("{FAST}[nat]\nfastpath = {fastpath}\n"))?;
    let daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    Ok((installation, daemon))
}

/// A chain of another program counts the answers that pass by `forward`: the first ones only. All come in by the public
/// link.
fn probed_fast_path() -> Result {
    let world = one_network()?;
    let (_installation, _daemon) = with_fast_path(&world, "\"flowtable\"")?;
    let is_answer =
        |packet: &Packet| packet.direction == Direction::In && packet.udp().is_some_and(|(source, _)| source == 53);
    let arriving = Sniffer::start(world.bastion(), "eth0", is_answer)?;
    world.bastion().nft(&format!(
        "table inet counted {{
            chain forward {{ type filter hook forward priority 10; oifname \"{PROBE}\" udp sport 53 counter; }}
        }}"
    ))?;
    // The answers of each flow, by the port that the translation chose.
    let flows = |packets: Vec<Packet>| {
        let mut flows: BTreeMap<u16, usize> = BTreeMap::new();
        for (_, port) in packets.iter().filter_map(Packet::udp) {
            *flows.entry(port).or_default() += 1;
        }
        flows
    };
    // On a slow machine the second resolver is asked too, and then only once.
    let answered_twice = |flows: &BTreeMap<u16, usize>| flows.values().filter(|answers| **answers == 2).count();
    wait_for("later answers come in", A_WHILE, || Ok(answered_twice(&flows(arriving.packets())) >= 5))?;
    let listing = text(&world.bastion().command("nft").args(["list", "table", "inet", "counted"]).output()?.stdout);
    let counted = listing.split("packets ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let counted = counted.ok_or(format!("no counter: {listing}"))?;
    let flows = flows(arriving.stop());
    // Some may have begun before the chain was there, or after it was listed.
    ensure((flows.len() - 3..=flows.len()).contains(&counted), format!("{counted} counted of {flows:?}"))
}

/// Packets that pass by `forward` get a mark there; those without it have come by the fast path, and are lost.
fn lossy_fast_path() -> Result {
    let world = one_network()?;
    let lossy = format!(
        "table inet marking {{
            chain forward {{ type filter hook forward priority 10; udp sport 53 meta mark set 7; }}
        }}
        table netdev lossy {{
            chain out {{
                type filter hook egress device \"{PROBE}\" priority 0;
                ip protocol udp udp sport 53 meta mark != 7 drop;
            }}
        }}"
    );
    {
        let (installation, _daemon) = with_fast_path(&world, "\"flowtable\"")?;
        world.bastion().nft(&lossy)?;
        becomes(&installation, PathState::Lost, NOTICED)?;
        let detail = report(&installation)?.paths[0].detail.clone();
        ensure(detail.starts_with("the first packet of a flow is answered, the next one is not"), detail)?;
        world.bastion().nft("delete table netdev lossy; delete table inet marking")?;
        becomes(&installation, PathState::Ok, NOTICED)?;
    }
    // Without the fast path no packet goes by without the mark.
    let (installation, _daemon) = with_fast_path(&world, "false")?;
    world.bastion().nft(&lossy)?;
    std::thread::sleep(NOTICED);
    becomes(&installation, PathState::Ok, NEVER)?;
    Ok(())
}
