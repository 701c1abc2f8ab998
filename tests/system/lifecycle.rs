//! The package's life cycle: installation, upgrade, downgrade, removal, purge and reinstallation, and what each leaves.

use std::collections::BTreeSet;
use std::fs;

use libtest_mimic::Trial;
use sandbox::traffic::HeldConnection;

use crate::bastion::{Bastion, CONFIG, TOKEN, UNIT};
use crate::machine::Layers;
use crate::package::Package;
use crate::release::Release;
use crate::shared::{NEVER, Result, SOON, egress, ensure, ensure_eq, is_shut, wait_for};
use crate::trial::{TIMEOUT, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_installed_package_runs_and_starts_at_every_boot", installed),
        trial("an_upgrade_and_a_downgrade_keep_the_edited_configuration", upgraded),
        trial("an_upgrade_with_a_wrong_configuration_keeps_the_running_daemon_and_reports_it", upgraded_wrongly),
        trial("an_upgrade_of_a_stopped_service_does_not_start_it", upgraded_stopped),
        trial("a_reload_of_nftables_before_the_first_reboot_loads_the_rules_again", reloaded_nftables),
        trial("a_removed_package_leaves_configuration_rules_and_traffic", removed),
        trial("a_purged_package_leaves_nothing_behind", purged),
        trial("a_reinstalled_package_continues_with_its_configuration", installed_again),
    ]
}

/// A running machine without the package, with a drop-in for the address of the cloud.
fn plain() -> Result<Bastion> {
    let mut bastion = Bastion::new(&Layers::of(Release::Debian12)?)?;
    bastion.points_to_the_cloud()?;
    bastion.machine.boot()?;
    Ok(bastion)
}

/// Installs a package as apt does in an unattended upgrade.
fn install(bastion: &Bastion, package: &Package) -> Result<String> {
    bastion.machine.write("/root/bastiond.deb", 0o644, fs::read(package.path())?)?;
    let said = bastion.machine.sh("dpkg --force-confdef --force-confold --install /root/bastiond.deb 2>&1")?;
    fs::remove_file(bastion.machine.path("/root/bastiond.deb"))?;
    let version = bastion.machine.run(&["dpkg-query", "--show", "--showformat=${Status} ${Version}", "bastiond"])?;
    ensure_eq(version, format!("install ok installed {}", package.version()))?;
    Ok(said)
}

/// Installs the token and waits until the bastion is healthy.
fn give_token(bastion: &Bastion) -> Result {
    bastion.machine.write(TOKEN, 0o600, bastion.world.token())?;
    bastion.machine.run(&["systemctl", "restart", UNIT])?;
    bastion.becomes_healthy().map(drop)
}

fn is_enabled(bastion: &Bastion, unit: &str) -> Result<String> {
    let output = bastion.machine.try_run(&["systemctl", "is-enabled", unit])?;
    Ok(crate::shared::text(&output.stdout).trim().to_owned())
}

fn installed() -> Result {
    let mut bastion = plain()?;
    install(&bastion, &Package::given()?)?;
    ensure_eq(bastion.machine.property(UNIT, "ActiveState")?.as_str(), "active")?;
    ensure_eq(
        [is_enabled(&bastion, UNIT)?, is_enabled(&bastion, "bastiond-boot.service")?],
        ["enabled", "enabled"].map(str::to_owned),
    )?;
    give_token(&bastion)?;
    bastion.serves()?;
    let owners = bastion.machine.sh("stat --format='%n %U:%G %a' \
         /etc/bastiond /etc/bastiond/config.toml /etc/bastiond/peers.d /var/lib/bastiond /run/bastiond")?;
    let wanted = [
        "/etc/bastiond root:bastiond 750",
        "/etc/bastiond/config.toml root:bastiond 640",
        "/etc/bastiond/peers.d root:bastiond 750",
        "/var/lib/bastiond bastiond:bastiond 700",
        "/run/bastiond bastiond:bastiond 750",
    ];
    ensure_eq(owners.lines().collect::<Vec<_>>(), wanted.to_vec())?;
    // dpkg verifies its files.
    ensure_eq(bastion.machine.run(&["dpkg", "--verify", "bastiond"])?.as_str(), "")?;
    bastion.machine.power_off()?;
    bastion.unplug()?;
    bastion.machine.boot()?;
    bastion.becomes_healthy()?;
    bastion.serves()?;
    ensure_eq(bastion.machine.failed_units()?, Vec::new())
}

