//! Wrong or missing input is reported, and nothing stops working.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bastiond::internals::outcome::{ComponentName, State};
use libtest_mimic::Trial;
use sandbox::daemon::Installation;
use sandbox::world::{Metadata, PublicAddress, Settings, World, addresses as at};

use crate::gateway::{
    FAST, Result, SOON, Server, component, egress, ensure, ensure_eq, gateways, healthy, installation, open, programs,
    report, table, text, trial, wait_for, wait_until_ok,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_wrong_configuration_is_reported_completely_and_changes_nothing", wrong_configuration),
        trial("a_missing_configured_interface_is_reported", missing_interface),
        trial("the_daemon_waits_for_the_address_of_the_public_interface", no_public_address),
        trial("without_nft_nothing_is_forwarded_and_the_problem_is_reported", no_nft),
        trial("a_complete_configuration_works_without_metadata", no_metadata),
        trial("without_metadata_and_configuration_the_daemon_waits_and_reports_it", nothing_known),
        trial("status_reports_that_no_daemon_is_running", no_daemon),
        trial("read_only_settings_are_reported", read_only_settings),
        trial("rules_that_nft_refuses_leave_the_loaded_ones_unchanged", refused_rules),
        trial("services_that_share_ports_are_all_open", shared_ports),
        trial("forwarding_that_we_enabled_is_disabled_when_the_rules_are_gone_and_cannot_be_loaded", broken_nft),
        trial("wrong_arguments_exit_like_other_failures", wrong_arguments),
        trial("an_operator_without_permission_gets_an_error_and_nothing_runs_beside_the_daemon", no_rights),
    ]
}

fn wrong_configuration() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    installation
        .write_config("colour = 1\n[firewall]\nssh_from = [\"10.0.0.1/8\"]\n[hcloud]\ntake_over = \"yes\"\n")?;
    let mut daemon = installation.start()?;
    ensure_eq(daemon.wait_for_exit(SOON)?.and_then(|status| status.code()), Some(78))?;
    for key in ["colour:", "firewall.ssh_from[0]:", "hcloud.take_over:"] {
        ensure(daemon.log().contains(key), format!("{key} is not reported:\n{}", daemon.log()))?;
    }
    let check = installation.ctl(&["check"])?;
    ensure_eq(check.status.code(), Some(78))?;
    ensure(text(&check.stderr).contains("colour:"), text(&check.stderr))?;
    ensure_eq(table(&world, "inet bastiond")?, String::new())?;
    ensure_eq(world.bastion().read_sysctl("net.ipv4.ip_forward")?, "0".to_owned())?;
    ensure_eq(world.cloud().requests(), vec![])?;
    installation.write_config(FAST)?;
    ensure_eq(installation.ctl(&["check"])?.status.code(), Some(0))
}

fn missing_interface() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[site]\npublic_interface = \"eth9\""))?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let report = report(&installation)?;
    let problem = &report.components[&ComponentName::Site].problems[0];
    ensure_eq(problem.what.as_str(), "site.public_interface: there is no interface eth9")?;
    ensure_eq(problem.advice.as_str(), "the interfaces here are: eth0, eth1, eth2")?;
    let states = [ComponentName::Site, ComponentName::Nat, ComponentName::Hcloud]
        .map(|component| report.components[&component].state);
    ensure_eq(states, [State::Waiting, State::Waiting, State::HeldBack])?;
    // Nothing is forwarded, but the bastion itself is reachable.
    let rules = table(&world, "inet bastiond")?;
    ensure(rules.contains("policy drop") && rules.contains("ssh_ports") && !rules.contains("snat ip to"), rules)?;
    ensure_eq(world.bastion().read_sysctl("net.ipv4.ip_forward")?, "0".to_owned())
}

fn no_public_address() -> Result {
    let world = World::start(Settings { public_address: PublicAddress::Pending, ..Settings::default() })?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[site]\npublic_interface = \"eth0\""))?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let site = component(&installation, ComponentName::Site)?;
    ensure_eq((site.state, site.problems[0].what.as_str()), (State::Waiting, "eth0 has no IPv4 address yet"))?;
    ensure_eq(component(&installation, ComponentName::Hcloud)?.state, State::HeldBack)?;
    ensure_eq(world.cloud().routes(world.private_network_id()).len(), 0)?;
    world.configure_public_address()?;
    wait_until_ok("the address is taken up", Duration::from_secs(4), &installation)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

