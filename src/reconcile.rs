//! The pass: look at the world, compare it with what is wanted, make it so, account for it.
//!
//! A pass has two lanes. The kernel's rooms take milliseconds and run in the order sysctl, nat, wireguard, routes, flows, forwarding:
//! rules stand before the first packet is forwarded, so forwarding, though a sysctl, comes after them. The cloud's room may take a minute when
//! the API is unwell, so it runs beside, and a rule deleted meanwhile is healed all the same. Traffic is attracted last: the
//! cloud's lane starts only while the kernel's stands.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::component::{self, Component as _, Error as _, Plan as _};
use crate::config::{Config, Environment};
use crate::conntrack::Conntrack;
use crate::error::chain;
use crate::hcloud::{Hcloud, wanted_return_routes};
use crate::inputs::{Inputs, SeenReturnRoutes, Tunnel, tunnel};
use crate::nat::{self, Nat};
use crate::net::InterfaceName;
use crate::outcome::{ComponentName, Outcome, Problem, State};
use crate::report::{Report, Trigger};
use crate::routes::Routes;
use crate::site::{self, MetadataView, Site};
use crate::state;
use crate::sysctl::{self, Doubt, Forwarding, Place};
use crate::wireguard::fd_store::{Handover, NamedFds};
use crate::wireguard::{self, Wireguard};

/// The file of what the cloud sends here.
const RETURN_ROUTES_FILE: &str = "ways-back.json";

/// The kernel's side of the gateway, and the account of the whole.
#[derive(Debug)]
pub struct Gateway {
    sysctl: Place,
    nat: Nat,
    wireguard: Wireguard,
    routes: Routes,
    conntrack: Conntrack,
    /// What the settings were wanted for when they stood, the tunnel's interface among it once it was there: if they differ
    /// later, somebody changed them.
    settings_stood_for: Option<(Site, Option<InterfaceName>)>,
    /// What the cloud was last seen to send here, for the tunnel. It is kept in the runtime directory too: a daemon that was
    /// killed and started again need not masquerade until it has looked.
    seen_return_routes: SeenReturnRoutes,
    runtime_directory: PathBuf,
    report: Report,
    site: Site,
}

/// A list of what would be, or was, done, and of what is wrong.
pub type Steps = (Vec<String>, Vec<Problem>);

impl Gateway {
    /// A gateway that has not looked at anything yet.
    pub fn new(environment: &Environment) -> Self {
        let runtime = environment.runtime_directory();
        Self {
            sysctl: Place::of_kernel(&environment.state_directory()),
            nat: Nat::load(&runtime, &environment.state_directory()),
            wireguard: Wireguard::load(&runtime),
            routes: Routes::default(),
            conntrack: Conntrack::load(&runtime),
            settings_stood_for: None,
            seen_return_routes: state::read_json(&runtime.join(RETURN_ROUTES_FILE)).unwrap_or_default(),
            report: Report::new(),
            site: Site::default(),
            runtime_directory: runtime,
        }
    }

    /// Takes what the service manager kept of a former daemon's tunnel.
    pub fn take_over(&mut self, kept: NamedFds) {
        self.wireguard.take_over(kept);
    }

    /// What the service manager is to keep for the next daemon, if that has changed.
    pub fn handover(&mut self) -> Option<Handover> {
        self.wireguard.handover()
    }

    /// The account so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The server as the newest pass saw it.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Notes why a reload was refused, or that none is.
    pub fn refuse_configuration(&mut self, problems: Vec<String>) {
        self.report.refuse_configuration(problems);
    }

    /// One pass of the kernel's lane.
    pub async fn pass(&mut self, config: &Config, metadata: &MetadataView, trigger: Trigger) {
        self.report.passes += 1;
        self.report.trigger = trigger;
        tracing::debug!(pass = self.report.passes, %trigger, "pass");
        match site::observe(config, metadata, &self.site, &self.runtime_directory).await {
            Ok(site) => {
                self.record(ComponentName::Site, site_outcome(&site));
                self.report.server_id = site.server_id;
                self.site = site;
                self.pass_rooms(config).await;
            }
            Err(error) => self.record(
                ComponentName::Site,
                Outcome::failed(&error, "the daemon needs a route netlink socket; tried again by itself"),
            ),
        }
        self.report.finished_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    }

