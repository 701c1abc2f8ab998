//! Ends flows.

use std::io;

use nix::errno::Errno;

use super::model::Flow;
use super::socket::{Conversation, Error};
use super::wire::{self, Question};

/// Ends flows one by one, and remembers what could not be ended.
pub struct Ender {
    conversation: Conversation,
    refused: u64,
    first_refusal: Option<Errno>,
}

impl Ender {
    /// Opens a socket of its own: flows are ended while others are still being listed.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { conversation: Conversation::open()?, refused: 0, first_refusal: None })
    }

    /// Makes the kernel forget this very flow, so that its next packet is judged anew; whether it was there still.
    /// One that the kernel refuses is counted, and told by [`Ender::finish`].
    pub fn end(&mut self, flow: &Flow) -> Result<bool, Error> {
        match self.conversation.order(Question::Delete, &wire::naming(flow))? {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => {
                self.refused += 1;
                self.first_refusal.get_or_insert(errno);
                Ok(false)
            }
        }
    }

    /// An error if a flow could not be ended.
    pub fn finish(self) -> Result<(), Error> {
        match self.first_refusal {
            Some(errno) => Err(Error::End { count: self.refused, source: io::Error::from(errno) }),
            None => Ok(()),
        }
    }
}
