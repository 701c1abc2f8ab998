//! Usual failures of a server: the daemon hangs or is killed, the disk is full, /etc is read-only, another firewall is
//! reloaded.

use std::time::Duration;

use bastiond::internals::report::Health;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::traffic::HeldConnection;
use sandbox::world::addresses as at;

use crate::bastion::{Bastion, CONFIG, UNIT};
use crate::load::{Load, NOISE, tunnel_pid};
use crate::memory::Limit;
use crate::shared::{Result, SOON, ensure, ensure_eq, wait_for};
use crate::trial::{TIMEOUT, print_measurement, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_stopped_process_is_killed_by_the_watchdog_and_replaced", watchdog),
        trial("a_killed_process_is_replaced_at_once", killed),
        trial("a_killed_process_of_the_tunnel_is_replaced_at_once_with_its_interface", killed_tunnel),
        trial("a_repeatedly_killed_process_is_replaced_every_time", killed_often),
        trial("a_process_that_the_kernel_kills_for_memory_is_replaced", out_of_memory),
        trial("a_full_disk_is_reported_and_the_gateway_continues", full_disk),
        trial("the_daemon_starts_with_a_read_only_etc", read_only_etc),
        trial("restarting_or_reloading_nftables_service_is_repaired", nftables_service),
    ]
}

fn signal(bastion: &Bastion, signal: Signal) -> Result {
    bastion.machine.run(&[
        "kill",
        "-s",
        signal.as_str().trim_start_matches("SIG"),
        &bastion.main_pid()?.to_string(),
    ])?;
    Ok(())
}

fn watchdog() -> Result {
    let mut bastion = Bastion::installed(crate::load::TUNNEL)?;
    // The watchdog of the unit has a minute, too long for a test.
    bastion.machine.write(
        "/etc/systemd/system/bastiond.service.d/watchdog.conf",
        0o644,
        "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n",
    )?;
    bastion.machine.boot()?;
    bastion.becomes_healthy()?;
    let load = Load::start(&bastion)?;
    let (pid, tunnel) = (bastion.main_pid()?, Load::kept(&bastion)?);
    signal(&bastion, Signal::SIGSTOP)?;
    let took = bastion.is_replaced(pid, TIMEOUT)?;
    print_measurement("a stopped process is replaced after", format!("{took:?}"));
    let journal = bastion.machine.journal(UNIT)?;
    ensure(journal.contains("Watchdog timeout"), journal)?;
    bastion.becomes_healthy()?;
    ensure_eq(Load::kept(&bastion)?, tunnel)?;
    let report = load.stop()?;
    print_measurement("with a watchdog limit of 2 s", &report);
    ensure_eq((bastion.restarts()?, report.lost), (1, 0))?;
    ensure(report.tunnel_lost <= NOISE, format!("{} packets were lost in the tunnel", report.tunnel_lost))
}

fn killed() -> Result {
    let bastion = Bastion::healthy(crate::load::TUNNEL)?;
    let load = Load::start(&bastion)?;
    let (pid, tunnel) = (bastion.main_pid()?, Load::kept(&bastion)?);
    signal(&bastion, Signal::SIGKILL)?;
    let took = bastion.is_replaced(pid, TIMEOUT)?;
    bastion.becomes_healthy()?;
    ensure_eq(Load::kept(&bastion)?, tunnel)?;
    let report = load.stop()?;
    print_measurement("a killed process is replaced after", format!("{took:?}; {report}"));
    ensure_eq((bastion.restarts()?, report.lost), (1, 0))?;
    ensure(report.tunnel_lost <= NOISE, format!("{} packets were lost in the tunnel", report.tunnel_lost))
}

