//! The system calls that no safe crate makes for us: the only module of the project with unsafe code.
//!
//! - The ioctls of a TUN interface.
//! - `recvmmsg`: nix's keeps the former call's control lengths in headers that are used again, so that a message which
//!   carries more than the last loses its segment size. `sendmsg`: nix's allocates for each. quinn-udp does both well,
//!   but switches segmentation and source addresses off for a whole socket at the first `EINVAL`, which one peer's
//!   vanished route would cause for all.
//! - Descriptors that this process got by exec(2).
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::libc::{self, c_int, c_void, ifreq};
use parking_lot::Mutex;

// linux/if_tun.h.
const TUN_IOCTLS: u8 = b'T';
// The kernel writes the argument back, although the request's number does not show it (drivers/net/tun.c,
// __tun_chr_ioctl).
nix::ioctl_readwrite_bad!(tunsetiff, nix::request_code_write!(TUN_IOCTLS, 202, size_of::<c_int>()), ifreq);
nix::ioctl_write_int_bad!(tunsetoffload, nix::request_code_write!(TUN_IOCTLS, 208, size_of::<libc::c_uint>()));
nix::ioctl_write_int_bad!(tunsetowner, nix::request_code_write!(TUN_IOCTLS, 204, size_of::<c_int>()));
nix::ioctl_read_bad!(tungetiff, nix::request_code_read!(TUN_IOCTLS, 210, size_of::<libc::c_uint>()), ifreq);
nix::ioctl_readwrite_bad!(siocgifindex, libc::SIOCGIFINDEX, ifreq);
nix::ioctl_readwrite_bad!(siocgifmtu, libc::SIOCGIFMTU, ifreq);
nix::ioctl_write_ptr_bad!(siocsifmtu, libc::SIOCSIFMTU, ifreq);

