//! What has to change for the tunnel to be as configured. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

use super::backend::{self, Start};
use super::known_key::KeyChoice;
use super::link::Link;
use super::model::BackendKind;
use super::model::{ConfiguredEndpoints, Interface};
use super::observe::{Observed, RunningState, wanted};
use super::running::Running;
use super::{Wireguard, update};
use crate::component;
use crate::config;
use crate::inputs::{Inputs, Tunnel, interface_taken};
use crate::net::InterfaceName;
use crate::outcome::Problem;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::{Snapshot, Update};

/// The steps of a pass, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The interface of this daemon that another program deleted, or whose process has ended: what is left of it is
    /// kept for the next one.
    pub(super) reap: Option<InterfaceName>,
    /// Whether descriptors that are held without a process are of no use, and are closed.
    pub(super) release_inherited: bool,
    /// The interface of this daemon that is not wanted any more, or not with this data plane.
    pub(super) stop: Option<InterfaceName>,
    /// Interfaces that former daemons left to the kernel and that are not wanted.
    pub(super) remove: BTreeSet<InterfaceName>,
    /// What becomes of the wanted interface; `None` if none is wanted, or if there is an obstacle.
    pub(super) interface: Option<InterfacePlan>,
    /// What keeps the tunnel from being as configured.
    pub(super) obstacles: Vec<Problem>,
}

/// What becomes of the wanted interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InterfacePlan {
    /// The file in which a private key is made.
    pub(super) make_key: Option<PathBuf>,
    /// The data plane that is started; `None` if the running one stays.
    pub(super) start: Option<Start>,
    /// The change of the interface and its peers.
    pub(super) update: Option<Update>,
    /// The same in words, for people.
    pub(super) update_described: Vec<String>,
    /// The link is set up, with its MTU.
    pub(super) set_up: Option<SetUp>,
    /// Peers that know an old address of ours, and get a handshake from the new one.
    pub(super) initiate: BTreeSet<PublicKey>,
    /// Whether the changes undo those of another program.
    pub(super) is_repair: bool,
    /// What the interface is afterwards.
    pub(super) desired: Interface,
}

/// Why the link is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetUp {
    /// It is new, or another program set it down.
    pub(super) is_down: bool,
    /// The MTU that it has instead of the wanted one, in bytes.
    pub(super) wrong_mtu: Option<u32>,
}

impl component::Plan for Plan {
    fn steps(&self) -> Vec<String> {
        let mut steps: Vec<String> =
            self.stop.iter().chain(&self.remove).map(|interface| format!("remove {interface}")).collect();
        let Some(plan) = &self.interface else { return steps };
        steps.extend(plan.make_key.iter().map(|path| format!("make a private key in {}", path.display())));
        match &plan.start {
            Some(Start { interface, kind, is_left_in_kernel, .. })
                if !is_left_in_kernel || *kind == BackendKind::Userspace =>
            {
                steps.push(format!("make {interface} with {} peer(s)", plan.desired.peers.len()));
            }
            _ => {
                steps.extend(plan.update_described.iter().cloned());
                if let Some(SetUp { is_down, wrong_mtu }) = plan.set_up {
                    steps.extend(is_down.then(|| "set the link up".to_owned()));
                    steps.extend(wrong_mtu.map(|mtu| format!("change the MTU, which is {mtu}")));
                }
            }
        }
        if !plan.initiate.is_empty() {
            steps.push(format!("initiate handshakes with {} peer(s) that were active", plan.initiate.len()));
        }
        steps
    }

    fn problems(&self) -> Vec<Problem> {
        self.obstacles.clone()
    }
}