fn upgraded() -> Result {
    let bastion = plain()?;
    let given = Package::given()?;
    let config = |text: &'static str| {
        move |tree: &std::path::Path| -> Result { Ok(fs::write(tree.join("etc/bastiond/config.toml"), text)?) }
    };
    let previous = given.changed("~previous", config("# another text\n"))?;
    install(&bastion, &previous)?;
    give_token(&bastion)?;
    let mut held = HeldConnection::open(bastion.world.web(), bastion.internet.tcp.address(), SOON)?;
    let edited = "# edited by its owner\n[firewall]\nssh_attempts = 30\n";
    bastion.machine.write(CONFIG, 0o640, edited)?;
    for package in [&given, &previous, &given.next("+1")?] {
        let pid = bastion.main_pid()?;
        install(&bastion, package)?;
        bastion.becomes_healthy()?;
        ensure(bastion.main_pid()? != pid, format!("the daemon of before runs on after {}", package.version()))?;
        ensure_eq(fs::read_to_string(bastion.machine.path(CONFIG))?.as_str(), edited)?;
        held.exchange(SOON)?;
        bastion.serves()?;
    }
    // There was no automatic restart and no second try.
    ensure_eq((bastion.restarts()?, bastion.machine.failed_units()?), (0, Vec::new()))
}

fn upgraded_wrongly() -> Result {
    let bastion = plain()?;
    let given = Package::given()?;
    install(&bastion, &given)?;
    give_token(&bastion)?;
    let mut held = HeldConnection::open(bastion.world.web(), bastion.internet.tcp.address(), SOON)?;
    // A reload refuses the file, which stays there.
    let good = fs::read_to_string(bastion.machine.path(CONFIG))?;
    bastion.machine.write(CONFIG, 0o640, "[firewall]\nssh_form = [\"10.0.0.0/8\"]\n")?;
    let pid = bastion.main_pid()?;
    let said = install(&bastion, &given.next("+1")?)?;
    ensure(
        said.contains("bastiond: the old daemon keeps running")
            && said.contains("firewall.ssh_form: unknown key")
            && said.contains("systemctl restart bastiond"),
        said,
    )?;
    ensure_eq((bastion.main_pid()?, bastion.restarts()?), (pid, 0))?;
    held.exchange(SOON)?;
    bastion.serves()?;
    ensure_eq(bastion.machine.failed_units()?, Vec::new())?;
    // A file that only root can read is no error, because the permissions are corrected first.
    bastion.machine.write(CONFIG, 0o600, good)?;
    install(&bastion, &given.next("+2")?)?;
    ensure(bastion.main_pid()? != pid, "the daemon of before runs on")?;
    bastion.becomes_healthy()?;
    held.exchange(SOON).map(drop)?;
    bastion.serves()
}

fn upgraded_stopped() -> Result {
    let bastion = plain()?;
    let given = Package::given()?;
    install(&bastion, &given)?;
    give_token(&bastion)?;
    bastion.machine.run(&["bastionctl", "down"])?;
    wait_for("the daemon has ended", SOON, || Ok(bastion.main_pid()? == 0))?;
    let said = install(&bastion, &given.next("+1")?)?;
    ensure(said.contains("has not been started"), said)?;
    bastion.machine.run(&["systemctl", "start", UNIT])?;
    bastion.becomes_healthy()?;
    bastion.machine.run(&["systemctl", "stop", UNIT])?;
    install(&bastion, &given.next("+2")?)?;
    ensure_eq(bastion.machine.property(UNIT, "ActiveState")?.as_str(), "inactive")?;
    // A masked service is not started either, nor one that a policy forbids.
    bastion.machine.run(&["systemctl", "mask", UNIT])?;
    install(&bastion, &given.next("+3")?)?;
    ensure_eq(bastion.machine.property(UNIT, "ActiveState")?.as_str(), "inactive")?;
    bastion.machine.run(&["systemctl", "unmask", UNIT])?;
    bastion.machine.run(&["systemctl", "start", UNIT])?;
    let pid = bastion.main_pid()?;
    bastion.machine.write("/usr/sbin/policy-rc.d", 0o755, "#!/bin/sh\nexit 101\n")?;
    install(&bastion, &given.next("+4")?)?;
    ensure_eq(bastion.main_pid()?, pid)?;
    ensure_eq(bastion.machine.failed_units()?, Vec::new())
}

fn reloaded_nftables() -> Result {
    let bastion = plain()?;
    // Foreign rules, as an operator has them in /etc/nftables.conf.
    bastion.machine.run(&["systemctl", "start", "nftables.service"])?;
    install(&bastion, &Package::given()?)?;
    give_token(&bastion)?;
    ensure_eq(bastion.machine.property("bastiond-boot.service", "ActiveState")?.as_str(), "active")?;
    bastion.machine.run(&["systemctl", "stop", UNIT])?;
    // It returns when the tables are deleted, and then our unit starts.
    bastion.machine.run(&["systemctl", "reload", "nftables.service"])?;
    wait_for("the rules work without a daemon", TIMEOUT, || Ok(bastion.serves().is_ok()))?;
    ensure_eq(bastion.machine.property(UNIT, "ActiveState")?.as_str(), "inactive")
}

