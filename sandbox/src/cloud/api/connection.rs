//! TCP connections that a fault can reset before their answer is written.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A listener whose connections know their [`ResetSwitch`].
pub(crate) struct ResettableListener(TcpListener);

impl ResettableListener {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl axum::serve::Listener for ResettableListener {
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
pub(crate) struct ResetSwitch {
    cut: Arc<AtomicBool>,
}

impl ResetSwitch {
    /// Resets the connection in place of the answer that is about to be written.
    pub(crate) fn reset(&self) {
        self.cut.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

impl Connected<IncomingStream<'_, ResettableListener>> for ResetSwitch {
    fn connect_info(stream: IncomingStream<'_, ResettableListener>) -> Self {
        stream.io().reset.clone()
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    reset: ResetSwitch,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        // Slow bodies arrive byte by byte only when no byte waits for the next.
        stream.set_nodelay(true).ok();
        Self { stream, reset: ResetSwitch::default() }
    }

    /// The error that ends this connection; closing it without lingering sends RST rather than FIN.
    fn reset(&self) -> io::Error {
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
        if self.reset.is_cut() {
            return Poll::Ready(Err(self.reset()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.is_cut() {
            return Poll::Ready(Err(self.reset()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
