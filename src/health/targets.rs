//! Whom the probes of a network may ask: what its egress lists let its hosts reach.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::packet::Target;
use crate::config::{Acl, Config, EgressLists, Protocol};
use crate::conntrack::{Flow, Layer4, Permission, Policy, PolicyEvaluator, Status, Tuple};
use crate::hetzner::unroutable;
use crate::inputs::Tunnel;
use crate::site::Site;

/// How many hosts of an `allow` list are asked in place of resolvers.
const MAX_ALLOWED: usize = 2;
/// DNS (RFC 1035).
const DNS_PORT: u16 = 53;

/// By network: whom its probes ask, or why nobody can be asked.
pub(super) type Targets = BTreeMap<Ipv4Net, Result<Vec<Target>, String>>;

/// The targets of these networks' probes.
pub(super) fn targets(
    config: &Config,
    site: &Site,
    tunnel: Option<&Tunnel>,
    networks: impl IntoIterator<Item = Ipv4Net>,
) -> Targets {
    let policy = LazyCell::new(|| Policy::new(config, site, tunnel, None));
    // Its look-up tables take their time with ten thousand lines, and nearly nobody restricts resolvers.
    let evaluator = LazyCell::new(|| policy.as_ref().map(PolicyEvaluator::new));
    let of = |network| {
        if is_unrestricted(config, site, network) {
            return Ok(config.health.targets.iter().copied().map(Target::Dns).collect());
        }
        match &*evaluator {
            Some(evaluator) => targets_of(config, site, evaluator, network),
            None => Err("the public link has no address".to_owned()),
        }
    };
    networks.into_iter().map(|network| (network, of(network))).collect()
}

fn lists_of<'a>(config: &'a Config, site: &Site, network: Ipv4Net) -> &'a EgressLists {
    let link = site.private.iter().find(|link| link.network == network);
    let policy = link.and_then(|link| config.policy_of(link.network, &link.interface));
    policy.map_or(&config.egress.lists, |policy| &policy.lists)
}

/// Whether no list can contain a resolver.
fn is_unrestricted(config: &Config, site: &Site, network: Ipv4Net) -> bool {
    let lists = lists_of(config, site, network);
    let unroutable = unroutable(site.public.iter().flat_map(|public| &public.addresses));
    let is_routable = |target: &SocketAddrV4| !unroutable.iter().any(|range| range.contains(target.ip()));
    lists.allow.is_none()
        && lists.deny.is_empty()
        && config.firewall.blocklist.is_empty()
        && config.health.targets.iter().all(is_routable)
}

/// Where the lists forbid the configured resolvers, single hosts that they allow by name are asked.
fn targets_of(
    config: &Config,
    site: &Site,
    evaluator: &PolicyEvaluator<'_>,
    network: Ipv4Net,
) -> Result<Vec<Target>, String> {
    let is_allowed = |target: &Target| {
        // The lists do not look at sources: any host of the network stands for all.
        let flow = first_packet(network.broadcast(), *target);
        evaluator.permission(&flow) == Permission::Egress
    };
    let resolvers = config.health.targets.iter().copied().map(Target::Dns);
    let targets: Vec<Target> = resolvers.filter(is_allowed).collect();
    if !targets.is_empty() {
        return Ok(targets);
    }
    let lines = lists_of(config, site, network).allow.iter().flatten();
    let targets: Vec<Target> = lines.flat_map(single_hosts).filter(is_allowed).take(MAX_ALLOWED).collect();
    if targets.is_empty() {
        return Err(
            "the egress lists allow no resolver of health.targets and no single host that could be asked".to_owned()
        );
    }
    Ok(targets)
}

