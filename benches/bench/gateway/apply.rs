//! Ten thousand forwards: the time from the reload to the first forwarded packet, and the memory that they need.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sandbox::daemon::{Daemon, Installation};
use sandbox::namespace::Namespace;
use sandbox::traffic::Reflector;

use super::addresses::{BASTION, CLIENT};
use super::config::{Policy, only_forwards};
use super::testbed::{self, Rules, Testbed};
use crate::case::{Better, Case, OURS, Promise, Subject};
use crate::run::{Result, Selection, rounds};
use crate::units::{mebibytes, milliseconds};

const CASES: [&str; 4] =
    ["gateway/apply-10000", "gateway/change-1-of-10000", "gateway/rss-10000", "gateway/rss-peak-10000"];

const ROUNDS: usize = 7;
const FORWARDS: u16 = 10_000;
/// The alternating port of the last forward, which is the one that changes.
const LAST: [u16; 2] = [50_000, 50_001];
/// How long to wait after a reload.
const SETTLED: Duration = Duration::from_secs(1);
/// The time limit of a reload, far more than promised.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The interval between two packets that test a forward.
const POLL_INTERVAL: Duration = Duration::from_micros(500);
/// The subject that loads the same elements into a minimal table.
const BARE: &str = "nft -f";

/// The values of all rounds, ours and those of [`BARE`].
#[derive(Default)]
struct Values {
    apply: [Vec<f64>; 2],
    change: [Vec<f64>; 2],
    rss: Vec<f64>,
    peak: Vec<f64>,
}

pub(super) fn measure(selection: &Selection, programs: &Path) -> Result<Vec<Case>> {
    if !CASES.iter().any(|case| selection.has(case)) {
        return Ok(Vec::new());
    }
    let rounds = rounds(ROUNDS)?;
    let testbed = Testbed::build("apply", Rules::Bastiond(Policy::with_entries(0)))?;
    let installation = testbed.installation(programs)?;
    let _reflectors = LAST.map(|port| Reflector::udp(testbed.client(), (CLIENT, port)));
    let bare = BareTable::build()?;
    let mut values = Values::default();
    for round in 1..=rounds {
        eprint!("\rgateway: reload, round {round} of {rounds}");
        // A new daemon in each round, because a process does not always return memory.
        let mut daemon = testbed::start_daemon(&installation)?;
        values.round(&testbed, &installation, &mut daemon)?;
        values.apply[1].push(milliseconds(bare.load(&all())?));
        values.change[1].push(milliseconds(bare.load(&one())?));
        installation.write_config(&only_forwards(0, None))?;
        reload(&mut daemon)?;
    }
    eprintln!();
    let Values { apply, change, rss, peak } = values;
    let mut cases = vec![
        case(CASES[0], "reload to effect, 10 000 new forwards", Some(Promise::Below(300.0)), apply),
        case(CASES[1], "reload to effect, one of them changed", Some(Promise::Below(300.0)), change),
        Case::of_bastiond(CASES[2], "resident memory at rest with them", "MiB", None, rss),
        Case::of_bastiond(CASES[3], "peak of the resident memory", "MiB", None, peak),
    ];
    cases.retain(|case| selection.has(case.name));
    Ok(cases)
}

fn case(name: &'static str, title: &'static str, promise: Option<Promise>, values: [Vec<f64>; 2]) -> Case {
    let named = [OURS, BARE].into_iter().zip(values);
    let subjects = named.map(|(name, values)| Subject { values, ..Subject::new(name, None) }).collect();
    Case { name, title, unit: "ms", better: Better::Lower, subjects, promise }
}

impl Values {
    fn round(&mut self, testbed: &Testbed, installation: &Installation<'_>, daemon: &mut Daemon) -> Result {
        std::thread::sleep(SETTLED);
        installation.write_config(&only_forwards(FORWARDS, Some(LAST[0])))?;
        self.apply[0].push(milliseconds(time_to_effect(testbed, daemon, LAST[0])?));
        std::thread::sleep(SETTLED);
        installation.write_config(&only_forwards(FORWARDS, Some(LAST[1])))?;
        self.change[0].push(milliseconds(time_to_effect(testbed, daemon, LAST[1])?));
        std::thread::sleep(SETTLED);
        self.rss.push(mebibytes(daemon, "VmRSS")?);
        self.peak.push(mebibytes(daemon, "VmHWM")?);
        Ok(())
    }
}

fn reload(daemon: &mut Daemon) -> Result {
    daemon.signal(Signal::SIGHUP)?;
    daemon.wait_for_notification("READY=1", TIMEOUT).ok_or("the reload does not end")?;
    Ok(())
}

/// Reloads, and measures the time until the client answers a packet to this port of the bastion.
fn time_to_effect(testbed: &Testbed, daemon: &mut Daemon, port: u16) -> Result<Duration> {
    let socket = testbed.server().bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(SocketAddrV4::new(BASTION, port))?;
    socket.set_read_timeout(Some(POLL_INTERVAL))?;
    if is_answered(&socket) {
        return Err(format!("port {port} is open before the reload").into());
    }
    let start = Instant::now();
    daemon.signal(Signal::SIGHUP)?;
    while !is_answered(&socket) {
        if start.elapsed() > TIMEOUT {
            return Err(format!("port {port} is not open after {} s:\n{}", TIMEOUT.as_secs(), daemon.log()).into());
        }
    }
    let took = start.elapsed();
    daemon.wait_for_notification("READY=1", TIMEOUT).ok_or("the reload does not end")?;
    Ok(took)
}

fn is_answered(socket: &UdpSocket) -> bool {
    // An error or a time-out means that the forward does not work yet.
    socket.send(b"open?").and_then(|_| socket.recv(&mut [0; 64])).is_ok()
}

/// A namespace with only a map like ours and a rule that uses it.
struct BareTable(Namespace);

impl BareTable {
    fn build() -> Result<Self> {
        let host = Namespace::create("apply-bare")?;
        host.nft(
            "table inet bare {
                 map forwards { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
                 chain prerouting {
                     type nat hook prerouting priority dstnat;
                     dnat ip to ip daddr . meta l4proto . th dport map @forwards
                 }
             }",
        )?;
        Ok(Self(host))
    }

    /// Runs `nft` with a script and measures the time.
    fn load(&self, script: &str) -> Result<Duration> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), script)?;
        let start = Instant::now();
        let output = self.0.command("nft").arg("-f").arg(file.path()).output()?;
        let took = start.elapsed();
        if output.status.success() { Ok(took) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
    }
}

/// The script that replaces all forwards.
fn all() -> String {
    let mut script = "flush map inet bare forwards\nadd element inet bare forwards {\n".to_owned();
    for index in 0..FORWARDS {
        let [high, low] = index.to_be_bytes();
        let _ = writeln!(script, "{BASTION} . tcp . {} : 10.0.{}.{low} . 8080,", 10_000 + index, 100 + high);
    }
    script + "}\n"
}

/// The script that replaces one forward.
fn one() -> String {
    format!(
        "delete element inet bare forwards {{ {BASTION} . tcp . 10000 }}
         add element inet bare forwards {{ {BASTION} . tcp . 60000 : {CLIENT} . 8080 }}"
    )
}
