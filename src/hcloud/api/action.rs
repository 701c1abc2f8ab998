//! Waiting for an action to end.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::Api;
use super::error::Error;
use super::schema::{Action, ActionStatus};
use crate::backoff::Backoff;

/// Adding a route takes about 0.7 s, so the first polls come quickly. Later ones are rarer, to save the project's API
/// calls.
const POLL: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// Longer than any action on a network has been seen to take. The next pass observes the network again anyway.
const ACTION_TIMEOUT: Duration = Duration::from_secs(60);

impl Api {
    /// Waits until `action` has ended. An action that failed is an error. Transient errors of the API are retried.
    pub async fn wait_for(&self, mut action: Action) -> Result<(), Error> {
        let deadline = Instant::now() + ACTION_TIMEOUT;
        let mut poll = POLL;
        loop {
            match action.status {
                ActionStatus::Success => return Ok(()),
                ActionStatus::Error => return Err(action_error(action)),
                ActionStatus::Running => {}
            }
            if Instant::now() >= deadline {
                let seconds = ACTION_TIMEOUT.as_secs();
                return Err(Error::ActionUnfinished { action: action.id, command: action.command, seconds });
            }
            sleep(poll.failed()).await;
            match self.action(action.id).await {
                Ok(newer) => action = newer,
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn action_error(action: Action) -> Error {
    let (code, message) = match action.error {
        Some(error) => (error.code, error.message),
        None => ("unknown".to_owned(), "the API gave no reason".to_owned()),
    };
    Error::ActionFailed { action: action.id, command: action.command, code, message }
}
