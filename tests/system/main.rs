//! Tests of the package on a booted Debian 12, which is the bastion of the sandbox's network; its first boot on every
//! release. `scripts/test-system` prepares everything and runs them.

mod bastion;
mod cloud_init;
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
    let mut arguments = Arguments::from_args();
    // Tests measure pauses and boots, so they run one at a time by default.
    arguments.test_threads.get_or_insert(1);
    let trials: Vec<Trial> = [
        cloud_init::trials(),
        service::trials(),
        trouble::trials(),
        load::trials(),
        reboot::trials(),
        lifecycle::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !arguments.list {
        sandbox::isolation::require(trials.len());
        if let Err(error) = machine::can_boot() {
            let reason = error.message().unwrap_or("no reason given");
            eprintln!("\n*** FAILED: {} tests boot machines, and this one cannot host them: {reason}", trials.len());
            std::process::exit(1);
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}
