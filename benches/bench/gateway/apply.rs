//! Ten thousand forwards: from the reload to the first packet that one of them lets through, and what they weigh.

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
use super::line::{self, Line, Rules};
use crate::case::{Better, Case, OURS, Promise, Subject};
use crate::units::{mebibytes, milliseconds};
use crate::{Result, Selection, rounds};

const CASES: [&str; 4] =
    ["gateway/apply-10000", "gateway/change-1-of-10000", "gateway/rss-10000", "gateway/rss-peak-10000"];

const ROUNDS: usize = 7;
const FORWARDS: u16 = 10_000;
/// Where the last of the forwards listens, in turn: it is the one that changes.
const LAST: [u16; 2] = [50_000, 50_001];
/// What a reload or a look of the daemon's own set in motion is over.
const SETTLED: Duration = Duration::from_secs(1);
/// Far beyond what is promised.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two packets that try whether a forward is there.
const LOOK: Duration = Duration::from_micros(500);
/// Who loads the same elements with nothing around them.
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
    let line = Line::lay("apply", Rules::Bastiond(Policy::of(0)))?;
    let installation = line.installation(programs)?;
    let _reflectors = LAST.map(|port| Reflector::udp(line.client(), (CLIENT, port)));
    let bare = Bare::lay()?;
    let mut values = Values::default();
    for round in 1..=rounds {
        eprint!("\rgateway: reload, round {round} of {rounds}");
        // One of its own each time: memory that was needed once is not always given back.
        let mut daemon = line::ready(&installation)?;
        values.round(&line, &installation, &mut daemon)?;
        values.apply[1].push(milliseconds(bare.load(&all())?));
        values.change[1].push(milliseconds(bare.load(&one())?));
        installation.write_config(&only_forwards(0, None))?;
        reload(&mut daemon)?;
    }
    eprintln!();
    let Values { apply, change, rss, peak } = values;
    let mut cases = vec![
        case(CASES[0], "reload to effect, 10 000 forwards anew", Some(Promise::Below(300.0)), apply),
        case(CASES[1], "reload to effect, one of them changed", Some(Promise::Below(300.0)), change),
        Case::alone(CASES[2], "resident memory at rest with them", "MiB", None, rss),
        Case::alone(CASES[3], "the most it ever was", "MiB", None, peak),
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
    fn round(&mut self, line: &Line, installation: &Installation<'_>, daemon: &mut Daemon) -> Result {
        std::thread::sleep(SETTLED);
        installation.write_config(&only_forwards(FORWARDS, Some(LAST[0])))?;
        self.apply[0].push(milliseconds(effect(line, daemon, LAST[0])?));
        std::thread::sleep(SETTLED);
        installation.write_config(&only_forwards(FORWARDS, Some(LAST[1])))?;
        self.change[0].push(milliseconds(effect(line, daemon, LAST[1])?));
        std::thread::sleep(SETTLED);
        self.rss.push(mebibytes(daemon, "VmRSS")?);
        self.peak.push(mebibytes(daemon, "VmHWM")?);
        Ok(())
    }
}

fn reload(daemon: &mut Daemon) -> Result {
    daemon.signal(Signal::SIGHUP)?;
    daemon.wait_for_notification("READY=1", PATIENCE).ok_or("the reload does not end")?;
    Ok(())
}

/// Reloads, and waits until a packet to this port of the bastion's is answered by the client: how long that took.
fn effect(line: &Line, daemon: &mut Daemon, port: u16) -> Result<Duration> {
    let socket = line.server().bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(SocketAddrV4::new(BASTION, port))?;
    socket.set_read_timeout(Some(LOOK))?;
    if answers(&socket) {
        return Err(format!("port {port} is open before the reload").into());
    }
    let start = Instant::now();
    daemon.signal(Signal::SIGHUP)?;
    while !answers(&socket) {
        if start.elapsed() > PATIENCE {
            return Err(format!("port {port} is not open after {} s:\n{}", PATIENCE.as_secs(), daemon.log()).into());
        }
    }
    let took = start.elapsed();
    daemon.wait_for_notification("READY=1", PATIENCE).ok_or("the reload does not end")?;
    Ok(took)
}

fn answers(socket: &UdpSocket) -> bool {
    // Refused or silent, it is not there yet.
    socket.send(b"open?").and_then(|_| socket.recv(&mut [0; 64])).is_ok()
}

/// A namespace with nothing but a map like ours and a rule that uses it.
struct Bare(Namespace);

impl Bare {
    fn lay() -> Result<Self> {
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

    /// How long `nft` takes for a file, from its start to its end.
    fn load(&self, script: &str) -> Result<Duration> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), script)?;
        let start = Instant::now();
        let output = self.0.command("nft").arg("-f").arg(file.path()).output()?;
        let took = start.elapsed();
        if output.status.success() { Ok(took) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
    }
}

/// All forwards, in place of those of before.
fn all() -> String {
    let mut script = "flush map inet bare forwards\nadd element inet bare forwards {\n".to_owned();
    for index in 0..FORWARDS {
        let [high, low] = index.to_be_bytes();
        let _ = writeln!(script, "{BASTION} . tcp . {} : 10.0.{}.{low} . 8080,", 10_000 + index, 100 + high);
    }
    script + "}\n"
}

/// One of them in another one's place.
fn one() -> String {
    format!(
        "delete element inet bare forwards {{ {BASTION} . tcp . 10000 }}
         add element inet bare forwards {{ {BASTION} . tcp . 60000 : {CLIENT} . 8080 }}"
    )
}
