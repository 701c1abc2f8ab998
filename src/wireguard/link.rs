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
}

/// Looks for the interface.
pub async fn observe(interface: &InterfaceName) -> Result<Option<Link>, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    let connection = tokio::spawn(connection);
    // All of them: a question for one that is missing is answered with an error like any other.
    let links: Result<Vec<LinkMessage>, _> = handle.link().get().execute().try_collect().await;
    connection.abort();
    Ok(links.map_err(Error::List)?.iter().find_map(|message| named(message, interface)))
}

fn named(message: &LinkMessage, interface: &InterfaceName) -> Option<Link> {
    let (mut is_it, mut mtu, mut kind) = (false, 0, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => is_it = name == interface.as_str(),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(InfoKind::Other(name)) => Some(name.clone()),
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let up = message.header.flags.contains(LinkFlags::Up);
    is_it.then_some(Link { index: message.header.index, up, mtu, kind })
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
