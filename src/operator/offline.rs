//! `plan` and `down` without a daemon: one pass of the daemon's code in this process.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{Flock, FlockArg, OFlag};

use super::account;
use crate::component::Steps;
use crate::config::{self, Config, Environment};
use crate::control::Response;
use crate::daemon::{self, InstanceLock, complete_plan};
use crate::error::chain;
use crate::hcloud::{self, Hcloud};
use crate::outcome::Problem;
use crate::own_file;
use crate::reconcile::Gateway;
use crate::site::metadata::Watcher;
use crate::site::{self, MetadataView, Site};

/// How long a daemon that has answered may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the request cannot be carried out in this process.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The async runtime cannot be started.
    #[error("cannot start the async runtime")]
    Runtime(#[source] io::Error),
    /// A daemon is running, although it does not answer.
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
    /// The daemon's account cannot be taken on.
    #[error(transparent)]
    Account(#[from] account::Error),
}

/// Removes everything that a daemon made.
pub(super) fn down(mut config: Config, environment: &Environment) -> Result<Response, Error> {
    let reachable = Reachable::of(environment);
    let environment = &reachable.environment;
    become_daemon(&mut config, environment)?;
    let (steps, problems) = block_on(async {
        let metadata = metadata(&config, environment).await;
        let _lock = InstanceLock::acquire(environment)?;
        Ok(take_down(&config, environment, &metadata).await)
    })?;
    Ok(Response::Steps { steps, problems })
}

/// Waits until the daemon of this socket has ended and its lock is free, for some seconds at most.
pub(super) fn await_end(socket: &Path) {
    let lock = socket.with_file_name(daemon::LOCK);
    let deadline = Instant::now() + END_TIMEOUT;
    while Instant::now() < deadline {
        let Ok(file) = own_file::open_lock(&lock) else { return };
        if Flock::lock(file, FlockArg::LockSharedNonblock).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a start with this configuration would do.
pub(super) fn plan(path: &Path, mut config: Config, environment: &Environment) -> Result<Response, Error> {
    let reachable = Reachable::of(environment);
    let environment = &reachable.environment;
    become_daemon(&mut config, environment)?;
    // The last daemon's configuration: its rules stand, if no boot came between.
    let changes = config::last_good(environment).map(|running| config::difference(&running.config, &config));
    let config = config.at(SystemTime::now());
    let plan = block_on(async {
        let metadata = metadata(&config, environment).await;
        let preview = Gateway::new(environment).preview(&config, &metadata).await;
        Ok(complete_plan(path, &environment.state_directory(), &config, changes, preview).await)
    })?;
    Ok(Response::Plan(plan))
}

/// The environment for the daemon's account. It owns its directory in `/sys/fs/bpf`, but only root may pass `/sys/fs/bpf`:
/// so root opens the directory, and the account finds it by the number of the open file.
struct Reachable {
    environment: Environment,
    _directory: Option<File>,
}

impl Reachable {
    fn of(environment: &Environment) -> Self {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let opened = File::options().read(true).custom_flags(flags.bits()).open(environment.bpf_directory());
        // An error: there is none, so nothing was loaded.
        let directory = opened.ok();
        let path = directory.as_ref().map(|open| PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())));
        let bpf_directory = path.or_else(|| environment.bpf_directory.clone());
        Self { environment: Environment { bpf_directory, ..environment.clone() }, _directory: directory }
    }
}

/// Goes on with the daemon's account, which cannot read everything that root can.
fn become_daemon(config: &mut Config, environment: &Environment) -> Result<(), account::Error> {
    hcloud::read_token_ahead(&mut config.hcloud.token);
    account::take_on(environment)
}

fn block_on<T>(work: impl Future<Output = Result<T, daemon::Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let done = runtime.block_on(work);
    // Do not wait for name resolution that is still running.
    runtime.shutdown_background();
    done.map_err(Error::Daemon)
}

async fn take_down(config: &Config, environment: &Environment, metadata: &MetadataView) -> Steps {
    // Without the site its cloud routes are not known and stay; everything else is removed.
    let site = site::observe(config, metadata, &Site::default(), &environment.runtime_directory())
        .await
        .unwrap_or_else(|error| Site {
            problems: vec![Problem::new(
                "site-unknown",
                chain(&error),
                "the routes in the cloud stay; delete them by hand",
            )],
            ..Site::default()
        });
    Gateway::new(environment).down(config, &site, &mut Hcloud::load(&environment.state_directory())).await
}

async fn metadata(config: &Config, environment: &Environment) -> MetadataView {
    let watcher = Watcher::start(config.site.metadata_to_query(), &environment.runtime_directory());
    let mut view = watcher.view();
    // The first request ends within its own timeout.
    let settled = view.wait_for(|view| view.settled).await;
    settled.map(|view| view.clone()).unwrap_or_default()
}
