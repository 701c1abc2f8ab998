//! The daemon's end of the socket.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::chain;

use super::protocol::{MAX_REQUEST, Request, Response, parse_request};

/// How long the request may take to arrive, and the response to be sent.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest request, in bytes, of those who may only look: it says `status`.
const MAX_LOOK: usize = 4096;
/// Clients of one account that are served at once. Further ones wait for these, and for no other account's.
const OF_ONE_ACCOUNT: usize = 4;
/// Clients of one account that are connected at once. Further ones are disconnected.
const CONNECTED_OF_ONE_ACCOUNT: usize = 16;
/// Clients that are connected at once, without root's. While there are as many, accounts that have none get one.
const WITHOUT_ROOT: usize = 64;
/// Accounts that have clients at once: a user may have thousands of subordinate ones (subuid(5)).
const ACCOUNTS: usize = 128;

/// The answer to any other request of theirs.
pub(crate) const LOOK_ONLY: &str = "members of group bastiond-monitor may read the status and nothing else; this needs \
                                    root, or membership of group bastiond";

/// A request, and the channel for its answer.
pub(crate) type Call = (Request, oneshot::Sender<Response>);

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be created.
    #[error("cannot listen on {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
}

/// What may be asked at a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Every request.
    Full,
    /// The status, the peers, which it shows too, and what these reach.
    Look,
}

impl Access {
    fn allows(self, request: &Request) -> bool {
        self == Self::Full || matches!(request, Request::Status {} | Request::Peers {} | Request::WhoCanReach { .. })
    }

    fn longest_request(self) -> usize {
        match self {
            Self::Full => MAX_REQUEST,
            Self::Look => MAX_LOOK,
        }
    }
}