fn named(name: &str) -> io::Result<ifreq> {
    // SAFETY: `ifreq` is plain old data; all zero is a valid value of it.
    let mut request: ifreq = unsafe { zeroed() };
    let room = request.ifr_name.len() - 1;
    if name.is_empty() || name.len() > room {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface's name has 1 to 15 bytes"));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}

fn name_of(request: &ifreq) -> String {
    let bytes: Vec<u8> = request.ifr_name.iter().map(|byte| byte.to_ne_bytes()[0]).chain([0]).collect();
    CStr::from_bytes_until_nul(&bytes).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Makes an open `/dev/net/tun` the interface of this name (`TUNSETIFF`); the name that it has then.
pub(crate) fn attach_tun(tun: BorrowedFd<'_>, name: &str, flags: c_int) -> io::Result<String> {
    let mut request = named(name)?;
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(flags).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the descriptor is open for the call, and the kernel reads and writes one `ifreq`, which is what is
    // pointed to.
    unsafe { tunsetiff(tun.as_raw_fd(), &raw mut request) }?;
    Ok(name_of(&request))
}

/// The name and flags of a TUN interface's descriptor (`TUNGETIFF`).
pub(crate) fn tun_identity(tun: BorrowedFd<'_>) -> io::Result<(String, c_int)> {
    // SAFETY: as in `named`.
    let mut request: ifreq = unsafe { zeroed() };
    // SAFETY: the descriptor is open for the call, and the kernel writes one `ifreq`.
    unsafe { tungetiff(tun.as_raw_fd(), &raw mut request) }?;
    // SAFETY: the kernel has filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    // The flags are a bit set in a signed type.
    Ok((name_of(&request), c_int::from(u16::from_ne_bytes(flags.to_ne_bytes()))))
}

/// Sets which large packets the interface's reader accepts (`TUNSETOFFLOAD`).
pub(crate) fn set_tun_offload(tun: BorrowedFd<'_>, offload: c_int) -> io::Result<()> {
    // SAFETY: the argument is a number; nothing is pointed to.
    unsafe { tunsetoffload(tun.as_raw_fd(), offload) }?;
    Ok(())
}

/// Lets only this user, and who has `CAP_NET_ADMIN`, attach to the interface (`TUNSETOWNER`): while it has no owner,
/// every user may who can open the device node.
pub(crate) fn set_tun_owner(tun: BorrowedFd<'_>, user: u32) -> io::Result<()> {
    let user = c_int::from_ne_bytes(user.to_ne_bytes());
    // SAFETY: the argument is a number; nothing is pointed to.
    unsafe { tunsetowner(tun.as_raw_fd(), user) }?;
    Ok(())
}

/// The number of an interface (`SIOCGIFINDEX`), asked through any socket of its network namespace.
pub(crate) fn interface_index(socket: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    let mut request = named(name)?;
    // SAFETY: the kernel reads the name and writes the number of one `ifreq`.
    unsafe { siocgifindex(socket.as_raw_fd(), &raw mut request) }?;
    // SAFETY: the call filled in the number.
    u32::try_from(unsafe { request.ifr_ifru.ifru_ifindex }).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// An interface's MTU (`SIOCGIFMTU`), asked through any socket of its network namespace.
pub(crate) fn interface_mtu(socket: BorrowedFd<'_>, name: &str) -> io::Result<usize> {
    let mut request = named(name)?;
    // SAFETY: the kernel reads the name and writes the MTU of one `ifreq`.
    unsafe { siocgifmtu(socket.as_raw_fd(), &raw mut request) }?;
    // SAFETY: the call filled in the MTU.
    usize::try_from(unsafe { request.ifr_ifru.ifru_mtu }).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Changes an interface's MTU (`SIOCSIFMTU`), through any socket of its network namespace.
pub(crate) fn set_interface_mtu(socket: BorrowedFd<'_>, name: &str, mtu: usize) -> io::Result<()> {
    let mut request = named(name)?;
    request.ifr_ifru.ifru_mtu = c_int::try_from(mtu).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the kernel reads one `ifreq`.
    unsafe { siocsifmtu(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Takes over a descriptor that this process got by exec(2), by its number; it is closed at the next exec.
///
/// Each one can be taken once, and one that this process opened itself cannot be taken: those have `FD_CLOEXEC`, which
/// the standard library and all of our own calls set at once, and a descriptor that came by exec(2) cannot have it.
pub(crate) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    static CHECK_AND_MARK: Mutex<()> = Mutex::new(());
    let _guard = CHECK_AND_MARK.lock();
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "standard input and outputs are not handed over"));
    }
    // SAFETY: F_GETFD reads the flags of a number, open or not, and changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "this process opened it, or has taken it already"));
    }
    // SAFETY: F_SETFD changes the flags of a descriptor that nothing in this process uses (see above).
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open. It came by exec(2), and by the flag above it is taken here for the first time, so it has no
    // other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Bytes of control messages that a datagram may bring: packet info of IPv6 (40), traffic class (24), segment size
/// (24).
const CONTROL: usize = 128;

/// Control messages, aligned as the kernel wants them (`cmsg(3)`).
#[repr(align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// One received buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived<'a> {
    /// Bytes in the buffer.
    pub(crate) len: usize,
    /// Whether there was more than the buffer holds.
    pub(crate) truncated: bool,
    /// The sender; `None` for a family that is not IP.
    pub(crate) from: Option<SocketAddr>,
    /// The control messages.
    pub(crate) control: &'a [u8],
}

/// Space for the headers of one `recvmmsg`, which is reused.
pub(crate) struct Headers {
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    lens: Vec<(usize, usize, c_int)>,
}

impl Headers {
    /// Space for so many messages.
    pub(crate) fn new(messages: usize) -> Self {
        // SAFETY: `sockaddr_storage` is plain old data; all zero is a valid value of it.
        let name: libc::sockaddr_storage = unsafe { zeroed() };
        Self {
            names: vec![name; messages],
            controls: vec![Control([0; CONTROL]); messages],
            lens: Vec::with_capacity(messages),
        }
    }

    /// What the last call received, in order.
    pub(crate) fn arrived(&self) -> impl Iterator<Item = Arrived<'_>> {
        self.lens.iter().zip(&self.names).zip(&self.controls).map(|((&(len, control, flags), name), controls)| {
            Arrived {
                len,
                truncated: flags & libc::MSG_TRUNC != 0,
                from: address_of(name),
                control: controls.0.get(..control).unwrap_or_default(),
            }
        })
    }
}

/// The most messages of one `recvmmsg`.
pub(crate) const MAX_MESSAGES: usize = 16;

/// Receives what waits, one message per buffer, without blocking (`recvmmsg` with `MSG_DONTWAIT`).
pub(crate) fn receive_messages<'a>(
    socket: BorrowedFd<'_>,
    buffers: impl Iterator<Item = &'a mut [u8]>,
    headers: &mut Headers,
) -> io::Result<()> {
    headers.lens.clear();
    // SAFETY: both are plain old data; all zero is a valid value of them.
    let (mut iovecs, mut messages): ([libc::iovec; MAX_MESSAGES], [libc::mmsghdr; MAX_MESSAGES]) = unsafe { zeroed() };
    let mut count = 0;
    let rooms = headers.names.iter_mut().zip(&mut headers.controls);
    for (((buffer, (name, control)), iovec), message) in buffers.zip(rooms).zip(&mut iovecs).zip(&mut messages) {
        iovec.iov_base = buffer.as_mut_ptr().cast();
        iovec.iov_len = buffer.len();
        let header = &mut message.msg_hdr;
        header.msg_name = std::ptr::from_mut(name).cast();
        header.msg_namelen = socklen::<libc::sockaddr_storage>();
        header.msg_iov = iovec;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL;
        count += 1;
    }
    // SAFETY: the first `count` messages point to a name, an iovec, a buffer and control room each, with their true
    // lengths; all of them outlive the call, and nothing else refers to them while it runs.
    let received = unsafe {
        libc::recvmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT, std::ptr::null_mut())
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    headers.lens.extend(
        messages
            .iter()
            .take(received)
            .map(|message| (message.msg_len as usize, message.msg_hdr.msg_controllen, message.msg_hdr.msg_flags)),
    );
    Ok(())
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("socket addresses are small")
}

fn address_of(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let storage: *const libc::sockaddr_storage = name;
    match c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the storage is larger than a `sockaddr_in` and aligned for each address; the family says that it
            // is one.
            let name = unsafe { &*storage.cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddrV4::new(address, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for a `sockaddr_in6`.
            let name = unsafe { &*storage.cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(address, u16::from_be(name.sin6_port), 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Sends one message with its control messages, and blocks until the kernel takes it (`sendmsg`).
pub(crate) fn send_message(socket: BorrowedFd<'_>, to: &SocketAddr, bytes: &[u8], control: &[u8]) -> io::Result<()> {
    // SAFETY: all three are plain old data; all zero is a valid value of them.
    let (mut v4, mut v6, mut header): (libc::sockaddr_in, libc::sockaddr_in6, libc::msghdr) = unsafe { zeroed() };
    let (name, len): (*mut c_void, _) = match to {
        SocketAddr::V4(to) => {
            v4.sin_family = libc::sa_family_t::try_from(libc::AF_INET).expect("address families are small");
            v4.sin_port = to.port().to_be();
            v4.sin_addr.s_addr = u32::from(*to.ip()).to_be();
            ((&raw mut v4).cast(), socklen::<libc::sockaddr_in>())
        }
        SocketAddr::V6(to) => {
            v6.sin6_family = libc::sa_family_t::try_from(libc::AF_INET6).expect("address families are small");
            v6.sin6_port = to.port().to_be();
            v6.sin6_addr.s6_addr = to.ip().octets();
            v6.sin6_scope_id = to.scope_id();
            ((&raw mut v6).cast(), socklen::<libc::sockaddr_in6>())
        }
    };
    let mut iovec = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    header.msg_name = name;
    header.msg_namelen = len;
    header.msg_iov = &raw mut iovec;
    header.msg_iovlen = 1;
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len();
    }
    loop {
        // SAFETY: name, iovec, bytes and control are alive and as long as said; sendmsg(2) only reads them.
        if unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, 0) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    #[test]
    fn a_descriptor_is_taken_once_and_only_if_it_came_by_exec() {
        let ours = std::fs::File::open("/dev/null").unwrap();
        let refused = take_inherited(ours.as_raw_fd()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        fcntl(&ours, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let number = ours.into_raw_fd();
        let taken = take_inherited(number).unwrap();
        assert_eq!(take_inherited(number).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        drop(taken);
        assert!(take_inherited(0).is_err() && take_inherited(-1).is_err() && take_inherited(RawFd::MAX).is_err());
    }
}
