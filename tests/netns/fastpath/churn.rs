//! Everything that changes the fast path, in random order and for long: flows open, rules and links change, programs are
//! detached, the daemon is killed. Nothing leaks, and nothing sticks.

use std::time::{Duration, Instant};

use fastrand::Rng;
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::Signal;
use sandbox::daemon::{Daemon, Installation};
use sandbox::traffic::flush_conntrack;
use sandbox::world::{Outage, Settings, World, addresses as at};

use super::{BPF, FORWARD, UdpFlow, apply, bpf_installation, our_filters, serving, tc};
use crate::bpf;
use crate::gateway::{FAST, Result, SOON, ensure, ensure_eq, lone_trial, wait_for};

/// The environment variable that repeats a run.
const SEED: &str = "BASTIOND_CHURN_SEED";
/// How many flows are opened after each change.
const FLOWS: u16 = 400;

pub(super) fn trials() -> [Trial; 2] {
    [
        lone_trial("a_minute_of_changes_leaks_nothing_and_leaves_no_flow_stuck", || churn(Duration::from_secs(60))),
        lone_trial("an_hour_of_changes_leaks_nothing_and_leaves_no_flow_stuck", || churn(Duration::from_secs(3600)))
            .with_ignored_flag(true),
    ]
}

/// One private host opens all flows.
const LIMITS: &str = "[egress]\nnew_flows_per_second = false\nmax_flows = false\n";

/// The configuration with the forward or without it.
fn config(forward: &str) -> String {
    format!("{FAST}{BPF}{forward}{LIMITS}")
}

/// What changes.
#[derive(Debug, Clone, Copy)]
enum Change {
    Forward,
    Bypass,
    DeletedFlows,
    DetachedProgram,
    DetachedPlace,
    LostCarrier,
    KilledDaemon,
    RestartedDaemon,
}

const CHANGES: [Change; 8] = [
    Change::Forward,
    Change::Bypass,
    Change::DeletedFlows,
    Change::DetachedProgram,
    Change::DetachedPlace,
    Change::LostCarrier,
    Change::KilledDaemon,
    Change::RestartedDaemon,
];

/// What could leak.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// Files of the BPF file system.
    pins: usize,
    /// Programs at the links.
    filters: usize,
    /// Open descriptors of the daemon.
    descriptors: usize,
}

fn churn(time: Duration) -> Result {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    changes(time, &mut Rng::with_seed(seed))
        .map_err(|error| format!("{SEED}={seed}: {}", error.message().unwrap_or_default()).into())
}

fn changes(time: Duration, random: &mut Rng) -> Result {
    let world = World::start(Settings::default())?;
    let directory = bpf::loaded(&format!("churn-{}", time.as_secs()))?;
    let installation = bpf_installation(&world, &directory)?;
    installation.write_config(&config(FORWARD))?;
    let mut daemon = serving(&installation)?;
    let server = world.web().bind_udp((at::WEB, 7000))?;
    let mut allowed = UdpFlow::out(&world)?;
    for socket in [&allowed.client, &allowed.server] {
        // A change may cost a packet; the next one passes.
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    }
    let held = |daemon: &Daemon| -> Result<Held> {
        Ok(Held {
            pins: std::fs::read_dir(&directory)?.count(),
            filters: our_filters(&world)?,
            descriptors: std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count(),
        })
    };
    let at_first = held(&daemon)?;
    let (begin, mut rounds) = (Instant::now(), 0_u32);
    while begin.elapsed() < time {
        let change = CHANGES[random.usize(..CHANGES.len())];
        let made = make(change, &world, &installation, &mut daemon, &server);
        made.map_err(|error| format!("{change:?}: {}", error.message().unwrap_or_default()))?;
        let after = |error: Failed| format!("after {change:?}: {}", error.message().unwrap_or_default());
        wait_for("the flow goes on", SOON, || Ok(allowed.exchange(b"on").is_ok())).map_err(after)?;
        open_flows(&world, random).map_err(after)?;
        rounds += 1;
    }
    // A pass that has just begun holds descriptors of its own.
    if wait_for("all is as it was", SOON, || Ok(held(&daemon)? == at_first)).is_err() {
        ensure_eq(held(&daemon)?, at_first)?;
    }
    ensure(rounds >= 5, format!("only {rounds} changes"))?;
    println!("{rounds} changes, {} flows", rounds * u32::from(FLOWS));
    Ok(())
}

fn make(
    change: Change,
    world: &World,
    installation: &Installation<'_>,
    daemon: &mut Daemon,
    server: &std::net::UdpSocket,
) -> Result {
    match change {
        Change::Forward => {
            let mut flow = UdpFlow::inwards(world, 0, server)?;
            flow.exchange(b"forwarded")?;
            apply(installation, daemon, &config(""))?;
            ensure(flow.is_cut()?, "a packet passes after the forward was removed")?;
            server.set_read_timeout(Some(SOON))?;
            apply(installation, daemon, &config(FORWARD))
        }
        Change::Bypass => {
            world
                .bastion()
                .nft("table inet churn { chain every { type filter hook forward priority 10; counter; }; }")?;
            wait_for("it stands aside", SOON, || Ok(our_filters(world)? == 0))?;
            world.bastion().nft("delete table inet churn")?;
            attached(world)
        }
        Change::DeletedFlows => Ok(flush_conntrack(world.bastion())?),
        Change::DetachedProgram => {
            tc(world, "filter del dev eth1 ingress")?;
            attached(world)
        }
        Change::DetachedPlace => {
            tc(world, "qdisc del dev eth0 clsact")?;
            attached(world)
        }
        Change::LostCarrier => {
            let outage = Outage::PrivateCarrier(world.private_network_id());
            world.begin(&outage)?;
            std::thread::sleep(Duration::from_millis(300));
            Ok(world.end(&outage)?)
        }
        Change::KilledDaemon | Change::RestartedDaemon => {
            daemon.signal(if matches!(change, Change::KilledDaemon) { Signal::SIGKILL } else { Signal::SIGTERM })?;
            ensure(daemon.wait_for_exit(SOON)?.is_some(), "the daemon ends")?;
            ensure_eq(our_filters(world)?, 4)?;
            *daemon = serving(installation)?;
            Ok(())
        }
    }
}

fn attached(world: &World) -> Result {
    wait_for("all programs are attached", SOON, || Ok(our_filters(world)? == 4)).map(drop)
}

/// Opens flows that nobody continues, each with an answer.
fn open_flows(world: &World, random: &mut Rng) -> Result {
    let server = world.server().bind_udp((at::SERVER, 0))?;
    server.set_read_timeout(Some(SOON))?;
    // Below the ports that the kernel gives.
    let first = random.u16(10_000..32_000);
    for port in first..first + FLOWS {
        let client = world.web().bind_udp((at::WEB, port))?;
        client.connect(server.local_addr()?)?;
        client.set_read_timeout(Some(SOON))?;
        for _ in 0..2 {
            client.send(b"new")?;
            let mut buffer = [0; 8];
            let (_, source) = server.recv_from(&mut buffer).map_err(|error| format!("port {port}, out: {error}"))?;
            server.send_to(b"new", source)?;
            client.recv(&mut buffer).map_err(|error| format!("port {port}, back: {error}"))?;
        }
    }
    Ok(())
}
