//! Clients on a real socket in a directory of the test's own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::interface::InterfaceName;
use crate::model::Snapshot;
use crate::uapi::answer::format_get;
use crate::uapi::server::{LIMITS, Limits, Server};
use crate::uapi::{Error, Interface, bind, discard};

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// Records the changes that it gets, and refuses the port 1.
#[derive(Default)]
struct Fake {
    updates: Mutex<Vec<Update>>,
}

impl Interface for Fake {
    fn set(&self, update: Update) -> Result<(), Errno> {
        let taken = update.listen_port == Some(1);
        self.updates.lock().push(update);
        if taken { Err(Errno::EADDRINUSE) } else { Ok(()) }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { listen_port: 51820, peers: vec![super::answer::peer(0x2a)], ..Snapshot::default() }
    }
}

/// A served socket.
struct Served {
    directory: TempDir,
    fake: Arc<Fake>,
    server: Option<Server>,
}

impl Served {
    fn start() -> Self {
        Self::within(LIMITS)
    }

    fn within(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::default());
        let listener = bind(directory.path(), &wg0()).unwrap();
        let server = Server::start(listener, Arc::<Fake>::clone(&fake), limits).unwrap();
        Self { directory, fake, server: Some(server) }
    }

    fn connect(&self) -> UnixStream {
        let client = UnixStream::connect(self.directory.path().join("wg0.sock")).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client
    }

    /// All that is answered to `text` on a connection of its own.
    fn ask(&self, text: &[u8]) -> String {
        let mut client = self.connect();
        client.write_all(text).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn wg0() -> InterfaceName {
    "wg0".parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Whether the other side has closed the connection.
fn is_closed(client: &UnixStream) -> bool {
    matches!({ client }.read(&mut [0; 1]), Ok(0) | Err(_))
}

#[test]
fn one_connection_carries_several_requests() {
    let served = Served::start();
    let text = b"get=1\n\nset=1\nlisten_port=7\n\nset=1\nlisten_port=x\n\nset=1\nlisten_port=1\n\nget=1\n\n";
    let answer_text = format_get(&served.fake.snapshot());
    assert_eq!(served.ask(text), format!("{0}errno=0\n\nerrno=-22\n\nerrno=-98\n\n{0}", *answer_text));
    let ports: Vec<_> = served.fake.updates.lock().iter().map(|update| update.listen_port).collect();
    assert_eq!(ports, vec![Some(7), Some(1)]);
}

#[test]
fn a_client_may_wait_for_an_answer_before_its_next_request() {
    let served = Served::start();
    let client = served.connect();
    let mut answers = BufReader::new(&client);
    for _ in 0..3 {
        { &client }.write_all(b"set=1\nfwmark=1\n\n").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "errno=0\n\n");
    }
}

#[test]
fn an_unfinished_request_changes_nothing() {
    let served = Served::start();
    assert_eq!(served.ask(b"set=1\nlisten_port=7\n"), "errno=-71\n\n");
    assert_eq!(served.ask(b"set=1\nlisten_po"), "errno=-71\n\n");
    assert_eq!(served.ask(b""), "");
    assert_eq!(*served.fake.updates.lock(), vec![]);
}

#[test]
fn ten_thousand_peers_are_set_at_once() {
    let served = Served::start();
    let peers = (0..10_000_u32).map(|number| {
        let mut key = [7; LENGTH];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
        let allowed_ip = AllowedIp { net: IpNet::from(IpAddr::from(address)), remove: false };
        PeerUpdate { allowed_ips: vec![allowed_ip], ..PeerUpdate::new(PublicKey(key)) }
    });
    let update = Update { replace_peers: true, peers: peers.collect(), ..Update::default() };
    assert_eq!(served.ask(format!("set=1\n{}\n", as_wg_writes(&update)).as_bytes()), "errno=0\n\n");
    assert!(*served.fake.updates.lock() == vec![update], "the peers are others than those that were set");
}

#[test]
fn a_request_that_is_too_long_is_refused_and_answered() {
    let served = Served::within(Limits { request: 100_000, ..LIMITS });
    let long_line = [b"set=1\nlisten_port=", &*vec![b'0'; 50_000], b"\n\nget=1\n\n"].concat();
    let answer_text = format_get(&served.fake.snapshot());
    assert_eq!(served.ask(&long_line), format!("errno=-71\n\n{}", *answer_text));
    let mut client = served.connect();
    // The server closes while we write; what it said before that counts.
    let _ = client.write_all(&[b"set=1\n", &*b"fwmark=1\n".repeat(12_000)].concat());
    let mut answer = [0; 9];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"errno=-7\n");
    assert_eq!(*served.fake.updates.lock(), vec![]);
}

#[test]
fn a_slow_client_delays_no_other_client_and_is_disconnected() {
    let served = Served::within(Limits { idle: Some(Duration::from_millis(300)), ..LIMITS });
    let slow = served.connect();
    { &slow }.write_all(b"set=1\nlisten").unwrap();
    let answer_text = format_get(&served.fake.snapshot());
    assert_eq!(served.ask(b"get=1\n\n"), *answer_text);
    let waiting = Instant::now();
    assert!(is_closed(&slow));
    assert!(waiting.elapsed() < SOON, "{:?}", waiting.elapsed());
    assert_eq!(*served.fake.updates.lock(), vec![]);
}

#[test]
fn clients_beyond_the_limit_wait_until_another_disconnects() {
    let served = Served::within(Limits { clients: 2, ..LIMITS });
    let answer_text = format_get(&served.fake.snapshot());
    let answered = |client: &UnixStream| {
        let mut answer = vec![0; answer_text.len()];
        { client }.read_exact(&mut answer).map(|()| answer == answer_text.as_bytes())
    };
    let (first, second, third) = (served.connect(), served.connect(), served.connect());
    for client in [&first, &second] {
        { client }.write_all(b"get=1\n\n").unwrap();
        assert!(answered(client).unwrap());
    }
    { &third }.write_all(b"get=1\n\n").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(answered(&third).is_err(), "the third client has to wait");
    drop(first);
    third.set_read_timeout(Some(SOON)).unwrap();
    assert!(answered(&third).unwrap());
}

