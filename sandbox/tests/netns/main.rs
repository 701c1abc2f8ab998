//! The sandbox's own tests: real packets through its namespaces.

mod api;
mod gateway;
mod isolation;
mod outages;
mod private;
mod star;
mod traffic;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed};

/// The result of a test.
type Outcome = Result<(), Failed>;

/// The time limit for expected events.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for something that must not happen.
const SILENCE: Duration = Duration::from_millis(300);

/// Tests named after their functions.
macro_rules! trials {
    ($($test:ident),+ $(,)?) => {
        vec![$(libtest_mimic::Trial::test(stringify!($test), $test)),+]
    };
}
use trials;

fn main() -> ExitCode {
    let groups = [
        isolation::trials(),
        world::trials(),
        gateway::trials(),
        private::trials(),
        outages::trials(),
        traffic::trials(),
        star::trials(),
    ];
    let trials: Vec<_> = groups.into_iter().flatten().collect();
    sandbox::isolation::require(trials.len());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
