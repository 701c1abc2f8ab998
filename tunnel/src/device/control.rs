//! Control messages of UDP sockets (`cmsg(3)`), written and read as bytes: segment size, type of service, our own
//! address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;

/// `struct cmsghdr`: its length (a `size_t`), level and type.
const HEADER: usize = size_of::<libc::cmsghdr>();
/// Control messages are aligned as a `size_t` is (`CMSG_ALIGN`).
const ALIGN: usize = size_of::<usize>();

/// Control messages for one send.
#[repr(align(8))]
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl Outgoing {
    /// Segment size, traffic class and IPv6 packet info, each with its header.
    const ROOM: usize = 3 * (HEADER + ALIGN) + 24;

    /// Control messages for datagrams to this family: how they are segmented (if there is more than one), marked, and
    /// which of our addresses they leave from.
    pub(super) fn new(v4: bool, segment: Option<u16>, tos: u8, local: Option<IpAddr>) -> Self {
        let mut messages = Self { bytes: [0; Self::ROOM], len: 0 };
        if let Some(segment) = segment {
            messages.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        let class = libc::c_int::from(tos).to_ne_bytes();
        match (v4, local) {
            (true, Some(IpAddr::V4(local))) => {
                // struct in_pktinfo: interface, our address, the header's address (ip(7)).
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&local.octets());
                messages.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            (false, Some(IpAddr::V6(local))) => {
                // struct in6_pktinfo: our address, interface (ipv6(7)).
                let mut info = [0; 20];
                info[..16].copy_from_slice(&local.octets());
                messages.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
        if tos != 0 {
            let (level, kind) =
                if v4 { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
            messages.push(level, kind, &class);
        }
        messages
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, value: &[u8]) {
        let len = HEADER + value.len();
        let Some(place) = self.bytes.get_mut(self.len..self.len + len.next_multiple_of(ALIGN)) else { return };
        place[..ALIGN].copy_from_slice(&len.to_ne_bytes());
        place[ALIGN..ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
        place[ALIGN + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        place[HEADER..len].copy_from_slice(value);
        self.len += len.next_multiple_of(ALIGN);
    }

    /// The messages, as `sendmsg` takes them.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What the control messages of a received buffer say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Incoming {
    /// The size of the datagrams that the kernel joined; `None` for a single one.
    pub(super) segment: Option<usize>,
    /// The type of service or traffic class.
    pub(super) tos: u8,
    /// Which of our addresses it came to.
    pub(super) local: Option<IpAddr>,
}

impl Incoming {
    /// Reads control messages; what is not known is skipped, and what is cut off is not read.
    pub(super) fn parse(mut control: &[u8]) -> Self {
        let mut incoming = Self::default();
        while let Some((header, _)) = control.split_at_checked(HEADER) {
            let len = header[..ALIGN].try_into().map_or(0, usize::from_ne_bytes);
            let number = |at: usize| header[at..at + 4].try_into().map_or(0, i32::from_ne_bytes);
            let Some(value) = control.get(HEADER..len) else { break };
            incoming.read(number(ALIGN), number(ALIGN + 4), value);
            control = control.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        }
        incoming
    }

    fn read(&mut self, level: libc::c_int, kind: libc::c_int, value: &[u8]) {
        let int = || value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => self.segment = int().and_then(|size| usize::try_from(size).ok()),
            // A byte from the kernel, an int from some versions of it (ip(7)); its low byte is the first here and
            // there.
            (libc::IPPROTO_IP, libc::IP_TOS) => self.tos = value.first().copied().unwrap_or(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => self.tos = int().map_or(0, |class| class.to_le_bytes()[0]),
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // The second address: the header's destination, to which the peer sent.
                let address = value.get(8..12).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
                self.local = address.map(|octets| Ipv4Addr::from(octets).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                self.local = value.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_read_back_as_written() {
        let v4 = Outgoing::new(true, Some(1452), 2, Some("198.51.100.2".parse().unwrap()));
        // The kernel puts the address that a received packet was sent to behind the one that a sent packet leaves from.
        let mut bytes = v4.as_bytes().to_vec();
        let info = HEADER + ALIGN + HEADER;
        bytes.copy_within(info + 4..info + 8, info + 8);
        let read = Incoming::parse(&bytes);
        assert_eq!((read.tos, read.local), (2, Some("198.51.100.2".parse().unwrap())));

        let v6 = Outgoing::new(false, None, 0x88, Some("2001:db8::2".parse().unwrap()));
        let expected = Incoming { segment: None, tos: 0x88, local: Some("2001:db8::2".parse().unwrap()) };
        assert_eq!(Incoming::parse(v6.as_bytes()), expected);
        assert_eq!(Outgoing::new(true, None, 0, None).as_bytes(), [0_u8; 0]);
        // An address of the other family is not sent along.
        assert_eq!(Outgoing::new(true, None, 0, Some("2001:db8::2".parse().unwrap())).as_bytes(), [0_u8; 0]);
    }

    #[test]
    fn control_messages_that_are_cut_off_are_not_read() {
        let whole = Outgoing::new(false, None, 0x88, Some("2001:db8::2".parse().unwrap()));
        for len in 0..whole.as_bytes().len() {
            let read = Incoming::parse(&whole.as_bytes()[..len]);
            assert!(read.local.is_none() || len >= HEADER + 20);
        }
        assert_eq!(Incoming::parse(&[0xff; 64]), Incoming::default());
        assert_eq!(Incoming::parse(&[0; 64]), Incoming::default());
    }
}
