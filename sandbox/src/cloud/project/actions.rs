//! Actions: changes that take time. A running action locks what it changes; the change is made when it ends.
//!
//! ```text
//! accepted ── running ── due ──┬── the change is still allowed ──► success
//!                              └── set to fail, or no longer allowed ─► error
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::settings::Visible;
use crate::cloud::model::change::Change;
use crate::cloud::model::ids::{ActionId, ResourceId};
use crate::cloud::model::resources::Resources;

/// The first id, above 32 bits as real ids have been since 2023.
const FIRST_ID: u64 = 500_000_000_001;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) id: ActionId,
    pub(crate) change: Change,
    pub(crate) resources: Vec<ResourceId>,
    pub(crate) started: SystemTime,
    pub(crate) due: SystemTime,
    /// Whether it fails at its end although the change is allowed.
    fails: bool,
    visible: Visible,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Success,
    Failure,
}

/// The action's `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Running,
    Success,
    Error,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Error => "error",
        }
    }
}

impl Action {
    pub(crate) fn status(&self) -> Status {
        match self.outcome {
            None => Status::Running,
            Some(Outcome::Success) => Status::Success,
            Some(Outcome::Failure) => Status::Error,
        }
    }

    /// When it ended; `None` while it runs.
    pub(crate) fn finished(&self) -> Option<SystemTime> {
        self.outcome.as_ref().map(|_| self.due)
    }

    /// The progress in percent; 100 only after its end.
    pub(crate) fn progress(&self, now: SystemTime) -> u8 {
        if self.outcome.is_some() {
            return 100;
        }
        let since = |at: SystemTime| at.duration_since(self.started).unwrap_or(Duration::ZERO).as_micros();
        let percent = since(now) * 100 / since(self.due).max(1);
        u8::try_from(percent.min(99)).unwrap_or(99)
    }
}

/// Every action of the project, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ActionLog {
    actions: BTreeMap<ActionId, Action>,
}

/// The options of a new action.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActionOptions {
    pub(crate) duration: Duration,
    pub(crate) visible: Visible,
    pub(crate) fails: bool,
}

impl ActionLog {
    /// Starts an action. The caller has checked its change.
    pub(crate) fn start(
        &mut self,
        resources: &Resources,
        change: Change,
        now: SystemTime,
        options: ActionOptions,
    ) -> ActionId {
        let id = ActionId(FIRST_ID + self.actions.len() as u64);
        let affected = change.resources(resources);
        let ActionOptions { duration, visible, fails } = options;
        let due = now + duration;
        self.actions
            .insert(id, Action { id, change, resources: affected, started: now, due, fails, visible, outcome: None });
        id
    }

    pub(crate) fn get(&self, id: ActionId) -> Option<&Action> {
        self.actions.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Action> {
        self.actions.values()
    }

    /// The actions that have not ended.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Action> {
        self.iter().filter(|action| action.outcome.is_none())
    }

    /// Whether a running action has locked the resource.
    pub(crate) fn locks(&self, resource: ResourceId) -> bool {
        self.running().any(|action| action.change.locks().contains(&resource))
    }

    /// Ends the actions that are due, in the order of their due times.
    pub(crate) fn settle(&mut self, resources: &mut Resources, now: SystemTime) {
        let mut due: Vec<&mut Action> =
            self.actions.values_mut().filter(|action| action.outcome.is_none() && action.due <= now).collect();
        due.sort_by_key(|action| (action.due, action.id));
        for action in due {
            // The change may have become forbidden since the start of the action.
            let succeeded = !action.fails && action.change.apply(resources).is_ok();
            action.outcome = Some(if succeeded { Outcome::Success } else { Outcome::Failure });
        }
    }