/// Listens until it is dropped, and then removes the socket.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on `path`. The caller holds the daemon's lock, so a socket that is there belongs to a killed daemon and
    /// is replaced. Its group is the directory's, where that has the bit for it. Calls go to `calls`.
    pub(crate) fn listen(path: &Path, access: Access, calls: mpsc::Sender<Call>) -> Result<Self, Error> {
        let open = || {
            crate::state::remove(path).map_err(io::Error::other)?;
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
            Ok(listener)
        };
        let listener = open().map_err(|source| Error::Listen { path: path.to_owned(), source })?;
        let task = tokio::spawn(accept(listener, access, calls));
        Ok(Self { path: path.to_owned(), task })
    }

    /// The socket for those who may only look, if the package or the administrator made a directory for it. The gateway
    /// does its work without it, too.
    pub(crate) fn listen_for_monitors(runtime_directory: &Path, calls: mpsc::Sender<Call>) -> Option<Self> {
        let path = super::monitor_socket(runtime_directory);
        if !path.parent().is_some_and(Path::is_dir) {
            return None;
        }
        Self::listen(&path, Access::Look, calls)
            .inspect_err(|error| tracing::warn!(error = %chain(error), "members of the monitoring group see no status"))
            .ok()
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

async fn accept(listener: UnixListener, access: Access, calls: mpsc::Sender<Call>) {
    let mut accounts = Accounts::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let uid = stream.peer_cred().map(|client| client.uid());
                let Some(place) = uid.ok().and_then(|uid| accounts.admit(uid)) else {
                    tracing::debug!("a client of the control socket is disconnected: too many are connected");
                    continue;
                };
                let calls = calls.clone();
                tokio::spawn(async move {
                    let _place = place.taken().await;
                    if let Err(error) = serve(stream, access, calls).await {
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

/// Who is connected. Each account has places of its own, so that silent clients of one account keep nobody else out,
/// and root gets in at all times.
#[derive(Debug, Default)]
struct Accounts {
    /// By user id.
    places: HashMap<u32, Weak<Account>>,
}

/// The places of one account, while it has clients.
#[derive(Debug)]
struct Account {
    served: Arc<Semaphore>,
    connected: Arc<Semaphore>,
}

impl Default for Account {
    fn default() -> Self {
        let of = |places| Arc::new(Semaphore::new(places));
        Self { served: of(OF_ONE_ACCOUNT), connected: of(CONNECTED_OF_ONE_ACCOUNT) }
    }
}

/// A client's place, which it may have to wait for.
#[derive(Debug)]
enum Place {
    /// Root never waits.
    OfRoot,
    /// One of the account's.
    OfAccount { account: Arc<Account>, connected: OwnedSemaphorePermit },
}

impl Accounts {
    /// `None` if the client has to go.
    fn admit(&mut self, uid: u32) -> Option<Place> {
        if uid == 0 {
            return Some(Place::OfRoot);
        }
        self.places.retain(|_, account| account.strong_count() > 0);
        let known = self.places.get(&uid).and_then(Weak::upgrade);
        let is_full = || {
            let accounts = self.places.values().filter_map(Weak::upgrade);
            let connected = |account: Arc<Account>| CONNECTED_OF_ONE_ACCOUNT - account.connected.available_permits();
            accounts.map(connected).sum::<usize>() >= WITHOUT_ROOT
        };
        let has_to_go = if known.is_some() { is_full() } else { self.places.len() >= ACCOUNTS };
        if has_to_go {
            return None;
        }
        let account = known.unwrap_or_default();
        let connected = Arc::clone(&account.connected).try_acquire_owned().ok()?;
        self.places.insert(uid, Arc::downgrade(&account));
        Some(Place::OfAccount { account, connected })
    }
}

impl Place {
    /// Waits until earlier clients of the account are done. The place is the client's until this is dropped.
    async fn taken(self) -> Option<(Arc<Account>, [Option<OwnedSemaphorePermit>; 2])> {
        match self {
            Self::OfRoot => None,
            Self::OfAccount { account, connected } => {
                // Err: the semaphore is closed, which never happens.
                let served = Arc::clone(&account.served).acquire_owned().await.ok();
                Some((account, [served, Some(connected)]))
            }
        }
    }
}

/// Reads one request, in however many pieces it comes. What follows its line is not looked at.
pub async fn read_request(reader: impl AsyncRead + Unpin) -> io::Result<Result<Request, serde_json::Error>> {
    let mut line = Vec::new();
    BufReader::new(reader.take(MAX_REQUEST as u64)).read_until(b'\n', &mut line).await?;
    Ok(parse_request(&line))
}

async fn serve(stream: UnixStream, access: Access, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let reader = reader.take(access.longest_request() as u64);
    let response = match tokio::time::timeout(TIMEOUT, read_request(reader)).await?? {
        Ok(request) if !access.allows(&request) => Response::Refused { reason: LOOK_ONLY.to_owned() },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_account_keep_no_other_account_out() {
        let mut accounts = Accounts::default();
        let held: Vec<Place> = (0..150).filter_map(|_| accounts.admit(1000)).collect();
        assert_eq!(held.len(), CONNECTED_OF_ONE_ACCOUNT);
        let others: Vec<Place> = (1001..2000).filter_map(|uid| accounts.admit(uid)).collect();
        assert_eq!(others.len(), ACCOUNTS - 1);
        // All together have more than enough, so each keeps the one that it has.
        assert!(accounts.admit(1001).is_none());
        assert!(matches!(accounts.admit(0), Some(Place::OfRoot)));
        drop((held, others));
        assert!(accounts.admit(1000).is_some());
        assert_eq!(accounts.places.len(), 1);
    }

    #[tokio::test]
    async fn so_many_clients_of_an_account_are_served_at_once_and_the_next_one_waits() {
        let mut accounts = Accounts::default();
        let mut served = Vec::new();
        for _ in 0..OF_ONE_ACCOUNT {
            served.push(accounts.admit(1000).unwrap().taken().await);
        }
        let mut next = Box::pin(accounts.admit(1000).unwrap().taken());
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut next).await.is_err());
        served.pop();
        tokio::time::timeout(Duration::from_secs(5), next).await.unwrap();
    }
}
