//! Operations on the service: status, reload, restart, stop, and reading its journal.

use std::time::Duration;

use libtest_mimic::Trial;
use sandbox::traffic::HeldConnection;
use serde_json::Value;

use crate::bastion::{Bastion, CONFIG, TOKEN, UNIT};
use crate::shared::{Result, SOON, ensure, ensure_eq, text, wait_for};
use crate::trial::{TIMEOUT, print_measurement, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_installed_bastion_serves_after_its_first_boot", first_boot),
        trial("a_reload_applies_the_new_configuration_in_the_same_process", reload),
        trial("a_refused_reload_is_reported_and_the_old_configuration_stays", refused_reload),
        trial("a_stopped_service_leaves_rules_forwarding_and_routes", stop),
        trial("a_wrong_configuration_is_replaced_by_the_last_one_and_without_one_exits_with_78", wrong_configuration),
        trial("the_journal_has_the_structured_fields", journal),
        trial("a_configuration_that_only_root_can_read_is_loaded", private_configuration),
        trial("permissions_of_preshared_keys_and_the_token_are_corrected_and_no_others", secrets),
        trial("without_a_token_the_service_runs_and_reports_what_is_missing", no_token),
    ]
}

fn first_boot() -> Result {
    let mut bastion = Bastion::installed("")?;
    let boot = bastion.machine.boot()?;
    let healthy = bastion.becomes_healthy()?;
    print_measurement("boot", format!("{boot:?}, healthy {healthy:?} later"));
    bastion.serves()?;
    ensure_eq(bastion.machine.failed_units()?, Vec::new())?;
    let status = bastion.machine.run(&["systemctl", "status", UNIT])?;
    ensure(status.contains("Active: active (running)") && status.contains("Status: \"healthy; public eth0"), &*status)?;
    // As an ordinary user.
    let uid = bastion.machine.sh(&format!("stat --format=%U /proc/{}", bastion.main_pid()?))?;
    ensure_eq(uid.trim(), "bastiond")
}

/// A configuration with a service that the input chain accepts.
const SERVICE: &str = "[[firewall.service]]\nports = [9100]\n";

fn lets_in_9100(bastion: &Bastion) -> Result<bool> {
    Ok(bastion.machine.run(&["nft", "list", "table", "inet", "bastiond"])?.contains("9100"))
}

fn reload() -> Result {
    let bastion = Bastion::healthy("")?;
    let mut held = HeldConnection::open(bastion.world.web(), bastion.internet.tcp.address(), SOON)?;
    let pid = bastion.main_pid()?;
    ensure(!lets_in_9100(&bastion)?, "the port is open before")?;
    bastion.configure(SERVICE)?;
    bastion.machine.run(&["systemctl", "reload", UNIT])?;
    wait_for("the new rules are loaded", SOON, || lets_in_9100(&bastion))?;
    held.exchange(SOON)?;
    ensure_eq((bastion.main_pid()?, bastion.restarts()?), (pid, 0))
}

fn refused_reload() -> Result {
    let bastion = Bastion::healthy(SERVICE)?;
    let pid = bastion.main_pid()?;
    bastion.configure("[firewall]\nssh_form = [\"10.0.0.0/8\"]\n")?;
    let output = bastion.machine.try_run(&["systemctl", "reload", UNIT])?;
    ensure(!output.status.success(), "systemctl says that a wrong file was loaded")?;
    wait_for("the status reports it", SOON, || {
        Ok(bastion
            .report()?
            .refused_configuration
            .iter()
            .any(|reason| reason.contains("firewall.ssh_form: unknown key")))
    })?;
    ensure_eq((bastion.main_pid()?, bastion.restarts()?, lets_in_9100(&bastion)?), (pid, 0, true))?;
    bastion.serves()?;
    let status = text(&bastion.machine.try_run(&["systemctl", "status", UNIT])?.stdout);
    ensure(status.contains("degraded") && status.contains("Active: active (running)"), &*status)?;
    bastion.configure("")?;
    bastion.machine.run(&["systemctl", "reload", UNIT])?;
    bastion.becomes_healthy()?;
    ensure_eq((bastion.main_pid()?, lets_in_9100(&bastion)?), (pid, false))
}

