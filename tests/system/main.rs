//! Tests of the package on a booted Debian 12, which is the bastion of the sandbox's network; its first boot on every
//! release. `scripts/test-system` prepares everything and runs them.

mod bastion;
mod cloud_init;
mod hostile_state;
mod lifecycle;
mod load;
mod machine;
mod memory;
mod package;
mod reboot;
mod release;
mod service;
#[path = "../shared/mod.rs"]
mod shared;
mod trial;
mod trouble;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let first_boots = cloud_init::trials();
    let trials: Vec<Trial> = [
        service::trials(),
        trouble::trials(),
        load::trials(),
        reboot::trials(),
        lifecycle::trials(),
        hostile_state::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !arguments.list {
        let count = first_boots.len() + trials.len();
        sandbox::isolation::require(count);
        if let Err(error) = machine::can_boot() {
            let reason = error.message().unwrap_or("no reason given");
            eprintln!("\n*** FAILED: {count} tests boot machines, and this one cannot host them: {reason}");
            std::process::exit(1);
        }
    }
    // First boots measure nothing, so some run side by side. The other tests measure pauses, and run one at a time.
    let first = libtest_mimic::run(&with_threads(&arguments, 3), first_boots);
    let rest = libtest_mimic::run(&with_threads(&arguments, 1), trials);
    first.exit_if_failed();
    rest.exit();
}

/// These arguments with a number of threads, unless they have one.
fn with_threads(arguments: &Arguments, threads: usize) -> Arguments {
    let mut arguments = arguments.clone();
    arguments.test_threads.get_or_insert(threads);
    arguments
}
