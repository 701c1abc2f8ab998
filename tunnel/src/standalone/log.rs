//! Where the program's log goes: to the journal if standard error is connected to it, else to standard error.

use std::os::unix::fs::MetadataExt as _;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry};

/// Begins to log what is at least as severe as `level`.
pub(super) fn start(level: Level) {
    let journal = if stderr_is_the_journal() { tracing_journald::layer().ok() } else { None };
    let layer = match journal {
        Some(layer) => layer.with_syslog_identifier("bastiond-tunnel".to_owned()).boxed(),
        None => {
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false).boxed()
        }
    };
    // Err: a test has set a subscriber before.
    let _ = Registry::default().with(filter(level)).with(layer).try_init();
}

/// The protocol core has a line for each attempt of a handshake, and none of them names the peer: they are only of use
/// to who debugs. Our own lines say what changes.
fn filter(level: Level) -> Targets {
    let core = if level >= Level::DEBUG { LevelFilter::from_level(level) } else { LevelFilter::OFF };
    Targets::new().with_default(LevelFilter::from_level(level)).with_target("boringtun", core)
}

/// Compares standard error with the stream that systemd names as `device:inode` (systemd.exec(5), `$JOURNAL_STREAM`): a
/// child inherits the variable, but its standard error may be redirected.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}
