//! The loop: waits for events and starts passes.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::cloud_task::{self, Urgency};
use super::descriptors::forget_descriptors;
use super::signals::{self, Signals};
use super::waits::{MIN_INTERVAL, SETTLE, changed, reached, tick};
use super::{Daemon, requests};
use crate::config::Fastpath;
use crate::control;
use crate::events::{Changes, KernelEvents};
use crate::net::InterfaceName;
use crate::reconcile::Gateway;
use crate::report::Trigger;
use crate::site::PrivateLink;
use crate::systemd::watchdog_pause;
use crate::wireguard;

/// The longest time without a pass: the kernel reports no event for a few settings (`send_redirects`).
const IDLE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a start waits for the metadata service before it closes the gateway for the time being.
const METADATA_GRACE: Duration = Duration::from_millis(50);
/// How long the first pass waits for the metadata service's first answer.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// What woke the loop.
enum Event {
    Signal(signals::Request),
    KernelChanged,
    KernelSettled,
    Metadata,
    Timer,
    Cloud(cloud_task::Event),
    Paths,
    Tunnel(wireguard::Event),
    Call(control::Call),
    OperatorsDue,
    Watchdog,
    ReadinessDeadline,
}

impl Daemon {
    /// Runs until SIGTERM, SIGINT or `bastionctl down`.
    pub(super) async fn run(
        mut self,
        events: &KernelEvents,
        mut signals: Signals,
        mut calls: mpsc::Receiver<control::Call>,
    ) {
        let mut kernel = events.changes();
        let mut known = Changes::default();
        let mut paths = self.prober.reports();
        // When the newest pass of a kernel event ended, and when the next one is due.
        let (mut passed, mut kernel_due) = (Instant::now(), None);
        let mut watchdog = watchdog_pause().map(tokio::time::interval);
        self.notifier.status("starting");
        self.await_metadata().await;
        let mut metadata = self.metadata.view();
        let mut next_pass = self.pass(Trigger::Start).await;
        self.readiness.first_pass_done(Instant::now());
        loop {
            // Every arm is cancel-safe, and none awaits in its body.
            let event = tokio::select! {
                request = signals.next() => Event::Signal(request),
                event = self.cloud.event() => Event::Cloud(event),
                event = self.gateway.tunnel_event() => Event::Tunnel(event),
                () = changed(&mut kernel) => Event::KernelChanged,
                () = reached(kernel_due) => Event::KernelSettled,
                () = reached(self.operators_due) => Event::OperatorsDue,
                () = changed(&mut metadata) => Event::Metadata,
                () = changed(&mut paths) => Event::Paths,
                () = sleep_until(next_pass) => Event::Timer,
                Some(call) = calls.recv() => Event::Call(call),
                () = tick(&mut watchdog) => Event::Watchdog,
                () = self.readiness.deadline() => Event::ReadinessDeadline,
            };
            match event {
                Event::Signal(signals::Request::Stop) => break,
                Event::Signal(signals::Request::Reload) => {
                    next_pass = self.reload().await.unwrap_or(next_pass);
                    metadata = self.metadata.view();
                }
                Event::Watchdog => self.notifier.alive(),
                Event::ReadinessDeadline => self.readiness.become_ready(&self.notifier, self.gateway.report()),
                Event::KernelChanged => {
                    let changes = *kernel.borrow_and_update();
                    let before = std::mem::replace(&mut known, changes);
                    // Other programs may change theirs all day long.
                    let is_bypassed = Changes { bypassed: before.bypassed, ..changes } == before;
                    if before.network != changes.network {
                        self.metadata.poll_soon();
                    }
                    if !is_bypassed || self.config.nat.fastpath == Fastpath::Bpf {
                        let soonest = (Instant::now() + SETTLE).max(passed + MIN_INTERVAL);
                        kernel_due = kernel_due.or(Some(soonest));
                    }
                }
                Event::KernelSettled => {
                    kernel_due = None;
                    next_pass = self.pass(Trigger::Kernel).await;
                    passed = Instant::now();
                }
                Event::Paths => {
                    let news = paths.borrow_and_update().clone();
                    let is_lost = self.gateway.learn_paths(news);
                    self.publish_status();
                    if is_lost {
                        // What other programs do to our packets is looked at by a pass only.
                        next_pass = self.pass(Trigger::Paths).await;
                        // Somebody may have taken a route away in the cloud.
                        self.cloud.request(Urgency::Soon);
                    }
                }
                Event::Metadata => next_pass = self.pass(Trigger::Metadata).await,
                Event::Timer => next_pass = self.pass(Trigger::Timer).await,
                Event::Tunnel(wireguard::Event::Ended) => next_pass = self.pass(Trigger::Tunnel).await,
                Event::Tunnel(wireguard::Event::EndpointChanged) => next_pass = self.pass(Trigger::Names).await,
                Event::Tunnel(wireguard::Event::CheckPeers) => {
                    if self.gateway.check_peers().await {
                        self.publish_status();
                    }
                }
                Event::Cloud(event) => next_pass = self.cloud_event(event).await.unwrap_or(next_pass),
                Event::OperatorsDue => {
                    // One pass for all who have asked meanwhile.
                    self.operators_due = None;
                    self.cloud_waiters.append(&mut self.operators);
                    next_pass = self.pass(Trigger::Operator).await;
                    self.operators_passed = Some(Instant::now());
                }
                Event::Call((control::Request::Down {}, answer)) => return Box::pin(self.down(answer, watchdog)).await,
                Event::Call((request @ control::Request::Reload { .. }, answer)) => {
                    next_pass = self.answer(request, answer).await.unwrap_or(next_pass);
                    metadata = self.metadata.view();
                }
                Event::Call((request, answer)) => {
                    next_pass = self.answer(request, answer).await.unwrap_or(next_pass);
                }
            }
        }
        // If the tunnel's process ends before the next daemon runs, that starts handshakes with the peers that are
        // active.
        self.gateway.check_peers().await;
        tracing::info!("the daemon ends; rules, routes and the tunnel stay");
        self.notifier.stopping();
    }