fn stop() -> Result {
    let bastion = Bastion::healthy("")?;
    let mut held = HeldConnection::open(bastion.world.web(), bastion.internet.tcp.address(), SOON)?;
    let rules = || bastion.machine.run(&["nft", "--stateless", "list", "table", "inet", "bastiond"]);
    let state = || -> Result<_> { Ok((bastion.network().read_sysctl("net.ipv4.ip_forward")?, bastion.cloud_routes())) };
    let (before, had) = (chains(&rules()?), state()?);
    bastion.machine.run(&["systemctl", "stop", UNIT])?;
    ensure_eq(bastion.machine.property(UNIT, "ActiveState")?.as_str(), "inactive")?;
    ensure_eq(bastion.machine.property(UNIT, "Result")?.as_str(), "success")?;
    held.exchange(SOON)?;
    bastion.serves()?;
    ensure_eq((chains(&rules()?), state()?), (before, had.clone()))?;
    ensure_eq(had, ("1".to_owned(), vec!["0.0.0.0/0 via 10.0.0.2".to_owned()]))?;
    bastion.machine.run(&["systemctl", "start", UNIT])?;
    bastion.becomes_healthy()?;
    // It found everything unchanged.
    let changes: Vec<_> =
        bastion.report()?.components.into_values().map(|component| component.totals.changes).collect();
    ensure(changes.iter().all(|&changes| changes == 0), format!("changes by component: {changes:?}"))?;
    held.exchange(SOON)?;
    Ok(())
}

/// A listing without the parts that packets change.
fn chains(listing: &str) -> String {
    listing.find("\tchain ").map_or_else(String::new, |at| listing[at..].to_owned())
}

fn wrong_configuration() -> Result {
    let bastion = Bastion::healthy("")?;
    bastion.machine.write(CONFIG, 0o640, "[firewall]\nssh_form = [\"10.0.0.0/8\"]\n")?;
    bastion.machine.run(&["systemctl", "restart", UNIT])?;
    let shown = bastion.machine.try_run(&["bastionctl", "status"])?;
    ensure(text(&shown.stdout).contains("running the configuration of 2"), text(&shown.stdout))?;
    bastion.serves()?;
    bastion.machine.run(&["rm", "/var/lib/bastiond/last-good.json"])?;
    let output = bastion.machine.try_run(&["systemctl", "restart", UNIT])?;
    ensure(!output.status.success(), "a restart with a wrong configuration is said to have worked")?;
    // Longer than the delay before an automatic restart.
    std::thread::sleep(Duration::from_secs(3));
    let state = bastion.machine.property(UNIT, "ActiveState")?;
    let status = bastion.machine.property(UNIT, "ExecMainStatus")?;
    ensure_eq((state.as_str(), status.as_str(), bastion.restarts()?), ("failed", "78", 0))?;
    let journal = bastion.machine.journal(UNIT)?;
    ensure(journal.contains("firewall.ssh_form: unknown key; did you mean `firewall.ssh_from`?"), journal)?;
    bastion.serves()?;
    bastion.configure("")?;
    bastion.machine.run(&["systemctl", "start", UNIT])?;
    bastion.becomes_healthy()?;
    bastion.serves()
}

fn journal() -> Result {
    let bastion = Bastion::healthy("")?;
    // A foreign change, which is reported after its repair.
    bastion.machine.run(&["sysctl", "--quiet", "--write", "net.ipv4.ip_forward=0"])?;
    let mut found = None;
    wait_for("the repair is reported", TIMEOUT, || {
        let lines = bastion.machine.run(&["journalctl", "--no-pager", "-b", "-u", "bastiond", "-o", "json"])?;
        let mut entries = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        // The kernel resets other settings together with this one.
        let ours = |entry: &Value| {
            entry["MESSAGE"].as_str().is_some_and(|text| text.starts_with("net/ipv4/ip_forward: 0 -> 1"))
        };
        found = entries.find(|entry| ours(entry) && entry["BASTIOND_REPAIRED"] == "true");
        Ok(found.is_some())
    })?;
    let entry = found.ok_or("the repair has no entry")?;
    ensure_eq(
        [&entry["SYSLOG_IDENTIFIER"], &entry["PRIORITY"], &entry["_SYSTEMD_UNIT"], &entry["BASTIOND_COMPONENT"]],
        ["bastiond", "5", UNIT, "forwarding"].map(Value::from).each_ref(),
    )?;
    let pass = entry["BASTIOND_PASS"].as_str().and_then(|pass| pass.parse::<u64>().ok());
    ensure(pass.is_some() && entry["BASTIOND_TRIGGER"].is_string(), format!("{entry:#}"))
}

fn private_configuration() -> Result {
    let mut bastion = Bastion::installed("")?;
    // As created with a strict umask, or by cloud-init.
    let text = std::fs::read(bastion.machine.path(CONFIG))?;
    bastion.machine.write(CONFIG, 0o600, text)?;
    bastion.machine.write("/etc/bastiond/peers.d/ada.toml", 0o600, PEER)?;
    bastion.machine.boot()?;
    bastion.becomes_healthy()?;
    let modes = bastion.machine.sh("stat --format='%U:%G %a' \
         /etc/bastiond /etc/bastiond/config.toml /etc/bastiond/peers.d/ada.toml /etc/bastiond/hcloud-token")?;
    let wanted = ["root:bastiond 750", "root:bastiond 640", "root:bastiond 640", "root:root 600"];
    ensure_eq(modes.lines().collect::<Vec<_>>(), wanted.to_vec())?;
    // The same for a file that is added later.
    bastion.machine.write(
        "/etc/bastiond/peers.d/grace.toml",
        0o600,
        PEER.replace("xTIB", "xTIC").replace(".2/", ".3/"),
    )?;
    bastion.machine.run(&["systemctl", "reload", UNIT])?;
    wait_for("the new peer exists", TIMEOUT, || {
        Ok(bastion.report()?.tunnel.is_some_and(|tunnel| tunnel.peers.len() == 2))
    })?;
    bastion.becomes_healthy().map(drop)
}

