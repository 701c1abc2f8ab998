//! `plan` and `down` without a daemon: one look at the world, by the daemon's own code.

use std::io;

use crate::config::{Config, Environment};
use crate::control::{Request, Response};
use crate::hcloud::Hcloud;
use crate::reconcile::Gateway;
use crate::report::{Problem, chain};
use crate::site::metadata::Watcher;
use crate::site::{self, MetadataView, Site};

/// Carries the request out here.
pub(super) fn run(request: Request, config: &Config, environment: &Environment) -> io::Result<Response> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (steps, mut problems) = runtime.block_on(async {
        let mut gateway = Gateway::new(environment);
        let metadata = metadata(config).await;
        let mut hcloud = Hcloud::default();
        if request == (Request::Down {}) {
            // What cannot be seen of the site cannot be withdrawn; the rest can.
            let site = site::observe(config, &metadata).await.unwrap_or_else(|error| Site {
                problems: vec![Problem::new(chain(&error), "the routes in the cloud stay; delete them by hand")],
                ..Site::default()
            });
            let (steps, mut problems) = gateway.down(config, &site, &mut hcloud).await;
            problems.extend(site.problems);
            return (steps, problems);
        }
        let (site, (mut steps, mut problems)) = gateway.preview(config, &metadata).await;
        match hcloud.preview(&config.hcloud, &site).await {
            Ok(more) => steps.extend(more),
            Err(error) => problems.push(Problem::new(chain(&error), error.advice())),
        }
        (steps, problems)
    });
    problems.dedup();
    Ok(Response::Steps { steps, problems })
}

async fn metadata(config: &Config) -> MetadataView {
    let endpoint = config.site.private.is_empty().then(|| config.site.metadata_endpoint.clone());
    let watcher = Watcher::start(endpoint);
    let mut view = watcher.view();
    // The first question is answered or given up within its own time limit.
    let settled = view.wait_for(|view| view.settled).await;
    settled.map(|view| view.clone()).unwrap_or_default()
}
