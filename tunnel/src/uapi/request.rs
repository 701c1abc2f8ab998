//! The requests of clients: lines in, a [`Request`] out.

use std::net::{SocketAddr, SocketAddrV6};

use nix::errno::Errno;
use zeroize::Zeroizing;

use crate::key::{LENGTH, PresharedKey, PrivateKey, PublicKey};
use crate::model::{AllowedIp, PeerUpdate, Update};
use crate::syntax::{decimal, mark, prefix, quoted};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `get=1`
    Get,
    /// `set=1`
    Set(Update),
}

/// Why a request was refused. It never contains a key, or a text that may be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Refused {
    /// The line of the request, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It is no request of this protocol.
    #[error("neither `get=1` nor `set=1`")]
    UnknownOperation,
    /// `get=1` takes no further lines.
    #[error("`get=1` is followed by an empty line only")]
    GetHasNoKeys,
    /// No `=`, or no text at all.
    #[error("not a line of the form `key=value`")]
    NoPair,
    /// Longer than any line of the protocol can be.
    #[error("the line is too long")]
    TooLong,
    /// The client went away before the empty line that ends a request.
    #[error("the request ends without an empty line")]
    Unfinished,
    /// A key that is unknown, or in the wrong place.
    #[error("{key} is no key of {}", if *.in_peer { "a peer" } else { "an interface, and no peer was named yet" })]
    UnknownKey {
        /// The key, quoted.
        key: String,
        /// Whether a peer was being described.
        in_peer: bool,
    },
    /// A value that its key cannot have.
    #[error("{key}: {value} is not {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value, quoted.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

impl Refused {
    /// The error number for the client, the same as wireguard-go's: wg(8) prints the system's text for it.
    pub fn errno(&self) -> Errno {
        match self.reason {
            Reason::NoPair | Reason::TooLong | Reason::Unfinished => Errno::EPROTO,
            Reason::UnknownOperation | Reason::GetHasNoKeys | Reason::UnknownKey { .. } | Reason::Value { .. } => {
                Errno::EINVAL
            }
        }
    }
}

/// Takes the lines of a connection, one after the other, and returns a request whenever an empty line ends one.
///
/// After a mistake it reads on to that empty line, so that the answer comes when the client expects it, and the next
/// request is read from its beginning.
#[derive(Debug)]
pub struct Parser<F> {
    /// Finds the number of an interface by its name: wg(8) writes the scope of a link-local endpoint by name.
    scope_of: F,
    line: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Between,
    Get,
    Set(Update),
    Refused(Refused),
}

impl<F: Fn(&str) -> Option<u32>> Parser<F> {
    /// A parser before the first request.
    pub fn new(scope_of: F) -> Self {
        Self { scope_of, line: 0, state: State::Between }
    }

    /// Whether a request has begun and not ended.
    pub fn is_inside(&self) -> bool {
        !matches!(self.state, State::Between)
    }

    /// Takes a line, without its end.
    pub fn line(&mut self, line: &[u8]) -> Option<Result<Request, Refused>> {
        self.line += 1;
        if line.is_empty() {
            self.line = 0;
            return match std::mem::replace(&mut self.state, State::Between) {
                State::Between => None,
                State::Get => Some(Ok(Request::Get)),
                State::Set(update) => Some(Ok(Request::Set(update))),
                State::Refused(refused) => Some(Err(refused)),
            };
        }
        let taken = match &mut self.state {
            State::Between => match line {
                b"get=1" => {
                    self.state = State::Get;
                    Ok(())
                }
                b"set=1" => {
                    self.state = State::Set(Update::default());
                    Ok(())
                }
                _ => Err(Reason::UnknownOperation),
            },
            State::Get => Err(Reason::GetHasNoKeys),
            State::Set(update) => take_pair(update, line, &self.scope_of),
            State::Refused(_) => Ok(()),
        };
        if let Err(reason) = taken {
            self.refuse(reason);
        }
        None
    }

    /// Takes a line that was too long to be kept.
    pub fn too_long(&mut self) {
        self.line += 1;
        if !matches!(self.state, State::Refused(_)) {
            self.refuse(Reason::TooLong);
        }
    }

    /// Takes the end of the connection; the error if a request was incomplete.
    pub fn end(&mut self) -> Option<Refused> {
        let unfinished = self.is_inside().then_some(Refused { line: self.line, reason: Reason::Unfinished });
        (self.line, self.state) = (0, State::Between);
        unfinished
    }

    fn refuse(&mut self, reason: Reason) {
        self.state = State::Refused(Refused { line: self.line, reason });
    }
}

