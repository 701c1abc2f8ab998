//! `plan` and `down` without a daemon: one pass of the daemon's code in this process.

use std::io;

use crate::component::Steps;
use crate::config::{Config, Environment};
use crate::control::{Request, Response};
use crate::daemon::{self, InstanceLock, with_cloud_preview};
use crate::error::chain;
use crate::hcloud::Hcloud;
use crate::outcome::Problem;
use crate::reconcile::Gateway;
use crate::site::metadata::Watcher;
use crate::site::{self, MetadataView, Site};

/// Why the request cannot be carried out in this process.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The async runtime cannot be started.
    #[error("cannot start the async runtime")]
    Runtime(#[source] io::Error),
    /// A daemon is running, although it does not answer.
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
}

/// Carries the request out.
pub(super) fn run(request: Request, config: &Config, environment: &Environment) -> Result<Response, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let response = runtime.block_on(async {
        let metadata = metadata(config, environment).await;
        if request == (Request::Down {}) {
            let _lock = InstanceLock::acquire(environment)?;
            Ok(down(config, environment, &metadata).await)
        } else {
            Ok(plan(config, environment, &metadata).await)
        }
    });
    // Do not wait for name resolution that is still running.
    runtime.shutdown_background();
    let (steps, problems) = response.map_err(Error::Daemon)?;
    Ok(Response::Steps { steps, problems })
}

async fn plan(config: &Config, environment: &Environment, metadata: &MetadataView) -> Steps {
    let (site, steps) = Gateway::new(environment).preview(config, metadata).await;
    with_cloud_preview(steps, config, &site).await
}

async fn down(config: &Config, environment: &Environment, metadata: &MetadataView) -> Steps {
    // Without the site its cloud routes are not known and stay; everything else is removed.
    let site = site::observe(config, metadata, &Site::default(), &environment.runtime_directory())
        .await
        .unwrap_or_else(|error| Site {
            problems: vec![Problem::new(
                "site-unknown",
                chain(&error),
                "the routes in the cloud stay; delete them by hand",
            )],
            ..Site::default()
        });
    Gateway::new(environment).down(config, &site, &mut Hcloud::default()).await
}

async fn metadata(config: &Config, environment: &Environment) -> MetadataView {
    let watcher = Watcher::start(config.site.metadata_to_query(), &environment.runtime_directory());
    let mut view = watcher.view();
    // The first request ends within its own timeout.
    let settled = view.wait_for(|view| view.settled).await;
    settled.map(|view| view.clone()).unwrap_or_default()
}
