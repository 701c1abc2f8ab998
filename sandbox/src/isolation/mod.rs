//! Isolates the process from the machine: it gets network, mount and process namespaces of its own.
//!
//! [`enter`] starts the program again inside new namespaces; the first process only passes on signals and the exit
//! code. Inside, the program is root over its own network without being root on the machine: with user namespaces it
//! needs no privileges. Nothing that it does to interfaces, rules, network sysctls or mounts changes the machine, and
//! the kernel removes everything when it ends.
//!
//! Three processes take part, all of them this same program:
//!
//! ```text
//! outside   creates the namespaces, then waits: passes signals in and the exit code out
//! └─ init   PID 1 inside: mounts, reaps orphans, ends everything when `inside` ends
//!    └─ inside   the program itself: `enter` returns here, and only here
//! ```

mod error;
mod init;
mod launcher;
mod network_namespace;
mod probe;
mod stage;

use std::convert::Infallible;

pub use error::{Error, Program};
pub use network_namespace::NetworkNamespaceId;
use stage::Stage;

/// The environment variable that, set to `1`, makes tests fail that cannot run. Continuous integration sets it.
pub const REQUIRE: &str = "BASTIOND_REQUIRE_NETNS";

/// Proof that this process is isolated. A [`Namespace`](crate::namespace::Namespace) cannot be created without
/// isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolation {
    machine: NetworkNamespaceId,
}

impl Isolation {
    /// The network namespace of the machine.
    pub fn machine_network(self) -> NetworkNamespaceId {
        self.machine
    }

    /// The isolation of this process; `None` if it is not isolated.
    pub fn current() -> Option<Self> {
        match Stage::current() {
            Ok(Stage::Inside { machine }) => Some(Self { machine }),
            _ => None,
        }
    }
}

/// Isolates the program. Call it first in `main`, before any thread is started.
///
/// It returns in the isolated process. The first process does not return unless it fails: it waits for the isolated one
/// and exits with its code, or with 128 plus the number of the signal that ended it. If the process is isolated
/// already, it returns at once.
///
/// # Errors
/// What this machine lacks, and how to install or enable it.
pub fn enter() -> Result<Isolation, Error> {
    let never: Infallible = match Stage::current()? {
        Stage::Outside => launcher::run()?,
        Stage::Init { machine } => init::run(machine)?,
        Stage::Inside { machine } => {
            // The processes that wait block signals, and children inherit that; the program needs them.
            let unblocked = launcher::handled_signals().thread_unblock();
            unblocked.map_err(|source| Error::Process { operation: "unblock signals", source })?;
            probe::check_machine()?;
            return Ok(Isolation { machine });
        }
    };
    match never {}
}

/// [`enter`] for test runners. On failure it prints the reason and exits.
///
/// The exit code is 1 if the environment has `BASTIOND_REQUIRE_NETNS=1`, otherwise 0: on a machine that cannot host
/// namespaces the tests do not fail, but the output says that they did not run. `tests` is their number.
pub fn require(tests: usize) -> Isolation {
    match enter() {
        Ok(isolation) => isolation,
        Err(error) => {
            let required = std::env::var_os(REQUIRE).is_some_and(|value| value == "1");
            let verdict = if required { "FAILED" } else { "NOT RUN" };
            eprintln!("\n*** {verdict}: {tests} tests need network namespaces, which this machine cannot provide.");
            for line in error::chain(&error).lines() {
                eprintln!("*** {line}");
            }
            if !required {
                eprintln!("*** No test ran. Set {REQUIRE}=1 to make this a failure.");
            }
            std::process::exit(i32::from(required));
        }
    }
}

/// The error and its causes, one per line.
pub fn explain(error: &Error) -> String {
    error::chain(error)
}
