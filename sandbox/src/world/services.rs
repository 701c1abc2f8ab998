//! The tasks of the world: the cloud's API, its metadata services, and the updates of the gateways.

use std::future::Future;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::runtime::{Builder, Runtime};

use super::gateway::{self, Gateway};
use super::resolver;
use crate::cloud::{Cloud, ServerId};

/// The answer of the metadata address on the internet. A client that reads it was forwarded by the bastion.
pub const UPSTREAM_METADATA: &str = "this is the metadata of another server\n";

/// The async runtime of the world. Its tasks end with the world.
#[derive(Debug)]
pub(super) struct Services {
    /// `None` only while the value is dropped.
    runtime: Option<Runtime>,
}

impl Services {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("sandbox").enable_all().build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    pub(super) fn serve_api(&self, cloud: &Cloud, listener: TcpListener) {
        let cloud = cloud.clone();
        self.spawn("the cloud's API", async move { cloud.serve(listener).await });
    }

    pub(super) fn serve_metadata(&self, cloud: &Cloud, server: ServerId, listener: TcpListener) {
        let cloud = cloud.clone();
        self.spawn("the metadata service", async move { cloud.serve_metadata(listener, server).await });
    }

    pub(super) fn serve_upstream_metadata(&self, listener: TcpListener) {
        let router: Router = Router::new().fallback(|| async { UPSTREAM_METADATA });
        self.spawn("the upstream metadata service", async move {
            listener.set_nonblocking(true)?;
            axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
        });
    }

    /// Starts a resolver of the provider.
    pub(super) fn serve_resolver(&self, socket: UdpSocket) {
        self.spawn("a resolver", resolver::serve(socket));
    }

    pub(super) fn follow(&self, gateway: &Arc<Gateway>, cloud: &Cloud) {
        let (gateway, networks) = (gateway.clone(), cloud.watch_networks());
        self.spawn("a virtual gateway", async move {
            gateway::follow_cloud(gateway, networks).await;
            Ok(())
        });
    }

    fn spawn(&self, what: &'static str, task: impl Future<Output = io::Result<()>> + Send + 'static) {
        let runtime = self.runtime.as_ref().expect("the runtime exists until the services are dropped");
        runtime.spawn(async move {
            match task.await {
                Ok(()) => tracing::debug!("{what} ended"),
                Err(error) => tracing::error!(%error, "{what} failed"),
            }
        });
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Every task ends at its next await; a gateway's call of `ip` takes milliseconds.
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}
