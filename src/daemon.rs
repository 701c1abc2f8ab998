//! The loop around the pass: what wakes it, and who is told.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};

use crate::config::{self, Config, Environment};
use crate::control::{self, Request, Response};
use crate::events::KernelEvents;
use crate::hcloud::Hcloud;
use crate::reconcile::{Gateway, Steps};
use crate::report::{Outcome, Room, State, Trigger, chain};
use crate::site::metadata::Watcher;
use crate::systemd::{LogLevel, Notifier, watchdog_pause};

/// Between an event and the pass it starts: programs change several things at once.
const SETTLE: Duration = Duration::from_millis(50);
/// Between two passes, however many events there are. Well below the 2 s within which a repair is promised.
const AT_LEAST: Duration = Duration::from_millis(250);
/// A pass without any event: for the few settings that the kernel does not tell of (`send_redirects`).
const IDLE: Duration = Duration::from_secs(30);
/// After a pass that failed.
const RETRY: Duration = Duration::from_secs(2);
/// How long the first pass waits for the metadata service's first answer.
const FIRST_METADATA: Duration = Duration::from_secs(5);
/// How long readiness waits for the first look at the cloud: an API outage must not keep the gateway from starting.
const FIRST_CLOUD: Duration = Duration::from_secs(5);
/// How long `down` waits for a running look at the cloud to end.
const CLOUD_FAREWELL: Duration = Duration::from_secs(20);

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
    /// There is a daemon already, or no place for its socket.
    #[error(transparent)]
    Control(#[from] control::Error),
}

/// Runs until SIGTERM, SIGINT or `bastionctl down`. Rules and routes stay when it ends by a signal.
pub async fn run(path: PathBuf, environment: Environment, config: Config, log_level: LogLevel) -> Result<(), Error> {
    let runtime = environment.runtime_directory();
    std::fs::create_dir_all(&runtime).map_err(|source| Error::Directory { path: runtime.clone(), source })?;
    let (_server, calls) = control::Server::listen(&runtime.join(control::SOCKET)).await?;
    let signals = Signals::listen().map_err(Error::Signals)?;
    // Listened to before the first look, so that nothing falls between the two.
    let events = KernelEvents::listen();
    let daemon = Daemon {
        path,
        gateway: Gateway::new(&environment),
        environment,
        metadata: Watcher::start(metadata_endpoint(&config)),
        config,
        log_level,
        cloud: Cloud::Idle(Box::default()),
        cloud_due: Some(Instant::now()),
        cloud_waiters: Vec::new(),
        notifier: Notifier::start(),
        ready: false,
    };
    daemon.run(&events, signals, calls).await;
    Ok(())
}

