//! The service manager and the journal: readiness, status, watchdog, structured logs. Without systemd all of it is silent,
//! and logs go to standard error.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Tells the service manager how it goes. Failing to do so is nobody's problem but systemd's, which notices.
#[derive(Debug, Default)]
pub struct Notifier {
    status: String,
}

impl Notifier {
    /// The first pass, or a reload, is done.
    pub fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// A new configuration is being read.
    pub fn reloading(&self) {
        // systemd takes RELOADING only together with the monotonic time (sd_notify(3)).
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot read the monotonic clock; the reload is not announced"),
        }
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// The loop is alive.
    pub fn alive(&self) {
        send(&[NotifyState::Watchdog]);
    }

    /// One line for `systemctl status`; the same line twice is sent once.
    pub fn status(&mut self, line: &str) {
        if self.status != line {
            line.clone_into(&mut self.status);
            send(&[NotifyState::Status(line)]);
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// How often the watchdog wants to hear of us: half of what the unit says, so that one late tick does no harm.
pub fn watchdog_pause() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Changes the log level of a running daemon.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<LevelFilter, Registry>);

impl LogLevel {
    /// From now on.
    pub fn set(&self, level: tracing::Level) {
        if let Err(error) = self.0.reload(LevelFilter::from_level(level)) {
            tracing::warn!(%error, "the log level stays as it was");
        }
    }
}

/// Sends logs to the journal when standard error is connected to it, else to standard error.
pub fn start_logging(level: tracing::Level) -> LogLevel {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let journal = if stderr_is_the_journal() { tracing_journald::layer().ok() } else { None };
    let layer = match journal {
        Some(layer) => {
            layer.with_field_prefix(Some("BASTIOND".to_owned())).with_syslog_identifier("bastiond".to_owned()).boxed()
        }
        None => {
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false).boxed()
        }
    };
    // Err: a test has set a subscriber before.
    let _ = Registry::default().with(filter).with(layer).try_init();
    LogLevel(handle)
}

/// systemd names the journal's stream as `device:inode` (systemd.exec(5), `$JOURNAL_STREAM`); a child whose standard error
/// was redirected inherits the name, so it is compared.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}
