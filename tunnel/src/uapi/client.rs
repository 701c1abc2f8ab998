//! The other side of the protocol: asks a data plane in another process, as wg(8) does. It trusts no answer: lines are
//! short, an answer is of bounded length, and a silent process is not waited for.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use super::answer::Answer;
use super::lines::{Line, Lines};
use super::request::secret;
use crate::key::{LENGTH, PresharedKey, PrivateKey, PublicKey};
use crate::model::{PeerSnapshot, PeerUpdate, Snapshot, Update};
use crate::syntax::{decimal, mark, prefix};

/// The longest answer, in bytes: 10 000 peers with ten allowed-ips each take 6 MB.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Nanoseconds of a second.
const NANOS: u32 = 1_000_000_000;
/// How long the process may be silent.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection is over, or silent.
    #[error("the tunnel's process does not answer")]
    Connection(#[from] io::Error),
    /// What came is no answer of this protocol. Whatever follows cannot be trusted either.
    #[error("the tunnel's process answers with nonsense")]
    Nonsense,
    /// The change was refused.
    #[error("the tunnel refuses the change")]
    Refused(#[source] Errno),
}

impl Error {
    /// Whether the connection can be used no more.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    /// The number with which the change was refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(errno) => Some(*errno),
            Self::Connection(_) | Self::Nonsense => None,
        }
    }
}

/// A connection to a data plane.
pub struct Client {
    stream: UnixStream,
    lines: Lines<UnixStream>,
}

