//! WireGuard's messages as far as they are read outside of the protocol core (whitepaper §5.4): kinds, lengths,
//! indices.

use super::allowed_ips::Slot;

/// What a data message adds to its packet: header and authentication tag, bytes.
pub const DATA_OVERHEAD: usize = 32;
/// A handshake initiation, the longest message that is no data, bytes.
pub const INITIATION_LEN: usize = 148;
const RESPONSE_LEN: usize = 92;
const COOKIE_REPLY_LEN: usize = 64;

/// The outer type of service of handshakes: DSCP AF41, as the kernel sends them (drivers/net/wireguard/messages.h,
/// `HANDSHAKE_DSCP`), so that a full queue on the way does not end a session.
pub const HANDSHAKE_TOS: u8 = 0x88;

/// What a datagram may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first message of a handshake.
    Initiation,
    /// The second.
    Response,
    /// The answer to a handshake message while the receiver is under load.
    CookieReply,
    /// A packet, or a keepalive.
    Data,
}

/// The kind of a datagram, if its type, reserved bytes and length are those of one.
#[inline]
pub fn kind(datagram: &[u8]) -> Option<Kind> {
    let first: [u8; 4] = datagram.get(..4)?.try_into().ok()?;
    match (u32::from_le_bytes(first), datagram.len()) {
        (4, DATA_OVERHEAD..) => Some(Kind::Data),
        (1, INITIATION_LEN) => Some(Kind::Initiation),
        (2, RESPONSE_LEN) => Some(Kind::Response),
        (3, COOKIE_REPLY_LEN) => Some(Kind::CookieReply),
        _ => None,
    }
}

#[inline]
fn word(datagram: &[u8], at: usize) -> u32 {
    datagram.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The receiver's index in a data message or a cookie reply.
#[inline]
pub fn receiver(datagram: &[u8]) -> u32 {
    word(datagram, 4)
}

/// The receiver's index in a handshake response.
#[inline]
pub fn response_receiver(datagram: &[u8]) -> u32 {
    word(datagram, 8)
}

/// The sender's index in a handshake message, which answers have to carry.
#[inline]
pub fn sender(datagram: &[u8]) -> u32 {
    word(datagram, 4)
}

/// A data message's counter.
#[inline]
pub fn counter(datagram: &[u8]) -> u64 {
    u64::from(word(datagram, 8)) | u64::from(word(datagram, 12)) << 32
}

/// Peers that an interface can have: the protocol core's indices have 24 bits, and each peer has two.
pub const MAX_PEERS: u32 = 1 << 23;
const INDEX_MASK: u32 = (1 << 24) - 1;

/// The protocol core's index of a peer. It is scrambled, since observers on the path see it and a plain one would
/// reveal the number of peers.
pub fn index_of(slot: Slot, odd: bool, scramble: u32) -> u32 {
    (((slot.0 << 1) | u32::from(odd)) ^ (scramble << 1)) & INDEX_MASK
}

/// The peer of a message's receiver index. The protocol core keeps the session's number in the lowest byte.
#[inline]
pub fn slot_of(receiver: u32, scramble: u32) -> Slot {
    Slot((((receiver >> 8) ^ (scramble << 1)) & INDEX_MASK) >> 1)
}

/// Which of a peer's two indices a receiver index is.
#[inline]
pub fn is_odd(receiver: u32) -> bool {
    (receiver >> 8) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_by_its_type_reserved_bytes_and_length() {
        let message = |kind: u32, len: usize| {
            let mut bytes = vec![0; len];
            bytes[..4].copy_from_slice(&kind.to_le_bytes());
            bytes
        };
        for (kind_number, len, expected) in [
            (1, 148, Some(Kind::Initiation)),
            (1, 147, None),
            (2, 92, Some(Kind::Response)),
            (2, 93, None),
            (3, 64, Some(Kind::CookieReply)),
            (4, 32, Some(Kind::Data)),
            (4, 31, None),
            (4, 65_507, Some(Kind::Data)),
            (5, 148, None),
            (0x0101, 148, None),
        ] {
            assert_eq!(kind(&message(kind_number, len)), expected, "type {kind_number}, {len} bytes");
        }
        assert_eq!(kind(&[]), None);
        assert_eq!(kind(&[4, 0, 0]), None);
    }

    #[test]
    fn an_index_identifies_its_peer() {
        for slot in [0, 1, 77, MAX_PEERS - 1] {
            for odd in [false, true] {
                for scramble in [0, 1, 0x55_5555, u32::MAX] {
                    let receiver = index_of(Slot(slot), odd, scramble) << 8 | 0x2a;
                    assert_eq!(slot_of(receiver, scramble), Slot(slot));
                    assert_eq!(is_odd(receiver), odd);
                }
            }
        }
    }
}
