//! The answers to clients.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use zeroize::{Zeroize, Zeroizing};

use crate::key::LENGTH;
use crate::model::{PeerSnapshot, Snapshot};

/// Bytes that are gathered before they are sent: few system calls for 10 000 peers, little memory.
const CHUNK: usize = 16 * 1024;
/// No line is longer: the longest are keys, 64 digits and `preshared_key=`.
const LONGEST_LINE: usize = 128;

/// The whole answer to `get=1`, with the empty line at its end.
///
/// # Panics
/// Never: memory takes all that is written, and the protocol is ASCII.
pub fn format_get(snapshot: &Snapshot) -> Zeroizing<String> {
    // The length is measured first: a text that grows leaves copies of its secrets in memory.
    let mut length = Length(0);
    let mut text = Zeroizing::new(Vec::new());
    let written = write_get(snapshot, &mut length).and_then(|()| {
        text.reserve_exact(length.0);
        write_get(snapshot, &mut *text)
    });
    written.expect("memory takes all that is written");
    Zeroizing::new(String::from_utf8(std::mem::take(&mut *text)).expect("the protocol is ASCII"))
}

/// Writes the answer to `get=1` piece by piece, in the order that wg(8) reads: the interface's keys before the first
/// peer, a peer's after its `public_key`.
pub(crate) fn write_get(snapshot: &Snapshot, to: impl Write) -> io::Result<()> {
    let Snapshot { private_key, listen_port, fwmark, peers } = snapshot;
    let mut answer = Answer::new(to);
    if let Some(private_key) = private_key {
        answer.key("private_key", private_key.bytes())?;
    }
    if *listen_port != 0 {
        answer.line(format_args!("listen_port={listen_port}"))?;
    }
    if *fwmark != 0 {
        answer.line(format_args!("fwmark={fwmark}"))?;
    }
    for peer in peers {
        write_peer(peer, &mut answer)?;
    }
    answer.line(format_args!("errno=0\n"))?;
    answer.flush()
}

fn write_peer(peer: &PeerSnapshot, answer: &mut Answer<impl Write>) -> io::Result<()> {
    answer.key("public_key", &peer.public_key.0)?;
    if let Some(key) = peer.preshared_key.as_ref().filter(|key| !key.is_none()) {
        answer.key("preshared_key", &key.0)?;
    }
    answer.line(format_args!("protocol_version=1"))?;
    if let Some(endpoint) = peer.endpoint {
        answer.line(format_args!("endpoint={endpoint}"))?;
    }
    // Never, and a clock before 1970, are both 0.
    let since_1970 = |then: SystemTime| then.duration_since(SystemTime::UNIX_EPOCH).ok();
    let handshake = peer.last_handshake.and_then(since_1970).unwrap_or(Duration::ZERO);
    answer.line(format_args!("last_handshake_time_sec={}", handshake.as_secs()))?;
    answer.line(format_args!("last_handshake_time_nsec={}", handshake.subsec_nanos()))?;
    answer.line(format_args!("tx_bytes={}", peer.tx_bytes))?;
    answer.line(format_args!("rx_bytes={}", peer.rx_bytes))?;
    answer.line(format_args!("persistent_keepalive_interval={}", peer.persistent_keepalive))?;
    peer.allowed_ips.iter().try_for_each(|net| answer.line(format_args!("allowed_ip={net}")))
}

/// The answer to `set=1`, and to a request that was refused. wg(8) negates the number that it reads, and wireguard-go
/// sends it negative, so that `wg set` prints `Invalid argument` for `errno=-22`.
pub(crate) fn format_errno(result: Result<(), Errno>) -> String {
    format!("errno={}\n\n", result.map_or_else(|errno| -(errno as i32), |()| 0))
}

/// Lines that wait to be sent.
pub(super) struct Answer<W: Write> {
    chunk: Zeroizing<String>,
    to: W,
}

impl<W: Write> Answer<W> {
    pub(super) fn new(to: W) -> Self {
        Self { chunk: Zeroizing::new(String::with_capacity(CHUNK)), to }
    }

    pub(super) fn line(&mut self, line: std::fmt::Arguments<'_>) -> io::Result<()> {
        if self.chunk.len() + LONGEST_LINE > CHUNK {
            self.flush()?;
        }
        writeln!(self.chunk, "{line}").map_err(io::Error::other)
    }

    pub(super) fn key(&mut self, name: &str, key: &[u8; LENGTH]) -> io::Result<()> {
        let mut digits = Zeroizing::new([0; 2 * LENGTH]);
        let digits = base16ct::lower::encode_str(key, digits.as_mut_slice()).map_err(io::Error::other)?;
        self.line(format_args!("{name}={digits}"))
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(self.chunk.as_bytes())?;
        self.chunk.zeroize();
        Ok(())
    }
}

/// Counts what is written to it.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