const PEER: &str = "public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nallowed_ips = [\"10.100.0.2/32\"]\n";

fn secrets() -> Result {
    let bastion = Bastion::healthy("")?;
    let machine = &bastion.machine;
    // As created with root's umask.
    let write_peer = |name: &str, number: char| -> Result {
        let key_file = format!("/etc/bastiond/{name}.psk");
        machine.write(&key_file, 0o600, "iR2UQ29vhHeOxlvVUvVd0hgcHRJWTNTSsVmuvPOKgLo=\n")?;
        let peer = PEER.replace("xTIB", &format!("xTI{number}")).replace(".2/", &format!(".{}/", u32::from(number)));
        machine.write(
            &format!("/etc/bastiond/peers.d/{name}.toml"),
            0o600,
            format!("{peer}preshared_key_file = \"{key_file}\"\n"),
        )
    };
    let has_peers = |count: usize| {
        wait_for("the peers are there", TIMEOUT, || {
            Ok(bastion.report()?.tunnel.is_some_and(|tunnel| tunnel.peers.len() == count))
        })
    };
    write_peer("ada", 'B')?;
    machine.run(&["systemctl", "reload", UNIT])?;
    has_peers(1)?;
    write_peer("grace", 'C')?;
    machine.write("/etc/bastiond/peers.d/other.key", 0o644, "")?;
    machine.write("/etc/bastiond/.hidden.key", 0o600, "")?;
    machine.write("/etc/bastiond/config.toml.dpkg-dist", 0o644, "")?;
    machine.write("/etc/bastiond/hcloud-token.cred", 0o600, "")?;
    machine.run(&["chmod", "0644", TOKEN])?;
    // A wrapper that is found before the system's program and logs each call.
    machine.write(
        "/usr/local/bin/systemd-tmpfiles",
        0o755,
        "#!/bin/sh\necho ran >>/run/tmpfiles-ran\nexec /usr/bin/systemd-tmpfiles \"$@\"\n",
    )?;
    let restart =
        || machine.sh("rm -f /run/tmpfiles-ran; systemctl restart bastiond; cat /run/tmpfiles-ran 2>/dev/null || true");
    ensure_eq(restart()?.as_str(), "ran\n")?;
    has_peers(2)?;
    bastion.becomes_healthy()?;
    let modes = machine
        .sh("cd /etc/bastiond; stat --format='%n %U:%G %a' *.psk peers.d/* .hidden.key hcloud-token* *.dpkg-dist")?;
    let wanted = [
        "ada.psk root:bastiond 640",
        "grace.psk root:bastiond 640",
        "peers.d/ada.toml root:bastiond 640",
        "peers.d/grace.toml root:bastiond 640",
        "peers.d/other.key root:bastiond 640",
        ".hidden.key root:root 600",
        "hcloud-token root:root 600",
        "hcloud-token.cred root:root 600",
        "config.toml.dpkg-dist root:root 644",
    ];
    ensure_eq(modes.lines().collect::<Vec<_>>(), wanted.to_vec())?;
    // Files that are not corrected do not delay a start.
    ensure_eq(restart()?.as_str(), "")?;
    bastion.becomes_healthy().map(drop)
}

fn no_token() -> Result {
    let mut bastion = Bastion::installed("")?;
    std::fs::remove_file(bastion.machine.path(TOKEN))?;
    bastion.machine.boot()?;
    wait_for("the status says what is missing", TIMEOUT, || {
        let says_so = |report: bastiond::internals::report::Report| {
            let mut problems = report.components.into_values().flat_map(|component| component.problems);
            problems.any(|problem| problem.what.starts_with("there is no API token"))
        };
        Ok(bastion.report().is_ok_and(says_so))
    })?;
    ensure_eq((bastion.machine.property(UNIT, "ActiveState")?.as_str(), bastion.restarts()?), ("active", 0))?;
    // A new token needs a restart, because the credential is a copy by systemd.
    bastion.machine.write(TOKEN, 0o600, bastion.world.token())?;
    bastion.machine.run(&["systemctl", "restart", UNIT])?;
    bastion.becomes_healthy()?;
    bastion.serves()
}
