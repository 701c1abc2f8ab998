//! `bastionctl plan` while a daemon runs: which file it plans, and what it tells.

use std::path::Path;
use std::process::Output;

use libtest_mimic::Trial;
use sandbox::daemon::Installation;
use sandbox::world::{Settings, World};
use serde_json::{Value, json};

use crate::gateway::{FAST, Result, ensure, ensure_eq, healthy, installation, programs, report, table, text, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_candidate_is_planned_beside_the_running_configuration", candidate),
        trial("a_candidate_that_is_wrong_or_missing_is_reported_as_such", wrong_candidates),
        trial("a_plan_has_the_problems_that_the_gateway_would_have", problems_before),
        trial("a_file_that_is_no_regular_file_hangs_neither_the_check_nor_the_daemon", no_regular_file),
    ]
}

/// `bastionctl` with the daemon's directories and a file that need not be the daemon's.
fn ctl(installation: &Installation<'_>, world: &World, file: Option<&Path>, arguments: &[&str]) -> Result<Output> {
    let command = world.bastion().command(&programs().join("bastionctl").to_string_lossy());
    let mut command = command
        .env("RUNTIME_DIRECTORY", installation.runtime_directory())
        .env("STATE_DIRECTORY", installation.state_directory())
        .env("HCLOUD_ENDPOINT", world.api_endpoint());
    if let Some(file) = file {
        command = command.args(["--config".as_ref(), file.as_os_str()]);
    }
    Ok(command.args(arguments).output()?)
}

const WEB: &str = "[[nat.forward]]\nname = \"web\"\nport = 443\nto = \"10.0.0.4\"\n";

fn candidate() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let rules = table(&world, "inet bastiond")?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("candidate.toml");
    // The peer's file is beside the candidate, where the daemon knows nothing of it.
    std::fs::create_dir(directory.path().join("peers.d"))?;
    let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    std::fs::write(
        directory.path().join("peers.d/ada.toml"),
        format!("public_key = \"{key}\"\nallowed_ips = [\"10.100.0.2/32\"]\n"),
    )?;
    let narrow = "[firewall]\nssh_from = [\"192.0.2.7\"]\n[wireguard]\naddresses = [\"10.100.0.1/24\"]\n";
    std::fs::write(&file, format!("{FAST}{WEB}{narrow}"))?;
    let planned = ctl(&installation, &world, Some(&file), &["plan", "--exit-code"])?;
    let said = text(&planned.stdout);
    for line in [
        "+ forward tcp 443 -> 10.0.0.4 \"web\"",
        "- ssh from 0.0.0.0/0",
        "+ ssh from 192.0.2.7/32",
        "+ tunnel wg0",
        &format!("+ peer \"ada\" {key} [10.100.0.2/32]"),
    ] {
        ensure(said.lines().any(|found| found == line), format!("`{line}` is not in the plan:\n{said}"))?;
    }
    ensure_eq(planned.status.code(), Some(2))?;
    let output = ctl(&installation, &world, Some(&file), &["plan", "--json"])?;
    let json: Value = serde_json::from_slice(&output.stdout)?;
    ensure_eq(&json["changes"][0], &json!({"kind": "added", "what": "forward tcp 443 -> 10.0.0.4 \"web\""}))?;
    ensure_eq((&json["path"], &json["complete"]), (&json!(file), &json!(true)))?;
    // The running configuration is that of the daemon's own file, with and without --config.
    for own in [None, Some(installation.config_path())] {
        let planned = ctl(&installation, &world, own.as_deref(), &["plan", "--exit-code"])?;
        ensure_eq((text(&planned.stdout), planned.status.code()), ("nothing to do\n".to_owned(), Some(0)))?;
    }
    ensure_eq(table(&world, "inet bastiond")?, rules)?;
    ensure_eq(report(&installation)?.refused_configuration, Vec::new())
}

fn wrong_candidates() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("broken.toml"), "[firewall]\nssh_form = []\n")?;
    std::fs::write(at("huge.toml"), "#".repeat(17 * 1024 * 1024))?;
    nix::unistd::mkfifo(&at("pipe.toml"), nix::sys::stat::Mode::S_IRWXU)?;
    for (name, reason) in [
        ("broken.toml", "firewall.ssh_form: unknown key; did you mean `firewall.ssh_from`?"),
        ("missing.toml", "missing.toml: No such file or directory"),
        ("huge.toml", "the file has more than 16777216 bytes"),
        ("pipe.toml", "it is a pipe, not a regular file"),
        ("", "it is a directory, not a regular file"),
    ] {
        for arguments in [&["plan"][..], &["plan", "--exit-code"], &["check"]] {
            let output = ctl(&installation, &world, Some(&at(name)), arguments)?;
            let said = text(&output.stderr);
            ensure_eq(output.status.code(), Some(78)).map_err(|error| format!("{name} {arguments:?}: {error:?}"))?;
            ensure(said.contains(reason), format!("{name}: {said}"))?;
            ensure(output.stdout.is_empty(), text(&output.stdout))?;
        }
    }
    Ok(())
}

fn problems_before() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("candidate.toml");
    let gateway = "203.0.113.9";
    std::fs::write(
        &file,
        format!(
            "[[nat.forward]]\nport = 443\nto = \"10.9.0.4\"\n[[nat.static]]\npublic = \"{gateway}\"\nprivate = \
             \"10.0.0.4\"\n[hcloud]\npoll_interval = \"1s\"\ndestinations = [\"0.0.0.0/0\", \"10.0.0.0/24\"]\n"
        ),
    )?;
    let planned = ctl(&installation, &world, Some(&file), &["plan"])?;
    let said = text(&planned.stdout);
    for problem in [
        "nat.forward[0].to: 10.9.0.4 is in no private network of this server, so nothing is forwarded to it",
        "nat.static[0].public: eth0 does not have 203.0.113.9",
        "10.0.0.0/24 via 10.0.0.2 overlaps the subnet",
    ] {
        ensure(said.contains(&format!("problem: {problem}")), format!("`{problem}` is not in the plan:\n{said}"))?;
    }
    ensure_eq(planned.status.code(), Some(1))?;
    ensure_eq(ctl(&installation, &world, Some(&file), &["plan", "--exit-code"])?.status.code(), Some(2))
}

fn no_regular_file() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    let peers = installation.config_path().with_file_name("peers.d");
    std::fs::create_dir(&peers)?;
    nix::unistd::mkfifo(&peers.join("bob.toml"), nix::sys::stat::Mode::S_IRWXU)?;
    let reason = "peers.d/bob.toml: cannot read the file: it is a pipe, not a regular file";
    let check = installation.ctl(&["check"])?;
    ensure(text(&check.stderr).contains(reason), text(&check.stderr))?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    crate::gateway::wait_for("the reload is refused", crate::gateway::SOON, || {
        let refused = report(&installation)?.refused_configuration;
        Ok(refused.iter().any(|line| line == reason))
    })?;
    Ok(())
}
