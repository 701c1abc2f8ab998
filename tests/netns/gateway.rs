//! What the tests share: a world, a daemon on its bastion, and the questions that are asked of both.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bastiond::report::{Report, Room, State};
use libtest_mimic::{Failed, Trial};
use sandbox::daemon::{Daemon, Station};
use sandbox::patience::stretched;
use sandbox::traffic::{self, Mirror, Ping, ProbeFailure};
use sandbox::world::{World, addresses as at};

/// Long enough for a packet's way there and back on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(2);
/// How long to wait for a packet that must not come.
pub(crate) const NEVER: Duration = Duration::from_millis(400);
/// What the daemon promises for everything in the kernel.
pub(crate) const REPAIR: Duration = Duration::from_secs(2);

pub(crate) type Result<T = ()> = std::result::Result<T, Failed>;

/// A test named as a sentence.
pub(crate) fn trial(name: &'static str, test: fn() -> Result) -> Trial {
    Trial::test(name, test)
}

/// Where cargo put `bastiond` and `bastionctl`.
pub(crate) fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bastiond")).parent().expect("a program lies in a directory")
}

/// Fast polls, as a test has no 20 seconds.
pub(crate) const FAST: &str = "[hcloud]\npoll_interval = \"1s\"\n";

/// A station whose daemon polls fast.
pub(crate) fn station(world: &World) -> Result<Station<'_>> {
    let station = Station::in_world(world, programs())?;
    station.write_config(FAST)?;
    Ok(station)
}

/// Whether every room stands.
pub(crate) fn all_stand(station: &Station<'_>) -> Result<bool> {
    Ok(report(station)?.rooms.values().all(|room| room.state == State::Ok))
}

/// The gateways of the routes in the private network.
pub(crate) fn gateways(world: &World) -> Vec<std::net::Ipv4Addr> {
    world.cloud().routes(world.private_network_id()).iter().map(|route| route.gateway).collect()
}

/// A daemon that is ready, and whose every room stands.
pub(crate) fn healthy(station: &Station<'_>) -> Result<Daemon> {
    let mut daemon = station.start()?;
    daemon.ready();
    wait_for("every room stands", SOON, || all_stand(station))
        .map_err(|error| format!("{}\n{}", error.message().unwrap_or_default(), daemon.log()))?;
    Ok(daemon)
}

/// The daemon's account.
pub(crate) fn report(station: &Station<'_>) -> Result<Report> {
    let output = station.ctl(&["status", "--json"])?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}{}", text(&output.stdout), text(&output.stderr)).into())
}

/// How a room stands.
pub(crate) fn room(station: &Station<'_>, room: Room) -> Result<bastiond::report::RoomReport> {
    let report = report(station)?;
    report.rooms.get(&room).cloned().ok_or_else(|| format!("no room {room} in {report:?}").into())
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks every 20 ms until the answer is yes; how long that took.
pub(crate) fn wait_for(what: &str, timeout: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let timeout = stretched(timeout);
    let start = Instant::now();
    loop {
        if condition()? {
            return Ok(start.elapsed());
        }
        if start.elapsed() >= timeout {
            return Err(format!("not within {timeout:?}: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The mirrors of the internet host.
pub(crate) struct Server {
    pub(crate) tcp: Mirror,
    pub(crate) udp: Mirror,
}

impl Server {
    pub(crate) fn start(world: &World) -> Result<Self> {
        Ok(Self {
            tcp: Mirror::tcp(world.server(), (at::SERVER, 8080))?,
            udp: Mirror::udp(world.server(), (at::SERVER, 5353))?,
        })
    }
}

/// A private host's ways to the internet host: what each of TCP, UDP and ping met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Egress {
    pub(crate) tcp: std::result::Result<std::net::IpAddr, ProbeFailure>,
    pub(crate) udp: std::result::Result<std::net::IpAddr, ProbeFailure>,
    pub(crate) ping: bool,
}

pub(crate) fn egress(from: &sandbox::namespace::Namespace, server: &Server, timeout: Duration) -> Result<Egress> {
    let address = |seen: SocketAddr| seen.ip();
    Ok(Egress {
        tcp: traffic::tcp_probe(from, server.tcp.address(), timeout).map(address),
        udp: traffic::udp_probe(from, server.udp.address(), timeout).map(address),
        ping: !traffic::ping(from, at::SERVER, Ping { timeout, ..Ping::default() })?.replies.is_empty(),
    })
}

/// Everything passes, and comes from the bastion's public address.
pub(crate) fn open() -> Egress {
    Egress { tcp: Ok(at::BASTION.into()), udp: Ok(at::BASTION.into()), ping: true }
}

/// Whether nothing passes, in whatever way it fails.
pub(crate) fn is_shut(egress: &Egress) -> bool {
    egress.tcp.is_err() && egress.udp.is_err() && !egress.ping
}

/// The text of one table without what changes by itself.
pub(crate) fn table(world: &World, table: &str) -> Result<String> {
    Ok(text(&world.bastion().command("nft").args(["-s", "list", "table"]).args(table.split(' ')).output()?.stdout))
}

/// Fails with `what` unless `condition`.
pub(crate) fn ensure(condition: bool, what: impl Into<String>) -> Result {
    if condition { Ok(()) } else { Err(what.into().into()) }
}

/// Fails unless both are equal, and shows them.
#[expect(clippy::needless_pass_by_value, reason = "as in assert_eq!, so that tests read as comparisons of values")]
pub(crate) fn ensure_eq<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result {
    ensure(found == expected, format!("found {found:#?}, expected {expected:#?}"))
}
