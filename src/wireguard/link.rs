//! The tunnel's interface as a link of the kernel: found, made, marked, set up and removed by rtnetlink.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use nix::errno::Errno;
use rtnetlink::{LinkUnspec, LinkWireguard};

use crate::net::InterfaceName;
use crate::outcome::ComponentError;
use crate::rtnetlink_connection::RtnetlinkConnection;

/// The alias (`ip link set alias`) of our interfaces, which outlive the daemon: the next daemon recognizes them by
/// this.
const MARK: &str = "bastiond";

/// Why a link cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket to the kernel.
    #[error("cannot open a route netlink socket")]
    Open(#[source] std::io::Error),
    /// The kernel did not answer, or its answer cannot be read.
    #[error("the kernel did not list its links")]
    List(#[source] rtnetlink::Error),
    /// A WireGuard interface cannot be made.
    #[error("cannot make the interface {interface}")]
    Make {
        interface: InterfaceName,
        /// The kernel's reason.
        source: rtnetlink::Error,
    },
    /// The mark was refused.
    #[error("cannot mark {interface} as ours")]
    Mark {
        interface: InterfaceName,
        /// The kernel's reason.
        source: rtnetlink::Error,
    },
    /// The interface cannot be set up.
    #[error("cannot set {interface} up with an MTU of {mtu}")]
    SetUp {
        interface: InterfaceName,
        mtu: u32,
        /// The kernel's reason.
        source: rtnetlink::Error,
    },
    /// It cannot be removed.
    #[error("cannot remove {interface}")]
    Remove {
        interface: InterfaceName,
        /// The kernel's reason.
        source: rtnetlink::Error,
    },
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        match self.errno() {
            Some(Errno::EADDRINUSE) => "port-in-use",
            _ => "tunnel-failed",
        }
    }

    fn advice(&self) -> String {
        let advice = match self.errno() {
            // The kernel binds the port of its own WireGuard when the interface goes up.
            Some(Errno::EADDRINUSE) => {
                "another program has its UDP port (ss -ulnp): stop it, or choose another wireguard.listen_port"
            }
            _ => "the daemon needs a route netlink socket and CAP_NET_ADMIN; it retries by itself",
        };
        advice.to_owned()
    }
}

impl Error {
    /// The kernel's reason, if it refused.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open(error) => error.raw_os_error().map(Errno::from_raw),
            Self::List(source)
            | Self::Make { source, .. }
            | Self::Mark { source, .. }
            | Self::SetUp { source, .. }
            | Self::Remove { source, .. } => errno(source),
        }
    }
}

fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(refusal) => Some(Errno::from_raw(refusal.raw_code().saturating_neg())),
        _ => None,
    }
}

/// A link of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub name: String,
    /// The kernel's index of the interface.
    pub index: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// What `ip link add` calls it: `tun`, `wireguard`, `dummy` …; `None` for hardware.
    pub kind: Option<String>,
    /// Whether it carries the mark of bastiond.
    pub is_marked: bool,
}

impl Link {
    /// Whether it is a WireGuard interface of the kernel.
    pub(super) fn is_wireguard(&self) -> bool {
        self.kind.as_deref() == Some("wireguard")
    }

    /// Whether it is the TUN interface of a tunnel's process of ours.
    pub(super) fn is_of_our_process(&self) -> bool {
        self.is_marked && self.is_tun()
    }

    /// Whether it is a TUN interface.
    pub(super) fn is_tun(&self) -> bool {
        self.kind.as_deref() == Some("tun")
    }

    /// Whether a daemon of ours made it and left it to the kernel.
    pub(super) fn is_left_by_us(&self) -> bool {
        self.is_marked && self.is_wireguard()
    }

    fn from_message(message: &LinkMessage) -> Self {
        let up = message.header.flags.contains(LinkFlags::Up);
        let index = message.header.index;
        let mut link = Self { name: String::new(), index, up, mtu: 0, kind: None, is_marked: false };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(bytes) => link.mtu = *bytes,
                LinkAttribute::IfAlias(alias) => link.is_marked = alias == MARK,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(InfoKind::Other(name)) => Some(name.clone()),
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

/// A connection to the kernel for links. It closes when it is dropped.
pub(super) struct Links(RtnetlinkConnection);

impl Links {
    pub(super) fn open() -> Result<Self, Error> {
        RtnetlinkConnection::open().map(Self).map_err(Error::Open)
    }

    /// All links of this network namespace.
    pub(super) async fn list(&self) -> Result<Vec<Link>, Error> {
        let messages = self.0.handle.link().get().execute().map_ok(|message| Link::from_message(&message));
        messages.try_collect().await.map_err(Error::List)
    }

    /// The link of this name, if there is one.
    pub(super) async fn find(&self, name: &InterfaceName) -> Result<Option<Link>, Error> {
        let mut found = self.0.handle.link().get().match_name(name.as_str()).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(Link::from_message)),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(Error::List(error)),
        }
    }

    /// `ip link add NAME type wireguard`
    pub(super) async fn add_wireguard(&self, name: &InterfaceName) -> Result<(), Error> {
        let added = self.0.handle.link().add(LinkWireguard::new(name.as_str()).build()).execute().await;
        added.map_err(|source| Error::Make { interface: name.clone(), source })
    }

    /// Marks a link as ours.
    pub(super) async fn mark(&self, name: &InterfaceName, index: u32) -> Result<(), Error> {
        let change = LinkUnspec::new_with_index(index).alias(MARK).build();
        let marked = self.0.handle.link().set(change).execute().await;
        marked.map_err(|source| Error::Mark { interface: name.clone(), source })
    }

    /// Sets a link up, with this MTU in bytes.
    pub(super) async fn set_up(&self, name: &InterfaceName, index: u32, mtu: u32) -> Result<(), Error> {
        let change = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        let set = self.0.handle.link().set(change).execute().await;
        set.map_err(|source| Error::SetUp { interface: name.clone(), mtu, source })
    }

    /// `ip link del`, even while a process holds its descriptors; whether it was still there.
    pub(super) async fn remove(&self, name: &InterfaceName, index: u32) -> Result<bool, Error> {
        match self.0.handle.link().del(index).execute().await {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(false),
            Err(source) => Err(Error::Remove { interface: name.clone(), source }),
        }
    }
}

/// Marks a link as ours, unless it is marked or gone.
pub(super) async fn mark(interface: &InterfaceName) -> Result<(), Error> {
    let links = Links::open()?;
    match links.find(interface).await? {
        Some(link) if !link.is_marked => links.mark(interface, link.index).await,
        _ => Ok(()),
    }
}

/// All links; none if they cannot be listed.
pub(super) async fn list_or_none() -> Vec<Link> {
    let Ok(links) = Links::open() else { return Vec::new() };
    links.list().await.unwrap_or_default()
}

/// The WireGuard interfaces that daemons of ours left to the kernel.
pub(super) async fn left_by_us() -> Result<BTreeSet<InterfaceName>, Error> {
    let links = Links::open()?.list().await?;
    Ok(links.into_iter().filter(Link::is_left_by_us).filter_map(|link| link.name.parse().ok()).collect())
}
