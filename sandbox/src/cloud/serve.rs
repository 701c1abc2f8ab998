//! Serving the API and the metadata on sockets.

use std::io;

use axum::Router;
use tokio::net::TcpListener;

use super::api::connection::{ResetSwitch, ResettableListener};
use super::model::ids::ServerId;
use super::project::cloud::Cloud;

impl Cloud {
    /// Serves the API on a listener until the future is dropped. Then the listener is closed, and each connection after
    /// its current answer.
    ///
    /// The protocol is plain HTTP. The listener may be from another network namespace.
    pub async fn serve(&self, listener: std::net::TcpListener) -> io::Result<()> {
        serve(listener, self.router()).await
    }

    /// Serves the metadata of one server on a listener until the future is dropped.
    pub async fn serve_metadata(&self, listener: std::net::TcpListener, server: ServerId) -> io::Result<()> {
        serve(listener, self.metadata_router(server)).await
    }
}

async fn serve(listener: std::net::TcpListener, router: Router) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = ResettableListener::new(TcpListener::from_std(listener)?);
    axum::serve(listener, router.into_make_service_with_connect_info::<ResetSwitch>()).await
}
