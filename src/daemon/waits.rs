//! What the loop waits for, in a form that may be absent. All of it is cancel-safe.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Between two passes that kernel events start, or two that operators ask for. Well below the 2 s within which a repair
/// is promised.
pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(250);
/// Between a kernel event and the pass it starts: programs change several things at once.
pub(super) const SETTLE: Duration = Duration::from_millis(50);

/// Waits until then; for ever, without a time.
pub(super) async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Waits for a new value; for ever, once no sender is left.
pub(super) async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for the next tick; for ever, without a watchdog.
pub(super) async fn tick(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(watchdog) => {
            watchdog.tick().await;
        }
        None => std::future::pending().await,
    }
}
