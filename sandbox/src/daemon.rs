//! The real `bastiond` on the world's bastion, as systemd would run it: with directories, a notification socket and a token.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::world::World;

/// Where a daemon runs: its namespace, its programs, its directories. They outlive the process, as they do for a service.
#[derive(Debug)]
pub struct Station<'w> {
    namespace: &'w Namespace,
    programs: PathBuf,
    directory: TempDir,
    environment: Vec<(String, String)>,
}

impl<'w> Station<'w> {
    /// On the bastion of `world`, with `programs` (a directory that holds `bastiond` and `bastionctl`), the fake cloud as the
    /// API, its token, and an empty configuration.
    pub fn in_world(world: &'w World, programs: &Path) -> io::Result<Self> {
        let station = Self::new(world.bastion(), programs)?;
        Ok(station.env("HCLOUD_ENDPOINT", &world.api_endpoint()).env("HCLOUD_TOKEN", world.token()))
    }

    /// In any namespace, without a token, with an empty configuration. The API's endpoint is a closed port: a test that
    /// forgets to name one must not reach the real API.
    pub fn new(namespace: &'w Namespace, programs: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("bastiond-").tempdir()?;
        for name in ["run", "state"] {
            std::fs::create_dir(directory.path().join(name))?;
        }
        let station = Self { namespace, programs: programs.to_owned(), directory, environment: Vec::new() };
        station.write_config("")?;
        Ok(station.env("HCLOUD_ENDPOINT", "http://127.0.0.1:9/v1"))
    }

    /// The same station with other programs.
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
        let notifications = Notifications::read(UnixDatagram::bind(&socket)?)?;
        let log = self.directory.path().join("log");
        let file = File::options().create(true).append(true).open(&log)?;
        let command = self.command("bastiond").env("NOTIFY_SOCKET", &socket).stdin(Stdio::null());
        let started = Instant::now();
        let child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Daemon { child, notifications, log, started })
    }

    /// Runs `bastionctl` with `arguments`.
    pub fn ctl(&self, arguments: &[&str]) -> io::Result<Output> {
        self.command("bastionctl").args(arguments).stdin(Stdio::null()).output()
    }

    fn command(&self, program: &str) -> crate::namespace::Command<'w> {
        let program = self.programs.join(program);
        let mut command = self.namespace.command(&program.to_string_lossy());
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
    pub fn hears(&mut self, line: &str, timeout: Duration) -> Option<Duration> {
        self.hears_where(|heard| heard == line, timeout)
    }

    /// The same for a line that `wanted` likes. The line and those before it are then forgotten.
    pub fn hears_where(&mut self, wanted: impl Fn(&str) -> bool, timeout: Duration) -> Option<Duration> {
        let at = self.notifications.wait_for(wanted, timeout)?;
        Some(at.duration_since(self.started))
    }

    /// Waits for readiness.
    ///
    /// # Panics
    /// It is not ready within ten seconds; the message has its log.
    pub fn ready(&mut self) -> Duration {
        let ready = self.hears("READY=1", Duration::from_secs(10));
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
    pub fn ended(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
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

    /// Everything that it, and its predecessors at the same station, logged.
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
    fn read(socket: UnixDatagram) -> io::Result<Self> {
        let heard = Arc::<Heard>::default();
        let (theirs, source) = (Arc::clone(&heard), socket.try_clone()?);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 8192];
            // A length of 0 is the end: the socket was shut down.
            while let Ok(length @ 1..) = source.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
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
            self.heard.1.wait_timeout_while(heard, timeout, missing).unwrap_or_else(PoisonError::into_inner).0;
        let position = heard.iter().position(|(line, _)| wanted(line))?;
        heard.drain(..=position).next_back().map(|(_, at)| at)
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