/// What a line of an `allow` list lets hosts ask a single destination.
fn single_hosts(line: &Acl) -> impl Iterator<Item = Target> + '_ {
    let port = line.ports.iter().map(|ports| ports.first).next();
    let target = move |address: Ipv4Addr| match (line.protocol, port) {
        (Protocol::Udp, Some(DNS_PORT)) | (Protocol::Any, None) => {
            Some(Target::Dns(SocketAddrV4::new(address, DNS_PORT)))
        }
        (Protocol::Tcp, Some(port)) => Some(Target::Tcp(SocketAddrV4::new(address, port))),
        _ => None,
    };
    let hosts = line.to.iter().filter(|range| range.prefix_len() == 32);
    hosts.filter_map(move |range| target(range.addr()))
}

/// The flow that asking the target opens.
fn first_packet(source: Ipv4Addr, target: Target) -> Flow {
    let original = tuple(SocketAddrV4::new(source, 40_000), target);
    let Layer4::Ports { source: from, destination: to } = original.layer4 else { unreachable!("both have ports") };
    let reply = Tuple {
        source: original.destination,
        destination: original.source,
        layer4: Layer4::Ports { source: to, destination: from },
        ..original
    };
    Flow { original, reply, status: Status::default(), mark: 0, id: None, zone: 0 }
}

/// The first packet to the target, as connection tracking sees it.
pub(super) fn tuple(source: SocketAddrV4, target: Target) -> Tuple {
    let protocol = match target {
        Target::Dns(_) => 17,
        Target::Tcp(_) => 6,
    };
    let address = target.address();
    Tuple {
        source: *source.ip(),
        destination: *address.ip(),
        protocol,
        layer4: Layer4::Ports { source: source.port(), destination: address.port() },
        zone: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use crate::site::{PrivateLink, PublicLink};

    fn site() -> Site {
        let public = PublicLink::example("eth0", &["198.51.100.2"]);
        let private = PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16");
        Site { public: Some(public), private: vec![private], ..Site::default() }
    }

    fn targets_of(config: &str) -> Result<Vec<String>, String> {
        let config = config::parse(config, &Environment::default()).unwrap();
        let network = "10.0.0.0/16".parse().unwrap();
        let targets = targets(&config, &site(), None, [network]).remove(&network).unwrap();
        targets.map(|targets| targets.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn hetzners_resolvers_are_asked_unless_others_are_named() {
        assert_eq!(targets_of("").unwrap(), ["185.12.64.1", "185.12.64.2"]);
        let named = "[health]\ntargets = [\"203.0.113.10:5353\", \"203.0.113.11\"]\n";
        assert_eq!(targets_of(named).unwrap(), ["203.0.113.10:5353", "203.0.113.11"]);
    }

    #[test]
    fn what_the_lists_forbid_is_not_asked() {
        let one = "[egress]\ndeny = [{ to = [\"185.12.64.1\"] }]\n";
        assert_eq!(targets_of(one).unwrap(), ["185.12.64.2"]);
        let blocked = "[firewall]\nblocklist = [\"185.12.64.1\"]\n";
        assert_eq!(targets_of(blocked).unwrap(), ["185.12.64.2"]);
    }

    #[test]
    fn where_no_resolver_is_allowed_the_allowed_hosts_are_asked() {
        let allow = "[egress]\nallow = [{ to = [\"203.0.113.10\"], protocol = \"tcp\", ports = [443] }]\n";
        assert_eq!(targets_of(allow).unwrap(), ["203.0.113.10:443/tcp"]);
        let resolver = "[egress]\nallow = [{ to = [\"203.0.113.53\"], protocol = \"udp\", ports = [53] }]\n";
        assert_eq!(targets_of(resolver).unwrap(), ["203.0.113.53"]);
    }

    #[test]
    fn lists_that_allow_no_single_host_are_a_reason_to_ask_nobody() {
        for list in ["allow = []", "allow = [{ to = [\"203.0.113.0/24\"], protocol = \"tcp\", ports = [443] }]"] {
            let refused = targets_of(&format!("[egress]\n{list}\n")).unwrap_err();
            assert!(refused.contains("health.targets"), "{refused}");
        }
    }
}
