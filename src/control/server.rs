//! The daemon's end of the socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::protocol::{Request, Response, parse_request};

/// A request is a word; whoever sends more, or nothing, is let go.
const MAX_REQUEST: u64 = 4096;
/// For the request to arrive, and for the response to leave.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Clients served at once; further ones wait in the socket's queue.
static PLACES: Semaphore = Semaphore::const_new(16);

/// A request, and where its answer goes.
pub(crate) type Call = (Request, oneshot::Sender<Response>);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Listens until dropped, and then removes the socket.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on `path`. A socket that a killed daemon left there is replaced: whoever calls holds the daemon's lock.
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
            tracing::debug!(%error, "the control socket stays behind");
        }
    }
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    loop {
        let place = PLACES.acquire().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = serve(stream, calls).await {
                        tracing::debug!(%error, "a control client went away");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    tokio::time::timeout(TIMEOUT, reader.read_until(b'\n', &mut line)).await??;
    let response = match parse_request(&line) {
        Ok(request) => {
            let (sender, answer) = oneshot::channel();
            let asked = calls.send((request, sender)).await.is_ok();
            let gone = || Response::Refused { reason: "the daemon is about to end".to_owned() };
            if asked { answer.await.unwrap_or_else(|_| gone()) } else { gone() }
        }
        Err(error) => Response::Refused { reason: format!("this is no request: {error}") },
    };
    let mut answer = serde_json::to_vec(&response)?;
    answer.push(b'\n');
    tokio::time::timeout(TIMEOUT, writer.write_all(&answer)).await?
}