impl Wireguard {
    pub(super) fn plan_pass(&self, inputs: &Inputs<'_>, observed: &Observed) -> Plan {
        let mut plan = Plan::default();
        let running = match self.running.as_ref().zip(observed.running.as_ref()) {
            Some((running, RunningState { is_gone: true, .. })) => {
                plan.reap = Some(running.interface.clone());
                None
            }
            running => running,
        };
        let wanted = wanted(inputs);
        let names = [running.map(|(running, _)| &running.interface), wanted.map(|(config, _)| &config.interface)];
        let left = observed.links.iter().filter(|link| link.is_left_by_us()).filter_map(|link| link.name.parse().ok());
        plan.remove = left.filter(|name| !names.contains(&Some(name))).collect();
        let Some((config, tunnel)) = wanted else {
            plan.release_inherited = self.holds_descriptors();
            plan.stop = running.map(|(running, _)| running.interface.clone());
            let taken = inputs.config.wireguard.as_ref().and_then(|wanted| interface_taken(wanted, inputs.site));
            plan.obstacles.extend(taken);
            return plan;
        };
        match self.plan_interface(config, tunnel, running, observed, &mut plan) {
            Ok(interface) => plan.interface = Some(interface),
            Err(obstacle) => plan.obstacles.push(obstacle),
        }
        plan
    }

    fn plan_interface(
        &self,
        config: &config::Wireguard,
        tunnel: &Tunnel,
        running: Option<(&Running, &RunningState)>,
        observed: &Observed,
        plan: &mut Plan,
    ) -> Result<InterfacePlan, Problem> {
        let KeyChoice { key, make, problem } = self.choose_key(&config.interface, observed)?;
        plan.obstacles.extend(problem);
        let desired = Interface::desired(config, key, &self.names);
        let kind = || {
            backend::choose(config.backend, observed.kernel_has_wireguard).map_err(|error| Problem::from_error(&error))
        };
        let (same, other) = match running {
            Some((running, state)) if running.interface == config.interface => {
                if running.choice == config.backend || kind()? == running.backend.kind() {
                    (Some((running, state)), None)
                } else {
                    (None, Some(running))
                }
            }
            running => (None, running.map(|(running, _)| running)),
        };
        if let Some((running, state)) = same {
            let before = state.snapshot.as_ref().map_err(Problem::from_error)?;
            let link = observed.link(&config.interface);
            return Ok(plan_running(running, before, config, tunnel, observed.wall_clock, link, make, desired));
        }
        let start = self.plan_start(config, tunnel, kind()?, other, observed, plan)?;
        Ok(plan_started(start, config, observed, make, desired))
    }

    /// The key of the interface, whatever becomes of it.
    fn choose_key(&self, interface: &InterfaceName, observed: &Observed) -> Result<KeyChoice, Problem> {
        let Some(key) = &observed.key else { return Ok(KeyChoice::default()) };
        let running = observed.running.as_ref().and_then(|running| running.snapshot.as_ref().ok());
        let snapshot = running.or(observed.left_in_kernel.as_ref());
        // Another program may have given the interface another key.
        let settled = self.running.as_ref().and_then(|running| running.key.as_ref());
        let current = settled.or_else(|| snapshot.and_then(|snapshot| snapshot.private_key.as_ref()));
        let is_met = running.is_some_and(|running| running.peers.iter().any(|peer| peer.last_handshake.is_some()));
        key.choose(interface, current, is_met)
    }

    /// Starts the wanted interface, after the running one is stopped.
    fn plan_start(
        &self,
        config: &config::Wireguard,
        tunnel: &Tunnel,
        kind: BackendKind,
        running: Option<&Running>,
        observed: &Observed,
        plan: &mut Plan,
    ) -> Result<Start, Problem> {
        // Descriptors that are held keep their interface alive.
        plan.release_inherited = kind == BackendKind::Kernel && self.holds_descriptors();
        let takes_over = kind == BackendKind::Userspace && observed.has_inherited_tun;
        let is_ours = takes_over || running.is_some_and(|running| running.interface == config.interface);
        let link = observed.link(&config.interface).filter(|_| !is_ours);
        let is_left_in_kernel = link.is_some_and(Link::is_left_by_us);
        if let Some(link) = link.filter(|_| !is_left_in_kernel) {
            return Err(foreign(link));
        }
        plan.stop = running.map(|running| running.interface.clone());
        Ok(Start {
            interface: config.interface.clone(),
            kind,
            listen_port: config.listen_port,
            fwmark: config.fwmark,
            mtu: tunnel.mtu,
            is_left_in_kernel,
        })
    }
}

