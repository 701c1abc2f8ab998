//! Start, memory, and how long what is broken stays broken.

use std::path::Path;
use std::time::{Duration, Instant};

use sandbox::cloud;
use sandbox::daemon::Installation;
use sandbox::namespace::Namespace;
use sandbox::world::{Settings, World};

use crate::Result;
use crate::case::{Case, Promise};
use crate::units::{mebibytes, milliseconds};

pub(super) const CASES: [&str; 6] =
    ["daemon/ready", "daemon/restart", "daemon/rss", "daemon/rss-peak", "daemon/apply", "daemon/heal-sysctl"];

/// Each with a world of its own.
const ROUNDS: usize = 5;
/// When a daemon that was started is at rest.
const SETTLED: Duration = Duration::from_secs(2);
/// Far beyond the 2 s that are promised.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether something is back.
const LOOK: Duration = Duration::from_millis(1);

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
        Case::alone("daemon/ready", "first start to READY=1", "ms", Some(Promise::Below(300.0)), ready),
        Case::alone(
            "daemon/restart",
            "the same when nothing is to be done",
            "ms",
            Some(Promise::Below(300.0)),
            restart,
        ),
        Case::alone("daemon/rss", "resident memory at rest", "MiB", Some(Promise::Below(20.0)), rss),
        Case::alone("daemon/rss-peak", "the most it ever was", "MiB", None, peak),
        Case::alone("daemon/apply", "table deleted to table back", "ms", repair, table),
        Case::alone("daemon/heal-sysctl", "ip_forward off to on again", "ms", repair, sysctl),
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
        // What a killed daemon leaves behind is what the next one finds.
        let mut daemon = installation.start()?;
        self.restart.push(milliseconds(daemon.wait_until_ready()));
        std::thread::sleep(SETTLED);
        self.rss.push(mebibytes(&daemon, "VmRSS")?);
        self.peak.push(mebibytes(&daemon, "VmHWM")?);
        let bastion = world.bastion();
        self.table.push(milliseconds(table_back(bastion)?));
        std::thread::sleep(SETTLED);
        self.sysctl.push(milliseconds(forwarding_back(bastion)?));
        Ok(())
    }
}

fn table_back(bastion: &Namespace) -> Result<Duration> {
    bastion.nft("delete table inet bastiond")?;
    let deleted = Instant::now();
    // The transaction is whole or not at all: with one chain there, all is.
    until(deleted, || Ok(bastion.nft("list chain inet bastiond postrouting").is_ok()))
}

fn forwarding_back(bastion: &Namespace) -> Result<Duration> {
    bastion.sysctl("net.ipv4.ip_forward", "0")?;
    let switched = Instant::now();
    until(switched, || Ok(bastion.read_sysctl("net.ipv4.ip_forward")? == "1"))
}

fn until(start: Instant, mut is_back: impl FnMut() -> Result<bool>) -> Result<Duration> {
    while start.elapsed() < PATIENCE {
        if is_back()? {
            return Ok(start.elapsed());
        }
        std::thread::sleep(LOOK);
    }
    Err(format!("not repaired within {} s", PATIENCE.as_secs()).into())
}