fn killed_tunnel() -> Result {
    let bastion = Bastion::healthy(crate::load::TUNNEL)?;
    let load = Load::start(&bastion)?;
    let (pid, tunnel, kept) = (bastion.main_pid()?, tunnel_pid(&bastion)?, Load::kept(&bastion)?);
    bastion.machine.run(&["kill", "-s", "KILL", &tunnel.to_string()])?;
    wait_for("another process carries packets", TIMEOUT, || {
        let now = tunnel_pid(&bastion)?;
        Ok(now != 0 && now != tunnel)
    })?;
    bastion.becomes_healthy()?;
    load.goes_on()?;
    ensure_eq((Load::kept(&bastion)?, bastion.main_pid()?), (kept, pid))?;
    let report = load.stop()?;
    print_measurement("the tunnel's process is killed", &report);
    ensure_eq(report.lost, 0)?;
    // On its own a client notices after 15 s.
    ensure(report.tunnel_gap < Duration::from_secs(2), format!("the tunnel was silent for {:?}", report.tunnel_gap))
}

fn killed_often() -> Result {
    let bastion = Bastion::healthy("")?;
    // More often than systemd's default start limit of five times in ten seconds.
    for _ in 0..8 {
        let pid = bastion.main_pid()?;
        signal(&bastion, Signal::SIGKILL)?;
        bastion.is_replaced(pid, TIMEOUT)?;
    }
    bastion.becomes_healthy()?;
    ensure_eq(bastion.restarts()?, 8)?;
    bastion.serves()
}

fn out_of_memory() -> Result {
    let bastion = Bastion::healthy(crate::load::TUNNEL)?;
    let load = Load::start(&bastion)?;
    let (pid, tunnel) = (bastion.main_pid()?, Load::kept(&bastion)?);
    let limit = Limit::on(&bastion)?;
    // More than the memory limit allows. The file itself is valid.
    let forwards = (1..8000).map(|port| format!("[[nat.forward]]\nport = {}\nto = \"10.0.0.4\"\n", 10_000 + port));
    bastion.configure(&format!("{}{}", crate::load::TUNNEL, forwards.collect::<String>()))?;
    // It may end before it reports the end of the reload.
    bastion.machine.try_run(&["systemctl", "kill", "--kill-who=main", "--signal=HUP", UNIT])?;
    let took = bastion.is_replaced(pid, TIMEOUT)?;
    ensure(limit.has_killed(&bastion)?, "the kernel killed no process for memory, so the test proves nothing")?;
    bastion.configure(crate::load::TUNNEL)?;
    bastion.machine.run(&["systemctl", "reload", UNIT])?;
    bastion.becomes_healthy()?;
    ensure_eq(Load::kept(&bastion)?, tunnel)?;
    let report = load.stop()?;
    print_measurement("a process that is killed for memory is replaced after", format!("{took:?}; {report}"));
    ensure_eq(report.lost, 0)
}

