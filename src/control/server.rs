//! The daemon's end of the socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::protocol::{MAX_REQUEST, Request, Response, parse_request};

/// How long the request may take to arrive, and the response to be sent.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Clients that are served at once. Further ones wait in the socket's queue.
static CONNECTIONS: Semaphore = Semaphore::const_new(16);

/// A request, and the channel for its answer.
pub(crate) type Call = (Request, oneshot::Sender<Response>);

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be created.
    #[error("cannot listen on {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
}

/// Listens until it is dropped, and then removes the socket.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on `path`. The caller holds the daemon's lock, so a socket that is there belongs to a killed daemon and
    /// is replaced.
    pub(crate) fn listen(path: &Path) -> Result<(Self, mpsc::Receiver<Call>), Error> {
        let open = || {
            crate::state::remove(path).map_err(io::Error::other)?;
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
            Ok(listener)
        };
        let listener = open().map_err(|source| Error::Listen { path: path.to_owned(), source })?;
        let (sender, calls) = mpsc::channel(16);
        let task = tokio::spawn(accept(listener, sender));
        Ok((Self { path: path.to_owned(), task }, calls))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = crate::state::remove(&self.path) {
            tracing::debug!(%error, "cannot remove the control socket");
        }
    }
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    loop {
        let permit = CONNECTIONS.acquire().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Err(error) = serve(stream, calls).await {
                        tracing::debug!(%error, "a client of the control socket disconnected");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST as u64));
    tokio::time::timeout(TIMEOUT, reader.read_until(b'\n', &mut line)).await??;
    let response = match parse_request(&line) {
        Ok(request) => {
            let (sender, answer) = oneshot::channel();
            let is_sent = calls.send((request, sender)).await.is_ok();
            let stopping = || Response::Refused { reason: "the daemon is stopping".to_owned() };
            if is_sent { answer.await.unwrap_or_else(|_| stopping()) } else { stopping() }
        }
        Err(error) => Response::Refused { reason: format!("the request is not valid: {error}") },
    };
    let mut answer = serde_json::to_vec(&response)?;
    answer.push(b'\n');
    tokio::time::timeout(TIMEOUT, writer.write_all(&answer)).await?
}