fn removed() -> Result {
    let bastion = plain()?;
    install(&bastion, &Package::given()?)?;
    give_token(&bastion)?;
    let mut held = HeldConnection::open(bastion.world.web(), bastion.internet.tcp.address(), SOON)?;
    bastion.machine.run(&["dpkg", "--remove", "bastiond"])?;
    ensure_eq(bastion.machine.try_run(&["systemctl", "is-active", UNIT])?.status.success(), false)?;
    for gone in ["/usr/sbin/bastiond", "/usr/bin/bastionctl", "/usr/lib/systemd/system/bastiond.service"] {
        ensure(!bastion.machine.path(gone).exists(), format!("{gone} is still there"))?;
    }
    for stays in [CONFIG, TOKEN, "/var/lib/bastiond/rules.json"] {
        ensure(bastion.machine.path(stays).exists(), format!("{stays} is gone"))?;
    }
    held.exchange(SOON)?;
    bastion.serves()?;
    ensure_eq(bastion.cloud_routes(), vec!["0.0.0.0/0 via 10.0.0.2".to_owned()])?;
    ensure_eq(bastion.machine.failed_units()?, Vec::new())
}

/// Every file of the disk except temporary ones.
fn files(bastion: &Bastion) -> Result<BTreeSet<String>> {
    let listed = bastion.machine.sh(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /tmp -o -path /var/tmp -o -path /var/log \
         -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/systemd/random-seed \\) -prune -o -print; \
         find /var/lib/dpkg/info /run /var/tmp /tmp -name '*bastion*'",
    )?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Settings, addresses and routes of the machine.
fn network(bastion: &Bastion) -> Result<String> {
    bastion.machine.sh("sysctl --all 2>/dev/null | grep -E -e '^net\\.ipv[46]\\.ip_forward ' \
         -e '^net\\.ipv[46]\\.conf\\..*(forwarding|redirects|rp_filter) ' \
         -e '^net\\.ipv[46]\\.conf\\..*(arp_ignore|accept_ra) ' -e '^net\\.netfilter\\.nf_conntrack_.*timeout'; \
         ip -oneline link show | sed 's/^[0-9]*: //'; ip -4 address show; ip -4 route show table all; nft list ruleset")
}

fn purged() -> Result {
    let bastion = plain()?;
    let before = (files(&bastion)?, network(&bastion)?);
    install(&bastion, &Package::given()?)?;
    give_token(&bastion)?;
    bastion.machine.write("/etc/bastiond/peers.d/ada.toml", 0o640, PEER)?;
    bastion.machine.write(CONFIG, 0o640, crate::load::TUNNEL)?;
    bastion.machine.run(&["systemctl", "reload", UNIT])?;
    bastion.becomes_healthy()?;
    bastion.serves()?;
    bastion.machine.run(&["dpkg", "--purge", "bastiond"])?;
    let after = (files(&bastion)?, network(&bastion)?);
    let left: Vec<_> = after.0.difference(&before.0).collect();
    let gone: Vec<_> = before.0.difference(&after.0).collect();
    ensure(left.is_empty() && gone.is_empty(), format!("left behind: {left:#?}, taken along: {gone:#?}"))?;
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let changed: Vec<_> = lines(&after.1).symmetric_difference(&lines(&before.1)).cloned().collect();
    ensure(changed.is_empty(), format!("another network than before: {changed:#?}"))?;
    ensure_eq(bastion.machine.failed_units()?, Vec::new())?;
    // The user stays, as usual in Debian, so that its id is not reused.
    ensure(
        bastion.machine.run(&["getent", "passwd", "bastiond"])?.contains("nologin"),
        "the user is gone or may log in",
    )?;
    // Nothing is forwarded without our rules.
    ensure(is_shut(&egress(bastion.world.web(), &bastion.internet, NEVER)?), "something passes without us")
}

const PEER: &str = "public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nallowed_ips = [\"10.100.0.2/32\"]\n";

fn installed_again() -> Result {
    let bastion = plain()?;
    let package = Package::given()?;
    install(&bastion, &package)?;
    give_token(&bastion)?;
    let edited = "# edited by its owner\n";
    bastion.machine.write(CONFIG, 0o640, edited)?;
    bastion.machine.run(&["dpkg", "--remove", "bastiond"])?;
    install(&bastion, &package)?;
    bastion.becomes_healthy()?;
    bastion.serves()?;
    ensure_eq(fs::read_to_string(bastion.machine.path(CONFIG))?.as_str(), edited)?;
    bastion.machine.run(&["dpkg", "--purge", "bastiond"])?;
    install(&bastion, &package)?;
    give_token(&bastion)?;
    bastion.serves()?;
    ensure(fs::read_to_string(bastion.machine.path(CONFIG))? != edited, "a purge left the configuration")?;
    ensure_eq(
        [is_enabled(&bastion, UNIT)?, is_enabled(&bastion, "bastiond-boot.service")?],
        ["enabled", "enabled"].map(str::to_owned),
    )?;
    ensure_eq(bastion.machine.failed_units()?, Vec::new())
}
