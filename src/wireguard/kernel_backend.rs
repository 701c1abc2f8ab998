//! The kernel's WireGuard as a backend of the tunnel.

use futures::future::{BoxFuture, FutureExt as _};

use super::backend::{Backend, Error};
use super::held::Held;
use super::kernel;
use super::link::Links;
use super::model::BackendKind;
use crate::net::InterfaceName;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::{Refused, Snapshot, Update};

/// An interface of the kernel. It keeps working when the daemon ends.
#[derive(Debug)]
pub(super) struct KernelInterface(InterfaceName);

impl KernelInterface {
    /// Makes the interface and marks it as ours, or continues with the one that a former daemon left.
    pub(super) async fn start(interface: InterfaceName, is_left: bool) -> Result<Self, Error> {
        if !is_left {
            kernel::make(&interface).await?;
            let links = Links::open()?;
            let made = links.find(&interface).await?;
            let index = made.ok_or_else(|| kernel::Error::Absent { interface: interface.clone() })?.index;
            links.mark(&interface, index).await?;
        }
        Ok(Self(interface))
    }
}

impl Backend for KernelInterface {
    fn kind(&self) -> BackendKind {
        BackendKind::Kernel
    }

    fn set(&self, update: Update) -> BoxFuture<'_, Result<(), Error>> {
        async move { Ok(kernel::set(&self.0, update).await?) }.boxed()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, Error>> {
        async move { Ok(kernel::snapshot(&self.0).await?) }.boxed()
    }

    /// The kernel drops silently: what it refuses is neither in its netlink interface nor in a counter.
    fn refused(&self) -> BoxFuture<'_, Result<Option<Refused>, Error>> {
        std::future::ready(Ok(None)).boxed()
    }

    /// The kernel's sessions outlive the daemon.
    fn initiate_handshakes(&self, _: Vec<PublicKey>) -> BoxFuture<'_, Result<(), Error>> {
        std::future::ready(Ok(())).boxed()
    }

    fn is_gone(&self) -> BoxFuture<'_, bool> {
        async move {
            let Ok(links) = Links::open() else { return false };
            matches!(links.find(&self.0).await, Ok(None))
        }
        .boxed()
    }

    fn features(&self) -> Vec<String> {
        vec!["kernel".to_owned()]
    }

    fn held(&self) -> Held {
        Held::default()
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        std::future::pending().boxed()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        async move {
            kernel::remove(&self.0).await?;
            Ok(())
        }
        .boxed()
    }
}
