//! The messages of the private socket: JSON, one a packet, typed and of bounded length. No key is ever in one; keys
//! pass by UAPI only. docs/decisions/0021-the-tunnel-is-a-process.md has the order in which they are sent.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::device::Features;
use crate::interface::InterfaceName;
use crate::key::PublicKey;
use crate::model::{Refused, RefusedPeer};

/// The version of this protocol. A daemon that meets another one takes the descriptors and starts a new process, so
/// [`Request::Attach`], [`Request::Descriptors`], [`Request::Stop`] and their answers stay as they are.
pub const VERSION: u32 = 1;

/// The longest message, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// The most descriptors of a message: eight queues with two sockets each, two probes, and some.
pub const MAX_DESCRIPTORS: usize = 64;

/// The most peers of one [`Request::Initiate`].
pub const MAX_INITIATED: usize = 500;
/// The most peers of which a report says what is refused.
const MAX_REFUSED_PEERS: usize = 200;

/// What the daemon asks of the tunnel's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The first message. With a stream that is served by UAPI, and a socket for [`Ask`].
    Attach {
        /// The daemon's [`VERSION`].
        version: u32,
    },
    /// What runs?
    State,
    /// Carry packets. With the queues of the TUN interface, the UDP sockets and the probes, in this order.
    Start {
        /// The interface's name.
        interface: InterfaceName,
        /// How many queues are passed.
        queues: usize,
        /// How many UDP sockets are passed.
        sockets: usize,
        /// The mark that the sockets have.
        fwmark: u32,
    },
    /// Serve UAPI on a socket that listens, which is passed.
    Serve,
    /// Pass copies of the queues and UDP sockets.
    Descriptors,
    /// Whom does it refuse?
    Refused,
    /// Start handshakes.
    Initiate {
        /// At most [`MAX_INITIATED`].
        peers: Vec<PublicKey>,
    },
    /// End the process.
    Stop,
}

/// What the tunnel's process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To [`Request::Attach`] and [`Request::State`].
    State(State),
    /// To [`Request::Descriptors`]. With them, in this order.
    Descriptors {
        /// How many queues are passed.
        queues: usize,
        /// How many UDP sockets are passed.
        sockets: usize,
    },
    /// To [`Request::Refused`].
    Refused(Refused),
    /// It is done.
    Done,
    /// It is not done.
    Failed {
        /// The kernel's number for the reason.
        errno: i32,
        /// The reason, for people.
        reason: String,
    },
}

/// What runs in the tunnel's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The process's [`VERSION`].
    pub version: u32,
    /// The user of the process, who is to own the TUN interface.
    pub user: u32,
    /// The interface, if one was started.
    pub interface: Option<InterfaceState>,
}

/// An interface that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceState {
    /// Its name.
    pub name: InterfaceName,
    /// Whether it was deleted, or a thread ended: it has to be started again.
    pub is_gone: bool,
    /// What the kernel does for it.
    pub features: Features,
}

/// What the tunnel's process asks of the daemon, since it may not do it itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Bind pairs of UDP sockets, one of each address family. With the probes, which get the mark too.
    Bind {
        /// The port; 0 is any.
        port: u16,
        /// The mark (`SO_MARK`).
        fwmark: u32,
        /// How many pairs.
        pairs: usize,
    },
    /// Change the mark of the sockets that are passed.
    Mark {
        /// The mark (`SO_MARK`).
        fwmark: u32,
    },
}

/// What the daemon answers to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Given {
    /// It is done. With the sockets, if they were asked for.
    Done,
    /// It is not done.
    Refused {
        /// The kernel's number for the reason.
        errno: i32,
    },
}

impl Answer {
    /// A failure of the kernel's.
    pub fn failed(error: &(dyn std::error::Error + 'static), errno: i32) -> Self {
        let reason = crate::error::chain(error).chars().take(400).collect();
        Self::Failed { errno, reason }
    }
}

/// A report that fits into a message: of many peers, those that are refused most.
pub(super) fn bounded(mut refused: Refused) -> Refused {
    if refused.peers.len() > MAX_REFUSED_PEERS {
        let packets = |peer: &RefusedPeer| {
            let foreign = peer.foreign_source.map_or(0, |source| source.packets);
            std::cmp::Reverse(foreign.saturating_add(peer.unconfirmed.into()))
        };
        refused.peers.sort_by_key(packets);
        refused.peers.truncate(MAX_REFUSED_PEERS);
    }
    refused
}

/// A message as it is sent.
pub(super) fn format(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_BYTES { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(bytes) }
}

/// A message as it came.
///
/// # Errors
/// It is none of this protocol.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::{ForeignSource, UnknownKey};

    fn full() -> Refused {
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        let last = SystemTime::UNIX_EPOCH + std::time::Duration::new(u64::MAX / 4, 999_999_999);
        let mut refused = Refused::default();
        refused.handshakes.unknown_keys =
            vec![UnknownKey { address, public_key: PublicKey([255; 32]), times: u64::MAX, last }; 32];
        let peer = |number: u32| RefusedPeer {
            public_key: PublicKey([255; 32]),
            foreign_source: Some(ForeignSource { address, packets: number.into(), last }),
            unconfirmed: u32::MAX - number,
        };
        refused.peers = (0..10_000).map(peer).collect();
        refused
    }

    #[test]
    fn the_longest_messages_fit() {
        let bounded = bounded(full());
        let longest = format(&Answer::Refused(bounded.clone())).unwrap();
        assert_eq!(parse::<Answer>(&longest).unwrap(), Answer::Refused(bounded));
        let initiate = Request::Initiate { peers: vec![PublicKey([255; 32]); MAX_INITIATED] };
        assert_eq!(parse::<Request>(&format(&initiate).unwrap()).unwrap(), initiate);
        assert!(format(&Answer::Refused(full())).is_err(), "a report of all peers is too long, and not sent");
    }

    #[test]
    fn the_messages_between_versions_stay_as_they_are() {
        for (message, text) in [
            (Request::Attach { version: 1 }, r#"{"attach":{"version":1}}"#),
            (Request::Descriptors, r#""descriptors""#),
            (Request::Stop, r#""stop""#),
        ] {
            assert_eq!(String::from_utf8(format(&message).unwrap()).unwrap(), text);
        }
        let answer = Answer::Descriptors { queues: 1, sockets: 2 };
        assert_eq!(format(&answer).unwrap(), br#"{"descriptors":{"queues":1,"sockets":2}}"#);
        assert_eq!(format(&Answer::Done).unwrap(), br#""done""#);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for wrong in
            ["", "{}", "null", "\"start\"", r#"{"attach":{"version":1,"more":2}}"#, r#"{"attach":{"version":-1}}"#]
        {
            assert!(parse::<Request>(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let name = r#"{"start":{"interface":"../x","queues":1,"sockets":1,"fwmark":0}}"#;
        assert!(parse::<Request>(name.as_bytes()).is_err());
    }
}
