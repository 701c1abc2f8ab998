//! What is to be probed, as it follows from configuration and site. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::engine::WantedPath;
use super::packet::Target;
use super::path::Path;
use super::targets::{Targets, targets};
use crate::config::Config;
use crate::inputs::{LinkProbe, Tunnel, link_probes, target_ports};
use crate::nat::{ProbedHosts, ProbedPath, probed_paths};
use crate::net::{InterfaceName, ServerId};
use crate::site::Site;

/// What is to be probed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(super) server: Option<ServerId>,
    pub(super) paths: Vec<ProbedPath>,
    pub(super) targets: Targets,
    /// By network: what drops probes although it lets private hosts pass.
    pub(super) obstacles: BTreeMap<Ipv4Net, String>,
    pub(super) links: Vec<LinkProbe>,
    /// The networks whose packets do not leave by their own link, as the kernel's route lookup says.
    pub(super) misrouted: BTreeSet<Ipv4Net>,
    /// Whom probes by private links ask, and the destination port that leads there.
    pub(super) link_targets: Vec<(u16, SocketAddrV4)>,
    /// Counts what may have changed the way of packets.
    pub(super) changes: u64,
}

impl Orders {
    /// What is to be probed with this configuration on this server.
    pub(crate) fn new(
        config: &Config,
        site: &Site,
        tunnel: Option<&Tunnel>,
        obstacles: BTreeMap<Ipv4Net, String>,
    ) -> Self {
        let paths = probed_paths(config, site);
        let networks: BTreeSet<Ipv4Net> = paths.iter().map(|path| path.network).collect();
        let misrouted = site.private.iter().filter(|link| site.misrouted.contains(&link.interface));
        Self {
            server: site.server_id,
            paths,
            targets: targets(config, site, tunnel, networks),
            obstacles,
            links: link_probes(config, site),
            misrouted: misrouted.map(|link| link.network).collect(),
            link_targets: target_ports(config).collect(),
            changes: 0,
        }
    }

    /// The paths, and which of them cannot be probed.
    pub(super) fn wanted(&self) -> Vec<WantedPath> {
        // One path of each network tells about everything but the other addresses.
        let mut seen: BTreeSet<Ipv4Net> = BTreeSet::new();
        let translated = self.paths.iter().map(|path| WantedPath {
            path: path_of(path),
            cannot: self.targets.get(&path.network).and_then(|targets| targets.as_ref().err()).cloned(),
            is_expected: true,
            takes_turns: !seen.insert(path.network),
        });
        let translated: Vec<WantedPath> = translated.collect();
        let by_link = self.links.iter().flat_map(|link| {
            let (network, is_expected) = (link.network, link.keeps_route);
            let forbidden = || "the egress lists allow no resolver of health.targets".to_owned();
            let cannot = self.link_targets(network).is_empty().then(forbidden);
            [
                WantedPath { path: Path::Private { network }, cannot: None, is_expected, takes_turns: false },
                WantedPath { path: Path::Whole { network }, cannot, is_expected, takes_turns: false },
            ]
        });
        translated.into_iter().chain(by_link).collect()
    }

    /// The targets of probes by a private link that its hosts may ask.
    pub(super) fn link_targets(&self, network: Ipv4Net) -> Vec<(u16, SocketAddrV4)> {
        let Some(Ok(allowed)) = self.targets.get(&network) else { return Vec::new() };
        let is_allowed = |target: &SocketAddrV4| allowed.contains(&Target::Dns(*target));
        self.link_targets.iter().copied().filter(|(_, target)| is_allowed(target)).collect()
    }

    /// What drops the probes of a path although it lets private hosts pass. The probes of a private path are not
    /// forwarded.
    pub(super) fn obstacle(&self, path: &Path) -> Option<&String> {
        match path {
            Path::Private { .. } => None,
            translated => self.obstacles.get(&translated.network()?),
        }
    }

    /// The addresses whose answers belong to the interface of this name.
    pub(super) fn sources_of(&self, name: &InterfaceName) -> BTreeSet<Ipv4Addr> {
        let own = || self.paths.iter().filter(|path| path.interface == *name);
        let is_own = |link: &&LinkProbe| own().any(|path| path.network == link.network);
        own().map(|path| path.source).chain(self.links.iter().filter(is_own).map(|link| link.source)).collect()
    }
}

/// The path of a network's packets under an address.
pub(super) fn path_of(probed: &ProbedPath) -> Path {
    let ProbedPath { network, egress, .. } = *probed;
    match (probed.hosts, egress) {
        (ProbedHosts::Part(hosts), Some(egress)) => Path::Part { network, hosts, egress },
        (ProbedHosts::Static(host), Some(egress)) => Path::Static { network, host, egress },
        _ => Path::Nat { network, egress },
    }
}