    async fn pass_rooms(&mut self, config: &Config) {
        let tunnel = tunnel(config, &self.site, &self.seen_return_routes);
        let interface = tunnel.as_ref().map(|tunnel| &tunnel.interface);
        let subject =
            (self.site.clone(), interface.filter(|interface| sysctl::has_interface(&self.sysctl, interface)).cloned());
        // Hardening first; forwarding waits for the rules.
        let stood = self.settings_stood_for.as_ref() == Some(&subject);
        let hardened = sysctl::reconcile(&self.sysctl, &self.site, interface, Forwarding::Leave, stood);
        let inputs = Inputs { config, site: &self.site, tunnel: tunnel.as_ref(), now: Instant::now() };
        let nat = component::reconcile(&mut self.nat, &inputs).await;
        let (rules_stand, rules_failed) = (nat.state == State::Ok, nat.state == State::Failed);
        self.record(ComponentName::Nat, nat);
        self.pass_tunnel(config, tunnel.as_ref(), !rules_failed).await;
        self.pass_flows(config, tunnel.as_ref(), rules_stand).await;
        let outcome = if rules_stand {
            let mut opened = sysctl::reconcile(&self.sysctl, &self.site, interface, Forwarding::On, stood);
            opened.repaired |= hardened.repaired;
            opened.changes.splice(0..0, hardened.changes);
            opened
        } else {
            self.keep_shut(hardened, rules_failed)
        };
        self.settings_stood_for = (outcome.state == State::Ok && rules_stand).then_some(subject);
        self.record(ComponentName::Sysctl, outcome);
    }

    /// The tunnel and its routes; where there is none and never was, nothing is said of it.
    async fn pass_tunnel(&mut self, config: &Config, tunnel: Option<&Tunnel>, rules_stand: bool) {
        let inputs = Inputs { config, site: &self.site, tunnel, now: Instant::now() };
        let wireguard = if rules_stand {
            component::reconcile(&mut self.wireguard, &inputs).await
        } else {
            self.wireguard.hold_back(&inputs, ComponentName::Nat).await
        };
        // An interface that is not ours gets no address and no route of ours.
        let mut routes = self.routes.reconcile(tunnel.filter(|_| self.wireguard.is_running())).await;
        if let Some(tunnel) = tunnel.filter(|_| routes.state == State::Off) {
            routes.state = State::HeldBack;
            routes.detail = format!("{} is not there yet", tunnel.interface);
        }
        for (component, outcome) in [(ComponentName::Wireguard, wireguard), (ComponentName::Routes, routes)] {
            let is_news = outcome.state != State::Off || !outcome.changes.is_empty();
            if is_news || self.report.components.contains_key(&component) {
                self.record(component, outcome);
            }
        }
        self.refresh_tunnel().await;
    }

    /// Live flows, once the rules stand and a peer that goes is gone: it would begin anew what is ended before.
    async fn pass_flows(&mut self, config: &Config, tunnel: Option<&Tunnel>, rules_stand: bool) {
        self.refresh_flows().await;
        let outcome = if rules_stand {
            let inputs = Inputs { config, site: &self.site, tunnel, now: Instant::now() };
            component::reconcile(&mut self.conntrack, &inputs).await
        } else {
            Outcome::unchanged(State::HeldBack, "live flows follow the rules once they stand")
        };
        self.record(ComponentName::Conntrack, outcome);
    }

    /// Brings what changes by itself up to the moment in the report.
    pub async fn refresh(&mut self) {
        self.refresh_tunnel().await;
        self.refresh_flows().await;
    }

    async fn refresh_tunnel(&mut self) {
        self.report.tunnel = self.wireguard.report().await;
    }

    async fn refresh_flows(&mut self) {
        self.conntrack.update_report(Instant::now()).await;
        self.report.flows = self.conntrack.report().cloned();
    }

