//! The handle to a fake cloud. Other modules add its methods: what tests change at once, what the sockets serve.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::{self, Clock};
use super::faults::Injection;
use super::settings::Settings;
use super::{Project, RequestRecord};
use crate::cloud::model::resources::NetworkView;

/// A fake Hetzner Cloud with one project. Clones share the project.
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
    /// An empty project that uses the system's clock.
    pub fn new(settings: Settings) -> Self {
        Self::with_boxed_clock(settings, clock::steady())
    }

    /// An empty project that uses the caller's clock: actions end and the rate limit refills by this clock alone. The
    /// end of an action takes effect at the next request, or with [`Cloud::settle`].
    pub fn with_clock(settings: Settings, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self::with_boxed_clock(settings, Arc::new(clock))
    }

    fn with_boxed_clock(settings: Settings, clock: Clock) -> Self {
        let project = Mutex::new(Project::new(settings, clock()));
        Self { shared: Arc::new(Shared { project, clock, views: watch::Sender::new(Vec::new()) }) }
    }

    /// Changes settings at run time. Actions that are already running keep theirs.
    pub fn update_settings(&self, change: impl FnOnce(&mut Settings)) {
        self.with_project(|project, now| project.update_settings(change, now));
    }

    /// The networks as the data plane has to serve them, ordered by id. A new value arrives when the action behind a
    /// change has ended; values arrive in the order of the changes.
    pub fn watch_networks(&self) -> watch::Receiver<Vec<NetworkView>> {
        self.shared.views.subscribe()
    }

    /// Ends the actions that are due and notifies the watchers. Only a cloud with a clock of its own needs it.
    pub fn settle(&self) {
        self.with_project(|_, _| ());
    }

    /// Adds a fault for later requests.
    pub fn inject(&self, fault: Injection) {
        self.with_project(|project, _| project.faults.inject(fault));
    }

    /// Removes every fault.
    pub fn clear_faults(&self) {
        self.with_project(|project, _| project.faults.clear());
    }

    /// Leaves at most this many requests of the rate limit, as if other programs had used up the rest.
    pub fn drain_rate_limit_to(&self, remaining: u32) {
        self.with_project(|project, now| project.bucket.drain_to(remaining, now));
    }

    /// Every request to the API since the cloud was created, or since [`Cloud::forget_requests`], oldest first.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.with_project(|project, _| project.requests.clone())
    }

    /// Empties the list of [`Cloud::requests`].
    pub fn forget_requests(&self) {
        self.with_project(|project, _| project.requests.clear());
    }

    /// Gives `work` the project as it is now, then notifies the watchers of what changed.
    pub(crate) fn with_project<R>(&self, work: impl FnOnce(&mut Project, SystemTime) -> R) -> R {
        let mut project = self.shared.project.lock();
        let now = (self.shared.clock)();
        project.settle(now);
        let result = work(&mut project, now);
        project.settle(now);
        // Under the lock, so that two changes cannot reach the watchers in the wrong order.
        let views = project.resources.network_views();
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
