//! One network namespace: made, entered, furnished with `ip`, `nft` and sysctls, and gone when dropped.
//!
//! It is visible as `/run/netns/<name>` in the isolation, so people reach it with `ip netns exec <name>`.

mod command;
mod links;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use serde::de::DeserializeOwned;

pub use command::Command;
pub use links::Link;

use crate::isolation::Isolation;

/// Where iproute2 looks for namespaces by name.
const DIRECTORY: &str = "/run/netns";

/// Why something in a namespace failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Outside of an isolation the machine's own mounts would be changed.
    #[error("the namespace {name} cannot be made: the process is in no isolation (isolation::enter comes first)")]
    NoEnclave {
        /// The namespace wanted.
        name: String,
    },
    /// The kernel gave no new namespace, or no way to name it.
    #[error("failed to {operation} the namespace {name}")]
    Create {
        /// The namespace wanted.
        name: String,
        /// Which step.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A program did not start.
    #[error("failed to start {program} in {namespace}")]
    Start {
        /// Where.
        namespace: String,
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program refused what it was given.
    #[error("{program} failed in {namespace}: {stderr}\nit was given:\n{input}")]
    Refused {
        /// Where.
        namespace: String,
        /// Which.
        program: String,
        /// The text it read.
        input: String,
        /// What it complained of.
        stderr: String,
    },
    /// A program's answer was not in the shape expected of it.
    #[error("{program} in {namespace} gave no readable answer")]
    Answer {
        /// Where.
        namespace: String,
        /// Which.
        program: String,
        /// Where the reading stopped.
        source: serde_json::Error,
    },
    /// A sysctl could not be read or written.
    #[error("failed to {operation} the sysctl {key} in {namespace}")]
    Sysctl {
        /// Where.
        namespace: String,
        /// The key.
        key: String,
        /// `read` or `write`.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An address could not be listened on.
    #[error("failed to listen on {address} in {namespace}")]
    Listen {
        /// Where.
        namespace: String,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A network namespace. Dropping it takes its name away; the kernel removes it, and every link in it, as soon as no
/// process or socket is left inside.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    /// Keeps the namespace alive, and is the way in.
    handle: File,
}

impl Namespace {
    /// Makes a namespace with nothing in it but a loopback link that is up.
    pub fn create(name: &str) -> Result<Self, Error> {
        if Isolation::current().is_none() {
            return Err(Error::NoEnclave { name: name.to_owned() });
        }
        let failed = |operation, source| Error::Create { name: name.to_owned(), operation, source };
        let path = Path::new(DIRECTORY).join(name);
        File::create_new(&path).map_err(|source| failed("name", source))?;
        // A thread of its own, since the thread that makes a namespace is in it from then on.
        let made =
            thread::scope(|scope| scope.spawn(|| make(&path)).join()).unwrap_or_else(|panic| resume_unwind(panic));
        let handle = made.map_err(|source| {
            let _ = fs::remove_file(&path);
            failed("make", source)
        })?;
        let namespace = Self { name: name.to_owned(), path, handle };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `task` on a new thread inside the namespace and waits for it. Sockets that it opens belong to the namespace
    /// for good, threads and processes that it starts begin there. A panic in `task` passes on to the caller.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            task()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a thread that lives inside the namespace.
    pub fn spawn<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        self.run(|| thread::spawn(task))
    }

    /// A program that is going to run inside.
    pub fn command(&self, program: &str) -> Command<'_> {
        Command::new(self, program)
    }

    /// Runs lines of `ip`, such as `addr add 10.0.0.2/32 dev eth1`, in one process. The first refused line ends it.
    /// Returns what `ip` printed.
    pub fn ip(&self, lines: &str) -> Result<String, Error> {
        self.fed("ip", &["-batch", "-"], lines)
    }

    /// Applies a script of `nft`, all or nothing. Returns what `nft` printed, as for `list ruleset`.
    pub fn nft(&self, script: &str) -> Result<String, Error> {
        self.fed("nft", &["-f", "-"], script)
    }

    /// Asks `nft` in JSON, as with `list ruleset`, and reads the answer as a `T`.
    pub fn nft_json<T: DeserializeOwned>(&self, question: &str) -> Result<T, Error> {
        let words: Vec<_> = std::iter::once("-j").chain(question.split_whitespace()).collect();
        let text = self.fed("nft", &words, "")?;
        self.parsed("nft", &text)
    }

    /// Writes a sysctl: `net.ipv4.ip_forward`, or with slashes where an interface's name has a dot.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        self.sysctls(&[(key, value)])
    }

    /// Writes several sysctls in turn.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<(), Error> {
        // The kernel shows /proc/sys/net of the namespace that the reading thread is in.
        self.run(|| {
            settings.iter().try_for_each(|(key, value)| {
                fs::write(sysctl_path(key), value).map_err(|source| self.sysctl_error(key, "write", source))
            })
        })
    }

    /// Reads a sysctl, without the line's end.
    pub fn read_sysctl(&self, key: &str) -> Result<String, Error> {
        let text = self.run(|| fs::read_to_string(sysctl_path(key)));
        text.map(|text| text.trim_end().to_owned()).map_err(|source| self.sysctl_error(key, "read", source))
    }

    /// A TCP socket that listens inside.
    pub fn listen_tcp(&self, address: impl Into<SocketAddr>) -> Result<TcpListener, Error> {
        let address = address.into();
        self.run(|| TcpListener::bind(address)).map_err(|source| self.listen_error(address, source))
    }

    /// A UDP socket inside. Port 0 takes a free one.
    pub fn bind_udp(&self, address: impl Into<SocketAddr>) -> Result<UdpSocket, Error> {
        let address = address.into();
        self.run(|| UdpSocket::bind(address)).map_err(|source| self.listen_error(address, source))
    }

    fn enter(&self) {
        setns(&self.handle, CloneFlags::CLONE_NEWNET)
            .expect("the isolation has the capabilities to enter its namespaces");
    }

    fn fed(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
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
        // From another thread: a long answer could fill its pipe while we still write.
        let output = thread::scope(|scope| {
            scope.spawn(move || {
                // A program that complains without reading has closed the pipe; its complaint says more.
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

    fn parsed<T: DeserializeOwned>(&self, program: &str, text: &str) -> Result<T, Error> {
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
        // Nobody could act on a failure, and the isolation's end removes all.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a namespace and pins it to `path`; the calling thread stays in it.
fn make(path: &Path) -> io::Result<File> {
    let own = "/proc/thread-self/ns/net";
    unshare(CloneFlags::CLONE_NEWNET)?;
    mount(Some(own), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
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
    fn no_namespace_is_made_outside_of_an_enclave() {
        let refused = Namespace::create("stray");
        assert!(matches!(refused, Err(Error::NoEnclave { name }) if name == "stray"));
    }
}
