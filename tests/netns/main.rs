//! Tests with real packets in the sandbox: the real daemon, the kernel's rules, the fake cloud's routes.

mod answers;
mod attacks;
mod bad_input;
mod behind;
mod bpf;
mod bridges;
mod cloud;
mod coexistence;
mod debian_kernel;
mod drops;
mod fastpath;
mod flows;
mod forwarding;
mod gateway;
mod healing;
mod health;
mod input;
mod kernel_wireguard;
mod last_good;
mod lifecycle;
mod outages;
mod owned_routes;
mod plan;
mod policy;
mod portless;
mod private_host;
mod queries;
mod routes;
#[path = "../shared/mod.rs"]
mod shared;
mod site;
mod soak;
mod sources;
mod starvation;
mod table;
mod tunnel;
mod tunnel_alone;
mod tunnel_program;
mod way_in;
mod wg_tool;

use libtest_mimic::{Arguments, Trial};

/// With more failures than this something is wrong, and no test runs again.
const MAY_FAIL_BESIDE_OTHERS: usize = 6;

fn main() {
    let mut arguments = Arguments::from_args();
    let patient = tunnel::patient_trials();
    if arguments.test_threads.is_none() {
        // A test uses less than half of a core, because it mostly waits. The patient ones wait for minutes, so each has
        // a thread of its own.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        arguments.test_threads = Some(2 * cores + patient.len());
    }
    let trials = if bpf::is_everywhere() { trials_of_passing_traffic() } else { all_trials(patient) };
    if !arguments.list {
        tunnel_program::build_if_outdated();
        sandbox::isolation::require(trials.len());
    }
    let (one_by_one, side_by_side) = trials.into_iter().partition(|trial| trial.kind() == gateway::ALONE);
    let side_by_side = libtest_mimic::run(&arguments, side_by_side);
    arguments.test_threads = Some(1);
    let one_by_one = libtest_mimic::run(&arguments, one_by_one);
    // Tests wait for each other's processes, and on a shared machine for those of others too. A time limit that a test
    // misses beside others tells little. One that it misses again, alone, is a finding.
    let failed = gateway::failed_trials();
    if (1..=MAY_FAIL_BESIDE_OTHERS).contains(&failed.len()) {
        println!("These failed beside others and run again alone:");
        libtest_mimic::run(&arguments, failed).exit();
    }
    side_by_side.exit_if_failed();
    one_by_one.exit()
}

fn all_trials(patient: Vec<Trial>) -> Vec<Trial> {
    [
        trials_of_passing_traffic(),
        patient,
        input::trials(),
        health::trials(),
        coexistence::trials(),
        cloud::trials(),
        last_good::trials(),
        owned_routes::trials(),
        plan::trials(),
        bad_input::trials(),
        queries::trials(),
        routes::trials(),
        site::trials(),
        fastpath::trials(),
        table::trials(),
        tunnel::trials(),
        wg_tool::trials(),
        tunnel_alone::trials(),
        kernel_wireguard::trials(),
        debian_kernel::trials(),
        outages::trials(),
        soak::trials(),
        starvation::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The tests of what passes a gateway, which hold with the fast path in BPF too ([`bpf::EVERYWHERE`]).
fn trials_of_passing_traffic() -> Vec<Trial> {
    [
        forwarding::trials(),
        healing::trials(),
        drops::trials(),
        sources::trials(),
        lifecycle::trials(),
        policy::trials(),
        behind::trials(),
        bridges::trials(),
        portless::trials(),
        private_host::trials(),
        flows::trials(),
        answers::trials(),
        attacks::trials(),
        way_in::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