#[test]
fn silent_clients_make_room_for_one_that_asks() {
    let served = Served::start();
    let answer_text = format_get(&served.fake.snapshot());
    let silent: Vec<_> = (0..LIMITS.clients).map(|_| served.connect()).collect();
    let asked = Instant::now();
    for _ in 0..2 * LIMITS.clients {
        assert_eq!(served.ask(b"get=1\n\n"), *answer_text);
    }
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(is_closed(&silent[0]), "the one that was silent for longest has gone");
    let mut last = silent.into_iter().next_back().unwrap();
    last.write_all(b"get=1\n\n").unwrap();
    let mut answer = vec![0; answer_text.len()];
    last.read_exact(&mut answer).unwrap();
    assert_eq!(answer, answer_text.as_bytes(), "nobody else had to go");
}

#[test]
fn clients_with_half_a_request_or_that_take_no_answer_make_room_too() {
    let served = Served::within(Limits { clients: 4, ..LIMITS });
    let _halves: Vec<_> = (0..2)
        .map(|_| {
            let mut client = served.connect();
            client.write_all(b"get=1\n").unwrap();
            client
        })
        .collect();
    let _deaf: Vec<_> = (0..2)
        .map(|_| {
            let mut client = served.connect();
            client.set_nonblocking(true).unwrap();
            // Until its own queue is full.
            while client.write(b"get=1\n\nget=1\n\n").is_ok() {}
            client
        })
        .collect();
    let asked = Instant::now();
    assert_eq!(served.ask(b"get=1\n\n"), *format_get(&served.fake.snapshot()));
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

#[test]
fn only_the_owner_can_use_the_socket() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("run/wireguard");
    let _listener = bind(&directory, &wg0()).unwrap();
    assert_eq!((mode(&directory), mode(&directory.join("wg0.sock"))), (0o700, 0o600));
}

#[test]
fn a_stop_ends_connections_and_removes_the_socket() {
    let mut served = Served::start();
    let client = served.connect();
    { &client }.write_all(b"set=1\n").unwrap();
    assert_eq!(served.ask(b""), "");
    let stopping = Instant::now();
    drop(served.server.take());
    assert!(stopping.elapsed() < SOON, "{:?}", stopping.elapsed());
    assert!(is_closed(&client));
    assert!(!served.directory.path().join("wg0.sock").exists());
}

#[test]
fn a_stop_leaves_a_socket_that_is_no_longer_ours() {
    let mut served = Served::start();
    let path = served.directory.path().join("wg0.sock");
    std::fs::remove_file(&path).unwrap();
    let _successor = bind(served.directory.path(), &wg0()).unwrap();
    drop(served.server.take());
    assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_socket());
}

#[test]
fn a_socket_is_handed_over_without_rejecting_a_client() {
    let mut served = Served::start();
    let listener = served.server.take().unwrap().hand_over().unwrap();
    let waiting = served.connect();
    { &waiting }.write_all(b"set=1\nfwmark=9\n\n").unwrap();
    served.server = Some(Server::from_listener(listener, Arc::<Fake>::clone(&served.fake)).unwrap());
    let mut answer = [0; 9];
    { &waiting }.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"errno=0\n\n");
    let path = served.directory.path().join("wg0.sock");
    drop(served.server.take());
    assert!(!path.exists(), "the successor owns the file");
}

#[test]
fn the_socket_of_a_dead_process_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    drop(bind(directory.path(), &wg0()).unwrap());
    let path = directory.path().join("wg0.sock");
    assert!(path.exists(), "a listener that is only dropped leaves its file");
    let fake = Arc::new(Fake::default());
    let _server = Server::bind(directory.path(), &wg0(), fake).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"get=1\n\n").unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"listen");
}

#[test]
fn wg_never_removes_a_socket_that_is_being_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wg0.sock");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // As wg(8) does it.
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let refused =
                    UnixStream::connect(&path).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
                if refused {
                    let _ = std::fs::remove_file(&path);
                }
            }
        });
        let missing = (0..2000).filter(|_| {
            let missing = bind(directory.path(), &wg0()).map(|listener| {
                let missing = !path.exists();
                // The file goes while there is a listener: at no time is there one without the other.
                discard(&listener);
                missing
            });
            missing.unwrap_or(true)
        });
        let missing = missing.count();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(missing, 0);
    });
}

#[test]
fn a_socket_in_use_stays_and_is_reported() {
    let served = Served::start();
    let path = served.directory.path().join("wg0.sock");
    let error = bind(served.directory.path(), &wg0()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the interface is in use by another process: it answers on {}", path.display())
    );
    assert_eq!(served.ask(b"get=1\n\n"), *format_get(&served.fake.snapshot()));
}

#[test]
fn a_listener_with_a_full_queue_counts_as_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("wg0.sock")).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _waiting = UnixStream::connect(directory.path().join("wg0.sock")).unwrap();
    let error = bind(directory.path(), &wg0()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
}

#[test]
fn a_file_that_is_no_socket_stays_and_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wg0.sock");
    std::fs::write(&path, "precious").unwrap();
    let error = bind(directory.path(), &wg0()).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is in the way: it is no socket", path.display()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_directory_that_cannot_be_made_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file/wireguard");
    std::fs::write(directory.path().join("file"), "").unwrap();
    let error = bind(&path, &wg0()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot make the directory {}", path.display()));
}
