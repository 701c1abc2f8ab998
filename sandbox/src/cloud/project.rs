//! Everything behind the cloud's one lock.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::actions::ActionLog;
use super::faults::Faults;
use super::ids::{NetworkId, ServerId};
use super::rate_limit::Bucket;
use super::settings::Settings;
use super::state::World;

/// The one project of the cloud: a token belongs to it, a rate limit is shared in it.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) settings: Settings,
    /// What is in effect, in the data plane too. GET shows [`ActionLog::visible`] of it.
    pub(crate) world: World,
    pub(crate) actions: ActionLog,
    pub(crate) bucket: Bucket,
    pub(crate) faults: Faults,
    pub(crate) requests: Vec<RequestRecord>,
    /// What the metadata service does not show yet.
    pub(crate) hidden: BTreeSet<(ServerId, NetworkId)>,
    last_id: u64,
}

/// A request that arrived, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// When it had arrived whole.
    pub at: SystemTime,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path, with `/v1`.
    pub path: String,
    /// What followed the `?`, as sent.
    pub query: Option<String>,
    /// What was answered; none when a fault kept the answer back.
    pub status: Option<u16>,
    /// Which program asked.
    pub user_agent: Option<String>,
    /// The body, as text.
    pub body: String,
}

impl Project {
    pub(crate) fn new(settings: Settings, now: SystemTime) -> Self {
        Self {
            bucket: Bucket::full(settings.rate_limit, now),
            settings,
            world: World::default(),
            actions: ActionLog::default(),
            faults: Faults::default(),
            requests: Vec::new(),
            hidden: BTreeSet::new(),
            last_id: 1_000_000,
        }
    }

    /// Ends the actions that are due.
    pub(crate) fn settle(&mut self, now: SystemTime) {
        self.actions.settle(&mut self.world, now);
    }

    /// A number that no resource has had.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn update_settings(&mut self, change: impl FnOnce(&mut Settings), now: SystemTime) {
        let before = self.settings.rate_limit;
        change(&mut self.settings);
        if self.settings.rate_limit != before {
            self.bucket = Bucket::full(self.settings.rate_limit, now);
        }
    }
}
