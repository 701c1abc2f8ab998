//! One exchange with a [`Reflector`](super::Reflector).

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::namespace::Namespace;
use crate::timeouts::scaled;

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// The host answered with a TCP reset or an ICMP "port unreachable".
    #[error("refused")]
    Refused,
    /// No answer arrived in time.
    #[error("no answer in time")]
    Timeout,
    /// There is no route, on this host or at a router on the way.
    #[error("unreachable")]
    Unreachable,
    /// A firewall on this host refused to send.
    #[error("prohibited by this host")]
    Prohibited,
    /// The connection ended before the answer.
    #[error("disconnected")]
    Disconnected,
    /// The answer did not come from a reflector.
    #[error("unexpected answer: {0:?}")]
    UnexpectedAnswer(String),
    /// Another error of the kernel.
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

/// Connects to a TCP reflector and returns the source address that it saw. `timeout` limits the whole exchange.
pub fn tcp_probe(
    from: &Namespace,
    target: impl Into<SocketAddr>,
    timeout: Duration,
) -> Result<SocketAddr, ProbeFailure> {
    let target = target.into();
    from.run(|| connect(target, timeout).map(|(_, seen)| seen))
}

/// Connects to any TCP server and closes the connection.
pub fn tcp_connects(from: &Namespace, target: impl Into<SocketAddr>, timeout: Duration) -> Result<(), ProbeFailure> {
    let target = target.into();
    from.run(|| TcpStream::connect_timeout(&target, scaled(timeout))).map(drop).map_err(ProbeFailure::from)
}

/// Sends one datagram to a UDP reflector and returns the source address that it saw.
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

/// [`udp_probe`] with a chosen source, which must be an address of the namespace. To spoof an address, add it to the
/// namespace's loopback interface first.
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
        // By default the socket reports only fatal ICMP errors (ip(7)), and "net unreachable" is not one of them.
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
        parse_answer(text.split('\n').next().unwrap_or_default())
    })
}

/// Connects to a TCP reflector from the namespace of the calling thread.
pub(super) fn connect(target: SocketAddr, timeout: Duration) -> Result<(TcpStream, SocketAddr), ProbeFailure> {
    let timeout = scaled(timeout);
    let deadline = Instant::now() + timeout;
    let stream = TcpStream::connect_timeout(&target, timeout)?;
    // A read time-out of zero would mean no time-out.
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    let mut line = String::new();
    // The reflector sends nothing after the line on its own, so the buffer takes no other bytes.
    BufReader::new(&stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(ProbeFailure::Disconnected);
    }
    Ok((stream, parse_answer(line.trim_end())?))
}

fn parse_answer(line: &str) -> Result<SocketAddr, ProbeFailure> {
    line.parse().map_err(|_| ProbeFailure::UnexpectedAnswer(line.to_owned()))
}
