//! The connection tracking table of a namespace.
//!
//! One fixed netlink message needs no message library, so it is written here.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

use super::wait::set_poll_interval;
use crate::namespace::Namespace;

/// `IPCTNL_MSG_CT_DELETE` of `linux/netfilter/nfnetlink_conntrack.h`, which `libc` lacks.
const IPCTNL_MSG_CT_DELETE: libc::c_int = 2;
/// The length of a netlink header (`struct nlmsghdr`) and of an empty nfnetlink header (`struct nfgenmsg`): any family,
/// version 0, the whole table.
const MESSAGE_LENGTH: usize = 16 + 4;

/// Deletes every flow that the namespace tracks, as `conntrack --flush` does.
pub fn flush_conntrack(namespace: &Namespace) -> io::Result<()> {
    namespace.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        set_poll_interval(&socket)?;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(socket.as_raw_fd(), &flush_request(), &kernel, MsgFlags::empty())?;
        let mut answer = [0; 64];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        check_acknowledgement(&answer[..length])
    })
}

fn flush_request() -> [u8; MESSAGE_LENGTH] {
    let kind = u16::try_from(libc::NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE).expect("a type has 16 bits");
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK).expect("flags have 16 bits");
    let mut message = [0; MESSAGE_LENGTH];
    message[..4].copy_from_slice(&u32::try_from(MESSAGE_LENGTH).expect("20 fits into 32 bits").to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message
}

/// Reads an acknowledgement (netlink(7), `struct nlmsgerr`), whose code is 0 for success.
fn check_acknowledgement(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let code = answer.get(16..20).map(|bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    match (kind.map(libc::c_int::from), code) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::other("the kernel's answer is not an acknowledgement")),
    }
}