    /// Waits until something happens in the tunnel beside the passes. Cancel-safe.
    pub async fn tunnel_event(&mut self) -> wireguard::Event {
        self.wireguard.event().await
    }

    /// Looks at the tunnel's peers beside the passes.
    pub async fn look_at_tunnel(&mut self) {
        self.wireguard.check_peers(Instant::now()).await;
    }

    /// Forwarding waits for the rules. If they are gone and cannot be loaded, the gate that we opened is shut again; one
    /// that somebody else opened (Docker, a file of the administrator's) is not ours to shut, and rules that stand, though
    /// they cannot be looked at, are no reason to.
    fn keep_shut(&self, mut hardened: Outcome, rules_failed: bool) -> Outcome {
        hardened.detail.push_str(", forwarding waits for the rules");
        // Err: the kernel cannot be asked; what may stand is not cut.
        if rules_failed && matches!(nat::table_exists(), Ok(false)) {
            let (changes, problems) = sysctl::stop_forwarding(&self.sysctl, Doubt::Leave);
            hardened.changes.extend(changes);
            if !problems.is_empty() {
                hardened.state = State::Failed;
            }
            hardened.problems.extend(problems);
        }
        hardened
    }

    /// Shuts the gate if no rules stand, for the time until the site is known. What fails here, the first pass tells.
    pub async fn close_if_open(&mut self, config: &Config) {
        let observed = site::observe(config, &MetadataView::default(), &Site::default(), &self.runtime_directory).await;
        let Ok(site) = observed else { return };
        let closed = Site { public: None, private: Vec::new(), ..site };
        if let Err(error) = self.nat.load_rules_if_absent(config, &closed).await {
            tracing::debug!(component = "nat", error = %chain(&error), "the gate cannot be shut yet");
        }
    }

    /// Takes what the cloud's lane came to into the account.
    pub fn record_cloud(&mut self, outcome: Outcome) {
        self.record(ComponentName::Hcloud, outcome);
    }

    /// Takes over what the networks in the cloud send here now; whether that differs from before.
    pub fn learn_return_routes(&mut self, seen_return_routes: SeenReturnRoutes) -> bool {
        if self.seen_return_routes == seen_return_routes {
            return false;
        }
        self.seen_return_routes = seen_return_routes;
        if let Err(error) =
            state::write_json(&self.runtime_directory.join(RETURN_ROUTES_FILE), &self.seen_return_routes)
        {
            tracing::warn!(component = "hcloud", error = %chain(&error), "go on without");
        }
        true
    }

    /// Why the cloud's lane must not attract traffic now; `None` if it may.
    pub fn holds_back_cloud(&self) -> Option<Outcome> {
        let not_ok = [ComponentName::Nat, ComponentName::Sysctl]
            .into_iter()
            .find(|&room| self.report.state(room) != Some(State::Ok));
        let reason = match (not_ok, &self.site.public) {
            (Some(room), _) => format!("no traffic is attracted before {room} stands"),
            (None, Some(public)) if public.addresses.is_empty() => {
                format!("no traffic is attracted before {} has an address", public.interface)
            }
            _ => return None,
        };
        Some(Outcome::unchanged(State::HeldBack, reason))
    }

