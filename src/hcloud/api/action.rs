//! Waiting for an action to end.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::Api;
use super::error::Error;
use super::schema::{Action, ActionStatus};

/// A route takes about 0.7 s live; the first looks are quick, the later ones spare the project's budget of calls.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// Longer than any action on a network was seen to take. The next pass looks again anyway.
const DEADLINE: Duration = Duration::from_secs(60);

impl Api {
    /// Waits until `action` has ended; an action that ended in an error is an error. Passing troubles of the API on the way
    /// are waited out.
    pub async fn ended(&self, mut action: Action) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        let mut pauses = PAUSES.into_iter().chain(std::iter::repeat(LAST_PAUSE));
        loop {
            match action.status {
                ActionStatus::Success => return Ok(()),
                ActionStatus::Error => return Err(failure(action)),
                ActionStatus::Running => {}
            }
            if Instant::now() >= deadline {
                let seconds = DEADLINE.as_secs();
                return Err(Error::ActionUnfinished { action: action.id, command: action.command, seconds });
            }
            sleep(pauses.next().unwrap_or(LAST_PAUSE)).await;
            match self.action(action.id).await {
                Ok(newer) => action = newer,
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn failure(action: Action) -> Error {
    let (code, message) = match action.error {
        Some(error) => (error.code, error.message),
        None => ("unknown".to_owned(), "the API gives no reason".to_owned()),
    };
    Error::ActionFailed { action: action.id, command: action.command, code, message }
}
