//! The real `bastiond` on the world's bastion, as systemd would run it: with directories, a notification socket and a token.

use std::fs::File;
use std::io::{self, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::timeouts::scaled;
use crate::world::World;

/// Where a daemon runs: its namespace, its programs, its directories. They outlive the process, as they do for a service.
#[derive(Debug)]
pub struct Installation<'w> {
    namespace: &'w Namespace,
    programs: PathBuf,
    directory: TempDir,
    environment: Vec<(String, String)>,
    store: Store,
}

/// The descriptor store of a service manager (`FileDescriptorStoreMax=`): descriptors by name, kept from one daemon for the next.
type Store = Arc<Mutex<Vec<(String, OwnedFd)>>>;

impl<'w> Installation<'w> {
    /// On the bastion of `world`, with `programs` (a directory that holds `bastiond` and `bastionctl`), the fake cloud as the
    /// API, its token, and an empty configuration.
    pub fn in_world(world: &'w World, programs: &Path) -> io::Result<Self> {
        let installation = Self::new(world.bastion(), programs)?;
        Ok(installation.env("HCLOUD_ENDPOINT", &world.api_endpoint()).env("HCLOUD_TOKEN", world.token()))
    }

    /// In any namespace, without a token, with an empty configuration. The API's endpoint is a closed port: a test that
    /// forgets to name one must not reach the real API.
    pub fn new(namespace: &'w Namespace, programs: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("bastiond-").tempdir()?;
        for name in ["run", "state"] {
            std::fs::create_dir(directory.path().join(name))?;
        }
        let installation = Self {
            namespace,
            programs: programs.to_owned(),
            directory,
            environment: Vec::new(),
            store: Store::default(),
        };
        installation.write_config("")?;
        Ok(installation.env("HCLOUD_ENDPOINT", "http://127.0.0.1:9/v1"))
    }

    /// The same installation with other programs.
    #[must_use]
    pub fn with_programs(mut self, programs: &Path) -> Self {
        programs.clone_into(&mut self.programs);
        self
    }

    /// Sets an environment variable of the daemons and tools to come.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    /// The runtime directory.
    pub fn runtime_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The state directory.
    pub fn state_directory(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Replaces the configuration file.
    pub fn write_config(&self, text: &str) -> io::Result<()> {
        std::fs::write(self.config_path(), text)
    }

    /// Starts the daemon.
    pub fn start(&self) -> io::Result<Daemon> {
        let socket = self.directory.path().join("notify");
        let _ = std::fs::remove_file(&socket);
        let notifications = Notifications::read(UnixDatagram::bind(&socket)?, Arc::clone(&self.store))?;
        let log = self.directory.path().join("log");
        let file = File::options().create(true).append(true).open(&log)?;
        let command = self.daemon()?.env("NOTIFY_SOCKET", &socket).stdin(Stdio::null());
        let started = Instant::now();
        let child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Daemon { child, notifications, log, started })
    }

    /// Runs `bastionctl` with `arguments`.
    pub fn ctl(&self, arguments: &[&str]) -> io::Result<Output> {
        self.command("bastionctl").args(arguments).stdin(Stdio::null()).output()
    }

    /// What the service manager kept.
    pub fn stored_descriptor_names(&self) -> Vec<String> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(name, _)| name.clone()).collect()
    }

    /// The daemon, with what was kept for it (`sd_listen_fds(3)`).
    fn daemon(&self) -> io::Result<crate::namespace::Command<'w>> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.is_empty() {
            return Ok(self.command("bastiond"));
        }
        let descriptors = store.iter().map(|(_, descriptor)| descriptor.try_clone()).collect::<io::Result<Vec<_>>>()?;
        let names: Vec<&str> = store.iter().map(|(name, _)| name.as_str()).collect();
        // Only the process itself knows its number, which has to stand in its environment.
        let shell = self.namespace.command("bash").args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\""]);
        self.prepared(shell.arg(self.programs.join("bastiond")))
            .env("LISTEN_FDS", descriptors.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .descriptors(descriptors)
    }

    fn command(&self, program: &str) -> crate::namespace::Command<'w> {
        self.prepared(self.namespace.command(&self.programs.join(program).to_string_lossy()))
    }

    fn prepared(&self, mut command: crate::namespace::Command<'w>) -> crate::namespace::Command<'w> {
        for (name, value) in &self.environment {
            command = command.env(name, value);
        }
        command
            .env("RUNTIME_DIRECTORY", self.runtime_directory())
            .env("STATE_DIRECTORY", self.state_directory())
            .args(["--config".as_ref(), self.config_path().as_os_str()])
    }
}