/// Programs whose bastiond runs in a mount namespace of its own, after `prepare` (a line of shell) has changed
/// something there.
fn spoiled_programs(prepare: &str) -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let (outer, inner) = (directory.path().join("bastiond"), directory.path().join("inner"));
    std::fs::write(&outer, format!("#!/bin/sh\nexec unshare --mount sh {} \"$@\"\n", inner.display()))?;
    let daemon = programs().join("bastiond");
    std::fs::write(&inner, format!("set -e\n{prepare}\nexec {} \"$@\"\n", daemon.display()))?;
    std::fs::set_permissions(&outer, std::fs::Permissions::from_mode(0o755))?;
    std::os::unix::fs::symlink(programs().join("bastionctl"), directory.path().join("bastionctl"))?;
    Ok(directory)
}

/// Hides nft from one daemon, in every directory where it may be.
fn without_nft() -> Result<tempfile::TempDir> {
    spoiled_programs(
        "for nft in $(command -v nft) /usr/sbin/nft /sbin/nft /usr/bin/nft; do
             if [ -f $nft ]; then mount --bind /dev/null $nft; fi
         done",
    )
}

fn no_nft() -> Result {
    let world = World::start(Settings::default())?;
    let programs = without_nft()?;
    let installation = Installation::in_world(&world, programs.path())?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let nat = component(&installation, ComponentName::Nat)?;
    ensure_eq(nat.state, State::Failed)?;
    ensure(nat.problems[0].what.starts_with("the program nft was not found"), format!("{:?}", nat.problems))?;
    ensure_eq(nat.problems[0].advice.as_str(), "install it: apt install nftables")?;
    ensure_eq(component(&installation, ComponentName::Hcloud)?.state, State::HeldBack)?;
    ensure_eq(world.bastion().read_sysctl("net.ipv4.ip_forward")?, "0".to_owned())?;
    ensure_eq(world.cloud().routes(world.private_network_id()).len(), 0)
}

fn no_metadata() -> Result {
    let world = World::start(Settings { metadata: Metadata::Absent, ..Settings::default() })?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    installation.write_config(&format!(
        "{FAST}[site]\npublic_interface = \"eth0\"\nserver_id = {}\n\
         [[site.private]]\ninterface = \"eth1\"\nnetwork = \"10.0.0.0/16\"\nnetwork_id = {}\n\
         [[site.private]]\ninterface = \"eth2\"\nnetwork = \"10.2.0.0/16\"\nnetwork_id = {}\n",
        world.bastion_id(),
        world.private_network_id(),
        world.second_network_id()
    ))?;
    let _daemon = healthy(&installation)?;
    for host in [world.web(), world.tenant()] {
        ensure_eq(egress(host, &server, SOON)?, open())?;
    }
    Ok(())
}

fn nothing_known() -> Result {
    let world = World::start(Settings { metadata: Metadata::Absent, ..Settings::default() })?;
    let installation = installation(&world)?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let site = component(&installation, ComponentName::Site)?;
    ensure_eq(site.state, State::Waiting)?;
    ensure(
        site.problems[0].what.starts_with("the metadata service does not answer: cannot fetch http://169.254.169.254/"),
        format!("{:?}", site.problems),
    )?;
    // Nothing is forwarded, but the operator can log in.
    ensure(table(&world, "inet bastiond")?.contains("policy drop"), "no rules stand")?;
    world.serve_metadata()?;
    wait_until_ok("the metadata is taken up", Duration::from_secs(8), &installation)?;
    ensure_eq(gateways(&world), vec![at::BASTION_PRIVATE])
}

fn no_daemon() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let output = installation.ctl(&["status"])?;
    ensure_eq(output.status.code(), Some(3))?;
    ensure(text(&output.stderr).contains("no bastiond answers on"), text(&output.stderr))
}

fn read_only_settings() -> Result {
    let world = World::start(Settings::default())?;
    // As in a container: /proc/sys is read-only.
    let programs = spoiled_programs("mount --bind /proc/sys /proc/sys\nmount -o remount,bind,ro /proc/sys")?;
    let installation = Installation::in_world(&world, programs.path())?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let cases = [
        (ComponentName::Sysctl, "cannot set net/ipv4/conf/all/send_redirects to 0: "),
        (ComponentName::Forwarding, "cannot set net/ipv4/ip_forward to 1: "),
    ];
    for (name, what) in cases {
        let component = component(&installation, name)?;
        ensure_eq(component.state, State::Failed)?;
        let is_named = component.problems.iter().any(|problem| problem.what.starts_with(what));
        ensure(is_named, format!("{:?}", component.problems))?;
    }
    // The rules are loaded, and no cloud route attracts traffic that cannot be forwarded.
    ensure_eq(component(&installation, ComponentName::Nat)?.state, State::Ok)?;
    ensure_eq(component(&installation, ComponentName::Hcloud)?.state, State::HeldBack)
}