/// The metadata service is asked for private links; where they are written by hand, nobody is.
fn metadata_endpoint(config: &Config) -> Option<String> {
    config.site.private.is_empty().then(|| config.site.metadata_endpoint.clone())
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

/// The cloud's lane: at rest, or on its way in a task that owns the room meanwhile.
enum Cloud {
    Idle(Box<Hcloud>),
    Looking { task: JoinHandle<(Box<Hcloud>, Outcome, Duration)>, again: bool },
}

/// What woke the loop.
enum Event {
    Stop,
    Reload,
    KernelChanged,
    KernelSettled,
    Metadata,
    Timer,
    CloudDue,
    CloudDone(Result<(Box<Hcloud>, Outcome, Duration), JoinError>),
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
    cloud: Cloud,
    /// When to look at the cloud next; `None` while a look is on its way.
    cloud_due: Option<Instant>,
    /// Who wants to be told when the look at the cloud is over.
    cloud_waiters: Vec<oneshot::Sender<Response>>,
    notifier: Notifier,
    ready: bool,
}

impl Daemon {
    async fn run(mut self, events: &KernelEvents, mut signals: Signals, mut calls: mpsc::Receiver<control::Call>) {
        let mut kernel = events.changes();
        let mut network_changes = 0;
        // When the newest pass of an event ended, and when the next one is due.
        let (mut passed, mut kernel_due) = (Instant::now(), None);
        let mut metadata = self.metadata.view();
        // An answer in time spares the first pass from finding nothing; no answer is the pass' business to tell.
        let _ = tokio::time::timeout(FIRST_METADATA, metadata.wait_for(|view| view.settled)).await;
        let mut ticks = watchdog_pause().map(tokio::time::interval);
        self.notifier.status("starting");
        let mut next_pass = self.pass(Trigger::Start).await;
        let ready_at_last = Instant::now() + FIRST_CLOUD;
        loop {
            let event = tokio::select! {
                _ = signals.terminate.recv() => Event::Stop,
                _ = signals.interrupt.recv() => Event::Stop,
                _ = signals.hangup.recv() => Event::Reload,
                result = finished(&mut self.cloud) => Event::CloudDone(result),
                () = reached(self.cloud_due) => Event::CloudDue,
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
                        self.metadata.nudge();
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
                Event::CloudDue => self.look_at_cloud(),
                Event::CloudDone(result) => self.cloud_done(result),
                Event::Call((Request::Down {}, answer)) => {
                    let (steps, problems) = self.down().await;
                    // Err: whoever asked has gone; it is done all the same.
                    let _ = answer.send(Response::Steps { steps, problems });
                    // The answer leaves in a task of its own.
                    tokio::time::sleep(SETTLE).await;
                    self.notifier.stopping();
                    return;
                }
                Event::Call((request, answer)) => {
                    if let Some(due) = self.answer(request, answer).await {
                        next_pass = due;
                    }
                }
            }
        }
        tracing::info!("ends; rules and routes stay");
        self.notifier.stopping();
    }

    /// A pass of the kernel's lane, and what follows from it; when the next one is due.
    async fn pass(&mut self, trigger: Trigger) -> Instant {
        let view = self.metadata.view().borrow().clone();
        let (site, held) = (self.gateway.site().clone(), self.gateway.holds_back_cloud().is_some());
        self.gateway.pass(&self.config, &view, trigger).await;
        let (site_changed, holds) = (*self.gateway.site() != site, self.gateway.holds_back_cloud());
        if let Some(outcome) = holds {
            self.gateway.record_cloud(outcome);
            self.wait_no_more();
        } else if site_changed || held || matches!(trigger, Trigger::Configuration | Trigger::Operator) {
            self.look_at_cloud();
        }
        self.tell();
        let failed = [Room::Site, Room::Sysctl, Room::Nat].map(|room| self.gateway.report().state(room));
        Instant::now() + if failed.contains(&Some(State::Failed)) { RETRY } else { IDLE }
    }

    /// Starts a look at the cloud, or has the one on its way followed by another.
    fn look_at_cloud(&mut self) {
        self.cloud_due = None;
        if self.gateway.holds_back_cloud().is_some() {
            return; // the pass that ends this starts a look
        }
        match &mut self.cloud {
            Cloud::Looking { again, .. } => *again = true,
            Cloud::Idle(hcloud) => {
                let mut hcloud = std::mem::take(hcloud);
                let (config, site) = (self.config.hcloud.clone(), self.gateway.site().clone());
                let task = tokio::spawn(async move {
                    let (outcome, pause) = hcloud.reconcile(&config, &site).await;
                    (hcloud, outcome, pause)
                });
                self.cloud = Cloud::Looking { task, again: false };
            }
        }
    }

    fn cloud_done(&mut self, result: Result<(Box<Hcloud>, Outcome, Duration), JoinError>) {
        let again = matches!(self.cloud, Cloud::Looking { again: true, .. });
        let (hcloud, outcome, pause) = result.unwrap_or_else(|error| {
            (Box::default(), Outcome::failed(&error, "this is a bug; the next look starts afresh"), RETRY)
        });
        self.cloud = Cloud::Idle(hcloud);
        self.cloud_due = Some(Instant::now() + if again { Duration::ZERO } else { pause });
        self.gateway.record_cloud(self.gateway.holds_back_cloud().unwrap_or(outcome));
        self.tell();
        if !again {
            self.wait_no_more();
        }
    }

    /// The look that somebody waited for is over.
    fn wait_no_more(&mut self) {
        for waiter in self.cloud_waiters.drain(..) {
            // Err: whoever asked has gone.
            let _ = waiter.send(Response::Report { report: Box::new(self.gateway.report().clone()) });
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
                self.log_level.set(config.log.level);
                if metadata_endpoint(&config) != metadata_endpoint(&self.config) {
                    self.metadata = Watcher::start(metadata_endpoint(&config));
                    let mut view = self.metadata.view();
                    let _ = tokio::time::timeout(FIRST_METADATA, view.wait_for(|view| view.settled)).await;
                }
                self.config = config;
                self.gateway.refuse_configuration(Vec::new());
                Some(self.pass(Trigger::Configuration).await)
            }
            Err(error) => {
                let mut problems: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
                tracing::error!(path = %self.path.display(), "the reload is refused, the old configuration is kept: {}", chain(&error));
                for problem in &problems {
                    tracing::error!(path = %self.path.display(), "{problem}");
                }
                if problems.is_empty() {
                    problems.push(chain(&error));
                }
                self.gateway.refuse_configuration(problems);
                self.tell();
                None
            }
        };
        self.notifier.ready();
        due
    }

    /// Answers at once, or when the work is done. When the next pass is due, if there was one.
    async fn answer(&mut self, request: Request, answer: oneshot::Sender<Response>) -> Option<Instant> {
        match request {
            Request::Status {} | Request::Down {} => {
                let _ = answer.send(Response::Report { report: Box::new(self.gateway.report().clone()) });
                None
            }
            Request::Plan {} => {
                let view = self.metadata.view().borrow().clone();
                let (site, (mut steps, mut problems)) = self.gateway.preview(&self.config, &view).await;
                let config = self.config.hcloud.clone();
                tokio::spawn(async move {
                    match Hcloud::default().preview(&config, &site).await {
                        Ok(more) => steps.extend(more),
                        Err(error) => problems.push(crate::report::Problem::new(chain(&error), error.advice())),
                    }
                    let _ = answer.send(Response::Steps { steps, problems });
                });
                None
            }
            Request::Reconcile {} => {
                self.cloud_waiters.push(answer);
                Some(self.pass(Trigger::Operator).await)
            }
        }
    }

    async fn down(&mut self) -> Steps {
        let hcloud = match std::mem::replace(&mut self.cloud, Cloud::Idle(Box::default())) {
            Cloud::Idle(hcloud) => Some(hcloud),
            Cloud::Looking { mut task, .. } => {
                let ended = tokio::time::timeout(CLOUD_FAREWELL, &mut task).await;
                task.abort();
                ended.ok().and_then(Result::ok).map(|(hcloud, ..)| hcloud)
            }
        };
        let site = self.gateway.site().clone();
        let steps = self.gateway.down(&self.config, &site, &mut hcloud.unwrap_or_default()).await;
        tracing::info!("down: {}", steps.0.join("; "));
        steps
    }

    fn tell(&mut self) {
        self.notifier.status(&self.gateway.report().status_line());
    }
}

/// The look at the cloud that is on its way; never, if there is none.
async fn finished(cloud: &mut Cloud) -> Result<(Box<Hcloud>, Outcome, Duration), JoinError> {
    match cloud {
        Cloud::Looking { task, .. } => task.await,
        Cloud::Idle(_) => std::future::pending().await,
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