/// A daemon that runs. Dropping it kills it, as a power failure would.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    notifications: Notifications,
    log: PathBuf,
    started: Instant,
}

impl Daemon {
    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a notification that has `line` among its lines (`READY=1`), and says how long after the start it came;
    /// `None` if it did not come within `timeout`. What was heard before counts.
    pub fn wait_for_notification(&mut self, line: &str, timeout: Duration) -> Option<Duration> {
        self.wait_for_notification_matching(|heard| heard == line, timeout)
    }

    /// The same for a line that `wanted` likes. The line and those before it are then forgotten.
    pub fn wait_for_notification_matching(
        &mut self,
        wanted: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Option<Duration> {
        let at = self.notifications.wait_for(wanted, timeout)?;
        Some(at.duration_since(self.started))
    }

    /// Waits for readiness.
    ///
    /// # Panics
    /// It is not ready within ten seconds; the message has its log.
    pub fn wait_until_ready(&mut self) -> Duration {
        let ready = self.wait_for_notification("READY=1", Duration::from_secs(10));
        ready.unwrap_or_else(|| panic!("bastiond is not ready after 10 s:\n{}", self.log()))
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Never: Linux' process numbers fit.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("Linux' process numbers are below 2^22")), signal)
    }

    /// Waits until it has ended, for at most `timeout`.
    pub fn wait_for_exit(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + scaled(timeout);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything that it, and its predecessors at the same installation, logged.
    pub fn log(&self) -> String {
        let mut text = String::new();
        let read = File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text));
        read.map_or_else(|error| format!("(no log: {error})"), |_| text)
    }

    /// A field of `/proc/PID/status`, such as `VmRSS`.
    pub fn status_field(&self, field: &str) -> io::Result<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned()).ok_or_else(|| io::Error::other(format!("no field {field}")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended, or ends now; nobody is left to be told otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines with the time they came, oldest first, and a bell for each new one.
type Heard = (Mutex<Vec<(String, Instant)>>, Condvar);

/// What the daemon tells its service manager, read as it comes: an unread socket would hold the daemon up.
#[derive(Debug)]
struct Notifications {
    heard: Arc<Heard>,
    reader: Option<JoinHandle<()>>,
    socket: UnixDatagram,
}

impl Notifications {
    fn read(socket: UnixDatagram, store: Store) -> io::Result<Self> {
        let heard = Arc::<Heard>::default();
        let (theirs, source) = (Arc::clone(&heard), socket.try_clone()?);
        let reader = thread::spawn(move || {
            // Ok(None) is the end: the socket was shut down.
            while let Ok(Some((text, descriptors))) = receive(&source) {
                keep(&store, &text, descriptors);
                let lines = text.lines().map(|line| (line.to_owned(), Instant::now()));
                theirs.0.lock().unwrap_or_else(PoisonError::into_inner).extend(lines);
                theirs.1.notify_all();
            }
        });
        Ok(Self { heard, reader: Some(reader), socket })
    }

    fn wait_for(&self, wanted: impl Fn(&str) -> bool, timeout: Duration) -> Option<Instant> {
        let heard = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = |heard: &mut Vec<(String, Instant)>| !heard.iter().any(|(line, _)| wanted(line));
        let mut heard =
            self.heard.1.wait_timeout_while(heard, scaled(timeout), missing).unwrap_or_else(PoisonError::into_inner).0;
        let position = heard.iter().position(|(line, _)| wanted(line))?;
        heard.drain(..=position).next_back().map(|(_, at)| at)
    }
}

/// One message, and the descriptors that came with it.
fn receive(socket: &UnixDatagram) -> io::Result<Option<(String, Vec<OwnedFd>)>> {
    let mut buffer = [0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let received = recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    let descriptors = descriptors.collect();
    let text = String::from_utf8_lossy(&buffer[..received.bytes]).into_owned();
    Ok((received.bytes > 0).then_some((text, descriptors)))
}

/// What systemd does with `FDSTORE=1` and `FDSTOREREMOVE=1` (`sd_notify(3)`).
fn keep(store: &Store, text: &str, descriptors: Vec<OwnedFd>) {
    let says = |wanted: &str| text.lines().any(|line| line == wanted);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    if says("FDSTOREREMOVE=1") {
        store.retain(|(known, _)| *known != name);
    } else if says("FDSTORE=1") {
        store.extend(descriptors.into_iter().map(|descriptor| (name.clone(), descriptor)));
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        // Err: it is shut down already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            // Err: the reader panicked, which its own thread has told.
            let _ = reader.join();
        }
    }
}
