//! Packets of SCTP (RFC 9260), made by hand: many kernels have no SCTP, but all track and translate its associations.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::probe::ProbeFailure;
use super::raw::{RawClient, RawReflector};
use crate::namespace::Namespace;

/// Its number in the IP header.
const SCTP: u8 = 132;
/// The source port of associations.
const CLIENT_PORT: u16 = 41_000;
/// The tags of both ends, which a receiver chooses for what it gets.
const CLIENT_TAG: u32 = 0x0c11_e470;
const SERVER_TAG: u32 = 0x05e4_7e40;
/// What a server gets back from the client before it keeps a state.
const COOKIE: [u8; 8] = *b"a cookie";

/// Types of chunks.
mod chunk {
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
}

/// A request for an association, whose sender wants `tag` in all packets to it.
pub fn sctp_init(source: u16, destination: u16, tag: u32) -> Vec<u8> {
    // Tag, receive window, one stream each way, first sequence number.
    let value = [tag.to_be_bytes(), [0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1]].concat();
    packet([source, destination], 0, chunk::INIT, &value)
}

/// The answer to it, sent to an end that wants `to_tag`.
pub fn sctp_init_ack(source: u16, destination: u16, to_tag: u32, tag: u32) -> Vec<u8> {
    let parameter = [&[0, 7, 0, 12][..], &COOKIE].concat();
    let value = [&tag.to_be_bytes()[..], &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1], &parameter].concat();
    packet([source, destination], to_tag, chunk::INIT_ACK, &value)
}

/// A host that takes every association, at any port.
pub fn sctp_server(namespace: &Namespace) -> io::Result<RawReflector> {
    RawReflector::start(namespace, SCTP, |bytes| {
        let Chunk { ports: [from, to], kind, value } = parse(bytes)?;
        match kind {
            chunk::INIT => {
                let to_tag = u32::from_be_bytes(*value.first_chunk()?);
                Some(sctp_init_ack(to, from, to_tag, SERVER_TAG))
            }
            chunk::COOKIE_ECHO if value == COOKIE => Some(packet([to, from], CLIENT_TAG, chunk::COOKIE_ACK, &[])),
            _ => None,
        }
    })
}

/// Opens an association with a [`sctp_server`] by the four packets of a handshake.
pub fn sctp_associate(from: &Namespace, to: (Ipv4Addr, u16), timeout: Duration) -> Result<(), ProbeFailure> {
    let (host, port) = to;
    let client = RawClient::open(from, SCTP)?;
    let step = |sent: &[u8], expected: u8| -> Result<(), ProbeFailure> {
        let answer = client.exchange(host, sent, timeout)?;
        match parse(&answer) {
            Some(Chunk { ports, kind, .. }) if kind == expected && ports == [port, CLIENT_PORT] => Ok(()),
            _ => Err(ProbeFailure::UnexpectedAnswer(format!("{answer:?}"))),
        }
    };
    step(&sctp_init(CLIENT_PORT, port, CLIENT_TAG), chunk::INIT_ACK)?;
    step(&packet([CLIENT_PORT, port], SERVER_TAG, chunk::COOKIE_ECHO, &COOKIE), chunk::COOKIE_ACK)
}

/// The first chunk of a packet.
struct Chunk<'p> {
    ports: [u16; 2],
    kind: u8,
    value: &'p [u8],
}

/// A packet with a right checksum.
fn parse(packet: &[u8]) -> Option<Chunk<'_>> {
    let (header, chunk) = packet.split_first_chunk::<12>()?;
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let &[kind, _, high, low] = chunk.first_chunk()?;
    let value = chunk.get(4..u16::from_be_bytes([high, low]).into())?;
    (checksummed(packet.to_vec()) == packet).then_some(Chunk { ports: [port(0), port(2)], kind, value })
}

fn packet([source, destination]: [u16; 2], tag: u32, kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("chunks are short");
    let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    let chunk = [&[kind, 0], &length.to_be_bytes()[..], value].concat();
    checksummed([ports, tag.to_be_bytes().into(), vec![0; 4], chunk].concat())
}

/// The packet with its checksum: `CRC32c` over all of it, with zeros in the checksum's place, little end first (RFC
/// 9260 appendix A).
fn checksummed(mut packet: Vec<u8>) -> Vec<u8> {
    packet[8..12].fill(0);
    let crc = packet.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    });
    packet[8..12].copy_from_slice(&(!crc).to_le_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_standards_test_vector() {
        // RFC 3720 appendix B.4: 32 bytes of zeros have 0x8a9136aa. The checksum's own place counts as zeros.
        assert_eq!(checksummed(vec![0; 32])[8..12], 0x8a91_36aa_u32.to_le_bytes());
    }

    #[test]
    fn a_damaged_packet_is_no_packet() {
        let packet = sctp_init(1, 2, 3);
        assert!(parse(&packet).is_some_and(|chunk| (chunk.ports, chunk.kind) == ([1, 2], chunk::INIT)));
        for at in 0..packet.len() {
            let mut damaged = packet.clone();
            damaged[at] ^= 1;
            assert!(parse(&damaged).is_none(), "byte {at}");
        }
    }
}
