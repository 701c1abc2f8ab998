//! What a configuration would change and do: the answer to `bastionctl plan`, with and without a daemon.

use std::collections::HashSet;
use std::path::Path;

use tokio::time::Instant;

use crate::component::preview;
use crate::config::{Change, Config};
use crate::control::Plan;
use crate::hcloud::Hcloud;
use crate::inputs::Inputs;
use crate::reconcile::Preview;

/// The plan for `config`, from the preview of a pass. Asks the Cloud API what its component would do.
pub(crate) async fn complete_plan(
    path: &Path,
    state_directory: &Path,
    config: &Config,
    changes: Option<Vec<Change>>,
    preview: Preview,
) -> Plan {
    let Preview { site, steps: (mut steps, mut problems), mut is_complete } = preview;
    let inputs = Inputs { config, site: &site, tunnel: None, now: Instant::now() };
    match self::preview(&mut Hcloud::load(state_directory), &inputs).await {
        Ok((more, obstacles)) => {
            steps.extend(more);
            problems.extend(obstacles);
        }
        Err(problem) => {
            problems.push(problem);
            is_complete = false;
        }
    }
    // Components that share an input may each report what is wrong with it.
    let mut told = HashSet::new();
    problems.retain(|problem| told.insert(problem.to_string()));
    let warnings = config.warnings.iter().map(ToString::to_string).collect();
    Plan { path: path.to_owned(), changes, steps, problems, warnings, is_complete }
}
