//! Programs of an earlier version, and programs that no daemon needs any more.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::world::{Settings, World};

use super::{UdpFlow, bpf_installation, carried, filters, give_to_nobody, our_filters, serving};
use crate::bpf;
use crate::gateway::{Result, SOON, ensure, ensure_eq, text, trial, wait_for};

pub(super) fn trials() -> [Trial; 2] {
    [
        trial("programs_of_another_version_are_replaced_without_a_lost_packet", replaced),
        trial("down_without_a_daemon_takes_the_fast_path_away_as_the_daemons_account", down_alone),
    ]
}

/// The directories of versions, and the numbers of the programs at the links.
fn versions(world: &World, directory: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let mut names: Vec<String> = std::fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.retain(|name| name != "qdiscs");
    let filters = filters(world)?;
    let mut words = filters.split_whitespace();
    let mut programs = Vec::new();
    while words.any(|word| word == "id") {
        programs.extend(words.next().map(str::to_owned));
    }
    programs.sort();
    Ok((names, programs))
}

/// The programs of the daemon before are planted under the name of another version, as an upgrade finds them: attached
/// and full of flows.
fn replaced() -> Result {
    let world = World::start(Settings::default())?;
    let directory = bpf::loaded("replaced")?;
    let installation = bpf_installation(&world, &directory)?;
    let mut daemon = serving(&installation)?;
    let mut flow = UdpFlow::out(&world)?;
    // Loaded before the new daemon starts, and only when it asks for them.
    for is_early in [true, false] {
        let (names, programs) = versions(&world, &directory)?;
        ensure_eq((names.len(), programs.len()), (1, 4))?;
        daemon.signal(Signal::SIGKILL)?;
        ensure(daemon.wait_for_exit(SOON)?.is_some(), "the daemon ends")?;
        std::fs::rename(directory.join(&names[0]), directory.join("0123456789abcdef"))?;
        if is_early {
            bpf::load(&directory, &[])?;
        }
        daemon = installation.start()?;
        // Not one of these is lost: each is waited for.
        let until = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until {
            flow.exchange(b"while the new daemon starts")?;
        }
        daemon.wait_until_ready();
        if !is_early {
            ensure_eq(our_filters(&world)?, 0)?;
            bpf::load(&directory, &[])?;
        }
        let replaced = || {
            flow.exchange(b"while the programs are replaced")?;
            let (now, others) = versions(&world, &directory)?;
            Ok(now == names && others.len() == 4 && others.iter().all(|program| !programs.contains(program)))
        };
        wait_for("the programs of this version stand alone", SOON, replaced)?;
        for _ in 0..20 {
            flow.exchange(b"carried by the new ones")?;
        }
        ensure(carried(&installation)? > 30, daemon.log())?;
    }
    Ok(())
}

/// As in the package: the directory is the account's, and only root may pass the one above.
fn down_alone() -> Result {
    let world = World::start(Settings::default())?;
    let above = bpf::loaded("down-alone")?;
    let directory = above.join("daemon");
    bpf::load(&directory, &["--owner", "nobody"])?;
    let installation = bpf_installation(&world, &directory)?;
    let mut daemon = serving(&installation)?;
    ensure_eq(our_filters(&world)?, 4)?;
    daemon.signal(Signal::SIGKILL)?;
    ensure(daemon.wait_for_exit(SOON)?.is_some(), "the daemon ends")?;
    std::fs::set_permissions(&above, Permissions::from_mode(0o700))?;
    give_to_nobody(installation.config_path().parent().unwrap_or(Path::new("/nonexistent")))?;
    give_to_nobody(&directory)?;
    let down = installation.ctl(&["down"])?;
    ensure(down.status.success(), text(&down.stderr))?;
    ensure_eq(our_filters(&world)?, 0)?;
    ensure_eq(std::fs::read_dir(&directory)?.count(), 0)?;
    let qdiscs = text(&world.bastion().command("tc").args(["qdisc", "show", "dev", "eth0"]).output()?.stdout);
    ensure(!qdiscs.contains("clsact"), qdiscs)
}
