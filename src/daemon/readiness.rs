//! When the daemon counts as started.
//!
//! `READY=1` is sent after the first pass of the cloud's component, so that `systemctl start` returns when traffic
//! flows. But an API that does not answer must not keep the gateway from starting, so there is a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::report::Report;
use crate::systemd::Notifier;

/// How long readiness waits for the first pass of the cloud's component.
const CLOUD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether `READY=1` was sent, and when it is sent at the latest.
#[derive(Debug)]
pub(super) struct Readiness {
    deadline: Option<Instant>,
}

impl Readiness {
    /// Not ready; the deadline counts from `now`.
    pub(super) fn pending(now: Instant) -> Self {
        Self { deadline: Some(now + CLOUD_TIMEOUT) }
    }

    /// Waits for the deadline; for ever, once the daemon is ready. Cancel-safe.
    pub(super) async fn deadline(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// Sends `READY=1` if that has not been done.
    pub(super) fn become_ready(&mut self, notifier: &Notifier, report: &Report) {
        if self.deadline.take().is_some() {
            notifier.ready();
            tracing::info!(passes = report.passes, "ready: {}", report.status_line());
        }
    }

    /// Sends `READY=1` after a reload, which systemd waits for; not before the daemon was ready once.
    pub(super) fn reloaded(&self, notifier: &Notifier) {
        if self.deadline.is_none() {
            notifier.ready();
        }
    }
}
