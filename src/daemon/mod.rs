//! The loop around the pass: what wakes it, and who is told.

mod answer;
mod boot;
mod cloud;

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::config::{self, Config, Environment};
use crate::control::{self, Request, Response};
use crate::drops::DropLog;
use crate::error::chain;
use crate::events::KernelEvents;
use crate::hcloud::{Hcloud, wanted_return_routes};
use crate::outcome::{ComponentName, Problem, State};
use crate::reconcile::{Gateway, Steps};
use crate::report::Trigger;
use crate::site::metadata::Watcher;
use crate::systemd::{LogLevel, Notifier, watchdog_pause};
use crate::wireguard;
use crate::wireguard::fd_store::NamedFds;
use cloud::{Lane, Urgency};

pub use boot::boot;

/// Between an event and the pass it starts: programs change several things at once.
const SETTLE: Duration = Duration::from_millis(50);
/// Between two passes, however many events there are. Well below the 2 s within which a repair is promised.
const AT_LEAST: Duration = Duration::from_millis(250);
/// A pass without any event: for the few settings that the kernel does not tell of (`send_redirects`).
const IDLE: Duration = Duration::from_secs(30);
/// After a pass that failed.
const RETRY: Duration = Duration::from_secs(2);
/// How long a start waits for the metadata service before it shuts the gate for the time being.
const QUICK_METADATA: Duration = Duration::from_millis(50);
/// How long the first pass waits for the metadata service's first answer.
const FIRST_METADATA: Duration = Duration::from_secs(5);
/// How long readiness waits for the first look at the cloud: an API outage must not keep the gateway from starting.
const FIRST_CLOUD: Duration = Duration::from_secs(5);

