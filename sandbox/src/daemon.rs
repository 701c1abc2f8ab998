//! The real `bastiond` in a namespace, run as systemd runs it: with directories, a notification socket and a token.

use std::fs::File;
use std::io::{self, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::{Condvar, Mutex};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use crate::namespace::{self, Namespace};
use crate::timeouts::scaled;
use crate::world::World;

/// How long a daemon may take until it is ready: a second usually, and much longer with ten thousand peers beside other
/// tests.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration with `nat.fastpath`, in its section `[nat]` if it has one.
fn with_fast_path(text: &str, choice: &str) -> String {
    let setting = format!("[nat]\nfastpath = \"{choice}\"\n");
    match text.split_once("[nat]") {
        Some((before, after)) => format!("{before}{setting}{after}"),
        None => format!("{text}\n{setting}"),
    }
}

/// The environment of a daemon: namespace, programs and directories. As for a service, it outlives the process.
#[derive(Debug)]
pub struct Installation<'w> {
    namespace: &'w Namespace,
    programs: PathBuf,
    directory: TempDir,
    environment: Vec<(String, String)>,
    /// What `nat.fastpath` is in configurations that do not name it; `None`: not set.
    fast_path: Option<String>,
    descriptors: DescriptorStore,
}

/// The descriptor store of a service manager (`FileDescriptorStoreMax=`): the names and descriptors that a daemon
/// stored for its successor.
type DescriptorStore = Arc<Mutex<Vec<(String, OwnedFd)>>>;

impl<'w> Installation<'w> {
    /// An installation on the bastion of `world`, with an empty configuration and the token of the fake cloud.
    /// `programs` is the directory that contains `bastiond` and `bastionctl`.
    pub fn in_world(world: &'w World, programs: &Path) -> io::Result<Self> {
        let installation = Self::new(world.bastion(), programs)?;
        Ok(installation.env("HCLOUD_ENDPOINT", &world.api_endpoint()).env("HCLOUD_TOKEN", world.token()))
    }

    /// An installation in any namespace, with an empty configuration and without a token. The API's endpoint is a
    /// closed port, so that a test that sets none cannot reach the real API.
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
            fast_path: None,
            descriptors: DescriptorStore::default(),
        };
        installation.write_config("")?;
        Ok(installation.env("HCLOUD_ENDPOINT", "http://127.0.0.1:9/v1"))
    }

    /// Replaces the directory of the programs.
    #[must_use]
    pub fn with_programs(mut self, programs: &Path) -> Self {
        programs.clone_into(&mut self.programs);
        self
    }

    /// Adds `nat.fastpath` to each configuration that is written later and does not name it.
    #[must_use]
    pub fn with_fast_path(mut self, choice: &str) -> Self {
        self.fast_path = Some(choice.to_owned());
        self
    }

    /// Sets an environment variable for daemons and tools that are started later.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The path of the configuration file.
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
        let text = match &self.fast_path {
            Some(choice) if !text.contains("fastpath") => with_fast_path(text, choice),
            _ => text.to_owned(),
        };
        std::fs::write(self.config_path(), text)
    }

    /// Starts the daemon.
    pub fn start(&self) -> io::Result<Daemon> {
        let socket = self.directory.path().join("notify");
        let _ = std::fs::remove_file(&socket);
        let notifications = Notifications::read(UnixDatagram::bind(&socket)?, Arc::clone(&self.descriptors))?;
        let log = self.directory.path().join("log");
        let file = File::options().create(true).append(true).open(&log)?;
        let command = self.daemon_command()?.env("NOTIFY_SOCKET", &socket).stdin(Stdio::null());
        let started = Instant::now();
        let child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Daemon { child, notifications, log, started })
    }

    /// Runs `bastionctl` with `arguments`.
    pub fn ctl(&self, arguments: &[&str]) -> io::Result<Output> {
        self.command("bastionctl").args(arguments).stdin(Stdio::null()).output()
    }

    /// The tunnel's processes, which the daemon has started.
    pub fn tunnel_processes(&self) -> io::Result<Vec<Pid>> {
        let place = format!("RUNTIME_DIRECTORY={}", self.runtime_directory().display());
        let mut found = Vec::new();
        for process in std::fs::read_dir("/proc")? {
            let process = process?;
            let Ok(pid) = process.file_name().to_string_lossy().parse() else { continue };
            // Err: it has ended meanwhile, or is another user's.
            let read = |name: &str| std::fs::read(process.path().join(name)).unwrap_or_default();
            let has = |file: &[u8], wanted: &str| file.split(|&byte| byte == 0).any(|word| word == wanted.as_bytes());
            if has(&read("cmdline"), "--controlled") && has(&read("environ"), &place) {
                found.push(Pid::from_raw(pid));
            }
        }
        Ok(found)
    }

    /// Kills the tunnel's process, as a bug in it would.
    pub fn kill_tunnel(&self) -> io::Result<()> {
        for pid in self.tunnel_processes()? {
            kill(pid, Signal::SIGKILL)?;
        }
        Ok(())
    }

    /// Stores a descriptor, as a former daemon did.
    pub fn store_descriptor(&self, name: &str, descriptor: OwnedFd) {
        self.descriptors.lock().push((name.to_owned(), descriptor));
    }

    /// The names of the stored descriptors, oldest first.
    pub fn stored_descriptor_names(&self) -> Vec<String> {
        self.descriptors.lock().iter().map(|(name, _)| name.clone()).collect()
    }

    /// The daemon's command, with the stored descriptors (`sd_listen_fds(3)`).
    fn daemon_command(&self) -> io::Result<namespace::Command<'w>> {
        let store = self.descriptors.lock();
        if store.is_empty() {
            return Ok(self.command("bastiond"));
        }
        let descriptors = store.iter().map(|(_, descriptor)| descriptor.try_clone()).collect::<io::Result<Vec<_>>>()?;
        let names: Vec<&str> = store.iter().map(|(name, _)| name.as_str()).collect();
        // LISTEN_PID must be the process id, which only the process itself knows before exec.
        let shell = self.namespace.command("bash").args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\""]);
        self.configure(shell.arg(self.programs.join("bastiond")))
            .env("LISTEN_FDS", descriptors.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .descriptors(descriptors)
    }

    fn command(&self, program: &str) -> namespace::Command<'w> {
        self.configure(self.namespace.command(&self.programs.join(program).to_string_lossy()))
    }

    fn configure(&self, mut command: namespace::Command<'w>) -> namespace::Command<'w> {
        for (name, value) in &self.environment {
            command = command.env(name, value);
        }
        command
            .env("RUNTIME_DIRECTORY", self.runtime_directory())
            .env("STATE_DIRECTORY", self.state_directory())
            .args(["--config".as_ref(), self.config_path().as_os_str()])
    }
}