    /// The resources that GET shows, including running changes with [`Visible::OnAccept`].
    pub(crate) fn visible(&self, resources: &Resources) -> Resources {
        let mut visible = resources.clone();
        for action in self.running().filter(|action| action.visible == Visible::OnAccept) {
            // A change that has become forbidden is not shown.
            action.change.apply(&mut visible).ok();
        }
        visible
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::model::ids::{NetworkId, ServerId};
    use crate::cloud::model::samples::{network, resources, route, server};

    const NETWORK: NetworkId = NetworkId(1);
    const OPTIONS: ActionOptions =
        ActionOptions { duration: Duration::from_secs(10), visible: Visible::OnFinish, fails: false };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn sample() -> Resources {
        resources(network("10.0.0.0/16", &["10.0.0.0/24"]), [server(1, "10.0.0.2", &[])])
    }

    fn add_default() -> Change {
        Change::AddRoute { network: NETWORK, route: route("0.0.0.0/0 via 10.0.0.2") }
    }

    /// The status and progress of an action, and the number of routes in effect and in GET.
    fn snapshot(log: &ActionLog, resources: &Resources, id: ActionId, now: SystemTime) -> (Status, u8, usize, usize) {
        let action = log.get(id).unwrap();
        let routes = |resources: &Resources| resources.networks[&NETWORK].routes.len();
        (action.status(), action.progress(now), routes(resources), routes(&log.visible(resources)))
    }

    #[test]
    fn an_action_makes_its_change_when_it_ends() {
        let (mut log, mut resources) = (ActionLog::default(), sample());
        let id = log.start(&resources, add_default(), at(100), OPTIONS);
        for (now, expected) in [
            (at(100), (Status::Running, 0, 0, 0)),
            (at(105), (Status::Running, 50, 0, 0)),
            (at(109), (Status::Running, 90, 0, 0)),
            (at(110), (Status::Success, 100, 1, 1)),
            (at(999), (Status::Success, 100, 1, 1)),
        ] {
            log.settle(&mut resources, now);
            assert_eq!(snapshot(&log, &resources, id, now), expected);
        }
        assert_eq!(
            log.get(id).unwrap().finished(),
            Some(at(110)),
            "the end is the due time, not the time of the next request"
        );
    }

    #[test]
    fn an_action_without_a_duration_ends_at_once() {
        let (mut log, mut resources) = (ActionLog::default(), sample());
        let id = log.start(&resources, add_default(), at(100), ActionOptions { duration: Duration::ZERO, ..OPTIONS });
        log.settle(&mut resources, at(100));
        assert_eq!(snapshot(&log, &resources, id, at(100)), (Status::Success, 100, 1, 1));
    }

    #[test]
    fn an_action_that_is_set_to_fail_changes_nothing() {
        let (mut log, mut resources) = (ActionLog::default(), sample());
        let id = log.start(&resources, add_default(), at(100), ActionOptions { fails: true, ..OPTIONS });
        log.settle(&mut resources, at(110));
        assert_eq!(snapshot(&log, &resources, id, at(110)), (Status::Error, 100, 0, 0));
        assert_eq!(resources, sample());
    }

    #[test]
    fn a_change_shown_on_acceptance_disappears_when_its_action_fails() {
        let (mut log, mut resources) = (ActionLog::default(), sample());
        let course = ActionOptions { visible: Visible::OnAccept, fails: true, ..OPTIONS };
        let id = log.start(&resources, add_default(), at(100), course);
        assert_eq!(snapshot(&log, &resources, id, at(105)), (Status::Running, 50, 0, 1));
        log.settle(&mut resources, at(110));
        assert_eq!(snapshot(&log, &resources, id, at(110)), (Status::Error, 100, 0, 0));
    }

    #[test]
    fn an_action_fails_when_another_change_has_made_it_impossible() {
        let (mut log, mut resources) = (ActionLog::default(), sample());
        let id = log.start(&resources, add_default(), at(100), OPTIONS);
        let other = route("0.0.0.0/0 via 10.0.0.9");
        resources.network_mut(NETWORK).unwrap().routes.push(other);
        log.settle(&mut resources, at(110));
        assert_eq!(snapshot(&log, &resources, id, at(110)), (Status::Error, 100, 1, 1));
        assert_eq!(resources.networks[&NETWORK].routes, [other]);
    }

    #[test]
    fn an_action_locks_what_it_changes_until_it_ends() {
        let (mut log, mut resources) = (ActionLog::default(), sample());
        let (net, host) = (ResourceId::Network(NETWORK), ResourceId::Server(ServerId(1)));
        let locks = |log: &ActionLog| (log.locks(net), log.locks(host), log.locks(ResourceId::Network(NetworkId(2))));
        assert_eq!(locks(&log), (false, false, false));
        log.start(&resources, add_default(), at(100), OPTIONS);
        assert_eq!(locks(&log), (true, false, false));
        log.settle(&mut resources, at(110));
        assert_eq!(locks(&log), (false, false, false));
        let aliases = Change::SetAliasIps { server: ServerId(1), network: NETWORK, alias_ips: vec![] };
        log.start(&resources, aliases, at(110), OPTIONS);
        assert_eq!(locks(&log), (true, true, false));
    }

    #[test]
    fn actions_end_in_the_order_of_their_due_times() {
        let (mut log, mut resources) = (ActionLog::default(), sample());
        let by_other = Change::AddRoute { network: NETWORK, route: route("0.0.0.0/0 via 10.0.0.3") };
        let slow = log.start(&resources, add_default(), at(100), OPTIONS);
        let fast =
            log.start(&resources, by_other, at(101), ActionOptions { duration: Duration::from_secs(1), ..OPTIONS });
        log.settle(&mut resources, at(200));
        assert_eq!(log.get(slow).unwrap().status(), Status::Error);
        assert_eq!(log.get(fast).unwrap().status(), Status::Success);
        assert_eq!(resources.networks[&NETWORK].routes, [route("0.0.0.0/0 via 10.0.0.3")]);
    }
}
