//! A place of its own for a process: its network, mounts and process table are nobody else's, and die with it.
//!
//! [`enter`] starts the program again inside fresh namespaces and stays outside only to pass on signals and the exit
//! code. Inside, the program is root over its own little machine without being root on the real one: with user
//! namespaces no privilege is needed at all. Nothing that it does to links, rules, sysctls of the network or mounts can
//! reach the machine, and when it ends, however it ends, the kernel takes everything away.
//!
//! Three processes take part, all of them this same program:
//!
//! ```text
//! outside   makes the namespaces, then waits: signals in, exit code out
//! └─ init   PID 1 inside: mounts, reaps orphans, ends everything when `inside` ends
//!    └─ inside   the program proper: `enter` returns here, and only here
//! ```

mod error;
mod init;
mod launcher;
mod probe;
mod stage;

use std::convert::Infallible;
use std::fmt;
use std::os::unix::fs::MetadataExt;

pub use error::{Error, Program};
use stage::Stage;

/// Set to `1` where tests that cannot run must count as failed, as in continuous integration.
pub const REQUIRE: &str = "BASTIOND_REQUIRE_NETNS";

/// Proof that this process is in a place of its own. [`World`](crate::world::World) cannot be started without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolation {
    machine: NetworkNamespaceId,
}

impl Isolation {
    /// The network namespace of the machine, from which this process is separated.
    pub fn machine_network(self) -> NetworkNamespaceId {
        self.machine
    }

    /// The isolation that this process is in, if it is in one.
    pub fn current() -> Option<Self> {
        match Stage::current() {
            Ok(Stage::Inside { machine }) => Some(Self { machine }),
            _ => None,
        }
    }
}

/// What tells network namespaces apart: the inode number that `/proc/self/ns/net` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkNamespaceId(u64);

impl NetworkNamespaceId {
    /// The namespace of the calling thread.
    pub fn of_this_thread() -> Result<Self, Error> {
        let path = "/proc/thread-self/ns/net";
        let status = std::fs::metadata(path).map_err(|source| Error::Read { path, source })?;
        Ok(Self(status.ino()))
    }
}

impl fmt::Display for NetworkNamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.0)
    }
}

/// Moves the program into an isolation: call it first thing in `main`, before any thread is started.
///
/// Returns inside only. Outside it never returns unless it fails: it waits for the program inside and exits with its
/// code (128 and the signal's number, when a signal ended it). Inside an isolation already, it returns at once.
///
/// # Errors
/// What this machine lacks, in words that say what to do about it.
pub fn enter() -> Result<Isolation, Error> {
    let never: Infallible = match Stage::current()? {
        Stage::Outside => launcher::run()?,
        Stage::Init { machine } => init::run(machine)?,
        Stage::Inside { machine } => {
            // Who waits for a program blocks signals for that; the program itself must feel them.
            let unblocked = launcher::watched().thread_unblock();
            unblocked.map_err(|source| Error::Process { operation: "unblock signals", source })?;
            probe::probe()?;
            return Ok(Isolation { machine });
        }
    };
    match never {}
}

/// [`enter`] for test runners: where it is impossible, says so and why, and ends the process.
///
/// The exit code is 1 with `BASTIOND_REQUIRE_NETNS=1` in the environment, else 0: a machine that cannot host a world of
/// namespaces does not fail the tests, but nobody can mistake that for a pass. `tests` is how many do not run.
pub fn require(tests: usize) -> Isolation {
    match enter() {
        Ok(isolation) => isolation,
        Err(error) => {
            let required = std::env::var_os(REQUIRE).is_some_and(|value| value == "1");
            let verdict = if required { "FAILED" } else { "NOT RUN" };
            eprintln!("\n*** {verdict}: {tests} tests need network namespaces, and this machine cannot host them.");
            for line in error::chain(&error).lines() {
                eprintln!("*** {line}");
            }
            if !required {
                eprintln!("*** Nothing was tested here. {REQUIRE}=1 makes this a failure.");
            }
            std::process::exit(i32::from(required));
        }
    }
}

/// An error with all its causes, one a line.
pub fn explain(error: &Error) -> String {
    error::chain(error)
}
