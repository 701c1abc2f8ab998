//! `sandbox check`

use std::process::ExitCode;
use std::time::Instant;

use sandbox::isolation;
use sandbox::world::{Laptop, Settings, World};

use super::Outcome;

/// Builds a world to see that it can be built.
pub(crate) fn run() -> Outcome {
    let isolation = match isolation::enter() {
        Ok(isolation) => isolation,
        Err(error) => {
            println!("This machine cannot host the sandbox.\n{}", isolation::explain(&error));
            return Ok(ExitCode::FAILURE);
        }
    };
    let start = Instant::now();
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    println!(
        "This machine can host the sandbox: {} namespaces were ready after {} ms, apart from the machine's {}.",
        world.namespaces().len(),
        start.elapsed().as_millis(),
        isolation.machine_network()
    );
    Ok(ExitCode::SUCCESS)
}
