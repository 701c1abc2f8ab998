//! Shared functions of the tests: a daemon on the bastion of a world, and checks of both.

use std::panic::catch_unwind;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bastiond::internals::outcome::{ComponentName, State};
use bastiond::internals::report::Report;
use libtest_mimic::Trial;
use sandbox::daemon::{Daemon, Installation};
use sandbox::world::World;

use crate::bpf;
pub(crate) use crate::shared::{
    Egress, NEVER, Result, SOON, Server, egress, ensure, ensure_eq, is_shut, open, text, wait_for,
};

/// The promised time limit of repairs in the kernel.
pub(crate) const REPAIR: Duration = Duration::from_secs(2);

type Test = (&'static str, fn() -> Result);

/// The tests that failed.
static FAILED: Mutex<Vec<Test>> = Mutex::new(Vec::new());

/// A test named as a sentence.
pub(crate) fn trial(name: &'static str, test: fn() -> Result) -> Trial {
    Trial::test(name, move || {
        // A panic has printed its message already.
        let result = catch_unwind(test).unwrap_or_else(|_| Err("the test panicked".into()));
        result.inspect_err(|_| FAILED.lock().unwrap_or_else(PoisonError::into_inner).push((name, test)))
    })
}

/// The kind of tests that run one by one, after all others.
pub(crate) const ALONE: &str = "alone";

/// A test that keeps the machine so busy that others beside it would miss their time limits, or it its own.
pub(crate) fn lone_trial(name: &'static str, test: fn() -> Result) -> Trial {
    trial(name, test).with_kind(ALONE)
}

/// The tests that failed since the last call.
pub(crate) fn failed_trials() -> Vec<Trial> {
    let failed = std::mem::take(&mut *FAILED.lock().unwrap_or_else(PoisonError::into_inner));
    failed.into_iter().map(|(name, test)| trial(name, test)).collect()
}

/// The directory of `bastiond` and `bastionctl`.
pub(crate) fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bastiond")).parent().expect("the path of a program has a directory")
}

/// A configuration with a poll every second instead of every 20 s.
pub(crate) const FAST: &str = "[hcloud]\npoll_interval = \"1s\"\n";

/// An installation with the configuration [`FAST`].
pub(crate) fn installation(world: &World) -> Result<Installation<'_>> {
    let installation = bpf::if_everywhere(Installation::in_world(world, programs())?)?;
    installation.write_config(FAST)?;
    Ok(installation)
}

/// Whether the state of every component is ok.
pub(crate) fn all_components_ok(installation: &Installation<'_>) -> Result<bool> {
    Ok(report(installation)?.components.values().all(|component| component.state == State::Ok))
}

/// Waits until the state of every component is ok. The error names those that are not.
pub(crate) fn wait_until_ok(what: &str, limit: Duration, installation: &Installation<'_>) -> Result<Duration> {
    wait_for(what, limit, || all_components_ok(installation)).map_err(|error| {
        let missed = error.message().unwrap_or_default().to_owned();
        match report(installation) {
            Ok(report) => format!("{missed}; {}", report.status_line()).into(),
            Err(error) => format!("{missed}; {}", error.message().unwrap_or_default()).into(),
        }
    })
}

/// The gateways of the routes in the private network.
pub(crate) fn gateways(world: &World) -> Vec<std::net::Ipv4Addr> {
    world.cloud().routes(world.private_network_id()).iter().map(|route| route.gateway).collect()
}

/// Starts a daemon and waits until it is ready and every component is ok.
pub(crate) fn healthy(installation: &Installation<'_>) -> Result<Daemon> {
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    wait_until_ok("every component is ok", SOON, installation)
        .map_err(|error| format!("{}\n{}", error.message().unwrap_or_default(), daemon.log()))?;
    Ok(daemon)
}

/// The daemon's report.
pub(crate) fn report(installation: &Installation<'_>) -> Result<Report> {
    let output = installation.ctl(&["status", "--json"])?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}{}", text(&output.stdout), text(&output.stderr)).into())
}

/// The report of one component.
pub(crate) fn component(
    installation: &Installation<'_>,
    component: ComponentName,
) -> Result<bastiond::internals::report::ComponentReport> {
    let report = report(installation)?;
    report.components.get(&component).cloned().ok_or_else(|| format!("no component {component} in {report:?}").into())
}

/// The kernel routes of the daemon, a line each, without those of the probes (`198.19.239.0/24`).
pub(crate) fn our_routes(world: &World) -> Result<String> {
    let routes = world.bastion().ip("route show proto 98")?;
    let others: Vec<&str> = routes.lines().map(str::trim).filter(|route| !route.starts_with("198.19.239.")).collect();
    Ok(others.join("\n"))
}

/// nft's listing of one table without its state, such as counters.
pub(crate) fn table(world: &World, table: &str) -> Result<String> {
    let output = world.bastion().command("nft").args(["-s", "list", "table"]).args(table.split(' ')).output()?;
    Ok(without_what_packets_put(&text(&output.stdout)))
}

/// A listing without the elements of the sets that rules fill: packets of probes come and go.
fn without_what_packets_put(listing: &str) -> String {
    let (mut kept, mut is_filled_by_rules, mut is_in_elements) = (String::new(), false, false);
    for line in listing.lines() {
        let text = line.trim_start();
        match text {
            _ if text.starts_with("set ") || text.starts_with("map ") => is_filled_by_rules = false,
            _ if text.starts_with("flags dynamic") => is_filled_by_rules = true,
            _ if text.starts_with("elements = ") => is_in_elements = is_filled_by_rules,
            _ => {}
        }
        if !is_in_elements {
            kept.push_str(line);
            kept.push('\n');
        }
        is_in_elements &= !text.ends_with('}');
    }
    kept
}