impl Client {
    /// Speaks through this stream.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { lines: Lines::new(stream.try_clone()?), stream })
    }

    /// `get=1`
    pub fn get(&mut self) -> Result<Snapshot, Error> {
        self.stream.write_all(b"get=1\n\n")?;
        let mut reader = Reader::default();
        self.answer(|line| reader.line(line))?;
        Ok(reader.snapshot())
    }

    /// `set=1`
    pub fn set(&mut self, update: &Update) -> Result<(), Error> {
        write_set(update, &self.stream)?;
        self.answer(|_| None)
    }

    /// Passes the lines of an answer on, as far as its error number.
    fn answer(&mut self, mut line: impl FnMut(&str) -> Option<()>) -> Result<(), Error> {
        self.lines.start_over();
        let mut errno = None;
        loop {
            if self.lines.given() > MAX_ANSWER {
                return Err(Error::Nonsense);
            }
            let Some(Line::Text(text)) = self.lines.next()? else { return Err(self.end()) };
            let text = std::str::from_utf8(text).map_err(|_| Error::Nonsense)?;
            match (errno, text.strip_prefix("errno=")) {
                (Some(0), None) if text.is_empty() => return Ok(()),
                (Some(errno), None) if text.is_empty() => return Err(Error::Refused(Errno::from_raw(errno))),
                (None, Some(number)) => errno = Some(errno_of(number).ok_or(Error::Nonsense)?),
                (None, None) => line(text).ok_or(Error::Nonsense)?,
                (Some(_), _) => return Err(Error::Nonsense),
            }
        }
    }

    /// The stream ended, or a line was too long; what comes after either is lost.
    fn end(&self) -> Error {
        // Err: it is shut down already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        Error::Connection(io::ErrorKind::UnexpectedEof.into())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// wireguard-go and this crate write the number negated.
fn errno_of(text: &str) -> Option<i32> {
    decimal(text.strip_prefix('-').unwrap_or(text))
}

/// Writes `set=1` and everything that changes.
pub(crate) fn write_set(update: &Update, to: impl Write) -> io::Result<()> {
    let Update { private_key, listen_port, fwmark, replace_peers, peers } = update;
    let mut request = Answer::new(to);
    request.line(format_args!("set=1"))?;
    if let Some(key) = private_key {
        request.key("private_key", key.as_ref().map_or(&[0; LENGTH], PrivateKey::bytes))?;
    }
    if let Some(port) = listen_port {
        request.line(format_args!("listen_port={port}"))?;
    }
    if let Some(mark) = fwmark {
        request.line(format_args!("fwmark={mark}"))?;
    }
    if *replace_peers {
        request.line(format_args!("replace_peers=true"))?;
    }
    for peer in peers {
        write_peer(peer, &mut request)?;
    }
    request.line(format_args!(""))?;
    request.flush()
}

fn write_peer(peer: &PeerUpdate, request: &mut Answer<impl Write>) -> io::Result<()> {
    request.key("public_key", &peer.public_key.0)?;
    for (is_set, flag) in [
        (peer.remove, "remove=true"),
        (peer.update_only, "update_only=true"),
        (peer.replace_allowed_ips, "replace_allowed_ips=true"),
    ] {
        if is_set {
            request.line(format_args!("{flag}"))?;
        }
    }
    if let Some(key) = &peer.preshared_key {
        request.key("preshared_key", &key.0)?;
    }
    if let Some(endpoint) = peer.endpoint {
        request.line(format_args!("endpoint={endpoint}"))?;
    }
    if let Some(seconds) = peer.persistent_keepalive {
        request.line(format_args!("persistent_keepalive_interval={seconds}"))?;
    }
    for allowed_ip in &peer.allowed_ips {
        let minus = if allowed_ip.remove { "-" } else { "" };
        request.line(format_args!("allowed_ip={minus}{}", allowed_ip.net))?;
    }
    Ok(())
}

/// Reads the lines of the answer to `get=1`.
#[derive(Debug, Default)]
pub struct Reader {
    snapshot: Snapshot,
    /// The newest handshake of the last peer, in seconds and nanoseconds, which come in two lines.
    handshake: (u32, u32),
}

impl Reader {
    /// Takes a line before `errno=`; `None` if it is none of the protocol, or in the wrong place.
    pub fn line(&mut self, line: &str) -> Option<()> {
        let (key, value) = line.split_once('=')?;
        if key == "public_key" {
            self.end_peer();
            self.snapshot.peers.push(PeerSnapshot::new(PublicKey(key_of(value)?)));
            return Some(());
        }
        match self.snapshot.peers.last_mut() {
            None => match key {
                "private_key" => self.snapshot.private_key = Some(PrivateKey::from_bytes(key_of(value)?)),
                "listen_port" => self.snapshot.listen_port = decimal(value)?,
                "fwmark" => self.snapshot.fwmark = mark(value)?,
                _ => return None,
            },
            Some(peer) => match key {
                "preshared_key" => {
                    let key = PresharedKey(key_of(value)?);
                    peer.preshared_key = (!key.is_none()).then_some(key);
                }
                "protocol_version" => (value == "1").then_some(())?,
                "endpoint" => peer.endpoint = Some(value.parse().ok()?),
                "last_handshake_time_sec" => self.handshake.0 = decimal(value)?,
                "last_handshake_time_nsec" => self.handshake.1 = decimal(value).filter(|nanos| *nanos < NANOS)?,
                "tx_bytes" => peer.tx_bytes = decimal(value)?,
                "rx_bytes" => peer.rx_bytes = decimal(value)?,
                "persistent_keepalive_interval" => peer.persistent_keepalive = decimal(value)?,
                "allowed_ip" => peer.allowed_ips.push(prefix(value)?),
                _ => return None,
            },
        }
        Some(())
    }

    fn end_peer(&mut self) {
        let (seconds, nanos) = std::mem::take(&mut self.handshake);
        let handshake = Duration::new(seconds.into(), nanos);
        if let Some(peer) = self.snapshot.peers.last_mut() {
            peer.last_handshake = (!handshake.is_zero()).then(|| SystemTime::UNIX_EPOCH + handshake);
        }
    }

    /// What the lines said.
    pub fn snapshot(mut self) -> Snapshot {
        self.end_peer();
        self.snapshot
    }
}

fn key_of(text: &str) -> Option<[u8; LENGTH]> {
    secret("key", text).ok().map(|bytes| *bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::super::answer::format_get;
    use super::super::tests::any_update;
    use super::super::{Interface, parse_set, serve_stream};
    use super::*;

    fn written(update: &Update) -> String {
        let mut text = Vec::new();
        write_set(update, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_set_is_what_is_read(update in any_update()) {
            let text = written(&update);
            let lines = text.strip_prefix("set=1\n").and_then(|text| text.strip_suffix("\n\n")).unwrap_or_default();
            prop_assert_eq!(parse_set(lines.lines()), Ok(update));
        }

        #[test]
        fn any_lines_are_a_snapshot_or_nonsense(
            lines in proptest::collection::vec("[a-z_]{0,12}=?[-0-9a-f.:/%\\[\\]]{0,70}", 0..20),
        ) {
            let mut reader = Reader::default();
            for line in &lines {
                if reader.line(line).is_none() {
                    break;
                }
            }
            reader.snapshot();
        }
    }

    struct Fake(Mutex<Vec<Update>>, Snapshot);

    impl Interface for Fake {
        fn set(&self, update: Update) -> Result<(), Errno> {
            if update.listen_port == Some(1) {
                return Err(Errno::EADDRINUSE);
            }
            self.0.lock().push(update);
            Ok(())
        }

        fn snapshot(&self) -> Snapshot {
            self.1.clone()
        }
    }

    fn snapshot() -> Snapshot {
        let peer = |byte, seconds: u64| PeerSnapshot {
            preshared_key: (byte == 1).then(|| PresharedKey([9; LENGTH])),
            endpoint: Some("[fe80::1%2]:51820".parse().unwrap()),
            persistent_keepalive: 25,
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            last_handshake: (seconds > 0).then(|| SystemTime::UNIX_EPOCH + Duration::new(seconds, 5)),
            rx_bytes: u64::MAX,
            tx_bytes: 3,
            ..PeerSnapshot::new(PublicKey([byte; LENGTH]))
        };
        Snapshot {
            private_key: Some(PrivateKey::from_bytes([7; LENGTH])),
            listen_port: 51820,
            fwmark: 0xffff_ffff,
            peers: vec![peer(1, 1_700_000_000), peer(2, 0), PeerSnapshot::new(PublicKey([3; LENGTH]))],
        }
    }

    #[test]
    fn a_client_reads_what_a_server_tells_and_its_refusals() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let fake = Arc::new(Fake(Mutex::default(), snapshot()));
        let interface = Arc::clone(&fake);
        let server = std::thread::spawn(move || serve_stream(theirs, &*interface));
        let mut client = Client::new(ours).unwrap();
        for _ in 0..2 {
            assert_eq!(client.get().unwrap(), snapshot());
            let refused = client.set(&Update { listen_port: Some(1), ..Update::default() }).unwrap_err();
            assert_eq!((refused.errno(), refused.is_fatal()), (Some(Errno::EADDRINUSE), false));
            client.set(&Update { fwmark: Some(7), ..Update::default() }).unwrap();
        }
        drop(client);
        server.join().unwrap().unwrap();
        assert_eq!(fake.0.lock().len(), 2);
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        let whole = format_get(&snapshot());
        for (answer, is_good) in [
            (whole.as_str(), true),
            (whole.strip_suffix("errno=0\n\n").unwrap(), false),
            ("errno=0\nlisten_port=1\n\n", false),
            ("listen_port=65536\nerrno=0\n\n", false),
            ("hello\nerrno=0\n\n", false),
            ("rx_bytes=1\nerrno=0\n\n", false),
            ("\nerrno=0\n\n", false),
            ("errno=x\n\n", false),
            ("errno=0\nerrno=0\n\n", false),
        ] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(answer.as_bytes()).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let got = Client::new(ours).unwrap().get();
            assert_eq!(got.is_ok(), is_good, "{answer}");
        }
    }
}
