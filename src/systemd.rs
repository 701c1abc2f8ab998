//! The service manager and the journal: readiness, status, watchdog, stored descriptors, structured logs. Without
//! systemd nothing is sent, and logs go to standard error.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use bastiond_tunnel::inherited;

/// The most messages that wait for a service manager that does not read; further ones are dropped.
const MAX_WAITING: usize = 32;
/// How long the last message may take to be sent.
const STOPPING_TIMEOUT: Duration = Duration::from_millis(500);

/// Sends the daemon's state to the service manager. A failure is only logged: systemd notices it by its own timeouts.
///
/// A thread of its own sends: the socket blocks while systemd does not read it, and a service manager that hangs must
/// not delay a repair.
#[derive(Debug)]
pub(crate) struct Notifier {
    status: String,
    messages: Option<SyncSender<Message>>,
    all_sent: Receiver<()>,
}

/// A message that can wait to be sent.
#[derive(Debug)]
enum Message {
    Ready,
    Reloading,
    Stopping,
    Watchdog,
    Status(String),
    Forget(String),
}

impl Notifier {
    /// Starts the thread.
    pub(crate) fn start() -> Self {
        let (messages, waiting) = mpsc::sync_channel::<Message>(MAX_WAITING);
        let (end, all_sent) = mpsc::channel();
        std::thread::spawn(move || {
            for message in &waiting {
                send(&message);
            }
            drop(end);
        });
        Self { status: String::new(), messages: Some(messages), all_sent }
    }

    /// Reports that the first pass, or a reload, is done.
    pub(crate) fn ready(&self) {
        self.queue(Message::Ready);
    }

    /// Reports that a new configuration is being read.
    pub(crate) fn reloading(&self) {
        self.queue(Message::Reloading);
    }

    /// Reports that the daemon ends; returns when the last message is sent, or after a timeout.
    pub(crate) fn stopping(mut self) {
        self.queue(Message::Stopping);
        self.messages = None;
        // Err either way: the thread has ended, or does not in time.
        let _ = self.all_sent.recv_timeout(STOPPING_TIMEOUT);
    }

    /// Feeds the watchdog: the loop runs.
    pub(crate) fn alive(&self) {
        self.queue(Message::Watchdog);
    }

    /// Sets the line for `systemctl status`; the same line twice is sent once.
    pub(crate) fn status(&mut self, line: &str) {
        if self.status != line {
            line.clone_into(&mut self.status);
            self.queue(Message::Status(line.to_owned()));
        }
    }

    /// Has the service manager close the descriptors that it stores under a name.
    pub(crate) fn forget(&self, name: &str) {
        self.queue(Message::Forget(name.to_owned()));
    }

    fn queue(&self, message: Message) {
        let sent = self.messages.as_ref().map(|sender| sender.try_send(message));
        if let Some(Err(error)) = sent {
            tracing::debug!(%error, "the service manager does not read its messages");
        }
    }
}

fn send(message: &Message) {
    let sent = match message {
        Message::Ready => sd_notify::notify(&[NotifyState::Ready]),
        Message::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Message::Watchdog => sd_notify::notify(&[NotifyState::Watchdog]),
        Message::Status(line) => sd_notify::notify(&[NotifyState::Status(line)]),
        Message::Forget(name) => sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]),
        // systemd takes RELOADING only together with the monotonic time (sd_notify(3)).
        Message::Reloading => {
            NotifyState::monotonic_usec_now().and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now]))
        }
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "a message to the service manager cannot be sent");
    }
}

/// The descriptors that a daemon of version 0.1.0 has left with the service manager, with their names
/// (`sd_listen_fds(3)`). The first call gets all of them; what is dropped is closed.
pub fn inherited_descriptors() -> Vec<(String, OwnedFd)> {
    inherited::listen_fds().unwrap_or_else(|error| {
        tracing::warn!(%error, "the descriptors that the service manager stores cannot be read");
        Vec::new()
    })
}

/// How often the watchdog is fed: half of the unit's limit, so that one late tick does no harm.
pub(crate) fn watchdog_pause() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Changes the log level of a running daemon.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// Changes the level from now on.
    pub fn set(&self, level: tracing::Level) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::warn!(%error, "the log level stays as it was");
        }
    }
}

/// Sends logs to the journal when standard error is connected to it, else to standard error.
pub fn start_logging(level: tracing::Level) -> LogLevel {
    let (filter, handle) = reload::Layer::new(filter(level));
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

/// Our own messages at `level`; those of libraries only from `warn` on. The tunnel's protocol core warns at each
/// attempt of a handshake, without the peer's name: the component logs when a peer stops to answer, and when it answers
/// again.
fn filter(level: tracing::Level) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("boringtun", LevelFilter::OFF)
        .with_target("bastiond", LevelFilter::from_level(level))
}

/// systemd names the journal's stream as `device:inode` (systemd.exec(5), `$JOURNAL_STREAM`); a child whose standard
/// error was redirected inherits the name, so it is compared.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}
