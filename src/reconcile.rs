//! The pass: observe the site, then run each component; and the account of what came of it.
//!
//! [`PASS`] is the order, and what each component waits for. Rules stand before the first packet is forwarded, so
//! forwarding is switched on last. These components take milliseconds. The cloud's component may take a minute when the
//! API is unwell, so the daemon runs it in a task of its own ([`crate::daemon`]), and a rule that is deleted meanwhile
//! is repaired all the same. Traffic is attracted last: that task starts only while [`Gateway::holds_back_cloud`] finds
//! nothing that it has to wait for.

mod cloud;
mod paths;
mod preview;
mod reachers;
mod unserved;
mod way_in;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::component::{Reconcile, Steps};
use crate::config::{Config, Environment};
use crate::conntrack::Conntrack;
use crate::error::chain;
use crate::fastpath::Fastpath;
use crate::health::{PathReport, TunnelPaths};
use crate::inputs::{Inputs, SeenReturnRoutes, tunnel};
use crate::nat::{self, Nat};
use crate::outcome::{ComponentName, Outcome, Problem, State};
use crate::report::{Report, Trigger};
use crate::routes::Routes;
use crate::site::{self, FirstSight, MetadataView, SeenOtherRoutes, Site};
use crate::state;
use crate::sysctl::{Forwarding, Sysctl, SysctlPaths};
use crate::wireguard::held::NamedFds;
use crate::wireguard::{self, Wireguard};
pub(crate) use preview::Preview;
pub(crate) use way_in::WayIn;

/// A component's place in the pass.
struct Entry {
    component: fn(&mut Gateway) -> &mut dyn Reconcile,
    /// If one of these is not met, the component is held back.
    waits_for: &'static [Requirement],
}

/// What has to be before a component runs.
#[derive(Debug, Clone, Copy)]
enum Requirement {
    /// The component's newest outcome is ok.
    Ok(ComponentName),
    /// The component's newest outcome is anything but failed.
    NotFailed(ComponentName),
    /// If a tunnel is wanted, its interface is there and ours.
    TunnelRuns,
}

impl Requirement {
    /// Whether it is met, given the states of components.
    fn is_met(self, state: impl Fn(ComponentName) -> Option<State>, tunnel_runs: bool) -> bool {
        match self {
            Self::Ok(component) => state(component) == Some(State::Ok),
            Self::NotFailed(component) => state(component) != Some(State::Failed),
            Self::TunnelRuns => tunnel_runs,
        }
    }

    fn component(self) -> ComponentName {
        match self {
            Self::Ok(component) | Self::NotFailed(component) => component,
            Self::TunnelRuns => ComponentName::Wireguard,
        }
    }
}

/// The components of a pass, in their order. `bastionctl down` takes the opposite order.
const PASS: [Entry; 7] = [
    Entry { component: |gateway| &mut gateway.sysctl, waits_for: &[] },
    Entry { component: |gateway| &mut gateway.nat, waits_for: &[] },
    // Without rules no tunnel starts; one that runs continues.
    Entry { component: |gateway| &mut gateway.wireguard, waits_for: &[Requirement::NotFailed(ComponentName::Nat)] },
    Entry { component: |gateway| &mut gateway.routes, waits_for: &[Requirement::TunnelRuns] },
    // After the tunnel: a peer that is still there would start an ended flow again.
    Entry { component: |gateway| &mut gateway.conntrack, waits_for: &[Requirement::Ok(ComponentName::Nat)] },
    Entry { component: |gateway| &mut gateway.forwarding, waits_for: &[Requirement::Ok(ComponentName::Nat)] },
    // After everything that decides what may pass: what was learnt before its changes does not count after them.
    Entry { component: |gateway| &mut gateway.fastpath, waits_for: &[Requirement::Ok(ComponentName::Nat)] },
];

/// The components of the pass, and the account of the whole gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    sysctl: Sysctl,
    nat: Nat,
    wireguard: Wireguard,
    routes: Routes,
    conntrack: Conntrack,
    forwarding: Forwarding,
    fastpath: Fastpath,
    /// What the cloud's networks were last seen to send here, for the tunnel. It is kept in the runtime directory too:
    /// a daemon that was killed and started again does not masquerade peers until it has asked the API.
    seen_return_routes: SeenReturnRoutes,
    /// The routes of the cloud's networks to other servers: what is behind these is served too. Kept in the same way.
    seen_other_routes: SeenOtherRoutes,
    /// What probes prove.
    probed_paths: Vec<PathReport>,
    tunnel_paths: TunnelPaths,
    runtime_directory: PathBuf,
    state_directory: PathBuf,
    report: Report,
    site: Site,
    /// The interfaces by which packets come in or would leave that no rule lets pass.
    refused_interfaces: Vec<String>,
}

