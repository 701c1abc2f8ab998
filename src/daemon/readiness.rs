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
pub(super) enum Readiness {
    /// The first pass is not over.
    Starting,
    /// The first pass is over; the cloud's component has until then.
    WaitsForCloud {
        /// When `READY=1` is sent at the latest.
        deadline: Instant,
    },
    /// `READY=1` was sent.
    Ready,
}

impl Readiness {
    /// The first pass is over at `now`: from then on the cloud's component has its time.
    pub(super) fn first_pass_done(&mut self, now: Instant) {
        if matches!(self, Self::Starting) {
            *self = Self::WaitsForCloud { deadline: now + CLOUD_TIMEOUT };
        }
    }

    /// Waits for the deadline; for ever where there is none. Cancel-safe.
    pub(super) async fn deadline(&self) {
        match self {
            Self::WaitsForCloud { deadline } => sleep_until(*deadline).await,
            Self::Starting | Self::Ready => std::future::pending().await,
        }
    }

    /// Sends `READY=1` if that has not been done.
    pub(super) fn become_ready(&mut self, notifier: &Notifier, report: &Report) {
        if !matches!(self, Self::Ready) {
            *self = Self::Ready;
            notifier.ready();
            tracing::info!(passes = report.passes, "ready: {}", report.status_line());
        }
    }

    /// Sends `READY=1` after a reload, which systemd waits for; not before the daemon was ready once.
    pub(super) fn reloaded(&self, notifier: &Notifier) {
        if matches!(self, Self::Ready) {
            notifier.ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_for_the_cloud_begins_after_the_first_pass() {
        let mut readiness = Readiness::Starting;
        // A metadata service that does not answer delays the first pass by seconds.
        tokio::time::advance(CLOUD_TIMEOUT).await;
        let first_pass = Instant::now();
        readiness.first_pass_done(first_pass);
        readiness.deadline().await;
        assert_eq!(first_pass.elapsed(), CLOUD_TIMEOUT);
    }
}
