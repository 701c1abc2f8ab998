//! nflog's datagrams: bytes in, dropped packets out. Unknown senders decide what is in them, so nothing of it is
//! trusted.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use bastiond_tunnel::packet;

use crate::nflog::{self, Logged};

/// How our rules begin the text that they log; the reason follows.
const PREFIX: &str = "bastiond ";
/// Bytes of the longest reason. The kernel keeps 127 bytes of the whole text.
const LONGEST_REASON: usize = 64;
/// The protocols whose header begins with two ports (IANA, "Assigned Internet Protocol Numbers").
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// A packet that a rule of ours dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The name of the counter that counted it, `dropped_…`.
    pub reason: String,
    /// The index of the interface by which it came in.
    pub from: Option<u32>,
    /// The index of the interface by which it would have left.
    pub to: Option<u32>,
    /// Its source address, which may be forged.
    pub source: Option<IpAddr>,
    /// Its destination address.
    pub destination: Option<IpAddr>,
    /// The number of the protocol inside IP.
    pub protocol: Option<u8>,
    /// Source and destination port, if its protocol has ports and the packet is not a later fragment.
    pub ports: Option<(u16, u16)>,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if let Some(protocol) = self.protocol {
            write!(f, ": {}", protocol_name(protocol))?;
        }
        let end = |address: IpAddr, port: Option<u16>| match port {
            Some(port) => std::net::SocketAddr::from((address, port)).to_string(),
            None => address.to_string(),
        };
        if let (Some(source), Some(destination)) = (self.source, self.destination) {
            let (from, to) = self.ports.unzip();
            write!(f, " {} -> {}", end(source, from), end(destination, to))?;
        }
        Ok(())
    }
}

/// The usual name of a protocol, or its number.
pub(super) fn protocol_name(number: u8) -> Cow<'static, str> {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        other => other.to_string().into(),
    }
}

/// The packets in a datagram that rules of ours dropped. What cannot be read, or was logged by other rules, is left
/// out.
pub fn read(datagram: &[u8]) -> Vec<Dropped> {
    nflog::packets(datagram).filter_map(dropped).collect()
}

fn dropped(logged: Logged) -> Option<Dropped> {
    let Logged { prefix, from, to, bytes } = logged;
    let reason = reason_in(&prefix)?;
    let transport = packet::transport(&bytes);
    Some(Dropped {
        reason,
        from,
        to,
        source: packet::source(&bytes),
        destination: packet::destination(&bytes),
        protocol: transport.map(|transport| transport.protocol),
        ports: transport.and_then(|transport| ports(&bytes, transport)),
    })
}

/// The reason in a logged text of ours; `None` for any text that could imitate another log line.
fn reason_in(prefix: &[u8]) -> Option<String> {
    let reason = std::str::from_utf8(prefix).ok()?.strip_prefix(PREFIX)?;
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (!reason.is_empty() && reason.len() <= LONGEST_REASON && reason.bytes().all(is_word)).then(|| reason.to_owned())
}

fn ports(bytes: &[u8], transport: packet::Transport) -> Option<(u16, u16)> {
    let begins = transport.fragment.is_none_or(|offset| offset == 0);
    let header = bytes.get(transport.offset..)?.first_chunk::<4>()?;
    let [source_high, source_low, destination_high, destination_low] = *header;
    (begins && WITH_PORTS.contains(&transport.protocol)).then(|| {
        (u16::from_be_bytes([source_high, source_low]), u16::from_be_bytes([destination_high, destination_low]))
    })
}
