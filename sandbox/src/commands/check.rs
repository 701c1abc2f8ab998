//! `sandbox check`

use std::process::ExitCode;
use std::time::Instant;

use sandbox::isolation;
use sandbox::world::{Laptop, Settings, World};

use super::Outcome;

/// Starts a world to check that the machine can run it.
pub(crate) fn run() -> Outcome {
    let isolation = match isolation::enter() {
        Ok(isolation) => isolation,
        Err(error) => {
            println!("This machine cannot run the sandbox.\n{}", isolation::explain(&error));
            return Ok(ExitCode::FAILURE);
        }
    };
    let start = Instant::now();
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    println!(
        "This machine can run the sandbox: {} namespaces were ready after {} ms. The machine's own network is {}.",
        world.namespaces().len(),
        start.elapsed().as_millis(),
        isolation.machine_network()
    );
    Ok(ExitCode::SUCCESS)
}
