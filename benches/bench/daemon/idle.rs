//! The activity of an idle daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use sandbox::daemon::{Daemon, Installation};
use sandbox::world::{SecondNetwork, Settings, World};

use crate::case::{Case, Promise};
use crate::run::Result;

pub(super) const CASES: [&str; 2] = ["daemon/idle", "daemon/calls"];

/// How long to wait after the start.
const SETTLED: Duration = Duration::from_secs(3);
/// The measured time: three polls of the cloud and two passes by the timer.
const DURATION: Duration = Duration::from_secs(62);

pub(super) fn measure(programs: &Path) -> Result<Vec<Case>> {
    // One network, as most users have, so that a poll of the cloud is one call.
    let world = World::start(Settings { second_network: SecondNetwork::Absent, ..Settings::default() })?;
    let installation = Installation::in_world(&world, programs)?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    std::thread::sleep(SETTLED);
    eprintln!("daemon: idle for {} s", DURATION.as_secs());
    let (started, before) = (Instant::now(), wake_ups(&daemon)?);
    std::thread::sleep(DURATION);
    let (elapsed, after) = (started.elapsed(), wake_ups(&daemon)?);
    let per_minute = f64::from(after - before) * 60.0 / elapsed.as_secs_f64();
    let calls = calls_an_hour(&world)?;
    Ok(vec![
        Case::of_bastiond("daemon/idle", "wake-ups of all its threads", "a minute", None, vec![per_minute]),
        Case::of_bastiond(
            "daemon/calls",
            "API calls, idle, one network",
            "an hour",
            Some(Promise::AtMost(200.0)),
            vec![calls],
        ),
    ])
}

/// The voluntary context switches of all threads (proc(5)), each of which ends with a wake-up.
fn wake_ups(daemon: &Daemon) -> Result<u32> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{}/task", daemon.pid()))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += count.ok_or("the kernel counts no context switches")?.trim().parse::<u32>()?;
    }
    Ok(sum)
}

/// API calls per hour, from the interval between the first and the last call of the idle time.
fn calls_an_hour(world: &World) -> Result<f64> {
    let calls = world.cloud().requests();
    let idle = calls.iter().map(|call| call.at).filter(|at| at.elapsed().is_ok_and(|ago| ago < DURATION));
    let idle: Vec<_> = idle.collect();
    let (Some(first), Some(last)) = (idle.first(), idle.last()) else { return Err("no call in a minute".into()) };
    let between = last.duration_since(*first)?.as_secs_f64();
    let count = u32::try_from(idle.len() - 1)?;
    Ok(f64::from(count) * 3600.0 / between)
}