fn broken_nft() -> Result {
    let world = World::start(Settings::default())?;
    let programs = without_nft()?;
    let forwards = || -> Result<bool> { Ok(world.bastion().read_sysctl("net.ipv4.ip_forward")? == "1") };
    // After a good start, a daemon without nft keeps the loaded rules and forwarding.
    let good = installation(&world)?;
    drop(healthy(&good)?);
    let spoiled = good.with_programs(programs.path());
    let mut daemon = spoiled.start()?;
    daemon.wait_until_ready();
    ensure_eq((component(&spoiled, ComponentName::Nat)?.state, forwards()?), (State::Failed, true))?;
    // Now the rules are deleted, and cannot be loaded again.
    world.bastion().nft("delete table inet bastiond")?;
    wait_for("forwarding is off", SOON, || Ok(!forwards()?))?;
    drop(daemon);
    let server = Server::start(&world)?;
    let _daemon = healthy(&spoiled.with_programs(self::programs()))?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

/// An nft that refuses every script with port 4711.
pub(crate) const PICKY: &str = r#"#!/bin/sh
case "$*" in *-f*) ;; *) exec /usr/sbin/nft "$@" ;; esac
input=$(cat)
case "$input" in *4711*) echo "Error: Could not process rule: File exists" >&2; exit 1 ;; esac
printf '%s' "$input" | /usr/sbin/nft "$@"
"#;

fn refused_rules() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let directory = tempfile::tempdir()?;
    let nft = directory.path().join("nft");
    std::fs::write(&nft, PICKY)?;
    std::fs::set_permissions(&nft, std::fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", directory.path().display());
    let installation = installation(&world)?.env("PATH", &path);
    let daemon = healthy(&installation)?;
    let before = table(&world, "inet bastiond")?;
    installation.write_config(&format!("{FAST}[[firewall.service]]\nports = [4711]\n"))?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait_for("the refusal is reported", SOON, || {
        Ok(component(&installation, ComponentName::Nat)?.state == State::Failed)
    })?;
    std::thread::sleep(Duration::from_secs(1));
    ensure_eq(table(&world, "inet bastiond")?, before)?;
    let tables: serde_json::Value = world.bastion().nft_json("list tables")?;
    ensure_eq(tables.to_string().contains("bastiond_trial"), false)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    installation.write_config(FAST)?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait_until_ok("every component is ok", SOON, &installation)?;
    Ok(())
}

fn shared_ports() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    installation.write_config(&format!(
        "{FAST}[[firewall.service]]\nports = [9100]\nfrom = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n\
         [[firewall.service]]\nprotocol = \"both\"\nports = [\"9100-9200\"]\nfrom = [\"10.0.0.0/16\"]\n\
         [[firewall.service]]\nports = [\"9000-9150\", 9100]\n"
    ))?;
    let _daemon = healthy(&installation)?;
    let rules = table(&world, "inet bastiond")?;
    ensure(rules.contains("9000-9150 . 0.0.0.0/0 . tcp") && rules.contains("9151-9200 . 10.0.0.0/16 . tcp"), rules)
}

fn wrong_arguments() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    ensure_eq(installation.ctl(&["explode"])?.status.code(), Some(64))?;
    ensure_eq(installation.ctl(&["--help"])?.status.code(), Some(0))?;
    ensure_eq(installation.ctl(&["--version"])?.status.code(), Some(0))
}

fn no_rights() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let socket = installation.runtime_directory().join("control.sock");
    // Root has every permission, so the test replaces the socket by a datagram socket.
    std::fs::remove_file(&socket)?;
    let _silent = std::os::unix::net::UnixDatagram::bind(&socket)?;
    for command in ["plan", "down", "status"] {
        let output = installation.ctl(&[command])?;
        ensure_eq(output.status.code(), Some(3))?;
        ensure(text(&output.stderr).contains("bastionctl: cannot ask bastiond on"), text(&output.stderr))?;
    }
    ensure_eq(gateways(&world), vec![at::BASTION_PRIVATE])
}
