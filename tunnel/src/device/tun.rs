//! The kernel's TUN interface, towards the inside.
//!
//! Packets pass with a virtio-net header where the kernel can do it, so that one read gives, and one write takes, up to
//! 64 KiB of a flow. `tun-rs` opens such interfaces too; its reader copies each segment into a buffer of its own, which
//! is what this data plane exists to avoid, and without it two ioctls are all that is left.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{self, c_int};
use serde::{Deserialize, Serialize};

use super::coalesce::Offloads;
use super::kernel_icmp;
use super::packet::VNET_HEADER_LEN;
use super::probes::Probes;
use super::transport::Tun;
use crate::sys;

// linux/if_tun.h: TUN_F_*.
const CSUM: c_int = 0x01;
const TSO: c_int = 0x02 | 0x04 | 0x08;
const USO: c_int = 0x20 | 0x40;

const DEVICE: &str = "/dev/net/tun";

/// Why there is no TUN interface.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device node cannot be opened.
    #[error("cannot open {DEVICE}")]
    Open(#[source] io::Error),
    /// The interface cannot be made.
    #[error("cannot make the TUN interface {name}")]
    Attach {
        /// The name that was requested.
        name: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A descriptor that was handed over is of another kind than expected.
    #[error("the descriptor handed over for {name} is {found}")]
    Foreign {
        /// The interface that it was handed over for.
        name: String,
        /// What it is instead.
        found: String,
    },
}

impl Error {
    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Open(_) => "load the `tun` module and let the daemon open /dev/net/tun (DeviceAllow=, CAP_NET_ADMIN)",
            Self::Attach { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
                "another process holds this interface: stop it, or choose another name"
            }
            Self::Attach { .. } => "it needs CAP_NET_ADMIN, and a name that no other kind of interface has",
            Self::Foreign { .. } => "remove it from the service manager's store: systemctl stop, then start",
        }
    }
}

/// What the kernel can do for a TUN interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunFeatures {
    /// Packets carry a virtio-net header, and their checksums may be left to be made.
    pub vnet_header: bool,
    /// Large TCP packets pass in both directions.
    pub tso: bool,
    /// Large UDP packets pass in both directions (Linux 6.2).
    pub uso: bool,
}

impl TunFeatures {
    /// Which packets may be joined before they are written.
    pub fn offloads(self) -> Offloads {
        Offloads { tcp: self.tso, udp: self.uso }
    }
}

/// One queue of a TUN interface.
#[derive(Debug)]
pub struct TunQueue {
    file: File,
    vnet_header: bool,
    /// Sockets that ask the kernel for routes; without them, ones of this process's own do.
    probes: Option<Arc<Probes>>,
}

/// A TUN interface.
#[derive(Debug)]
pub struct TunInterface {
    /// The name that the kernel gave to the interface.
    pub name: String,
    /// What the kernel does for it.
    pub features: TunFeatures,
    /// Its queues; the kernel spreads flows over them.
    pub queues: Vec<TunQueue>,
}

