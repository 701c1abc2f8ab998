//! Start, memory, and the time to repair changes.

use std::path::Path;
use std::time::{Duration, Instant};

use sandbox::cloud;
use sandbox::daemon::Installation;
use sandbox::namespace::Namespace;
use sandbox::world::{Settings, World};

use crate::case::{Case, Promise};
use crate::run::Result;
use crate::units::{mebibytes, milliseconds};

pub(super) const CASES: [&str; 6] =
    ["daemon/ready", "daemon/restart", "daemon/rss", "daemon/rss-peak", "daemon/apply", "daemon/heal-sysctl"];

/// The number of rounds, each with a new world.
const ROUNDS: usize = 5;
/// How long to wait until a started daemon is idle.
const SETTLED: Duration = Duration::from_secs(2);
/// The time limit of a repair, far more than the promised 2 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The interval between two checks for a repair.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The values of all rounds.
#[derive(Default)]
struct Values {
    ready: Vec<f64>,
    restart: Vec<f64>,
    rss: Vec<f64>,
    peak: Vec<f64>,
    table: Vec<f64>,
    sysctl: Vec<f64>,
}

pub(super) fn measure(programs: &Path) -> Result<Vec<Case>> {
    let mut values = Values::default();
    for round in 1..=ROUNDS {
        eprint!("\rdaemon: round {round} of {ROUNDS}");
        values.round(programs)?;
    }
    eprintln!();
    let Values { ready, restart, rss, peak, table, sysctl } = values;
    let repair = Some(Promise::Below(2000.0));
    Ok(vec![
        Case::of_bastiond("daemon/ready", "first start to READY=1", "ms", Some(Promise::Below(300.0)), ready),
        Case::of_bastiond("daemon/restart", "restart without changes", "ms", Some(Promise::Below(300.0)), restart),
        Case::of_bastiond("daemon/rss", "resident memory at rest", "MiB", Some(Promise::Below(20.0)), rss),
        Case::of_bastiond("daemon/rss-peak", "peak of the resident memory", "MiB", None, peak),
        Case::of_bastiond("daemon/apply", "table deleted to table back", "ms", repair, table),
        Case::of_bastiond("daemon/heal-sysctl", "ip_forward off to on again", "ms", repair, sysctl),
    ])
}

impl Values {
    fn round(&mut self, programs: &Path) -> Result {
        let cloud = cloud::Settings { action_duration: Duration::ZERO, ..cloud::Settings::default() };
        let world = World::start(Settings { cloud, ..Settings::default() })?;
        let installation = Installation::in_world(&world, programs)?;
        let mut daemon = installation.start()?;
        self.ready.push(milliseconds(daemon.wait_until_ready()));
        drop(daemon);
        // The second daemon finds what the killed one left.
        let mut daemon = installation.start()?;
        self.restart.push(milliseconds(daemon.wait_until_ready()));
        std::thread::sleep(SETTLED);
        self.rss.push(mebibytes(&daemon, "VmRSS")?);
        self.peak.push(mebibytes(&daemon, "VmHWM")?);
        let bastion = world.bastion();
        self.table.push(milliseconds(repair_of_table(bastion)?));
        std::thread::sleep(SETTLED);
        self.sysctl.push(milliseconds(repair_of_forwarding(bastion)?));
        Ok(())
    }
}

fn repair_of_table(bastion: &Namespace) -> Result<Duration> {
    bastion.nft("delete table inet bastiond")?;
    let deleted = Instant::now();
    // The daemon loads the table in one transaction, so one chain proves all of it.
    until(deleted, || Ok(bastion.nft("list chain inet bastiond postrouting").is_ok()))
}

fn repair_of_forwarding(bastion: &Namespace) -> Result<Duration> {
    bastion.sysctl("net.ipv4.ip_forward", "0")?;
    let switched = Instant::now();
    until(switched, || Ok(bastion.read_sysctl("net.ipv4.ip_forward")? == "1"))
}

fn until(start: Instant, mut is_repaired: impl FnMut() -> Result<bool>) -> Result<Duration> {
    while start.elapsed() < TIMEOUT {
        if is_repaired()? {
            return Ok(start.elapsed());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Err(format!("not repaired within {} s", TIMEOUT.as_secs()).into())
}
