//! The changes of resources that actions make.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::ids::{FloatingIpId, NetworkId, ResourceId, ServerId};
use super::refusal::Refusal;
use super::resources::{Attachment, Resources, Route, Subnet};
use super::{attachments, routes, subnets};

/// A requested change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    AddRoute { network: NetworkId, route: Route },
    DeleteRoute { network: NetworkId, route: Route },
    AddSubnet { network: NetworkId, subnet: Subnet },
    DeleteSubnet { network: NetworkId, ip_range: Ipv4Net },
    ExtendIpRange { network: NetworkId, ip_range: Ipv4Net },
    Protect { network: NetworkId, delete: bool },
    Attach { server: ServerId, attachment: Attachment },
    Detach { server: ServerId, network: NetworkId },
    SetAliasIps { server: ServerId, network: NetworkId, alias_ips: Vec<Ipv4Addr> },
    AssignFloatingIp { floating_ip: FloatingIpId, server: ServerId },
    UnassignFloatingIp { floating_ip: FloatingIpId },
}

impl Change {
    /// The action's `command`.
    pub(crate) fn command(&self) -> &'static str {
        match self {
            Self::AddRoute { .. } => "add_route",
            Self::DeleteRoute { .. } => "delete_route",
            Self::AddSubnet { .. } => "add_subnet",
            Self::DeleteSubnet { .. } => "delete_subnet",
            Self::ExtendIpRange { .. } => "change_ip_range",
            Self::Protect { .. } => "change_protection",
            Self::Attach { .. } => "attach_to_network",
            Self::Detach { .. } => "detach_from_network",
            Self::SetAliasIps { .. } => "change_alias_ips",
            Self::AssignFloatingIp { .. } => "assign_floating_ip",
            Self::UnassignFloatingIp { .. } => "unassign_floating_ip",
        }
    }

    /// The action's `resources`, a server before the other one, as in the documentation's examples.
    pub(crate) fn resources(&self, resources: &Resources) -> Vec<ResourceId> {
        match *self {
            Self::AddRoute { network, .. }
            | Self::DeleteRoute { network, .. }
            | Self::AddSubnet { network, .. }
            | Self::DeleteSubnet { network, .. }
            | Self::ExtendIpRange { network, .. }
            | Self::Protect { network, .. } => vec![ResourceId::Network(network)],
            Self::Attach { server, attachment: Attachment { network, .. } }
            | Self::Detach { server, network }
            | Self::SetAliasIps { server, network, .. } => {
                vec![ResourceId::Server(server), ResourceId::Network(network)]
            }
            Self::AssignFloatingIp { floating_ip, server } => {
                vec![ResourceId::Server(server), ResourceId::FloatingIp(floating_ip)]
            }
            Self::UnassignFloatingIp { floating_ip } => {
                let server = resources.floating_ips.get(&floating_ip).and_then(|ip| ip.server);
                server.map(ResourceId::Server).into_iter().chain([ResourceId::FloatingIp(floating_ip)]).collect()
            }
        }
    }

    /// The resources that are locked while the action runs: all that it names. That attaching a server and changing its
    /// alias IPs also lock the network is the stricter reading of the documentation; terraform-provider-hcloud reports
    /// `conflict` there. Moving a floating IP does not lock its servers.
    pub(crate) fn locks(&self) -> Vec<ResourceId> {
        match *self {
            Self::AssignFloatingIp { floating_ip, .. } | Self::UnassignFloatingIp { floating_ip } => {
                vec![ResourceId::FloatingIp(floating_ip)]
            }
            _ => self.resources(&Resources::default()),
        }
    }

    /// Makes the change. On an error, which names the rule that forbids it, the resources are unchanged.
    pub(crate) fn apply(&self, resources: &mut Resources) -> Result<(), Refusal> {
        match self {
            Self::AddRoute { network, route } => {
                let network = resources.network_mut(*network)?;
                routes::check(network, route)?;
                network.routes.push(*route);
            }
            Self::DeleteRoute { network, route } => {
                let routes = &mut resources.network_mut(*network)?.routes;
                let held = routes.iter().position(|held| held == route).ok_or(Refusal::RouteAbsent)?;
                routes.remove(held);
            }
            Self::AddSubnet { network, subnet } => {
                let network = resources.network_mut(*network)?;
                subnets::check(network, subnet)?;
                network.subnets.push(subnet.clone());
            }
            Self::DeleteSubnet { network, ip_range } => {
                let held = resources.network(*network)?.subnets.iter().position(|subnet| subnet.ip_range == *ip_range);
                let held = held.ok_or(Refusal::SubnetAbsent)?;
                if resources.members(*network).any(|(_, member)| member.is_in(*ip_range)) {
                    return Err(Refusal::SubnetInUse(*ip_range));
                }
                resources.network_mut(*network)?.subnets.remove(held);
            }
            Self::ExtendIpRange { network, ip_range } => {
                let network = resources.network_mut(*network)?;
                subnets::check_extension(network, *ip_range)?;
                network.ip_range = *ip_range;
            }
            Self::Protect { network, delete } => {
                resources.network_mut(*network)?.delete_protection = *delete;
            }
            Self::Attach { server, attachment } => {
                attachments::check(resources, resources.server(*server)?, attachment)?;
                resources.server_mut(*server)?.attachments.push(attachment.clone());
            }
            Self::Detach { server, network } => {
                let attachments = &mut resources.server_mut(*server)?.attachments;
                let held = attachments.iter().position(|held| held.network == *network);
                attachments.remove(held.ok_or(Refusal::NotAttached)?);
            }
            Self::SetAliasIps { server, network, alias_ips } => {
                let held = resources.server(*server)?.attachment(*network).ok_or(Refusal::NotAttached)?;
                let wanted = Attachment { alias_ips: alias_ips.clone(), ..held.clone() };
                attachments::check_aliases(resources, *server, &wanted)?;
                let held = resources.server_mut(*server)?.attachment_mut(*network).ok_or(Refusal::NotAttached)?;
                *held = wanted;
            }
            Self::AssignFloatingIp { floating_ip, server } => {
                let server = resources.server(*server)?.id;
                let floating_ip = resources.floating_ip_mut(*floating_ip)?;
                // The documentation does not say which server it means. A move from another server is allowed "at any
                // time" (hcloud-fip-controller does so), which leaves the same server.
                if floating_ip.server == Some(server) {
                    return Err(Refusal::FloatingIpAssigned);
                }
                floating_ip.server = Some(server);
            }
            Self::UnassignFloatingIp { floating_ip } => {
                let floating_ip = resources.floating_ip_mut(*floating_ip)?;
                floating_ip.server.take().ok_or(Refusal::FloatingIpUnassigned)?;
            }
        }
        Ok(())
    }
}

