//! One exchange with a [`Reflector`](super::Reflector), and what became of it.

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::namespace::Namespace;
use crate::timeouts::scaled;

/// Why a probe has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// A TCP reset or an ICMP port unreachable: the host is there and does not want it.
    #[error("refused")]
    Refused,
    /// Nothing came back in time.
    #[error("no answer in time")]
    Timeout,
    /// No route, here or at a router on the way.
    #[error("unreachable")]
    Unreachable,
    /// A firewall on this very host said no.
    #[error("prohibited by this host")]
    Prohibited,
    /// The connection ended before the answer.
    #[error("cut off")]
    Disconnected,
    /// Somebody else answered: this is no reflector's answer.
    #[error("a strange answer: {0:?}")]
    UnexpectedAnswer(String),
    /// The kernel refused in another way.
    #[error("failed: {0}")]
    Other(Errno),
}

impl From<io::Error> for ProbeFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::PermissionDenied => Self::Prohibited,
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                Self::Disconnected
            }
            _ => Self::Other(Errno::from_raw(error.raw_os_error().unwrap_or_default())),
        }
    }
}

/// Connects to a TCP reflector, and tells the source address that it saw. `timeout` is for all of it.
pub fn tcp_probe(
    from: &Namespace,
    target: impl Into<SocketAddr>,
    timeout: Duration,
) -> Result<SocketAddr, ProbeFailure> {
    let target = target.into();
    from.run(|| connect(target, timeout).map(|(_, seen)| seen))
}

/// Connects to any TCP server and hangs up.
pub fn tcp_connects(from: &Namespace, target: impl Into<SocketAddr>, timeout: Duration) -> Result<(), ProbeFailure> {
    let target = target.into();
    from.run(|| TcpStream::connect_timeout(&target, scaled(timeout))).map(drop).map_err(ProbeFailure::from)
}

/// Sends one datagram to a UDP reflector, and tells the source address that it saw.
pub fn udp_probe(
    from: &Namespace,
    target: impl Into<SocketAddr>,
    timeout: Duration,
) -> Result<SocketAddr, ProbeFailure> {
    let target = target.into();
    let any = match target {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    udp_probe_from(from, (any, 0), target, timeout)
}

/// [`udp_probe`] from a chosen source, which must be an address of the namespace: one put on its loopback link will do
/// to pretend to be somebody else.
pub fn udp_probe_from(
    from: &Namespace,
    source: impl Into<SocketAddr>,
    target: impl Into<SocketAddr>,
    timeout: Duration,
) -> Result<SocketAddr, ProbeFailure> {
    let (source, target) = (source.into(), target.into());
    from.run(|| {
        let socket = UdpSocket::bind(source)?;
        socket.connect(target)?;
        // Without it only ICMP errors that are final arrive (ip(7)), and "net unreachable" is not among them.
        match target {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
        }
        .map_err(ProbeFailure::Other)?;
        socket.set_read_timeout(Some(scaled(timeout)))?;
        socket.send(b"who am I")?;
        let mut answer = [0; 128];
        let length = socket.recv(&mut answer)?;
        let text = String::from_utf8_lossy(&answer[..length]);
        read_answer(text.split('\n').next().unwrap_or_default())
    })
}

/// Connects to a TCP reflector from the calling thread's namespace.
pub(super) fn connect(target: SocketAddr, timeout: Duration) -> Result<(TcpStream, SocketAddr), ProbeFailure> {
    let timeout = scaled(timeout);
    let deadline = Instant::now() + timeout;
    let stream = TcpStream::connect_timeout(&target, timeout)?;
    // A read time-out of zero means none.
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    let mut line = String::new();
    // Nothing follows the line until we ask, so the reader holds back no byte of ours.
    BufReader::new(&stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(ProbeFailure::Disconnected);
    }
    Ok((stream, read_answer(line.trim_end())?))
}

fn read_answer(line: &str) -> Result<SocketAddr, ProbeFailure> {
    line.parse().map_err(|_| ProbeFailure::UnexpectedAnswer(line.to_owned()))
}