/// Reads the lines between `set=1` and the empty line. Scopes of endpoints must be numbers.
pub fn parse_set<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Update, Refused> {
    let mut update = Update::default();
    for (index, line) in lines.into_iter().enumerate() {
        take_pair(&mut update, line.as_bytes(), &|_| None).map_err(|reason| Refused { line: index + 1, reason })?;
    }
    Ok(update)
}

fn take_pair(update: &mut Update, line: &[u8], scope_of: &dyn Fn(&str) -> Option<u32>) -> Result<(), Reason> {
    let line = std::str::from_utf8(line).map_err(|_| Reason::NoPair)?;
    let (key, value) = line.split_once('=').ok_or(Reason::NoPair)?;
    match update.peers.last_mut() {
        _ if key == "public_key" => {
            let public_key = PublicKey(*secret("public_key", value)?);
            update.peers.push(PeerUpdate::new(public_key));
            Ok(())
        }
        None => take_interface_pair(update, key, value),
        Some(peer) => take_peer_pair(peer, key, value, scope_of),
    }
}

fn take_interface_pair(update: &mut Update, key: &str, value: &str) -> Result<(), Reason> {
    match key {
        "private_key" => {
            let bytes = secret("private_key", value)?;
            let none = *bytes == [0; LENGTH];
            update.private_key = Some((!none).then(|| PrivateKey::from_bytes(*bytes)));
        }
        "listen_port" => update.listen_port = Some(plain("listen_port", value, "a port", decimal)?),
        "fwmark" => update.fwmark = Some(plain("fwmark", value, "a number of 32 bits", mark)?),
        "replace_peers" => update.replace_peers = flag("replace_peers", value)?,
        _ => return Err(Reason::UnknownKey { key: quoted(key), in_peer: false }),
    }
    Ok(())
}

fn take_peer_pair(
    peer: &mut PeerUpdate,
    key: &str,
    value: &str,
    scope_of: &dyn Fn(&str) -> Option<u32>,
) -> Result<(), Reason> {
    match key {
        "remove" => peer.remove = flag("remove", value)?,
        "update_only" => peer.update_only = flag("update_only", value)?,
        "preshared_key" => peer.preshared_key = Some(PresharedKey(*secret("preshared_key", value)?)),
        "endpoint" => {
            let expected = "an address and a port, as in 192.0.2.1:51820 or [2001:db8::1]:51820";
            peer.endpoint = Some(plain("endpoint", value, expected, |text| endpoint(text, scope_of))?);
        }
        "persistent_keepalive_interval" => {
            let interval = plain("persistent_keepalive_interval", value, "a number of seconds below 65536", decimal)?;
            peer.persistent_keepalive = Some(interval);
        }
        "replace_allowed_ips" => peer.replace_allowed_ips = flag("replace_allowed_ips", value)?,
        "allowed_ip" => {
            peer.allowed_ips.push(plain("allowed_ip", value, "a prefix, as in 192.0.2.0/24", allowed_ip)?);
        }
        // There is only one version.
        "protocol_version" => {
            plain("protocol_version", value, "version 1", |text| (text == "1").then_some(()))?;
        }
        _ => return Err(Reason::UnknownKey { key: quoted(key), in_peer: true }),
    }
    Ok(())
}

/// 64 hexadecimal digits, read in the same time whatever they are.
pub(super) fn secret(key: &'static str, value: &str) -> Result<Zeroizing<[u8; LENGTH]>, Reason> {
    let mut bytes = Zeroizing::new([0; LENGTH]);
    let whole = base16ct::mixed::decode(value, bytes.as_mut_slice()).is_ok_and(|read| read.len() == LENGTH);
    if whole {
        Ok(bytes)
    } else {
        Err(Reason::Value { key, value: "the value".to_owned(), expected: "a key of 64 hexadecimal digits" })
    }
}

fn plain<T>(
    key: &'static str,
    value: &str,
    expected: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Reason> {
    read(value).ok_or_else(|| Reason::Value { key, value: quoted(value), expected })
}

/// `false` cannot be written.
fn flag(key: &'static str, value: &str) -> Result<bool, Reason> {
    plain(key, value, "`true`", |text| (text == "true").then_some(true))
}

fn endpoint(text: &str, scope_of: &dyn Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let named_scope = || {
        let (host, port) = text.strip_prefix('[')?.split_once("]:")?;
        let (address, scope) = host.split_once('%')?;
        Some(SocketAddrV6::new(address.parse().ok()?, decimal(port)?, 0, scope_of(scope)?).into())
    };
    text.parse().ok().or_else(named_scope)
}

fn allowed_ip(text: &str) -> Option<AllowedIp> {
    let (text, remove) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
    Some(AllowedIp { net: prefix(text)?, remove })
}
