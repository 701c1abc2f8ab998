//! A fake Hetzner Cloud: the API and the servers' metadata service, with the habits of the real ones.
//!
//! A [`Cloud`] holds one project. Tests furnish it at once ([`Cloud::create_network`] …), serve it
//! ([`Cloud::serve`], [`Cloud::serve_metadata`]) on listeners of their own making (a listener stays in the network
//! namespace that it was bound in), break it ([`Cloud::inject`]) and watch what the data plane should do
//! ([`Cloud::watch_networks`]). It never reaches out: the real API is not contacted.
//!
//! ```no_run
//! use sandbox::cloud::{Cloud, Fault, Injection, Matching, Settings, Times};
//!
//! # async fn example(listener: std::net::TcpListener) -> Result<(), Box<dyn std::error::Error>> {
//! let cloud = Cloud::new(Settings::default());
//! let network = cloud.create_network("private", "10.0.0.0/16".parse()?, &["10.0.0.0/24".parse()?]);
//! let bastion = cloud.create_server("bastion", Some("203.0.113.2".parse()?));
//! cloud.attach(bastion, network, "10.0.0.2".parse()?, "86:00:00:2a:7d:e0");
//!
//! let fault = Fault::Status { code: 503, json: false };
//! cloud.inject(Injection { matching: Matching::post("add_route"), fault, times: Times::Next(1) });
//! cloud.serve(listener).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! state, routes, subnets, attachments   what exists and which changes are allowed   pure
//! change, actions, rate_limit, faults   what takes time, runs out or goes wrong     pure, the clock passed in
//! api/                                  requests in, answers out                    HTTP
//! metadata, serve                       169.254.169.254; sockets                    I/O
//! seed, strangers                       what tests and other programs do at once
//! ```

mod actions;
mod api;
mod attachments;
mod change;
mod clock;
mod faults;
mod ids;
mod labels;
mod metadata;
mod project;
mod rate_limit;
mod refusal;
mod routes;
#[cfg(test)]
mod samples;
mod seed;
mod serve;
mod settings;
mod state;
mod strangers;
mod subnets;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

pub use api::endpoints;
pub use faults::{Fault, Injection, Matching, Times};
pub use ids::{ActionId, FirewallId, FloatingIpId, LocationId, NetworkId, PrimaryIpId, ServerId};
pub use project::RequestRecord;
pub use routes::Route;
pub use settings::{Busy, EmptyList, FloatingReassign, OverLongPage, RateLimit, ReadOnlyAnswer, Settings, Visible};
pub use state::{AttachedServer, FirewallRule, NetworkView};
pub use strangers::RouteController;

use clock::Clock;
use project::Project;

/// A fake Hetzner Cloud with one project. Clones are the same cloud.
#[derive(Clone)]
pub struct Cloud {
    shared: Arc<Shared>,
}

struct Shared {
    project: Mutex<Project>,
    clock: Clock,
    views: watch::Sender<Vec<NetworkView>>,
}

impl Cloud {
    /// An empty project, in the time of day.
    pub fn new(settings: Settings) -> Self {
        Self::made(settings, clock::steady())
    }

    /// An empty project in a time of the caller's: actions end and the rate limit refills by this clock alone. Ends of
    /// actions are noticed at the next request, or by [`Cloud::settle`].
    pub fn with_clock(settings: Settings, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self::made(settings, Arc::new(clock))
    }

    fn made(settings: Settings, clock: Clock) -> Self {
        let project = Mutex::new(Project::new(settings, clock()));
        Self { shared: Arc::new(Shared { project, clock, views: watch::Sender::new(Vec::new()) }) }
    }

    /// Changes habits at run time. Actions that run already keep theirs.
    pub fn update_settings(&self, change: impl FnOnce(&mut Settings)) {
        self.with(|project, now| project.update_settings(change, now));
    }

    /// What the data plane should do, network by network in the order of their ids; every change of it arrives here, in
    /// order, when the change's action has ended.
    pub fn watch_networks(&self) -> watch::Receiver<Vec<NetworkView>> {
        self.shared.views.subscribe()
    }

    /// Ends the actions that are due by now and tells the watchers. Only a cloud with a clock of its own needs it.
    pub fn settle(&self) {
        self.with(|_, _| ());
    }

    /// Breaks requests to come.
    pub fn inject(&self, fault: Injection) {
        self.with(|project, _| project.faults.inject(fault));
    }

    /// Ends every fault.
    pub fn clear_faults(&self) {
        self.with(|project, _| project.faults.clear());
    }

    /// Leaves at most this many requests of the rate limit, as other programs of the project do.
    pub fn drain_rate_limit_to(&self, remaining: u32) {
        self.with(|project, now| project.bucket.drain_to(remaining, now));
    }

    /// Every request to the API since the cloud was made, or since [`Cloud::forget_requests`].
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.with(|project, _| project.requests.clone())
    }

    /// Starts the list of [`Cloud::requests`] anew.
    pub fn forget_requests(&self) {
        self.with(|project, _| project.requests.clear());
    }

    /// Works on the project as it is now, and tells the watchers what came of it.
    fn with<R>(&self, work: impl FnOnce(&mut Project, SystemTime) -> R) -> R {
        // A panic while holding the lock is a test's own (a seed that names nothing); what it left is still a world.
        let mut project = self.shared.project.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.shared.clock)();
        project.settle(now);
        let result = work(&mut project, now);
        project.settle(now);
        // Under the lock, so that two changes cannot reach the watchers in the wrong order.
        let views = project.world.network_views();
        self.shared.views.send_if_modified(|current| {
            let changed = *current != views;
            if changed {
                *current = views;
            }
            changed
        });
        result
    }
}

impl Default for Cloud {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud").finish_non_exhaustive()
    }
}