impl Gateway {
    /// A gateway that has not observed anything yet.
    pub(crate) fn new(environment: &Environment) -> Self {
        let (runtime, state) = (environment.runtime_directory(), environment.state_directory());
        let sysctl_paths = SysctlPaths::of_kernel(&state);
        let (seen_return_routes, seen_other_routes) = cloud::remembered(&runtime);
        Self {
            sysctl: Sysctl::new(sysctl_paths.clone()),
            nat: Nat::load(&runtime, &state),
            wireguard: Wireguard::load(&runtime, &state, environment.tunnel_unit.clone()),
            routes: Routes::default(),
            conntrack: Conntrack::load(&runtime),
            forwarding: Forwarding::new(sysctl_paths, nat::table_filters),
            fastpath: Fastpath::new(environment.bpf_directory(), &runtime),
            seen_return_routes,
            seen_other_routes,
            probed_paths: Vec::new(),
            tunnel_paths: TunnelPaths::new(state::read_json(&state.join(paths::TUNNEL_FILE)).unwrap_or_default()),
            report: Report::new(),
            site: Site::default(),
            refused_interfaces: Vec::new(),
            runtime_directory: runtime,
            state_directory: state,
        }
    }

    /// Takes over the descriptors that the service manager kept of a former daemon's tunnel.
    pub(crate) fn take_over(&mut self, inherited: NamedFds) {
        self.wireguard.take_over(inherited);
    }

    /// Notes that a person has reloaded the configuration.
    pub(crate) fn note_reload(&mut self) {
        self.wireguard.note_reload();
        self.fastpath.note_change();
    }

    /// Names of descriptors that the service manager need not store any more.
    pub(crate) fn unused_descriptors(&mut self) -> Vec<String> {
        self.wireguard.unused_names()
    }

    /// The account so far.
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// The server as the newest pass observed it.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// The account, to record which configuration runs.
    pub(crate) fn report_mut(&mut self) -> &mut Report {
        &mut self.report
    }

    /// One pass; how soon a component wants the next one, if any does.
    pub(crate) async fn pass(
        &mut self,
        config: &Config,
        metadata: &MetadataView,
        trigger: Trigger,
    ) -> Option<Duration> {
        self.report.passes += 1;
        self.report.trigger = trigger;
        tracing::debug!(pass = self.report.passes, %trigger, "pass");
        let next = match self.observe_site(config, metadata, FirstSight::Remember).await {
            Ok(site) => {
                self.record(ComponentName::Site, site_outcome(&site));
                self.report.server_id = site.server_id;
                self.site = site;
                self.reconcile_components(config).await
            }
            Err(error) => {
                let outcome = Outcome::failed(&error);
                let next = outcome.next_pass();
                self.record(ComponentName::Site, outcome);
                next
            }
        };
        self.report.finished_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        next
    }

    async fn observe_site(
        &self,
        config: &Config,
        metadata: &MetadataView,
        first_sight: FirstSight,
    ) -> Result<Site, site::Error> {
        let mut site = site::observe(config, metadata, &self.site, &self.runtime_directory).await?;
        site::add_ranges_behind(&mut site, config, &self.seen_other_routes);
        site::check_identity(&self.state_directory, &mut site, first_sight);
        Ok(site)
    }

    async fn reconcile_components(&mut self, config: &Config) -> Option<Duration> {
        let site = self.site.clone();
        let now = Instant::now();
        if self.conntrack.wants_senders(now).await {
            self.conntrack.learn_senders(nat::portless_senders().await, config, &site).await;
        }
        let tunnel = tunnel(config, &site, &self.seen_return_routes);
        self.conntrack.count_flows(config, &site, tunnel.as_ref());
        let inputs = Inputs { config, site: &site, tunnel: tunnel.as_ref(), now };
        let mut next = None;
        for Entry { component, waits_for } in PASS {
            let tunnel_runs = inputs.tunnel.is_none() || self.wireguard.is_running();
            let state = |component| self.report.state(component);
            let unmet = waits_for.iter().find(|requirement| !requirement.is_met(state, tunnel_runs)).copied();
            let component = component(self);
            let name = component.name();
            let mut outcome = match unmet {
                None => component.reconcile(&inputs).await,
                Some(requirement) => component.hold_back(&inputs, requirement.component()).await,
            };
            if !outcome.changes.is_empty() || outcome.state == State::Failed {
                self.fastpath.note_change();
            }
            if name == ComponentName::Nat {
                self.fastpath.note_strangers(self.nat.needs_every_packet());
                outcome.hints.extend(unserved::hints(&self.refused_interfaces, config, &site));
            }
            next = next.into_iter().chain(outcome.next_pass()).min();
            // A component that was never on is not shown.
            let was_never_on = outcome.state == State::Off && !self.report.components.contains_key(&name);
            if !was_never_on || !outcome.changes.is_empty() {
                self.record(name, outcome);
            }
        }
        if !self.wireguard.is_running() {
            self.forget_tunnel_paths();
        }
        self.report.tunnel = self.wireguard.report().await;
        self.report.flows = self.conntrack.report().cloned();
        next
    }

