//! A running WireGuard interface.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tempfile::NamedTempFile;

use super::error::Error;
use super::program::Program;
use super::status::InterfaceStatus;
use crate::namespace::{self, Namespace};
use crate::timeouts::scaled;

/// The directory of the control sockets. The isolation has a /run of its own, so it has no interface of the machine.
const SOCKET_DIRECTORY: &str = "/var/run/wireguard";
/// How long the interface may take to appear.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The time-out of `wg` in seconds. A thousand peers take milliseconds.
const WG_TIMEOUT: &str = "20";
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running interface. Dropping the value kills the process, which removes the interface.
#[derive(Debug)]
pub struct Interface {
    name: String,
    child: Child,
    log: NamedTempFile,
}

impl Interface {
    /// Starts a program in `namespace` with a new interface name, and waits until its control socket accepts
    /// connections.
    pub fn start(namespace: &Namespace, program: &Program) -> Result<Self, Error> {
        static INTERFACES: AtomicU32 = AtomicU32::new(0);
        program.require()?;
        let name = format!("wg-s{}", INTERFACES.fetch_add(1, Ordering::Relaxed) + 1);
        let path = program.path().to_string_lossy();
        let failed = |source| Error::Start { program: path.to_string(), source };
        let log = NamedTempFile::new().map_err(failed)?;
        let file = log.reopen().map_err(failed)?;
        let stderr = File::try_clone(&file).map_err(failed)?;
        let command = namespace.command(&path).args(program.arguments()).arg(&name);
        let child = command.stdin(Stdio::null()).stdout(file).stderr(stderr).spawn().map_err(failed)?;
        let mut interface = Self { name, child, log };
        interface.wait_for_socket()?;
        Ok(interface)
    }

    fn wait_for_socket(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            self.check_running()?;
            if start.elapsed() > scaled(START_TIMEOUT) {
                return Err(self.not_running("has no socket"));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        Path::new(SOCKET_DIRECTORY).join(format!("{}.sock", self.name))
    }

    fn not_running(&self, what: &str) -> Error {
        Error::NotRunning { interface: self.name.clone(), what: what.to_owned(), log: self.log() }
    }

    /// The name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the program logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Fails if the process has ended.
    pub fn check_running(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.not_running(&format!("has ended ({status})"))),
            Err(error) => Err(self.not_running(&format!("cannot be waited for ({error})"))),
        }
    }

    /// Adds addresses and sets the interface up.
    pub fn up(&self, namespace: &Namespace, addresses: &[IpNet]) -> Result<(), namespace::Error> {
        let name = &self.name;
        // Without duplicate address detection, during which an address is unusable: there is no other host on the link.
        let add = |address: &IpNet| match address {
            IpNet::V4(address) => format!("addr add {address} dev {name}\n"),
            IpNet::V6(address) => format!("addr add {address} dev {name} nodad\n"),
        };
        let lines: String = addresses.iter().map(add).collect();
        namespace.ip(&format!("{lines}link set {name} up"))?;
        Ok(())
    }

    /// Runs `wg COMMAND INTERFACE ARGUMENTS` with `input` as its standard input; it may fail.
    pub fn try_wg(&self, command: &str, arguments: &[&str], input: &str) -> Result<Output, Error> {
        let failed = |source| Error::Start { program: "wg".to_owned(), source };
        let words = ["--kill-after=1", WG_TIMEOUT, "wg", command, &self.name];
        let mut wg = Command::new("timeout");
        wg.args(words).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = wg.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A `wg` that fails before reading closes the pipe; its standard error says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().map_err(failed)
    }

    /// Like [`Self::try_wg`], but it must succeed. Returns the output of `wg`.
    pub fn wg(&self, command: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
        let output = self.try_wg(command, arguments, input)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let arguments = format!("{command} {} {}", self.name, arguments.join(" "));
        Err(Error::Refused { arguments, message: format!("{} {stderr}", output.status) })
    }

    /// Runs `wg set INTERFACE WORDS`, with the words separated by spaces.
    pub fn set(&self, words: &str) -> Result<(), Error> {
        self.set_with_key(words, "")
    }

    /// Like [`Self::set`], with a key as the standard input, for words such as `private-key /dev/stdin`.
    pub fn set_with_key(&self, words: &str, key: &str) -> Result<(), Error> {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.wg("set", &words, key).map(drop)
    }

    /// The status that `wg show` reports.
    pub fn status(&self) -> Result<InterfaceStatus, Error> {
        self.wg("show", &["dump"], "")?.parse()
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        // A socket that the process leaves behind must not look like that of a running interface.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.socket());
    }
}
