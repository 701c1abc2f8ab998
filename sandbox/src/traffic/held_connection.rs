//! A TCP connection that stays open, to test whether it survives.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::probe::{self, ProbeFailure};
use crate::namespace::Namespace;
use crate::timeouts::scaled;

/// A TCP connection to a [`Reflector`](super::Reflector) that sends only on request.
#[derive(Debug)]
pub struct HeldConnection {
    stream: TcpStream,
    seen: SocketAddr,
    exchanged: u8,
}

impl HeldConnection {
    /// Opens the connection.
    pub fn open(from: &Namespace, target: impl Into<SocketAddr>, timeout: Duration) -> Result<Self, ProbeFailure> {
        let target = target.into();
        let (stream, seen) = from.run(|| probe::connect(target, timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, seen, exchanged: 0 })
    }

    /// The source address that the reflector saw.
    pub fn seen(&self) -> SocketAddr {
        self.seen
    }

    /// The local address.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends one byte, waits for its return, and measures the round trip.
    ///
    /// After a failure the connection is unusable, because a late byte would be taken for the answer of a later
    /// exchange.
    pub fn exchange(&mut self, timeout: Duration) -> Result<Duration, ProbeFailure> {
        let sent_at = Instant::now();
        self.exchanged = self.exchanged.wrapping_add(1);
        self.stream.set_read_timeout(Some(scaled(timeout)))?;
        self.stream.write_all(&[self.exchanged])?;
        let mut answer = [0];
        self.stream.read_exact(&mut answer)?;
        if answer == [self.exchanged] {
            Ok(sent_at.elapsed())
        } else {
            Err(ProbeFailure::UnexpectedAnswer(format!("{answer:?}")))
        }
    }
}
