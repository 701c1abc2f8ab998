//! A start with a file that is wrong, unreadable or missing.

use std::os::unix::fs::PermissionsExt as _;

use bastiond::internals::report::Health;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::traffic;
use sandbox::world::{Laptop, Settings, World, addresses as at};

use crate::gateway::{
    FAST, NEVER, Result, SOON, Server, egress, ensure, ensure_eq, healthy, installation, open, report, text, trial,
    wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_restart_with_a_wrong_or_missing_file_runs_the_configuration_that_was_applied_last", restart),
        trial("a_start_that_never_had_a_configuration_takes_a_missing_file_for_an_empty_one", never_had_one),
        trial("a_configuration_that_nft_refuses_is_not_kept", refused_rules),
    ]
}

/// SSH for one administrator only, and a tunnel.
const NARROW: &str = "[firewall]\nssh_from = [\"192.0.2.7\"]\n[wireguard]\ninterface = \"wg-good\"\naddresses = \
                      [\"10.100.0.1/24\"]\n[[wireguard.peer]]\npublic_key = \
                      \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nallowed_ips = [\"10.100.0.2\"]\n";

/// Makes the configuration file unusable.
type Spoil<'a> = dyn Fn() -> std::io::Result<()> + 'a;

fn restart() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    let server = Server::start(&world)?;
    let _sshd = traffic::Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    let installation = installation(&world)?;
    let good = format!("{FAST}{NARROW}");
    installation.write_config(&good)?;
    let mut daemon = healthy(&installation)?;
    let kept = installation.state_directory().join("last-good.json");
    ensure_eq(std::fs::metadata(&kept)?.permissions().mode() & 0o777, 0o600)?;
    let file = installation.config_path();
    let wrong: [(&str, &str, &Spoil<'_>); 3] = [
        ("the file is wrong", "firewall.ssh_form: unknown key", &|| {
            std::fs::write(&file, "[firewall]\nssh_form = []\n")
        }),
        ("the file is wrong", "No such file or directory", &|| std::fs::remove_file(&file)),
        ("the file is wrong", "it is a directory, not a regular file", &|| std::fs::create_dir(&file)),
    ];
    for (which, reason, spoil) in wrong {
        daemon.signal(Signal::SIGTERM)?;
        daemon.wait_for_exit(SOON)?;
        spoil()?;
        daemon = installation.start()?;
        daemon.wait_until_ready();
        wait_for("the tunnel stands", SOON, || Ok(report(&installation)?.tunnel.is_some()))?;
        let report = report(&installation)?;
        ensure_eq(report.health, Health::Degraded)?;
        ensure(report.refused_configuration.iter().any(|line| line.contains(reason)), format!("{report:?}"))?;
        let status = text(&installation.ctl(&["status"])?.stdout);
        ensure(status.contains("running the configuration of 2") && status.contains(which), status)?;
        ensure(daemon.log().contains(reason), daemon.log())?;
        let check = text(&installation.ctl(&["check"])?.stderr);
        ensure(check.contains("with this file a start uses the configuration of 2"), check)?;
        // Neither opened to everybody nor closed for the administrator.
        ensure(traffic::tcp_connects(world.server(), (at::BASTION, 22), NEVER).is_err(), "SSH is open to everyone")?;
        ensure_eq(traffic::tcp_connects(world.laptop(), (at::BASTION, 22), SOON), Ok(()))?;
        ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    }
    std::fs::remove_dir(&file)?;
    installation.write_config(&good)?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("the file is taken over", SOON, || {
        let report = report(&installation)?;
        Ok(report.fallback.is_none() && report.refused_configuration.is_empty())
    })?;
    Ok(())
}

fn never_had_one() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    std::fs::remove_file(installation.config_path())?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let status = text(&installation.ctl(&["status"])?.stdout);
    ensure(status.contains("running with an empty configuration, there is no file"), status)?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait_for_exit(SOON)?;
    // What the state directory holds says that there was a configuration, so nothing is opened now.
    std::fs::remove_file(installation.state_directory().join("last-good.json"))?;
    let mut daemon = installation.start()?;
    ensure_eq(daemon.wait_for_exit(SOON)?.and_then(|status| status.code()), Some(78))
}

fn refused_rules() -> Result {
    let world = World::start(Settings::default())?;
    let directory = tempfile::tempdir()?;
    let nft = directory.path().join("nft");
    std::fs::write(&nft, crate::bad_input::PICKY)?;
    std::fs::set_permissions(&nft, std::fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", directory.path().display());
    let installation = installation(&world)?.env("PATH", &path);
    let daemon = healthy(&installation)?;
    let kept = || std::fs::read_to_string(installation.state_directory().join("last-good.json"));
    let before = kept()?;
    installation.write_config(&format!("{FAST}[[firewall.service]]\nports = [4711]\n"))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("the refusal is reported", SOON, || Ok(report(&installation)?.health == Health::Degraded))?;
    std::thread::sleep(NEVER);
    ensure_eq(kept()?, before)
}
