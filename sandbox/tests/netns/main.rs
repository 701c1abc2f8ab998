//! The sandbox's own tests: real packets through its namespaces.

mod api;
mod gateway;
mod isolation;
mod private;
mod star;
mod traffic;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed};

/// What a test ends with.
type Outcome = Result<(), Failed>;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for what must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// Functions as tests, each under its own name.
macro_rules! trials {
    ($($test:ident),+ $(,)?) => {
        vec![$(libtest_mimic::Trial::test(stringify!($test), $test)),+]
    };
}
use trials;

fn main() -> ExitCode {
    let rooms =
        [isolation::trials(), world::trials(), gateway::trials(), private::trials(), traffic::trials(), star::trials()];
    let trials: Vec<_> = rooms.into_iter().flatten().collect();
    sandbox::isolation::require(trials.len());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