impl Attachment {
    fn is_in(&self, range: Ipv4Net) -> bool {
        range.contains(&self.ip) || self.alias_ips.iter().any(|alias| range.contains(alias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::model::samples::{network, resources, route, server};

    const NETWORK: NetworkId = NetworkId(1);

    fn sample() -> Resources {
        let mut network = network("10.0.0.0/16", &["10.0.0.0/24", "10.0.1.0/24"]);
        network.routes = vec![route("0.0.0.0/0 via 10.0.0.2"), route("10.8.0.0/24 via 10.0.0.10")];
        resources(network, [server(1, "10.0.0.2", &["10.0.0.10"]), server(2, "10.0.0.3", &[])])
    }

    fn refusal_of(change: &Change) -> Refusal {
        let mut resources = sample();
        let refusal = change.apply(&mut resources).unwrap_err();
        assert_eq!(resources, sample(), "a refused change leaves the resources unchanged");
        refusal
    }

    #[test]
    fn a_route_by_an_alias_ip_is_a_route_like_any_other() {
        let mut resources = sample();
        let change = Change::AddRoute { network: NETWORK, route: route("10.9.0.0/24 via 10.0.0.10") };
        assert_eq!(change.apply(&mut resources), Ok(()));
        let expected = ["0.0.0.0/0 via 10.0.0.2", "10.8.0.0/24 via 10.0.0.10", "10.9.0.0/24 via 10.0.0.10"];
        assert_eq!(resources.networks[&NETWORK].routes, expected.map(route));
    }

    #[test]
    fn a_route_is_deleted_by_destination_and_gateway_together() {
        let delete = |written: &str| Change::DeleteRoute { network: NETWORK, route: route(written) };
        let mut resources = sample();
        assert_eq!(delete("0.0.0.0/0 via 10.0.0.2").apply(&mut resources), Ok(()));
        assert_eq!(resources.networks[&NETWORK].routes, [route("10.8.0.0/24 via 10.0.0.10")]);
        assert_eq!(refusal_of(&delete("0.0.0.0/0 via 10.0.0.3")), Refusal::RouteAbsent);
        assert_eq!(refusal_of(&delete("10.8.0.0/25 via 10.0.0.10")), Refusal::RouteAbsent);
    }

    #[test]
    fn a_subnet_with_servers_cannot_be_deleted() {
        let delete = |range: &str| Change::DeleteSubnet { network: NETWORK, ip_range: range.parse().unwrap() };
        let in_use = Refusal::SubnetInUse("10.0.0.0/24".parse().unwrap());
        assert_eq!(refusal_of(&delete("10.0.0.0/24")), in_use);
        assert_eq!(refusal_of(&delete("10.0.2.0/24")), Refusal::SubnetAbsent);
        let mut resources = sample();
        assert_eq!(delete("10.0.1.0/24").apply(&mut resources), Ok(()));
        assert_eq!(resources.networks[&NETWORK].subnets, network("10.0.0.0/16", &["10.0.0.0/24"]).subnets);
    }

    #[test]
    fn new_alias_ips_replace_the_old_ones() {
        let change = |server: u64, alias_ips: &[&str]| Change::SetAliasIps {
            server: ServerId(server),
            network: NETWORK,
            alias_ips: alias_ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        };
        let aliases = |resources: &Resources, server: u64| {
            resources.servers[&ServerId(server)].attachments[0]
                .alias_ips
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let mut resources = sample();
        assert_eq!(change(1, &["10.0.0.11", "10.0.0.12"]).apply(&mut resources), Ok(()));
        assert_eq!(aliases(&resources, 1), ["10.0.0.11", "10.0.0.12"]);

        // To move an alias IP, remove it from the old server first.
        let held = Refusal::IpUnavailable("10.0.0.11".parse().unwrap());
        assert_eq!(change(2, &["10.0.0.11"]).apply(&mut resources), Err(held));
        assert_eq!(change(1, &[]).apply(&mut resources), Ok(()));
        assert_eq!(change(2, &["10.0.0.11"]).apply(&mut resources), Ok(()));
        assert_eq!((aliases(&resources, 1), aliases(&resources, 2)), (vec![], vec!["10.0.0.11".to_owned()]));
    }

    #[test]
    fn a_server_that_is_not_attached_cannot_be_detached_or_get_alias_ips() {
        let (server, network) = (ServerId(2), NetworkId(7));
        assert_eq!(refusal_of(&Change::Detach { server, network }), Refusal::NotAttached);
        assert_eq!(refusal_of(&Change::SetAliasIps { server, network, alias_ips: vec![] }), Refusal::NotAttached);
        let absent = Refusal::Absent { kind: "server", id: 9 };
        assert_eq!(refusal_of(&Change::Detach { server: ServerId(9), network: NETWORK }), absent);
    }

    #[test]
    fn actions_name_the_server_before_the_network() {
        let resources = sample();
        let both = [ResourceId::Server(ServerId(1)), ResourceId::Network(NETWORK)];
        let detach = Change::Detach { server: ServerId(1), network: NETWORK };
        assert_eq!(detach.resources(&resources), both);
        assert_eq!(detach.locks(), both);
        let add = Change::AddRoute { network: NETWORK, route: route("0.0.0.0/0 via 10.0.0.2") };
        assert_eq!(add.resources(&resources), [ResourceId::Network(NETWORK)]);
    }
}