impl TunInterface {
    /// Makes an interface of this name with so many queues (at least one).
    pub fn open(name: &str, queues: usize) -> Result<Self, Error> {
        let (vnet_header, first) = match Self::open_queue(name, queues > 1, true) {
            Ok(first) => (true, first),
            // A kernel older than 2.6.27, or one of those that only look like Linux.
            Err(Error::Attach { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                (false, Self::open_queue(name, queues > 1, false)?)
            }
            Err(error) => return Err(error),
        };
        let (name, first) = first;
        let mut files = vec![first];
        for _ in 1..queues {
            files.push(Self::open_queue(&name, true, vnet_header)?.1);
        }
        Ok(Self::with_queues(name, vnet_header, files))
    }

    /// Makes an interface of this name with one queue whose packets are as on the wire: no header of the kernel's, no
    /// checksum left to be made, no segments joined. Reading the file, which does not block, takes one packet from it,
    /// and writing gives it one.
    pub fn open_plain(name: &str) -> Result<File, Error> {
        Ok(Self::open_queue(name, false, false)?.1)
    }

    /// Takes over the queues of an interface that another process made.
    pub fn adopt(name: &str, queues: Vec<OwnedFd>) -> Result<Self, Error> {
        let mut vnet_header = true;
        for queue in &queues {
            let foreign = |found: String| Error::Foreign { name: name.to_owned(), found };
            let (found, flags) =
                sys::tun_identity(queue.as_fd()).map_err(|error| foreign(format!("no TUN interface ({error})")))?;
            if found != name {
                return Err(foreign(format!("interface {found}")));
            }
            if flags & libc::IFF_TUN == 0 || flags & libc::IFF_NO_PI == 0 {
                return Err(foreign("a TUN interface of another mode".to_owned()));
            }
            vnet_header &= flags & libc::IFF_VNET_HDR != 0;
            set_nonblocking(queue.as_fd()).map_err(|source| Error::Attach { name: name.to_owned(), source })?;
        }
        Ok(Self::with_queues(name.to_owned(), vnet_header, queues.into_iter().map(File::from).collect()))
    }

    /// The same interface in another network namespace than this process is in: routes are asked for through these
    /// sockets.
    #[must_use]
    pub fn with_probes(mut self, probes: &Arc<Probes>) -> Self {
        for queue in &mut self.queues {
            queue.probes = Some(Arc::clone(probes));
        }
        self
    }

    /// Lets only this user, and who has `CAP_NET_ADMIN`, attach further queues.
    pub fn set_owner(&self, user: u32) -> io::Result<()> {
        self.queues.first().map_or(Ok(()), |queue| sys::set_tun_owner(queue.as_fd(), user))
    }

    /// Whether the descriptor is a queue of the TUN interface of this name.
    pub fn is_queue(descriptor: BorrowedFd<'_>, name: &str) -> bool {
        sys::tun_identity(descriptor).is_ok_and(|(found, _)| found == name)
    }

    /// Changes the interface's MTU, in bytes.
    pub fn set_mtu(&self, mtu: usize) -> io::Result<()> {
        // Any socket of the namespace will do.
        let socket =
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).or_else(|_| UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)))?;
        sys::set_interface_mtu(socket.as_fd(), &self.name, mtu)
    }

    fn open_queue(name: &str, multi_queue: bool, vnet_header: bool) -> Result<(String, File), Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(DEVICE)
            .map_err(Error::Open)?;
        let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
        if multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        if vnet_header {
            flags |= libc::IFF_VNET_HDR;
        }
        let attach = |source| Error::Attach { name: name.to_owned(), source };
        let name = sys::attach_tun(file.as_fd(), name, flags).map_err(attach)?;
        sys::set_tun_owner(file.as_fd(), nix::unistd::geteuid().as_raw()).map_err(attach)?;
        Ok((name, file))
    }

    /// Enables each offload that the kernel supports.
    fn with_queues(name: String, vnet_header: bool, files: Vec<File>) -> Self {
        let all = |offload| files.iter().all(|file| sys::set_tun_offload(file.as_fd(), offload).is_ok());
        let (tso, uso) = if !vnet_header {
            (false, false)
        } else if all(CSUM | TSO | USO) {
            (true, true)
        } else if all(CSUM | TSO) {
            (true, false)
        } else {
            all(0);
            (false, false)
        };
        let queues = files.into_iter().map(|file| TunQueue { file, vnet_header, probes: None }).collect();
        Self { name, features: TunFeatures { vnet_header, tso, uso }, queues }
    }
}

fn set_nonblocking(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    fcntl(descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Tun for TunQueue {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.vnet_header {
            return (&self.file).read(buffer);
        }
        let (header, packet) = buffer.split_at_mut(VNET_HEADER_LEN.min(buffer.len()));
        header.fill(0);
        Ok(header.len() + (&self.file).read(packet)?)
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let slices = if self.vnet_header { slices } else { slices.get(1..).unwrap_or_default() };
        (&self.file).write_vectored(slices).map(drop)
    }

    fn send_icmp(&self, to: IpAddr, icmp: &[u8]) -> bool {
        // With probes, this process is in another network namespace.
        self.probes.is_none() && kernel_icmp::send(to, icmp)
    }

    fn source_towards(&self, to: IpAddr) -> Option<IpAddr> {
        match &self.probes {
            Some(probes) => probes.source_towards(to),
            None => kernel_icmp::source_towards(to).ok(),
        }
    }
}
