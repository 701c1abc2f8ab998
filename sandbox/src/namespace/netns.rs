//! The network namespace itself.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use serde::de::DeserializeOwned;

use super::command::Command;
use super::enter::run_in;
use super::error::Error;
use crate::isolation::Isolation;

/// The directory in which iproute2 looks for namespaces by name.
const DIRECTORY: &str = "/run/netns";

/// A network namespace. Dropping the value removes its name. The kernel removes the namespace with its interfaces as
/// soon as no process or socket uses it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    /// Keeps the namespace alive, and is what `setns` needs.
    handle: File,
}

impl Namespace {
    /// Creates a namespace that contains only a loopback interface, which is up.
    pub fn create(name: &str) -> Result<Self, Error> {
        if Isolation::current().is_none() {
            return Err(Error::NotIsolated { name: name.to_owned() });
        }
        let failed = |operation, source| Error::Create { name: name.to_owned(), operation, source };
        let path = Path::new(DIRECTORY).join(name);
        File::create_new(&path).map_err(|source| failed("name", source))?;
        // In a new thread, because the thread that creates a namespace stays in it.
        let created =
            thread::scope(|scope| scope.spawn(|| create_at(&path)).join()).unwrap_or_else(|panic| resume_unwind(panic));
        let handle = created.map_err(|source| {
            let _ = fs::remove_file(&path);
            failed("create", source)
        })?;
        let namespace = Self { name: name.to_owned(), path, handle };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name that `ip netns` uses.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `task` on a new thread in the namespace and waits for it. Sockets that it opens stay in the namespace;
    /// threads and processes that it starts begin there. A panic in `task` is passed to the caller.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        run_in(&self.handle, task)
    }

    /// Starts a thread in the namespace.
    pub fn spawn<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        self.run(|| thread::spawn(task))
    }

    /// A program to run in the namespace.
    pub fn command(&self, program: &str) -> Command<'_> {
        Command::new(&self.handle, program)
    }

    /// Runs lines of `ip`, such as `addr add 10.0.0.2/32 dev eth1`, in one process. It stops at the first line that
    /// fails. Returns the output of `ip`.
    pub fn ip(&self, lines: &str) -> Result<String, Error> {
        self.run_with_input("ip", &["-batch", "-"], lines)
    }

    /// Runs an `nft` script as one transaction and returns its output.
    pub fn nft(&self, script: &str) -> Result<String, Error> {
        self.run_with_input("nft", &["-f", "-"], script)
    }

    /// Runs an `nft` command such as `list ruleset` with JSON output, and parses the output as a `T`.
    pub fn nft_json<T: DeserializeOwned>(&self, command: &str) -> Result<T, Error> {
        let words: Vec<_> = std::iter::once("-j").chain(command.split_whitespace()).collect();
        let text = self.run_with_input("nft", &words, "")?;
        self.parse_json("nft", &text)
    }

    /// Writes a sysctl such as `net.ipv4.ip_forward`. Use slashes where an interface name contains a dot.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        self.sysctls(&[(key, value)])
    }

    /// Writes several sysctls in order.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<(), Error> {
        // /proc/sys/net shows the namespace of the thread that accesses it.
        self.run(|| {
            settings.iter().try_for_each(|(key, value)| {
                fs::write(sysctl_path(key), value).map_err(|source| self.sysctl_error(key, "write", source))
            })
        })
    }

    /// Reads a sysctl, without the end of the line.
    pub fn read_sysctl(&self, key: &str) -> Result<String, Error> {
        let text = self.run(|| fs::read_to_string(sysctl_path(key)));
        text.map(|text| text.trim_end().to_owned()).map_err(|source| self.sysctl_error(key, "read", source))
    }

    /// A listening TCP socket in the namespace.
    pub fn listen_tcp(&self, address: impl Into<SocketAddr>) -> Result<TcpListener, Error> {
        let address = address.into();
        self.run(|| TcpListener::bind(address)).map_err(|source| self.listen_error(address, source))
    }

    /// A UDP socket in the namespace. Port 0 picks a free port.
    pub fn bind_udp(&self, address: impl Into<SocketAddr>) -> Result<UdpSocket, Error> {
        let address = address.into();
        self.run(|| UdpSocket::bind(address)).map_err(|source| self.listen_error(address, source))
    }

    pub(crate) fn run_with_input(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
        let failed = |source| Error::Start { namespace: self.name.clone(), program: program.to_owned(), source };
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take().expect("stdin is piped");
        // In another thread: the output could fill its pipe while the input is still written.
        let output = thread::scope(|scope| {
            scope.spawn(move || {
                // A program that fails before reading closes the pipe; its standard error says why.
                let _ = { stdin }.write_all(input.as_bytes());
            });
            child.wait_with_output()
        })
        .map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Refused {
            namespace: self.name.clone(),
            program: program.to_owned(),
            input: input.to_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    pub(super) fn parse_json<T: DeserializeOwned>(&self, program: &str, text: &str) -> Result<T, Error> {
        let failed = |source| Error::Answer { namespace: self.name.clone(), program: program.to_owned(), source };
        serde_json::from_str(text).map_err(failed)
    }

    fn sysctl_error(&self, key: &str, operation: &'static str, source: io::Error) -> Error {
        Error::Sysctl { namespace: self.name.clone(), key: key.to_owned(), operation, source }
    }

    fn listen_error(&self, address: SocketAddr, source: io::Error) -> Error {
        Error::Listen { namespace: self.name.clone(), address, source }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A failure is harmless: the end of the isolation removes everything.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

/// Creates a namespace and bind-mounts it to `path`. The calling thread stays in it.
fn create_at(path: &Path) -> io::Result<File> {
    let current = "/proc/thread-self/ns/net";
    unshare(CloneFlags::CLONE_NEWNET)?;
    mount(Some(current), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    File::open(path)
}

fn sysctl_path(key: &str) -> PathBuf {
    let relative = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    Path::new("/proc/sys").join(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_key_may_have_dots_or_slashes() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), Path::new("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.7/rp_filter"),
            Path::new("/proc/sys/net/ipv4/conf/eth0.7/rp_filter")
        );
    }

    #[test]
    fn a_process_that_is_not_isolated_creates_no_namespace() {
        let refused = Namespace::create("stray");
        assert!(matches!(refused, Err(Error::NotIsolated { name }) if name == "stray"));
    }
}
