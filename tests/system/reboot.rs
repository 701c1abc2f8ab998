//! Boots: at no time an unsolicited packet is forwarded, and at no time the rules block SSH of an operator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sandbox::traffic::{Flood, ProbeFailure, Reflector, tcp_connects};
use sandbox::world::addresses as at;

use crate::bastion::Bastion;
use crate::shared::{Result, SOON, ensure, ensure_eq, wait_for};
use crate::trial::{TIMEOUT, print_measurement, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("during_boot_there_are_always_rules_and_ssh", boots),
        trial("ssh_on_a_port_in_a_root_only_file_stays_reachable", hidden_port),
    ]
}

/// Unsolicited datagrams per second from each of two senders.
const RATE: u32 = 1000;
/// The interval of new connections, shorter than that of a person.
const CONFIG: &str = "[firewall]\nssh_attempts = false\n";
const KNOCK: Duration = Duration::from_millis(50);

fn boots() -> Result {
    let mut bastion = Bastion::installed(CONFIG)?;
    // The worst case: the kernel forwards before any rule is loaded.
    bastion.machine.write("/etc/sysctl.d/99-forward.conf", 0o644, "net.ipv4.ip_forward = 1\n")?;
    boot_under_fire(&mut bastion, "the first boot")?;
    bastion.machine.power_off()?;
    bastion.unplug()?;
    boot_under_fire(&mut bastion, "the boot after a power-off")?;
    bastion.machine.cut_power();
    bastion.unplug()?;
    boot_under_fire(&mut bastion, "the boot after a power failure")?;
    // Without the package the same packets pass, so it was the package that blocked them.
    for unit in ["bastiond.service", "bastiond-boot.service"] {
        bastion.machine.run(&["systemctl", "mask", unit])?;
    }
    bastion.machine.power_off()?;
    bastion.unplug()?;
    let fire = Fire::open(&bastion)?;
    bastion.machine.boot()?;
    wait_for("an unprotected bastion forwards", TIMEOUT, || Ok(!fire.target.seen().is_empty()))?;
    Ok(())
}

/// Senders of packets that must not pass: a host on the internet, and a host of the other network.
struct Fire {
    floods: [Flood; 2],
    target: Reflector,
}

impl Fire {
    fn open(bastion: &Bastion) -> Result<Self> {
        let world = &bastion.world;
        let target = Reflector::udp(world.web(), (at::WEB, 4000))?;
        // From now on the cloud routes the other network's traffic here, as after the first start.
        world.cloud().put_route(world.second_network_id(), "0.0.0.0/0".parse()?, at::BASTION_SECOND);
        let floods = [
            Flood::start(world.server(), target.address(), RATE)?,
            Flood::start(world.tenant(), target.address(), RATE)?,
        ];
        Ok(Self { floods, target })
    }

    /// The number of sent datagrams. It fails if one arrived.
    fn cease(self) -> Result<u64> {
        let sent = self.floods.map(Flood::stop).iter().map(|report| report.sent).sum();
        ensure_eq(self.target.seen(), Vec::new())?;
        Ok(sent)
    }
}

fn boot_under_fire(bastion: &mut Bastion, what: &str) -> Result {
    let fire = Fire::open(bastion)?;
    let knocks = Knocks::start(bastion);
    let start = Instant::now();
    let booted = bastion.machine.boot()?;
    bastion.becomes_healthy()?;
    let healthy = start.elapsed();
    bastion.serves()?;
    std::thread::sleep(SOON);
    let knocks = knocks.stop()?;
    let sent = fire.cease()?;
    print_measurement(
        what,
        format!("up after {booted:?}, healthy after {healthy:?}; {sent} unsolicited packets sent, 0 passed; {knocks}"),
    );
    ensure_eq(bastion.machine.failed_units()?, Vec::new())?;
    // The order of the units by systemd.
    let at = |unit, moment| -> Result<u64> { Ok(bastion.machine.property(unit, moment)?.parse()?) };
    let rules = at("bastiond-boot.service", "ActiveEnterTimestampMonotonic")?;
    let network = at("networking.service", "InactiveExitTimestampMonotonic")?;
    ensure(rules > 0 && rules <= network, format!("rules at {rules} us, network at {network} us"))
}

/// A client that repeatedly connects to SSH.
struct Knocks {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Knock>>,
}

/// An attempt: its start, its end, and its result.
type Knock = (Instant, Instant, std::result::Result<(), ProbeFailure>);

impl Knocks {
    fn start(bastion: &Bastion) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let theirs = Arc::clone(&stop);
        let thread = bastion.world.server().spawn(move || {
            let mut knocks = Vec::new();
            while !theirs.load(Ordering::Relaxed) {
                let start = Instant::now();
                let tried = std::net::TcpStream::connect_timeout(&(at::BASTION, 22).into(), SOON);
                knocks.push((start, Instant::now(), tried.map(drop).map_err(ProbeFailure::from)));
                std::thread::sleep(KNOCK.saturating_sub(start.elapsed()));
            }
            knocks
        });
        Self { stop, thread }
    }

    /// Checks that every attempt is answered from the first answer on: first with a reset by the kernel, later by sshd.
    fn stop(self) -> Result<String> {
        self.stop.store(true, Ordering::Relaxed);
        let knocks = self.thread.join().map_err(|_| "the one who knocks panicked")?;
        let answered = |knock: &&Knock| matches!(knock.2, Ok(()) | Err(ProbeFailure::Refused));
        let first = knocks.iter().find(answered).ok_or("SSH never answered")?.1;
        let open = knocks.iter().find(|knock| knock.2.is_ok()).ok_or("sshd never came up")?.1;
        let since = |moment: Instant| knocks.iter().filter(move |knock| knock.0 > moment);
        let (unanswered, refused) =
            (since(first).filter(|knock| !answered(knock)), since(open).filter(|knock| knock.2.is_err()));
        let (unanswered, refused): (Vec<_>, Vec<_>) = (unanswered.collect(), refused.collect());
        ensure(
            unanswered.is_empty() && refused.is_empty(),
            format!("unanswered: {unanswered:?}, refused: {refused:?}"),
        )?;
        let (all, begin) = (since(open).count(), knocks[0].0);
        ensure(all > 10, format!("only {all} tries after sshd came up"))?;
        Ok(format!("SSH after {:?}, then {all} of {all} connections", open - begin))
    }
}

fn hidden_port() -> Result {
    let mut bastion = Bastion::installed("")?;
    bastion.machine.write("/etc/ssh/sshd_config.d/port.conf", 0o600, "Port 2222\n")?;
    let reachable = |bastion: &Bastion| -> Result {
        wait_for("sshd answers on its port", TIMEOUT, || {
            Ok(tcp_connects(bastion.world.server(), (at::BASTION, 2222), SOON).is_ok())
        })?;
        Ok(())
    };
    bastion.machine.boot()?;
    reachable(&bastion)?;
    bastion.becomes_healthy()?;
    reachable(&bastion)?;
    bastion.machine.run(&["systemctl", "restart", crate::bastion::UNIT])?;
    bastion.becomes_healthy()?;
    reachable(&bastion)?;
    bastion.machine.power_off()?;
    bastion.unplug()?;
    bastion.machine.boot()?;
    bastion.becomes_healthy()?;
    reachable(&bastion)
}