    /// Updates the tunnel's part of the report.
    pub(crate) async fn refresh_tunnel(&mut self) {
        self.report.tunnel = self.wireguard.report().await;
    }

    /// Updates the parts of the report that change by themselves.
    pub(crate) async fn refresh(&mut self) {
        self.report.tunnel = self.wireguard.report().await;
        self.conntrack.update_report(Instant::now()).await;
        self.report.flows = self.conntrack.report().cloned();
    }

    /// Waits until something happens in the tunnel between passes. Cancel-safe.
    pub(crate) async fn tunnel_event(&mut self) -> wireguard::Event {
        self.wireguard.event().await
    }

    /// Loads closed rules if none stand, for the time until the site is known. An error here is reported by the first
    /// pass.
    pub(crate) async fn close_if_open(&mut self, config: &Config) {
        let observed = site::observe(config, &MetadataView::default(), &Site::default(), &self.runtime_directory).await;
        let Ok(site) = observed else { return };
        let closed = Site { public: None, private: Vec::new(), ..site };
        if let Err(error) = self.nat.load_rules_if_absent(config, &closed).await {
            tracing::debug!(component = "nat", error = %chain(&error), "closed rules cannot be loaded yet");
        }
    }

    /// Takes the gateway down, in the opposite order of a pass: traffic is sent elsewhere, forwarding is switched off,
    /// and only then are the rules removed. `hcloud` is the cloud's component, which the daemon owns.
    pub(crate) async fn down(&mut self, config: &Config, site: &Site, hcloud: &mut dyn Reconcile) -> Steps {
        let tunnel = tunnel(config, site, &self.seen_return_routes);
        let inputs = Inputs { config, site, tunnel: tunnel.as_ref(), now: Instant::now() };
        let (mut done, mut problems) = hcloud.down(&inputs).await;
        if site.private.is_empty() {
            // They say why no network is known whose routes could have been withdrawn.
            problems.extend(site.problems.iter().cloned());
        }
        for Entry { component, .. } in PASS.iter().rev() {
            let component = component(self);
            let (changes, failed) = component.down(&inputs).await;
            let has_failed = component.name() == ComponentName::Forwarding && !failed.is_empty();
            done.extend(changes);
            problems.extend(failed);
            // Without its rules, a server that still forwards would forward everything.
            if has_failed && self.forwarding.is_on() {
                problems.push(Problem::new(
                    "forwarding-still-on",
                    "the rules stay, since forwarding is still on",
                    "switch it off, then try again",
                ));
                return (done, problems);
            }
        }
        if self.forwarding.is_on() {
            done.push("net/ipv4/ip_forward stays 1: bastiond did not switch it on".to_owned());
        }
        (done, problems)
    }

    fn record(&mut self, component: ComponentName, outcome: Outcome) {
        let before = self.report.components.get(&component);
        let known: &[Problem] = before.map_or(&[], |report| &report.problems);
        let hinted: &[Problem] = before.map_or(&[], |report| &report.hints);
        for problem in outcome.problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!(%component, pass = self.report.passes, advice = %problem.advice, "{}", problem.what);
        }
        for problem in known.iter().filter(|problem| !outcome.problems.contains(problem)) {
            tracing::info!(%component, pass = self.report.passes, "solved: {}", problem.what);
        }
        for hint in outcome.hints.iter().filter(|hint| !hinted.contains(hint)) {
            tracing::info!(%component, pass = self.report.passes, advice = %hint.advice, "{}", hint.what);
        }
        for change in &outcome.changes {
            let (pass, trigger) = (self.report.passes, self.report.trigger);
            tracing::info!(%component, pass, %trigger, repaired = outcome.repaired, "{change}");
        }
        self.report.record(component, outcome);
    }
}

fn site_outcome(site: &Site) -> Outcome {
    let public = site.public.as_ref().map(|link| {
        let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "without address".to_owned() } else { addresses.join(", ") };
        format!("public {} {addresses}", link.interface)
    });
    let private = site.private.iter().map(|link| {
        let network = link.network_id.map_or_else(String::new, |id| format!(" (network {id})"));
        let behind: Vec<String> = link.behind.iter().map(|range| format!(" and {range}")).collect();
        let behind = behind.concat();
        let kind = if link.is_local { "local" } else { "private" };
        format!("{kind} {} {} in {}{behind}{network}", link.interface, link.address, link.network)
    });
    let links: Vec<String> = public.into_iter().chain(private).collect();
    let detail = if links.is_empty() { "no link is known yet".to_owned() } else { links.join("; ") };
    let state = if site.problems.is_empty() { State::Ok } else { State::Waiting };
    Outcome { problems: site.problems.clone(), hints: site.hints.clone(), ..Outcome::unchanged(state, detail) }
}