fn full_disk() -> Result {
    let mut bastion = Bastion::installed("")?;
    // The journal is in memory, because the full disk cannot store it.
    bastion.machine.write("/etc/systemd/journald.conf.d/volatile.conf", 0o644, "[Journal]\nStorage=volatile\n")?;
    bastion.machine.boot()?;
    bastion.becomes_healthy()?;
    // Less than a block is left.
    bastion.machine.sh("dd if=/dev/zero of=/var/fill bs=64k 2>/dev/null || true
         dd if=/dev/zero of=/var/fill2 bs=1 count=8192 2>/dev/null || true")?;
    let full = bastion.machine.try_run(&["sh", "-c", "echo no >/var/lib/more"])?;
    ensure(!full.status.success(), "the disk is not full: this proves nothing")?;
    // New rules, which the daemon saves for the next boot in /var/lib/bastiond.
    bastion.machine.run(&["nft", "delete", "table", "inet", "bastiond"])?;
    wait_for("the table is back", TIMEOUT, || {
        Ok(bastion.machine.try_run(&["nft", "list", "table", "inet", "bastiond"])?.status.success())
    })?;
    bastion.becomes_healthy()?;
    bastion.serves()?;
    let pid = bastion.main_pid()?;
    bastion.machine.run(&["systemctl", "restart", UNIT])?;
    bastion.is_replaced(pid, TIMEOUT)?;
    bastion.becomes_healthy()?;
    bastion.serves()?;
    // The cause is a field beside the message.
    let journal = bastion.machine.run(&["journalctl", "--no-pager", "-b", "-u", UNIT, "-o", "json"])?;
    ensure(journal.contains("No space left on device"), bastion.machine.journal(UNIT)?)
}

fn read_only_etc() -> Result {
    let bastion = Bastion::healthy("")?;
    bastion.machine.sh("mount --bind /etc /etc; mount -o remount,ro,bind /etc")?;
    let refused = bastion.machine.try_run(&["touch", CONFIG])?;
    ensure(!refused.status.success(), "/etc can be written: this proves nothing")?;
    let pid = bastion.main_pid()?;
    bastion.machine.run(&["systemctl", "restart", UNIT])?;
    bastion.is_replaced(pid, TIMEOUT)?;
    bastion.becomes_healthy()?;
    bastion.machine.run(&["systemctl", "reload", UNIT])?;
    ensure_eq(bastion.report()?.health, Health::Healthy)?;
    bastion.serves()
}

/// Longer than TCP delays an acknowledgement.
const QUIET: Duration = Duration::from_millis(300);

fn nftables_service() -> Result {
    let mut bastion = Bastion::installed("")?;
    // Debian's default file, which begins with `flush ruleset`.
    let rules = std::fs::read_to_string(bastion.machine.path("/etc/nftables.conf"))?;
    ensure(rules.contains("flush ruleset"), rules)?;
    let wants = bastion.machine.path("/etc/systemd/system/sysinit.target.wants");
    std::fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink("/lib/systemd/system/nftables.service", wants.join("nftables.service"))?;
    bastion.machine.boot()?;
    ensure_eq(bastion.machine.property("nftables.service", "ActiveState")?.as_str(), "active")?;
    bastion.becomes_healthy()?;
    let mut held = HeldConnection::open(bastion.world.web(), bastion.internet.tcp.address(), SOON)?;
    // Opened while the rules are loaded. A connection from a moment without rules would not survive their return.
    ensure_eq(held.seen().ip(), at::BASTION.into())?;
    for verb in ["reload", "restart", "stop", "start"] {
        // The test sends nothing while there are no rules, because an untranslated packet may be answered with a reset.
        std::thread::sleep(QUIET);
        bastion.machine.run(&["systemctl", verb, "nftables.service"])?;
        let took = wait_for("the table is back", SOON, || {
            Ok(bastion.machine.try_run(&["nft", "list", "chain", "inet", "bastiond", "forward"])?.status.success())
        })?;
        print_measurement(&format!("after systemctl {verb} nftables the table is back after"), format!("{took:?}"));
        bastion.becomes_healthy()?;
        goes_on(&bastion, &mut held)?;
        bastion.serves()?;
    }
    // Without the daemon the boot unit must load the rules again.
    bastion.machine.run(&["systemctl", "stop", UNIT])?;
    for verb in ["reload", "restart"] {
        std::thread::sleep(QUIET);
        bastion.machine.run(&["systemctl", verb, "nftables.service"])?;
        wait_for("the table is back without a daemon", SOON, || {
            Ok(bastion.machine.try_run(&["nft", "list", "chain", "inet", "bastiond", "forward"])?.status.success())
        })?;
        goes_on(&bastion, &mut held)?;
        bastion.serves()?;
    }
    Ok(())
}

/// Checks that an old connection still works; on a failure the message has the daemon's log.
fn goes_on(bastion: &Bastion, held: &mut HeldConnection) -> Result {
    let journal = |_| bastion.machine.journal("bastiond*").unwrap_or_default();
    held.exchange(SOON).map(drop).map_err(|error| format!("{error}:\n{}", journal(error.clone())).into())
}
