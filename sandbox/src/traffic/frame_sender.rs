//! Frames with any content: an attacker's.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use etherparse::{EtherType, Ethernet2Header};
use nix::sys::socket::{MsgFlags, send};

use super::packet_generator::open_packet_socket;
use crate::namespace::Namespace;

/// A packet socket that sends frames to one neighbour on a link.
#[derive(Debug)]
pub struct FrameSender {
    socket: OwnedFd,
    source: [u8; 6],
    neighbour: [u8; 6],
}

impl FrameSender {
    /// Sends from `link` of `namespace` to the neighbour with this hardware address, `86:00:00:2a:00:04`.
    pub fn open(namespace: &Namespace, link: &str, neighbour: &str) -> io::Result<Self> {
        let neighbour = parse_mac(neighbour).ok_or_else(|| io::Error::other(format!("{neighbour} is no address")))?;
        let (socket, source) = open_packet_socket(namespace, link)?;
        Ok(Self { socket, source, neighbour })
    }

    /// The hardware address of the link.
    pub fn source(&self) -> [u8; 6] {
        self.source
    }

    /// Sends a frame with this content.
    pub fn send(&self, ether_type: EtherType, content: &[u8]) -> io::Result<()> {
        let header = Ethernet2Header { source: self.source, destination: self.neighbour, ether_type };
        let frame = [&header.to_bytes()[..], content].concat();
        send(self.socket.as_raw_fd(), &frame, MsgFlags::empty())?;
        Ok(())
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}
