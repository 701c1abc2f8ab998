//! What a namespace remembers of flows.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

use super::wait_briefly;
use crate::namespace::Namespace;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE` (`linux/netfilter/nfnetlink_conntrack.h`).
const DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST | NLM_F_ACK` (netlink(7)).
const REQUEST_AND_ACK: u16 = 1 | 4;
/// `NLMSG_ERROR`, which is the answer in any case; its code is 0 when all went well.
const ERROR: u16 = 2;
/// A netlink header and an empty nfnetlink one: of any family, version 0, for the whole table.
const LENGTH: usize = 16 + 4;

/// Makes the kernel forget every flow that it tracks in the namespace, as `conntrack --flush` does.
pub fn flush_conntrack(namespace: &Namespace) -> io::Result<()> {
    namespace.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        wait_briefly(&socket)?;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(socket.as_raw_fd(), &request(), &kernel, MsgFlags::empty())?;
        let mut answer = [0; 64];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        verdict(&answer[..length])
    })
}

fn request() -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[..4].copy_from_slice(&u32::try_from(LENGTH).expect("a short message").to_ne_bytes());
    message[4..6].copy_from_slice(&DELETE.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    message
}

/// What an acknowledgement says (netlink(7), `struct nlmsgerr`).
fn verdict(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let code = answer.get(16..20).map(|bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    match (kind, code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::other("an answer that is no acknowledgement")),
    }
}