impl Drop for Installation<'_> {
    /// Ends the tunnel's process, which outlives its daemon: it has the runtime directory in its environment.
    fn drop(&mut self) {
        let _ = self.kill_tunnel();
    }
}

/// A running daemon. Dropping the value kills the process with SIGKILL.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    notifications: Notifications,
    log: PathBuf,
    started: Instant,
}

impl Daemon {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a notification with the line `line`, such as `READY=1`, and returns the time from the start of the
    /// daemon to its arrival; `None` after `timeout`. Lines that arrived before the call count.
    pub fn wait_for_notification(&mut self, line: &str, timeout: Duration) -> Option<Duration> {
        self.wait_for_notification_matching(|received| received == line, timeout)
    }

    /// Like [`Self::wait_for_notification`], for a line that `wanted` accepts. The line and all earlier ones are
    /// removed.
    pub fn wait_for_notification_matching(
        &mut self,
        wanted: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Option<Duration> {
        let at = self.notifications.wait_for(wanted, timeout)?;
        Some(at.duration_since(self.started))
    }

    /// Waits until the daemon is ready, and returns the time from its start.
    ///
    /// # Panics
    /// The daemon is not ready within thirty seconds. The message contains its log.
    pub fn wait_until_ready(&mut self) -> Duration {
        let ready = self.wait_for_notification("READY=1", READY_TIMEOUT);
        ready.unwrap_or_else(|| panic!("bastiond is not ready after {READY_TIMEOUT:?}:\n{}", self.log()))
    }

    /// Sends a signal to the daemon.
    ///
    /// # Panics
    /// Never: process ids of Linux fit into an `i32`.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are below 2^22")), signal)
    }

    /// Waits for the end of the process, for at most `timeout`; `None` if it still runs.
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

    /// Everything that this daemon and its predecessors in the same installation logged.
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
        // Errors mean that the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The received lines with their times of arrival, oldest first, and a condition variable for new ones.
type Received = (Mutex<Vec<(String, Instant)>>, Condvar);

/// The notifications of the daemon to its service manager, read in a thread: a full socket would block the daemon.
#[derive(Debug)]
struct Notifications {
    received: Arc<Received>,
    reader: Option<JoinHandle<()>>,
    socket: UnixDatagram,
}

impl Notifications {
    fn read(socket: UnixDatagram, store: DescriptorStore) -> io::Result<Self> {
        let received = Arc::<Received>::default();
        let (shared, source) = (Arc::clone(&received), socket.try_clone()?);
        let reader = thread::spawn(move || {
            // Ok(None) means that the socket was shut down.
            while let Ok(Some((text, descriptors))) = receive(&source) {
                update_store(&store, &text, descriptors);
                let lines = text.lines().map(|line| (line.to_owned(), Instant::now()));
                shared.0.lock().extend(lines);
                shared.1.notify_all();
            }
        });
        Ok(Self { received, reader: Some(reader), socket })
    }

    fn wait_for(&self, wanted: impl Fn(&str) -> bool, timeout: Duration) -> Option<Instant> {
        let (lines, arrived) = &*self.received;
        let mut lines = lines.lock();
        let missing = |lines: &mut Vec<(String, Instant)>| !lines.iter().any(|(line, _)| wanted(line));
        arrived.wait_while_for(&mut lines, missing, scaled(timeout));
        let position = lines.iter().position(|(line, _)| wanted(line))?;
        lines.drain(..=position).next_back().map(|(_, at)| at)
    }
}

/// Receives one message with its descriptors; `None` when the socket is shut down.
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

/// Handles `FDSTORE=1` and `FDSTOREREMOVE=1` as systemd does (`sd_notify(3)`).
fn update_store(store: &DescriptorStore, text: &str, descriptors: Vec<OwnedFd>) {
    let says = |wanted: &str| text.lines().any(|line| line == wanted);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
    let mut store = store.lock();
    if says("FDSTOREREMOVE=1") {
        store.retain(|(known, _)| *known != name);
    } else if says("FDSTORE=1") {
        store.extend(descriptors.into_iter().map(|descriptor| (name.clone(), descriptor)));
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        // An error means that it is shut down already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            // A panic of the reader is on stderr already.
            let _ = reader.join();
        }
    }
}