    /// Waits for the first answer of the metadata service, unless one is remembered. If that takes its time and no
    /// rules stand, the gateway is closed meanwhile, but for the operator: a machine that just booted has no other
    /// filter.
    pub(super) async fn await_metadata(&mut self) {
        let mut view = self.metadata.view();
        let is_quick = tokio::time::timeout(METADATA_GRACE, view.wait_for(|view| view.settled)).await.is_ok();
        if !is_quick {
            self.gateway.close_if_open(&self.config).await;
            // Err: there is no answer. The first pass reports that.
            let _ = tokio::time::timeout(METADATA_TIMEOUT, view.wait_for(|view| view.settled)).await;
        }
    }

    /// A pass, and what follows from it for the cloud's component; when the next one is due.
    pub(super) async fn pass(&mut self, trigger: Trigger) -> Instant {
        let is_other_peers = self.follow_expiry(SystemTime::now());
        let view = self.metadata.view().borrow().clone();
        let (links, was_held) = (private_links(&self.gateway), self.gateway.holds_back_cloud().is_some());
        let (changes, site) = (self.gateway.report().changes(), self.gateway.site().clone());
        let obstacles = self.gateway.obstacles_to_probes(&self.config);
        self.gateway.learn_refused_interfaces(self.drops.refused_interfaces());
        let next = self.gateway.pass(&self.config, &view, trigger).await;
        let is_new_obstacle = self.gateway.obstacles_to_probes(&self.config) != obstacles;
        let is_new_configuration = is_other_peers || matches!(trigger, Trigger::Start | Trigger::Configuration);
        if is_new_configuration || is_new_obstacle || *self.gateway.site() != site {
            self.prober.follow(self.gateway.probe_orders(&self.config));
        } else if trigger != Trigger::Timer || self.gateway.report().changes() != changes {
            self.prober.probe_soon();
        }
        if let Some(outcome) = self.gateway.holds_back_cloud() {
            self.gateway.record_cloud(outcome);
            self.answer_cloud_waiters();
        } else if is_other_peers || matches!(trigger, Trigger::Configuration | Trigger::Operator) {
            self.cloud.request(Urgency::Now);
        } else if was_held || private_links(&self.gateway) != links {
            self.cloud.request(Urgency::Soon);
        }
        forget_descriptors(&mut self.gateway, &self.notifier);
        self.keep_configuration();
        self.publish_status();
        let next = next.into_iter().chain(self.next_expiry(SystemTime::now())).min();
        Instant::now() + next.map_or(IDLE_INTERVAL, |next| next.min(IDLE_INTERVAL))
    }

    /// Follows the cloud's component; when the next pass is due, if there was one.
    async fn cloud_event(&mut self, event: cloud_task::Event) -> Option<Instant> {
        match event {
            // The pass that ends this requests one.
            cloud_task::Event::Due if self.gateway.holds_back_cloud().is_some() => {
                self.cloud.postpone();
                None
            }
            cloud_task::Event::Due => {
                self.cloud.start(self.config.clone(), self.gateway.site().clone());
                None
            }
            cloud_task::Event::Done { outcome, again, seen_routes } => {
                // The rules may have fallen meanwhile.
                self.gateway.record_cloud(self.gateway.holds_back_cloud().unwrap_or(outcome));
                let is_news = seen_routes.is_some_and(|seen| self.gateway.learn_routes(&self.config, &seen));
                let next_pass = if is_news { Some(self.pass(Trigger::Cloud).await) } else { None };
                self.publish_status();
                if !again {
                    self.answer_cloud_waiters();
                }
                next_pass
            }
        }
    }

    /// The pass of the cloud's component that a client waits for has ended.
    fn answer_cloud_waiters(&mut self) {
        for waiter in self.cloud_waiters.drain(..) {
            requests::answer_report(self.gateway.report().clone(), waiter);
        }
        self.readiness.become_ready(&self.notifier, self.gateway.report());
    }

    pub(super) fn publish_status(&mut self) {
        self.notifier.status(&self.gateway.report().status_line());
    }
}

/// The part of the site that decides about cloud routes.
fn private_links(gateway: &Gateway) -> (Vec<PrivateLink>, BTreeSet<InterfaceName>) {
    let site = gateway.site();
    (site.private.clone(), site.misrouted.clone())
}
