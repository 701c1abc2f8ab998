//! A program that runs as an interface.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tempfile::NamedTempFile;

use super::{Error, InterfaceStatus, Program};
use crate::namespace::{self, Namespace};
use crate::timeouts::scaled;

/// Where all of them listen. The isolation has a /run of its own, so no interface of the machine can be meant.
const SOCKETS: &str = "/var/run/wireguard";
/// For the interface to be there.
const PATIENCE: Duration = Duration::from_secs(10);
/// For `wg`, in seconds. A thousand peers take it milliseconds.
const WG_SECONDS: &str = "20";
const LOOK: Duration = Duration::from_millis(5);

/// An interface that runs. Dropping it kills its process, and the interface goes with that.
#[derive(Debug)]
pub struct Interface {
    name: String,
    child: Child,
    log: NamedTempFile,
}

impl Interface {
    /// Starts a program as an interface of `namespace`, under a name that no other has, and waits until `wg` can speak to it.
    pub fn start(namespace: &Namespace, program: &Program) -> Result<Self, Error> {
        static INTERFACES: AtomicU32 = AtomicU32::new(0);
        program.require()?;
        let name = format!("wg-s{}", INTERFACES.fetch_add(1, Ordering::Relaxed) + 1);
        let path = program.path().to_string_lossy();
        let failed = |source| Error::Start { program: path.to_string(), source };
        let log = NamedTempFile::new().map_err(failed)?;
        let file = log.reopen().map_err(failed)?;
        let theirs = File::try_clone(&file).map_err(failed)?;
        let command = namespace.command(&path).args(program.arguments()).arg(&name);
        let child = command.stdin(Stdio::null()).stdout(file).stderr(theirs).spawn().map_err(failed)?;
        let mut interface = Self { name, child, log };
        interface.wait_for_socket()?;
        Ok(interface)
    }

    fn wait_for_socket(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            self.check()?;
            if start.elapsed() > scaled(PATIENCE) {
                return Err(self.dead("has no socket"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        Path::new(SOCKETS).join(format!("{}.sock", self.name))
    }

    fn dead(&self, what: &str) -> Error {
        Error::Dead { interface: self.name.clone(), what: what.to_owned(), log: self.log() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Fails if its process has ended.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.dead(&format!("has ended ({status})"))),
            Err(error) => Err(self.dead(&format!("cannot be waited for ({error})"))),
        }
    }

    /// Gives it addresses and switches it on.
    pub fn up(&self, namespace: &Namespace, addresses: &[IpNet]) -> Result<(), namespace::Error> {
        let name = &self.name;
        // No duplicate detection: there is nobody to ask, and an address could not be used meanwhile.
        let add = |address: &IpNet| match address {
            IpNet::V4(address) => format!("addr add {address} dev {name}\n"),
            IpNet::V6(address) => format!("addr add {address} dev {name} nodad\n"),
        };
        let lines: String = addresses.iter().map(add).collect();
        namespace.ip(&format!("{lines}link set {name} up"))?;
        Ok(())
    }

    /// Runs `wg COMMAND INTERFACE ARGUMENTS` with something to read from `/dev/stdin`.
    pub fn try_wg(&self, command: &str, arguments: &[&str], input: &str) -> Result<Output, Error> {
        let failed = |source| Error::Start { program: "wg".to_owned(), source };
        let words = ["--kill-after=1", WG_SECONDS, "wg", command, &self.name];
        let mut wg = Command::new("timeout");
        wg.args(words).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = wg.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever does not read has something to complain of, which says more.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().map_err(failed)
    }

    /// The same; what it printed. It must succeed.
    pub fn wg(&self, command: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
        let output = self.try_wg(command, arguments, input)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let arguments = format!("{command} {} {}", self.name, arguments.join(" "));
        Err(Error::Refused { arguments, complaint: format!("{} {complaint}", output.status) })
    }

    /// `wg set INTERFACE …`, words separated by spaces.
    pub fn set(&self, words: &str) -> Result<(), Error> {
        self.set_with_key(words, "")
    }

    /// The same with a key that is read from `/dev/stdin`.
    pub fn set_with_key(&self, words: &str, key: &str) -> Result<(), Error> {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.wg("set", &words, key).map(drop)
    }

    /// What `wg show` tells.
    pub fn status(&self) -> Result<InterfaceStatus, Error> {
        self.wg("show", &["dump"], "")?.parse()
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        // It has ended, or ends now; a socket that it leaves behind must not be taken for a living one's.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.socket());
    }
}