/// Why the daemon ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Signals cannot be received.
    #[error("cannot listen to signals")]
    Signals(#[source] std::io::Error),
    /// A directory of ours cannot be made.
    #[error("cannot create the directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is a daemon already.
    #[error("another bastiond holds {}", path.display())]
    Running {
        /// The lock.
        path: PathBuf,
    },
    /// The lock cannot be had for another reason.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no place for the control socket: without it nobody could see how the gateway stands.
    #[error(transparent)]
    Control(#[from] control::Error),
}

/// Proof that no other daemon works with this runtime directory.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "held for its lock, which ends with it")] Flock<File>);

impl Alone {
    /// Makes the directories if need be, and takes the lock.
    pub fn in_directories(environment: &Environment) -> Result<Self, Error> {
        for path in [environment.runtime_directory(), environment.state_directory()] {
            let made = DirBuilder::new().recursive(true).mode(0o750).create(&path);
            made.map_err(|source| Error::Directory { path, source })?;
        }
        let path = environment.runtime_directory().join("lock");
        let failed = |source| Error::Lock { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Error::Running { path }),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

/// Runs until SIGTERM, SIGINT or `bastionctl down`. Rules and routes stay when it ends by a signal.
///
/// `kept` is what the service manager kept of a former daemon.
pub async fn run(
    path: PathBuf,
    environment: Environment,
    config: Config,
    log_level: LogLevel,
    kept: NamedFds,
) -> Result<(), Error> {
    let _alone = Alone::in_directories(&environment)?;
    let (_server, calls) = control::Server::listen(&environment.runtime_directory().join(control::SOCKET))?;
    let signals = Signals::listen().map_err(Error::Signals)?;
    // Listened to before the first look, so that nothing falls between the two.
    let events = KernelEvents::listen();
    tell_warnings(&path, &config);
    let mut gateway = Gateway::new(&environment);
    gateway.take_over(kept);
    let mut drops = DropLog::default();
    drops.follow(config.firewall.log_drops).await;
    let daemon = Daemon {
        path,
        gateway,
        metadata: Watcher::start(config.site.metadata_to_query(), &environment.runtime_directory()),
        environment,
        config,
        log_level,
        cloud: Lane::new(),
        cloud_waiters: Vec::new(),
        drops,
        notifier: Notifier::start(),
        ready: false,
    };
    // On the heap: all that a pass may be in the middle of is kilobytes.
    Box::pin(daemon.run(&events, signals, calls)).await;
    Ok(())
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// What woke the loop.
enum Event {
    Stop,
    Reload,
    KernelChanged,
    KernelSettled,
    Metadata,
    Timer,
    Cloud(cloud::Event),
    Tunnel(wireguard::Event),
    Call(control::Call),
    Watchdog,
    GiveUpWaiting,
}

struct Daemon {
    path: PathBuf,
    environment: Environment,
    config: Config,
    log_level: LogLevel,
    metadata: Watcher,
    gateway: Gateway,
    cloud: Lane,
    /// Who wants to be told when the look at the cloud is over.
    cloud_waiters: Vec<oneshot::Sender<Response>>,
    drops: DropLog,
    notifier: Notifier,
    ready: bool,
}

impl Daemon {
    async fn run(mut self, events: &KernelEvents, mut signals: Signals, mut calls: mpsc::Receiver<control::Call>) {
        let mut kernel = events.changes();
        let mut network_changes = 0;
        // When the newest pass of an event ended, and when the next one is due.
        let (mut passed, mut kernel_due) = (Instant::now(), None);
        let mut ticks = watchdog_pause().map(tokio::time::interval);
        self.notifier.status("starting");
        self.await_metadata().await;
        let mut metadata = self.metadata.view();
        let mut next_pass = self.pass(Trigger::Start).await;
        let ready_at_last = Instant::now() + FIRST_CLOUD;
        loop {
            let event = tokio::select! {
                _ = signals.terminate.recv() => Event::Stop,
                _ = signals.interrupt.recv() => Event::Stop,
                _ = signals.hangup.recv() => Event::Reload,
                event = self.cloud.event() => Event::Cloud(event),
                event = self.gateway.tunnel_event() => Event::Tunnel(event),
                () = changed(&mut kernel) => Event::KernelChanged,
                () = reached(kernel_due) => Event::KernelSettled,
                () = changed(&mut metadata) => Event::Metadata,
                () = sleep_until(next_pass) => Event::Timer,
                Some(call) = calls.recv() => Event::Call(call),
                () = ticked(&mut ticks) => Event::Watchdog,
                () = sleep_until(ready_at_last), if !self.ready => Event::GiveUpWaiting,
            };
            match event {
                Event::Stop => break,
                Event::Watchdog => self.notifier.alive(),
                Event::GiveUpWaiting => self.become_ready(),
                Event::Reload => {
                    next_pass = self.reload().await.unwrap_or(next_pass);
                    metadata = self.metadata.view();
                }
                Event::KernelChanged => {
                    let network = kernel.borrow_and_update().network;
                    if std::mem::replace(&mut network_changes, network) != network {
                        self.metadata.poll_soon();
                    }
                    let soonest = (Instant::now() + SETTLE).max(passed + AT_LEAST);
                    kernel_due = kernel_due.or(Some(soonest));
                }
                Event::KernelSettled => {
                    kernel_due = None;
                    next_pass = self.pass(Trigger::Kernel).await;
                    passed = Instant::now();
                }
                Event::Metadata => next_pass = self.pass(Trigger::Metadata).await,
                Event::Timer => next_pass = self.pass(Trigger::Timer).await,
                Event::Tunnel(wireguard::Event::EndpointChanged) => next_pass = self.pass(Trigger::Names).await,
                Event::Tunnel(wireguard::Event::CheckPeers) => self.gateway.look_at_tunnel().await,
                Event::Cloud(cloud::Event::Due) => self.look_at_cloud(),
                Event::Cloud(cloud::Event::Done { outcome, again, seen_return_routes }) => {
                    // The rules may have fallen meanwhile.
                    self.gateway.record_cloud(self.gateway.holds_back_cloud().unwrap_or(outcome));
                    if seen_return_routes
                        .is_some_and(|seen_return_routes| self.gateway.learn_return_routes(seen_return_routes))
                    {
                        next_pass = self.pass(Trigger::Cloud).await;
                    }
                    self.tell();
                    if !again {
                        self.wait_no_more();
                    }
                }
                Event::Call((Request::Down {}, answer)) => return self.down(answer, ticks).await,
                Event::Call((request, answer)) => {
                    if let Some(due) = self.answer(request, answer).await {
                        next_pass = due;
                    }
                }
            }
        }
        // Who is active now is called upon by the next daemon.
        self.gateway.look_at_tunnel().await;
        tracing::info!("ends; rules and routes stay");
        self.notifier.stopping();
    }

    /// Waits for the first answer of the metadata service, unless one is remembered. If it takes its time and no rules
    /// stand, the gate is shut meanwhile, with the operator inside: a machine that just booted has no filter else.
    async fn await_metadata(&mut self) {
        let mut view = self.metadata.view();
        let quick = tokio::time::timeout(QUICK_METADATA, view.wait_for(|view| view.settled)).await.is_ok();
        if !quick {
            self.gateway.close_if_open(&self.config).await;
            // No answer is the first pass' business to tell.
            let _ = tokio::time::timeout(FIRST_METADATA, view.wait_for(|view| view.settled)).await;
        }
    }

    /// A pass of the kernel's lane, and what follows from it; when the next one is due.
    async fn pass(&mut self, trigger: Trigger) -> Instant {
        let view = self.metadata.view().borrow().clone();
        let (subject, held) = (cloud_subject(&self.gateway), self.gateway.holds_back_cloud().is_some());
        self.gateway.pass(&self.config, &view, trigger).await;
        if let Some(outcome) = self.gateway.holds_back_cloud() {
            self.gateway.record_cloud(outcome);
            self.wait_no_more();
        } else if matches!(trigger, Trigger::Configuration | Trigger::Operator) {
            self.cloud.want(Urgency::Now);
        } else if held || cloud_subject(&self.gateway) != subject {
            self.cloud.want(Urgency::Soon);
        }
        hand_over(&mut self.gateway, &self.notifier);
        self.tell();
        let kernels = [
            ComponentName::Site,
            ComponentName::Sysctl,
            ComponentName::Nat,
            ComponentName::Wireguard,
            ComponentName::Routes,
            ComponentName::Conntrack,
        ];
        let failed = kernels.map(|room| self.gateway.report().state(room)).contains(&Some(State::Failed));
        Instant::now() + if failed { RETRY } else { IDLE }
    }

    fn look_at_cloud(&mut self) {
        if self.gateway.holds_back_cloud().is_some() {
            self.cloud.put_off(); // the pass that ends this wants a look
        } else {
            self.cloud.look(cloud::Subject::of(&self.config, self.gateway.site()));
        }
    }

    /// The look that somebody waited for is over.
    fn wait_no_more(&mut self) {
        for waiter in self.cloud_waiters.drain(..) {
            answer::report(self.gateway.report().clone(), waiter);
        }
        self.become_ready();
    }

    fn become_ready(&mut self) {
        if !self.ready {
            self.ready = true;
            self.notifier.ready();
            tracing::info!(passes = self.gateway.report().passes, "ready: {}", self.gateway.report().status_line());
        }
    }

    /// Takes a new configuration over, or keeps the old one and says why. When the next pass is due, if there was one.
    async fn reload(&mut self) -> Option<Instant> {
        self.notifier.reloading();
        let due = match config::load(&self.path, &self.environment) {
            Ok(config) => {
                tracing::info!(path = %self.path.display(), "the configuration is reloaded");
                tell_warnings(&self.path, &config);
                self.log_level.set(config.log.level);
                if config.site.metadata_to_query() != self.config.site.metadata_to_query() {
                    let runtime = self.environment.runtime_directory();
                    self.metadata = Watcher::start(config.site.metadata_to_query(), &runtime);
                    self.await_metadata().await;
                }
                self.drops.follow(config.firewall.log_drops).await;
                self.config = config;
                self.gateway.refuse_configuration(Vec::new());
                Some(self.pass(Trigger::Configuration).await)
            }
            Err(error) => {
                tell_refusal(&self.path, &error);
                let problems = error.diagnostics().iter().map(ToString::to_string);
                let whole = error.diagnostics().is_empty().then(|| chain(&error));
                self.gateway.refuse_configuration(problems.chain(whole).collect());
                self.tell();
                None
            }
        };
        if self.ready {
            self.notifier.ready();
        }
        due
    }

    /// Answers at once, or when the work is done. When the next pass is due, if there was one.
    async fn answer(&mut self, request: Request, answer: oneshot::Sender<Response>) -> Option<Instant> {
        match request {
            Request::Status {} | Request::Down {} => {
                self.gateway.refresh().await;
                answer::report(self.gateway.report().clone(), answer);
                None
            }
            Request::Plan {} => {
                let config = match config::load(&self.path, &self.environment) {
                    Ok(config) => config,
                    Err(error) => {
                        answer::wrong_configuration(&self.path, &error, answer);
                        return None;
                    }
                };
                let view = self.metadata.view().borrow().clone();
                let (site, steps) = self.gateway.preview(&config, &view).await;
                tokio::spawn(async move {
                    let (steps, problems) = with_cloud_preview(steps, &config, &site).await;
                    let _ = answer.send(Response::Steps { steps, problems });
                });
                None
            }
            Request::Unban { address } => {
                answer::unban(address, answer);
                None
            }
            Request::Reconcile {} => {
                self.cloud_waiters.push(answer);
                Some(self.pass(Trigger::Operator).await)
            }
        }
    }

    /// Takes everything down, answers, and ends. It may take a minute, and the watchdog hears of it meanwhile.
    async fn down(self, answer: oneshot::Sender<Response>, mut ticks: Option<tokio::time::Interval>) {
        let Self { config, mut gateway, cloud, mut notifier, .. } = self;
        notifier.status("going down");
        let work = async {
            let mut hcloud = cloud.end().await;
            let site = gateway.site().clone();
            gateway.down(&config, &site, &mut hcloud).await
        };
        let (steps, problems) = {
            let mut work = std::pin::pin!(work);
            loop {
                tokio::select! {
                    done = &mut work => break done,
                    () = ticked(&mut ticks) => notifier.alive(),
                }
            }
        };
        hand_over(&mut gateway, &notifier);
        tracing::info!("down: {}", steps.join("; "));
        // Err: whoever asked has gone; it is done all the same.
        let _ = answer.send(Response::Steps { steps, problems });
        // The answer leaves in a task of its own.
        tokio::time::sleep(SETTLE).await;
        notifier.stopping();
    }

    fn tell(&mut self) {
        self.notifier.status(&self.gateway.report().status_line());
    }
}

/// Has the service manager keep the tunnel's descriptors for the next daemon.
fn hand_over(gateway: &mut Gateway, notifier: &Notifier) {
    let Some(handover) = gateway.handover() else { return };
    for name in &handover.forget {
        notifier.forget(name);
    }
    for (name, descriptors) in handover.keep {
        notifier.keep(&name, descriptors);
    }
}

/// What of the site decides about cloud routes.
fn cloud_subject(gateway: &Gateway) -> Vec<crate::site::PrivateLink> {
    gateway.site().private.clone()
}

/// Adds what the cloud's lane would do to a preview of the kernel's.
pub async fn with_cloud_preview(steps: Steps, config: &Config, site: &crate::site::Site) -> Steps {
    let (mut steps, mut problems) = steps;
    match Hcloud::default().preview(&config.hcloud, site, &wanted_return_routes(config, site)).await {
        Ok((more, obstacles)) => {
            steps.extend(more);
            problems.extend(obstacles);
        }
        Err(error) => problems.push(Problem::new(chain(&error), error.advice())),
    }
    (steps, problems)
}

fn tell_refusal(path: &Path, error: &config::Error) {
    tracing::error!(path = %path.display(), "the reload is refused, the old configuration is kept: {}", chain(error));
    for problem in error.diagnostics() {
        tracing::error!(path = %path.display(), "{problem}");
    }
}

fn tell_warnings(path: &Path, config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(path = %path.display(), "{warning}");
    }
}

async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Something new was said; never, once nobody is left to say it.
async fn changed<T>(said: &mut watch::Receiver<T>) {
    if said.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn ticked(ticks: &mut Option<tokio::time::Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}
