//! The interface itself: a link of kind `wireguard`, made, found and removed by rtnetlink.

use futures::TryStreamExt;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use nix::errno::Errno;
use rtnetlink::{Handle, LinkWireguard};
use tokio::task::JoinHandle;

use crate::net::InterfaceName;

/// A conversation with the kernel about links; it ends when dropped.
pub(super) struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// A link that has the name.
#[derive(Debug)]
pub(super) struct Found {
    index: u32,
    kind: Option<InfoKind>,
}

impl Found {
    pub(super) fn is_wireguard(&self) -> bool {
        self.kind == Some(InfoKind::Wireguard)
    }

    /// What `ip link add` calls it.
    pub(super) fn kind(&self) -> String {
        self.kind.as_ref().map_or_else(|| "hardware".to_owned(), ToString::to_string)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    pub(super) fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// `ip link add NAME type wireguard`
    pub(super) async fn add(&self, name: &InterfaceName) -> Result<(), rtnetlink::Error> {
        self.handle.link().add(LinkWireguard::new(name.as_str()).build()).execute().await
    }

    /// The link of this name, if there is one.
    pub(super) async fn find(&self, name: &InterfaceName) -> Result<Option<Found>, rtnetlink::Error> {
        let mut found = self.handle.link().get().match_name(name.as_str()).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(of_message)),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `ip link del`; whether it was still there.
    pub(super) async fn remove(&self, link: &Found) -> Result<bool, rtnetlink::Error> {
        match self.handle.link().del(link.index).execute().await {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn of_message(message: &LinkMessage) -> Found {
    let told = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(told) => Some(told),
        _ => None,
    });
    let kind = told.flatten().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.clone()),
        _ => None,
    });
    Found { index: message.header.index, kind }
}

/// The reason of a refusal.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(refusal) => Some(Errno::from_raw(refusal.raw_code().saturating_neg())),
        _ => None,
    }
}
