//! A connection to the kernel's WireGuard over generic netlink.
//!
//! The `genetlink` crate is not used: it hands messages with keys through queues and buffers that are not overwritten,
//! and brings older versions of `netlink-proto` and `netlink-sys` than `rtnetlink` does. A request and its answers need
//! neither.

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

/// The kernel answers at once, but may load a module first, and waits for other programs that change interfaces.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an interface is read again because it changed meanwhile.
const ATTEMPTS: usize = 10;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused it.
    #[error(transparent)]
    Refused(io::Error),
    /// The socket does not work.
    #[error("the netlink socket failed")]
    Socket(#[source] io::Error),
    /// The answer is not what the kernel's headers describe.
    #[error("the kernel's answer cannot be read")]
    Unreadable(#[source] DecodeError),
    /// The kernel did not answer in time.
    #[error("the kernel did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    /// Another program keeps changing the interface.
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

/// A socket for the WireGuard family of generic netlink.
pub(super) struct Connection {
    socket: TokioSocket,
    sequence: u32,
    family: u16,
}

/// Whether the interface changed while the answer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Whole,
    Interrupted,
}

impl Connection {
    /// Finds the family, for which the kernel loads the module if it has one (`ctrl_getfamily` in
    /// net/netlink/genetlink.c); `None` if this kernel has no WireGuard.
    pub(super) async fn open() -> Result<Option<Self>, Error> {
        let mut socket = TokioSocket::new(NETLINK_GENERIC).map_err(Error::Socket)?;
        let to_kernel = SocketAddr::new(0, 0);
        // An answer without a copy of the request, which may hold keys.
        let prepared = socket.socket_mut().connect(&to_kernel).and_then(|()| socket.socket_ref().set_cap_ack(true));
        prepared.map_err(Error::Socket)?;
        let mut connection = Self { socket, sequence: 0, family: 0 };
        let name = GenlCtrlAttrs::FamilyName(Message::family_name().to_owned());
        let request = GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![name] };
        let mut family = None;
        let asked = connection.request(&request, GENL_ID_CTRL, NLM_F_ACK, |FamilyId(id)| {
            family = family.or(id);
            Ok(())
        });
        match asked.await {
            Ok(_) => {}
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        connection.family = family.ok_or_else(|| Error::Unreadable("the family has no number".into()))?;
        Ok(Some(connection))
    }

    /// Sends one message of a change, and waits until it is carried out.
    pub(super) async fn change(&mut self, message: &Message) -> Result<(), Error> {
        self.request(message, self.family, NLM_F_ACK, |_: Message| Ok(())).await?;
        Ok(())
    }

    /// Reads the interface, as it is at one moment.
    pub(super) async fn snapshot(&mut self, interface: &InterfaceName) -> Result<Snapshot, Error> {
        let request = Message::get_device(interface);
        for _ in 0..ATTEMPTS {
            let mut dump = Dump::default();
            let ending = self.request(&request, self.family, NLM_F_DUMP, |answer: Message| dump.add(&answer)).await?;
            if ending == Ending::Whole {
                return Ok(dump.finish());
            }
        }
        Err(Error::Changing)
    }

    /// Sends a request, and passes every part of the answer to `receive`.
    async fn request<Q: GenlFamily + Emitable, A: ParseableParametrized<[u8], GenlHeader> + Debug>(
        &mut self,
        request: &Q,
        family: u16,
        flags: u16,
        mut receive: impl FnMut(A) -> Result<(), DecodeError>,
    ) -> Result<Ending, Error> {
        self.sequence += 1;
        let bytes = message::encode(request, family, NLM_F_REQUEST | flags, self.sequence);
        self.socket.send(&bytes).await.map_err(Error::Socket)?;
        let mut ending = Ending::Whole;
        loop {
            let received = tokio::time::timeout(ANSWER_TIMEOUT, self.socket.recv_from_full()).await;
            let (bytes, from) = received.map_err(|_| Error::Silent)?.map_err(Error::Socket)?;
            let bytes = Zeroizing::new(bytes);
            // Any process may write to the socket; port 0 is the kernel's (netlink(7)).
            if from.port_number() == 0 && self.receive(&bytes, &mut receive, &mut ending)? {
                return Ok(ending);
            }
        }
    }

    /// Reads a datagram of the answer; whether it is the last.
    fn receive<A: ParseableParametrized<[u8], GenlHeader> + Debug>(
        &self,
        mut datagram: &[u8],
        receive: &mut impl FnMut(A) -> Result<(), DecodeError>,
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
                NetlinkPayload::InnerMessage(answer) => receive(answer.into_parts().1).map_err(Error::Unreadable)?,
                NetlinkPayload::Error(answer) => return answer.code.map_or(Ok(true), |code| Err(refused(code.get()))),
                NetlinkPayload::Done(answer) if answer.code < 0 => return Err(refused(answer.code)),
                NetlinkPayload::Done(_) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The number of a family in this kernel, from the answer to `CTRL_CMD_GETFAMILY`. Nothing else of the answer is read,
/// so that nothing else can make it unreadable.
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
