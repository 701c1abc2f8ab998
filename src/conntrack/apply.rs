//! Deletes flows from the kernel's table.

use std::io;

use nix::errno::Errno;

use super::model::Flow;
use super::socket::{ConntrackSocket, Error};
use super::wire::{self, Request};

/// Deletes flows one by one and counts those that the kernel refused to delete.
pub struct FlowDeleter {
    socket: ConntrackSocket,
    refused: u64,
    first_refusal: Option<Errno>,
}

impl FlowDeleter {
    /// Opens a socket of its own, so that flows can be deleted while another socket still lists them.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: ConntrackSocket::open()?, refused: 0, first_refusal: None })
    }

    /// Deletes this very flow, so that the rules decide about its next packet as about a first one. Returns whether it
    /// was still there. A refusal of the kernel is counted, and [`FlowDeleter::finish`] reports it.
    pub fn delete(&mut self, flow: &Flow) -> Result<bool, Error> {
        match self.socket.execute(Request::Delete, &wire::identify_flow(flow))? {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => {
                self.refused += 1;
                self.first_refusal.get_or_insert(errno);
                Ok(false)
            }
        }
    }

    /// An error if the kernel refused to delete a flow.
    pub fn finish(self) -> Result<(), Error> {
        match self.first_refusal {
            Some(errno) => Err(Error::Delete { count: self.refused, source: io::Error::from(errno) }),
            None => Ok(()),
        }
    }
}
