//! The daemon: what it is made of, and how it starts. [`event_loop`] is the loop around the pass.

mod boot;
mod cloud_task;
mod descriptors;
mod event_loop;
mod expiry;
mod instance_lock;
mod loading;
mod planning;
mod readiness;
mod reload;
mod requests;
mod signals;
mod waits;

use std::path::PathBuf;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::config::{self, Bundle, Config, Environment};
use crate::control::{self, Response};
use crate::drops::DropLog;
use crate::events::KernelEvents;
use crate::health::Prober;
use crate::reconcile::Gateway;
use crate::site::metadata::Watcher;
use crate::systemd::{LogLevel, Notifier};
use crate::wireguard::held::NamedFds;
use cloud_task::CloudTask;
use readiness::Readiness;
use signals::Signals;

pub use boot::run_boot;
pub(crate) use instance_lock::{FILE as LOCK, InstanceLock};
pub(crate) use planning::complete_plan;

/// Requests that wait for the loop.
const CALLS: usize = 16;

/// Why the daemon ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Signals cannot be received.
    #[error("cannot listen to signals")]
    Signals(#[source] std::io::Error),
    /// A directory of ours cannot be made.
    #[error("cannot create the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// There is a daemon already.
    #[error("another bastiond holds {}", path.display())]
    Running {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock cannot be taken for another reason.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// There is no control socket, so the status could not be read.
    #[error(transparent)]
    Control(#[from] control::Error),
}

/// The daemon's parts.
struct Daemon {
    path: PathBuf,
    environment: Environment,
    /// The configuration as it is written.
    written: Config,
    /// The same at this time: without disabled and expired peers.
    config: Config,
    /// The texts of `config`, until they are kept for the next start.
    unkept: Option<Bundle>,
    log_level: LogLevel,
    metadata: Watcher,
    gateway: Gateway,
    cloud: CloudTask,
    /// Clients that wait for the end of a pass of the cloud's component.
    cloud_waiters: Vec<oneshot::Sender<Response>>,
    /// Clients that wait for the next pass that operators have asked for.
    operators: Vec<oneshot::Sender<Response>>,
    /// When that pass is due.
    operators_due: Option<Instant>,
    /// When the newest such pass ended.
    operators_passed: Option<Instant>,
    drops: DropLog,
    prober: Prober,
    notifier: Notifier,
    readiness: Readiness,
}

/// Runs until SIGTERM, SIGINT or `bastionctl down`. Rules and routes stay when it ends by a signal.
///
/// `inherited` are the descriptors that the service manager stored for a former daemon.
///
/// # Errors
/// Another daemon runs, or signals, directories or the control socket cannot be had.
pub async fn run(
    path: PathBuf,
    environment: Environment,
    start: config::Start,
    log_level: LogLevel,
    inherited: NamedFds,
) -> Result<(), Error> {
    let config::Start { config, texts, fallback } = start;
    let _lock = InstanceLock::acquire(&environment)?;
    let runtime = environment.runtime_directory();
    let (sender, calls) = mpsc::channel(CALLS);
    let _server = control::Server::listen(&runtime.join(control::SOCKET), control::Access::Full, sender.clone())?;
    let _monitors = control::Server::listen_for_monitors(&runtime, sender);
    let signals = Signals::listen().map_err(Error::Signals)?;
    // Before anything is observed, so that no change is missed between the two.
    let events = KernelEvents::listen();
    reload::log_warnings(&path, &config);
    let mut gateway = Gateway::new(&environment);
    gateway.take_over(inherited);
    gateway.report_mut().note_warnings(&config);
    gateway.report_mut().expect_cloud();
    if let Some(fallback) = fallback {
        reload::report_fallback(&path, &fallback, &mut gateway);
    }
    let state_directory = environment.state_directory();
    let mut drops = DropLog::default();
    drops.follow(&config).await;
    let prober = Prober::start(&environment.state_directory());
    let daemon = Daemon {
        path,
        prober,
        gateway,
        metadata: Watcher::start(config.site.metadata_to_query(), &environment.runtime_directory()),
        environment,
        config: config.at(SystemTime::now()),
        written: config,
        unkept: texts,
        log_level,
        cloud: CloudTask::new(state_directory),
        cloud_waiters: Vec::new(),
        operators: Vec::new(),
        operators_due: None,
        operators_passed: None,
        drops,
        notifier: Notifier::start(),
        readiness: Readiness::Starting,
    };
    // On the heap: the state of a pass in progress takes kilobytes.
    Box::pin(daemon.run(&events, signals, calls)).await;
    Ok(())
}
