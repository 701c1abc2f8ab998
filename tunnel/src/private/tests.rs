//! A whole process in a thread, without an interface: those are tested with packets (`tests/netns`).

use std::os::fd::AsFd as _;
use std::thread::JoinHandle;

use nix::errno::Errno;

use super::message::VERSION;
use super::*;
use crate::model::{Snapshot, Update};

struct Running {
    directory: tempfile::TempDir,
    process: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = listen_at(&directory.path().join("socket")).unwrap();
        Self { directory, process: std::thread::spawn(move || run(&listener)) }
    }

    fn connect(&self) -> Remote {
        Remote::connect(&self.directory.path().join("socket")).unwrap()
    }
}

#[test]
fn a_daemon_attaches_and_ends_the_process() {
    let running = Running::start();
    let remote = running.connect();
    let (mut client, _supply, state) = remote.attach().unwrap();
    assert_eq!((state.version, state.interface), (VERSION, None));
    assert_eq!(state.user, nix::unistd::geteuid().as_raw());
    // Without an interface, UAPI answers that there is none.
    assert_eq!(client.get().unwrap(), Snapshot::default());
    assert_eq!(client.set(&Update::default()).unwrap_err().errno(), Some(Errno::ENODEV));
    let missing = remote.refused().unwrap_err();
    assert!(matches!(missing, RemoteError::Failed { errno: Errno::ENODEV, .. }), "{missing:?}");
    remote.stop().unwrap();
    running.process.join().unwrap().unwrap();
}

#[test]
fn the_newest_daemon_counts() {
    let running = Running::start();
    let former = running.connect();
    let (_client, _supply, _) = former.attach().unwrap();
    let newer = running.connect();
    let (mut client, _supply, _) = newer.attach().unwrap();
    assert!(matches!(former.state().unwrap_err(), RemoteError::Connection(_)));
    client.get().unwrap();
    newer.stop().unwrap();
    running.process.join().unwrap().unwrap();
}

#[test]
fn wrong_descriptors_start_nothing_and_the_process_goes_on() {
    let running = Running::start();
    let remote = running.connect();
    let null = std::fs::File::open("/dev/null").unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = "wg0".parse().unwrap();
    let one = [null.as_fd()];
    assert!(remote.start(&name, &[], &[], &[], 0).is_err());
    assert!(remote.start(&name, &one, &one, &[], 0).is_err());
    let refused = remote.start(&name, &one, &[socket.as_fd()], &[], 0).unwrap_err();
    assert!(refused.to_string().contains("no TUN interface"), "{refused}");
    assert!(remote.serve(null.as_fd()).is_err());
    assert_eq!(remote.state().unwrap().interface, None);
    remote.stop().unwrap();
    running.process.join().unwrap().unwrap();
}

#[test]
fn nonsense_ends_the_connection_and_not_the_process() {
    let running = Running::start();
    let raw = Connection::connect(&running.directory.path().join("socket"), std::time::Duration::from_secs(5)).unwrap();
    raw.send(&"nonsense", &[]).unwrap();
    assert!(raw.receive::<Answer>().is_err());
    running.connect().stop().unwrap();
    running.process.join().unwrap().unwrap();
}