/// What becomes of an interface that continues.
#[expect(clippy::too_many_arguments, reason = "a plan compares all that is wanted with all that is observed")]
fn plan_running(
    running: &Running,
    before: &Snapshot,
    config: &config::Wireguard,
    tunnel: &Tunnel,
    wall_clock: SystemTime,
    link: Option<&Link>,
    make_key: Option<PathBuf>,
    desired: Interface,
) -> InterfacePlan {
    let update = update::update(&desired.with_endpoints(&running.last_seen), before, &running.configured);
    let seen = running.last_seen.keys().filter(|_| !running.sessions_live);
    let mut initiate: BTreeSet<PublicKey> = seen.copied().collect();
    if update.as_ref().is_some_and(|update| update.listen_port.is_some()) && running.has_settled {
        // They know the former port. A packet from the new one tells them, unless a NAT drops it.
        let active = before.peers.iter().filter(|peer| peer.is_active(wall_clock));
        initiate.extend(active.map(|peer| peer.public_key));
    }
    initiate.retain(|key| desired.peers.contains_key(key));
    InterfacePlan {
        make_key,
        start: None,
        update_described: described(update.as_ref(), before, config, &running.labels),
        // Without a link there is nothing to set up, and the next pass finds that the interface is gone.
        set_up: link.and_then(|link| SetUp::of_link(link, tunnel.mtu)),
        initiate,
        is_repair: update.is_some() && running.settled.as_ref() == Some(&desired),
        update,
        desired,
    }
}

/// What becomes of an interface that is started: its first configuration is known beforehand.
fn plan_started(
    start: Start,
    config: &config::Wireguard,
    observed: &Observed,
    make_key: Option<PathBuf>,
    desired: Interface,
) -> InterfacePlan {
    let before = match (start.kind, &observed.left_in_kernel) {
        (BackendKind::Kernel, Some(left)) if start.is_left_in_kernel => left.clone(),
        (BackendKind::Kernel, _) => Snapshot::default(),
        (BackendKind::Userspace, _) => {
            Snapshot { listen_port: start.listen_port, fwmark: start.fwmark, ..Snapshot::default() }
        }
    };
    let update = update::update(&desired.with_endpoints(&observed.last_seen), &before, &ConfiguredEndpoints::new());
    let goes_on = match start.kind {
        BackendKind::Kernel => start.is_left_in_kernel,
        BackendKind::Userspace => observed.has_inherited_tun,
    };
    let link = observed.link(&start.interface).filter(|_| goes_on);
    let is_new = SetUp { is_down: true, wrong_mtu: None };
    InterfacePlan {
        make_key,
        update_described: described(update.as_ref(), &before, config, &BTreeMap::new()),
        set_up: link.map_or(Some(is_new), |link| SetUp::of_link(link, start.mtu)),
        initiate: observed.last_seen.keys().copied().filter(|key| desired.peers.contains_key(key)).collect(),
        is_repair: false,
        start: Some(start),
        update,
        desired,
    }
}

impl SetUp {
    fn of_link(link: &Link, mtu: u32) -> Option<Self> {
        let wrong_mtu = Some(link.mtu).filter(|found| *found != mtu);
        (!link.up || wrong_mtu.is_some()).then_some(Self { is_down: !link.up, wrong_mtu })
    }
}

/// An update in words. Peers that the configuration has no more are called by their former labels.
fn described(
    update: Option<&Update>,
    before: &Snapshot,
    config: &config::Wireguard,
    former_labels: &BTreeMap<PublicKey, String>,
) -> Vec<String> {
    let labels: BTreeMap<PublicKey, String> = config.peers.iter().map(|peer| (peer.public_key, peer.label())).collect();
    let label = |key: &PublicKey| {
        labels.get(key).or_else(|| former_labels.get(key)).cloned().unwrap_or_else(|| key.to_string())
    };
    update.map(|update| update::describe(update, before, label)).unwrap_or_default()
}

fn foreign(link: &Link) -> Problem {
    let kind = link.kind.as_ref().map_or_else(String::new, |kind| format!(" (a {kind} one)"));
    Problem::new(
        "interface-not-ours",
        format!("there is an interface {} already{kind}, which is not bastiond's", link.name),
        "stop the program that made it (wg-quick down, systemctl disable wg-quick@), or choose another \
         wireguard.interface",
    )
}

#[cfg(test)]
mod tests;
