//! Sockets, whose connections a fault can reset.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::Cloud;
use super::ids::ServerId;

impl Cloud {
    /// Serves the API on a listener until the future is dropped; then the listener is closed, and so is every connection
    /// once it has its answer.
    ///
    /// The listener may have been bound anywhere, in another network namespace for instance. Plain HTTP.
    pub async fn serve(&self, listener: std::net::TcpListener) -> io::Result<()> {
        serve(listener, self.router()).await
    }

    /// Serves one server's metadata on a listener until the future is dropped; a service that cannot be reached is one
    /// that is not served.
    pub async fn serve_metadata(&self, listener: std::net::TcpListener, server: ServerId) -> io::Result<()> {
        serve(listener, self.metadata_router(server)).await
    }
}

async fn serve(listener: std::net::TcpListener, router: Router) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let door = Door(TcpListener::from_std(listener)?);
    axum::serve(door, router.into_make_service_with_connect_info::<Line>()).await
}

/// A listener whose connections know their [`Line`].
struct Door(TcpListener);

impl axum::serve::Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, from)) => return (Connection::new(stream), from),
                Err(error) => {
                    tracing::warn!(%error, "the fake cloud failed to accept a connection");
                    // Out of descriptors, say: the next try would fail as fast as it is made.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The connection that a request came by, as the one who answers it sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    cut: Arc<AtomicBool>,
}

impl Line {
    /// Resets the connection in place of the answer that is about to be written.
    pub(crate) fn reset(&self) {
        self.cut.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

impl Connected<IncomingStream<'_, Door>> for Line {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().line.clone()
    }
}

struct Connection {
    stream: TcpStream,
    line: Line,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        // Slow bodies arrive byte by byte only when no byte waits for the next.
        stream.set_nodelay(true).ok();
        Self { stream, line: Line::default() }
    }

    /// The error that ends this connection; closing it without lingering sends RST rather than FIN.
    fn cut(&self) -> io::Error {
        self.stream.set_zero_linger().ok();
        io::ErrorKind::ConnectionReset.into()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.line.is_cut() {
            return Poll::Ready(Err(self.cut()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.line.is_cut() {
            return Poll::Ready(Err(self.cut()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
