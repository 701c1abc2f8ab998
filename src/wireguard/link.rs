//! The tunnel's interface as the kernel has it: there, up, of the right MTU.

use futures::TryStreamExt;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::LinkUnspec;

use crate::net::InterfaceName;

/// Why the kernel could not be asked, or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error("cannot open a route netlink socket")]
    Open(#[source] std::io::Error),
    /// A question went unanswered.
    #[error("the kernel did not list its links")]
    List(#[source] rtnetlink::Error),
    /// The mark was refused.
    #[error("cannot mark {interface} as ours")]
    Mark {
        /// The interface.
        interface: InterfaceName,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// A change was refused.
    #[error("cannot set {interface} up with an MTU of {mtu}")]
    Set {
        /// The interface.
        interface: InterfaceName,
        /// In bytes.
        mtu: u32,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// It cannot be taken away.
    #[error("cannot remove {interface}")]
    Remove {
        /// The interface.
        interface: InterfaceName,
        /// Why not.
        source: rtnetlink::Error,
    },
}

impl Error {
    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            // The kernel binds the port of its own WireGuard when the interface goes up.
            Self::Set { source: rtnetlink::Error::NetlinkError(refusal), .. }
                if refusal.raw_code() == -(nix::errno::Errno::EADDRINUSE as i32) =>
            {
                "another program has its UDP port (ss -ulnp): stop it, or choose another wireguard.listen_port"
            }
            _ => "the daemon needs a route netlink socket and CAP_NET_ADMIN; tried again by itself",
        }
    }
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// `tun`, `wireguard`, `dummy` …; none for a plain one.
    pub kind: Option<String>,
    /// Whether it carries our mark: we made it, and nobody wanted it gone since.
    pub ours: bool,
}

/// The alias (`ip link set alias`) of interfaces that outlive us: the kernel's own WireGuard goes on when the daemon ends, and
/// the next one has to know it from somebody else's.
pub const MARK: &str = "bastiond";

/// Looks for the interface.
pub async fn observe(interface: &InterfaceName) -> Result<Option<Link>, Error> {
    Ok(all().await?.into_iter().find_map(|(name, link)| (name == interface.as_str()).then_some(link)))
}

/// The WireGuard interfaces of the kernel that carry our mark.
pub async fn marked() -> Result<Vec<InterfaceName>, Error> {
    let ours = |(name, link): (String, Link)| {
        let is_marked = link.ours && link.kind.as_deref() == Some("wireguard");
        name.parse().ok().filter(|_| is_marked)
    };
    Ok(all().await?.into_iter().filter_map(ours).collect())
}

/// All of them: a question for one that is missing is answered with an error like any other.
async fn all() -> Result<Vec<(String, Link)>, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    let connection = tokio::spawn(connection);
    let links: Result<Vec<LinkMessage>, _> = handle.link().get().execute().try_collect().await;
    connection.abort();
    Ok(links.map_err(Error::List)?.iter().filter_map(named).collect())
}

fn named(message: &LinkMessage) -> Option<(String, Link)> {
    let up = message.header.flags.contains(LinkFlags::Up);
    let (mut name, mut link) = (None, Link { index: message.header.index, up, mtu: 0, kind: None, ours: false });
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(bytes) => link.mtu = *bytes,
            LinkAttribute::IfAlias(alias) => link.ours = alias == MARK,
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
    name.map(|name| (name, link))
}

/// Marks the interface as ours.
pub async fn mark(interface: &InterfaceName, index: u32) -> Result<(), Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    let connection = tokio::spawn(connection);
    let done = handle.link().set(LinkUnspec::new_with_index(index).alias(MARK).build()).execute().await;
    connection.abort();
    done.map_err(|source| Error::Mark { interface: interface.clone(), source })
}

/// Sets the interface up, with this MTU.
pub async fn set(interface: &InterfaceName, index: u32, mtu: u32) -> Result<(), Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    let connection = tokio::spawn(connection);
    let done = handle.link().set(LinkUnspec::new_with_index(index).mtu(mtu).up().build()).execute().await;
    connection.abort();
    done.map_err(|source| Error::Set { interface: interface.clone(), mtu, source })
}

/// Takes the interface away, whoever holds its descriptors.
pub async fn remove(interface: &InterfaceName) -> Result<(), Error> {
    let Some(link) = observe(interface).await? else { return Ok(()) };
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    let connection = tokio::spawn(connection);
    let done = handle.link().del(link.index).execute().await;
    connection.abort();
    done.map_err(|source| Error::Remove { interface: interface.clone(), source })
}
