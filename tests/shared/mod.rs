//! Shared functions of the tests with real packets, for the sandbox's bastion and for a booted one.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use sandbox::namespace::Namespace;
use sandbox::timeouts::scaled;
use sandbox::traffic::{self, Ping, ProbeFailure, Reflector};
use sandbox::world::{World, addresses as at};

/// The time limit of what happens at once on a quiet machine: a round trip, a pass of the daemon. Tests run side by side
/// on busy machines, and a wait that succeeds ends early, so the limit is a wide one.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// How long to wait for a packet that must not arrive.
pub(crate) const NEVER: Duration = Duration::from_millis(400);
pub(crate) type Result<T = ()> = std::result::Result<T, Failed>;

/// Fails with the message `what` unless the condition holds.
pub(crate) fn ensure(condition: bool, what: impl Into<String>) -> Result {
    if condition { Ok(()) } else { Err(what.into().into()) }
}

/// Fails with both values unless they are equal.
#[expect(clippy::needless_pass_by_value, reason = "as in assert_eq!, so that tests read as comparisons of values")]
pub(crate) fn ensure_eq<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result {
    ensure(found == expected, format!("found {found:#?}, expected {expected:#?}"))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks the condition every 20 ms until it holds, and returns the elapsed time.
pub(crate) fn wait_for(what: &str, timeout: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let timeout = scaled(timeout);
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

/// The reflectors of the internet host.
pub(crate) struct Server {
    pub(crate) tcp: Reflector,
    pub(crate) udp: Reflector,
}

impl Server {
    pub(crate) fn start(world: &World) -> Result<Self> {
        Ok(Self {
            tcp: Reflector::tcp(world.server(), (at::SERVER, 8080))?,
            udp: Reflector::udp(world.server(), (at::SERVER, 5353))?,
        })
    }
}

/// The results of TCP, UDP and ping from a private host to the internet host.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Egress {
    pub(crate) tcp: std::result::Result<IpAddr, ProbeFailure>,
    pub(crate) udp: std::result::Result<IpAddr, ProbeFailure>,
    pub(crate) ping: bool,
}

/// # Errors
/// `ping` cannot send, for example without a route.
pub(crate) fn egress(from: &Namespace, server: &Server, timeout: Duration) -> Result<Egress> {
    let address = |seen: SocketAddr| seen.ip();
    Ok(Egress {
        tcp: traffic::tcp_probe(from, server.tcp.address(), timeout).map(address),
        udp: traffic::udp_probe(from, server.udp.address(), timeout).map(address),
        ping: !traffic::ping(from, at::SERVER, Ping { timeout, ..Ping::default() })?.replies.is_empty(),
    })
}

/// Everything passes, with the bastion's public address as the source.
pub(crate) fn open() -> Egress {
    Egress { tcp: Ok(at::BASTION.into()), udp: Ok(at::BASTION.into()), ping: true }
}

/// Whether nothing passes, with any error.
pub(crate) fn is_shut(egress: &Egress) -> bool {
    egress.tcp.is_err() && egress.udp.is_err() && !egress.ping
}
