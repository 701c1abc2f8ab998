//! What the tests share: a world, a daemon on its bastion, and the questions that are asked of both.

use std::path::Path;
use std::time::Duration;

use bastiond::outcome::{ComponentName, State};
use bastiond::report::Report;
use libtest_mimic::Trial;
use sandbox::daemon::{Daemon, Installation};
use sandbox::world::World;

pub(crate) use crate::shared::{
    Egress, NEVER, Result, SOON, Server, egress, ensure, ensure_eq, is_shut, open, text, wait_for,
};

/// What the daemon promises for everything in the kernel.
pub(crate) const REPAIR: Duration = Duration::from_secs(2);

/// A test named as a sentence.
pub(crate) fn trial(name: &'static str, test: fn() -> Result) -> Trial {
    Trial::test(name, test)
}

/// Where cargo put `bastiond` and `bastionctl`.
pub(crate) fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bastiond")).parent().expect("a program lies in a directory")
}

/// Fast polls, as a test has no 20 seconds.
pub(crate) const FAST: &str = "[hcloud]\npoll_interval = \"1s\"\n";

/// A installation whose daemon polls fast.
pub(crate) fn installation(world: &World) -> Result<Installation<'_>> {
    let installation = Installation::in_world(world, programs())?;
    installation.write_config(FAST)?;
    Ok(installation)
}

/// Whether every room stands.
pub(crate) fn all_stand(installation: &Installation<'_>) -> Result<bool> {
    Ok(report(installation)?.components.values().all(|room| room.state == State::Ok))
}

/// The gateways of the routes in the private network.
pub(crate) fn gateways(world: &World) -> Vec<std::net::Ipv4Addr> {
    world.cloud().routes(world.private_network_id()).iter().map(|route| route.gateway).collect()
}

/// A daemon that is ready, and whose every room stands.
pub(crate) fn healthy(installation: &Installation<'_>) -> Result<Daemon> {
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    wait_for("every room stands", SOON, || all_stand(installation))
        .map_err(|error| format!("{}\n{}", error.message().unwrap_or_default(), daemon.log()))?;
    Ok(daemon)
}

/// The daemon's account.
pub(crate) fn report(installation: &Installation<'_>) -> Result<Report> {
    let output = installation.ctl(&["status", "--json"])?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}{}", text(&output.stdout), text(&output.stderr)).into())
}

/// How a room stands.
pub(crate) fn room(installation: &Installation<'_>, room: ComponentName) -> Result<bastiond::report::ComponentReport> {
    let report = report(installation)?;
    report.components.get(&room).cloned().ok_or_else(|| format!("no room {room} in {report:?}").into())
}

/// The text of one table without what changes by itself.
pub(crate) fn table(world: &World, table: &str) -> Result<String> {
    Ok(text(&world.bastion().command("nft").args(["-s", "list", "table"]).args(table.split(' ')).output()?.stdout))
}