    /// What the next pass of the kernel's lane would do.
    pub async fn preview(&mut self, config: &Config, metadata: &MetadataView) -> (Site, Steps) {
        let site = match site::observe(config, metadata, &self.site, &self.runtime_directory).await {
            Ok(site) => site,
            Err(error) => {
                let problem = Problem::new(chain(&error), "the daemon needs a route netlink socket");
                return (Site::default(), (Vec::new(), vec![problem]));
            }
        };
        let mut problems = site.problems.clone();
        let tunnel = tunnel(config, &site, &self.seen_return_routes);
        let inputs = Inputs { config, site: &site, tunnel: tunnel.as_ref(), now: Instant::now() };
        let rules = match self.nat.observe(&inputs).await {
            Ok(observed) => {
                let plan = self.nat.plan(&inputs, &observed);
                problems.extend(plan.problems());
                Some(plan.steps())
            }
            Err(error) => {
                problems.push(Problem::new(chain(&error), error.advice()));
                None
            }
        };
        let forwarding = if site.public.is_some() && rules.is_some() { Forwarding::On } else { Forwarding::Leave };
        let interface = tunnel.as_ref().map(|tunnel| &tunnel.interface);
        let settings = sysctl::preview(&self.sysctl, &site, interface, forwarding);
        let mut steps: Vec<String> = settings.iter().map(|write| format!("set {write}")).collect();
        steps.extend(rules.into_iter().flatten());
        let (more, obstacles) = component::preview(&mut self.wireguard, &inputs).await;
        steps.extend(more);
        problems.extend(obstacles);
        match self.routes.preview(tunnel.as_ref().filter(|_| self.wireguard.is_running())).await {
            Ok((more, obstacles)) => {
                steps.extend(more);
                problems.extend(obstacles);
            }
            Err(error) => problems.push(Problem::new(chain(&error), "the daemon needs a route netlink socket")),
        }
        let (ended, obstacles) = component::preview(&mut self.conntrack, &inputs).await;
        steps.extend(ended);
        problems.extend(obstacles);
        (site, (steps, problems))
    }

    /// Takes the gateway down, in the opposite order of a pass: traffic is sent elsewhere, the gate is shut, and only then do
    /// the rules go.
    pub async fn down(&mut self, config: &Config, site: &Site, hcloud: &mut Hcloud) -> Steps {
        let (mut done, mut problems) = hcloud.remove(&config.hcloud, site, &wanted_return_routes(config, site)).await;
        if site.private.is_empty() {
            // Why no network was known whose routes could have been looked for.
            problems.extend(site.problems.iter().cloned());
        }
        // Err: the kernel cannot be asked, so nothing is known of the rules either.
        let doubt = if matches!(nat::table_exists(), Ok(true)) { Doubt::Shut } else { Doubt::Leave };
        let (stopped, still_open) = sysctl::stop_forwarding(&self.sysctl, doubt);
        done.extend(stopped);
        if !still_open.is_empty() {
            // Without its rules it would forward everything.
            problems.extend(still_open);
            problems
                .push(Problem::new("the rules stay, since forwarding is still on", "switch it off, then try again"));
            return (done, problems);
        }
        let inputs = Inputs { config, site, tunnel: None, now: Instant::now() };
        let (routes, tunnel) = (self.routes.remove().await, self.wireguard.down(&inputs).await);
        let flows = self.conntrack.down(&inputs).await;
        let parts = [routes, tunnel, self.nat.down(&inputs).await, flows, sysctl::restore(&self.sysctl)];
        for (changes, failed) in parts {
            done.extend(changes);
            problems.extend(failed);
        }
        if sysctl::forwards(&self.sysctl) {
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
            tracing::info!(%component, pass = self.report.passes, "no more: {}", problem.what);
        }
        for hint in outcome.hints.iter().filter(|hint| !hinted.contains(hint)) {
            tracing::info!(%component, pass = self.report.passes, advice = %hint.advice, "{}", hint.what);
        }
        for change in &outcome.changes {
            tracing::info!(%component, pass = self.report.passes, trigger = %self.report.trigger, repaired = outcome.repaired, "{change}");
        }
        self.report.record(component, outcome);
    }
}

fn site_outcome(site: &Site) -> Outcome {
    let public = site.public.as_ref().map(|link| {
        let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
        format!(
            "public {} {}",
            link.interface,
            if addresses.is_empty() { "without address".to_owned() } else { addresses.join(", ") }
        )
    });
    let private = site.private.iter().map(|link| {
        let network = link.network_id.map_or_else(String::new, |id| format!(" (network {id})"));
        format!("private {} {} in {}{network}", link.interface, link.address, link.network)
    });
    let links: Vec<String> = public.into_iter().chain(private).collect();
    let detail = if links.is_empty() { "no link is known yet".to_owned() } else { links.join("; ") };
    let state = if site.problems.is_empty() { State::Ok } else { State::Waiting };
    Outcome { problems: site.problems.clone(), hints: site.hints.clone(), ..Outcome::unchanged(state, detail) }
}
