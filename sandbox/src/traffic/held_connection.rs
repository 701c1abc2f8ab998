//! A connection that is kept open, to see whether it survives.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::probe::{self, ProbeFailure};
use crate::namespace::Namespace;
use crate::timeouts::scaled;

/// A TCP connection to a [`Reflector`](super::Reflector), silent until asked.
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

    /// The source that the reflector saw.
    pub fn seen(&self) -> SocketAddr {
        self.seen
    }

    /// This end.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends one byte and waits for it to come back; tells how long that took.
    ///
    /// A byte that is late poisons the connection for later exchanges: after a failure, open another.
    pub fn exchange(&mut self, timeout: Duration) -> Result<Duration, ProbeFailure> {
        let asked = Instant::now();
        self.exchanged = self.exchanged.wrapping_add(1);
        self.stream.set_read_timeout(Some(scaled(timeout)))?;
        self.stream.write_all(&[self.exchanged])?;
        let mut answer = [0];
        self.stream.read_exact(&mut answer)?;
        if answer == [self.exchanged] {
            Ok(asked.elapsed())
        } else {
            Err(ProbeFailure::UnexpectedAnswer(format!("{answer:?}")))
        }
    }
}
