//! A conversation with the kernel's WireGuard over generic netlink.
//!
//! Not by the `genetlink` crate: it hands messages with keys through queues and buffers that nobody overwrites, and brings
//! older versions of `netlink-proto` and `netlink-sys` than `rtnetlink` does. A question and its answers need neither.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    NlasIterator, ParseableParametrized, parse_u16,
};
use netlink_packet_generic::constants::{CTRL_ATTR_FAMILY_ID, GENL_ID_CTRL};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::errno::Errno;
use zeroize::Zeroizing;

use super::message::{self, Dump, Message};
use crate::net::InterfaceName;
use bastiond_tunnel::model::Snapshot;

/// The kernel answers at once, but may load a module first, and waits for others who change interfaces.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often an interface is read anew because it changed meanwhile.
const ATTEMPTS: usize = 10;

/// Why the kernel did not do or tell what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It refused.
    #[error(transparent)]
    Refused(io::Error),
    /// The socket does not work.
    #[error("the netlink socket failed")]
    Socket(#[source] io::Error),
    /// It said something that is no answer.
    #[error("the kernel's answer cannot be read")]
    Unreadable(#[source] DecodeError),
    /// It did not answer.
    #[error("the kernel did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// Somebody else changes the interface all the time.
    #[error("the interface changed while it was read, {ATTEMPTS} times in a row")]
    Changing,
}

impl Error {
    /// The reason of a refusal.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(reason) => reason.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }
}

/// A socket that speaks with the WireGuard family.
pub(super) struct Conversation {
    socket: TokioSocket,
    sequence: u32,
    family: u16,
}

/// Whether an answer was cut in two by a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Whole,
    Interrupted,
}

impl Conversation {
    /// Finds the family, for which the kernel loads the module if it has one (`ctrl_getfamily` in net/netlink/genetlink.c);
    /// `None` if this kernel has no WireGuard.
    pub(super) async fn open() -> Result<Option<Self>, Error> {
        let mut socket = TokioSocket::new(NETLINK_GENERIC).map_err(Error::Socket)?;
        let to_kernel = SocketAddr::new(0, 0);
        // An answer without a copy of the question: there may be keys in that.
        let prepared = socket.socket_mut().connect(&to_kernel).and_then(|()| socket.socket_ref().set_cap_ack(true));
        prepared.map_err(Error::Socket)?;
        let mut conversation = Self { socket, sequence: 0, family: 0 };
        let name = GenlCtrlAttrs::FamilyName(Message::family_name().to_owned());
        let question = GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![name] };
        let mut family = None;
        let asked = conversation.ask(&question, GENL_ID_CTRL, NLM_F_ACK, |FamilyId(id)| {
            family = family.or(id);
            Ok(())
        });
        match asked.await {
            Ok(_) => {}
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        conversation.family = family.ok_or_else(|| Error::Unreadable("the family has no number".into()))?;
        Ok(Some(conversation))
    }

    /// Says one message of a change, and waits until it is carried out.
    pub(super) async fn change(&mut self, message: &Message) -> Result<(), Error> {
        self.ask(message, self.family, NLM_F_ACK, |_: Message| Ok(())).await?;
        Ok(())
    }

    /// Reads the interface, as it is at one moment.
    pub(super) async fn snapshot(&mut self, interface: &InterfaceName) -> Result<Snapshot, Error> {
        let question = Message::question(interface);
        for _ in 0..ATTEMPTS {
            let mut dump = Dump::default();
            let ending = self.ask(&question, self.family, NLM_F_DUMP, |answer: Message| dump.add(&answer)).await?;
            if ending == Ending::Whole {
                return Ok(dump.finish());
            }
        }
        Err(Error::Changing)
    }

    /// Puts a question, and hands every part of the answer on.
    async fn ask<Q: GenlFamily + Emitable, A: ParseableParametrized<[u8], GenlHeader> + Debug>(
        &mut self,
        question: &Q,
        family: u16,
        flags: u16,
        mut hear: impl FnMut(A) -> Result<(), DecodeError>,
    ) -> Result<Ending, Error> {
        self.sequence += 1;
        let bytes = message::encode(question, family, NLM_F_REQUEST | flags, self.sequence);
        self.socket.send(&bytes).await.map_err(Error::Socket)?;
        let mut ending = Ending::Whole;
        loop {
            let received = tokio::time::timeout(PATIENCE, self.socket.recv_from_full()).await;
            let (bytes, from) = received.map_err(|_| Error::Silent)?.map_err(Error::Socket)?;
            let bytes = Zeroizing::new(bytes);
            // Any process may write to the socket; port 0 is the kernel's (netlink(7)).
            if from.port_number() == 0 && self.hear(&bytes, &mut hear, &mut ending)? {
                return Ok(ending);
            }
        }
    }

    /// Takes a datagram of the answer; whether it is the last.
    fn hear<A: ParseableParametrized<[u8], GenlHeader> + Debug>(
        &self,
        mut datagram: &[u8],
        hear: &mut impl FnMut(A) -> Result<(), DecodeError>,
        ending: &mut Ending,
    ) -> Result<bool, Error> {
        let refused = |code: i32| Error::Refused(io::Error::from_raw_os_error(code.saturating_neg()));
        while !datagram.is_empty() {
            let message = NetlinkMessage::<GenlMessage<A>>::deserialize(datagram).map_err(Error::Unreadable)?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                *ending = Ending::Interrupted;
            }
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => hear(answer.into_parts().1).map_err(Error::Unreadable)?,
                NetlinkPayload::Error(answer) => return answer.code.map_or(Ok(true), |code| Err(refused(code.get()))),
                NetlinkPayload::Done(answer) if answer.code < 0 => return Err(refused(answer.code)),
                NetlinkPayload::Done(_) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The number that this kernel gave a family, out of the answer to `CTRL_CMD_GETFAMILY`. Nothing else of it is read, so that
/// nothing else can become unreadable.
#[derive(Debug)]
struct FamilyId(Option<u16>);

impl ParseableParametrized<[u8], GenlHeader> for FamilyId {
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute?;
            if attribute.kind() == CTRL_ATTR_FAMILY_ID {
                return parse_u16(attribute.value()).map(|id| Self(Some(id)));
            }
        }
        Ok(Self(None))
    }
}
