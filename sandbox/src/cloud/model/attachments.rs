//! The rules about servers in networks and their addresses, by the Hetzner API documentation of `attach_to_network` and
//! `change_alias_ips`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::ids::{NetworkId, ServerId};
use super::refusal::Refusal;
use super::resources::{Attachment, Network, Resources, Server, SubnetKind};
use super::routes::is_overlapping;

/// Networks per server (kube-hetzner's validations).
const MAX_NETWORKS: usize = 3;

/// Attached resources per network (Hetzner documentation, networks FAQ).
const MAX_MEMBERS: usize = 100;

/// Checks whether the server may be attached like this.
pub(crate) fn check(resources: &Resources, server: &Server, wanted: &Attachment) -> Result<(), Refusal> {
    let network = resources.network(wanted.network)?;
    if server.attachment(network.id).is_some() {
        return Err(Refusal::AlreadyAttached);
    }
    let others = server.attachments.iter().filter_map(|other| resources.networks.get(&other.network));
    if others.into_iter().any(|other| is_overlapping(other.ip_range, network.ip_range)) {
        return Err(Refusal::NetworksOverlap);
    }
    if server.attachments.len() >= MAX_NETWORKS {
        return Err(Refusal::TooManyNetworks);
    }
    if resources.members(network.id).count() >= MAX_MEMBERS {
        return Err(Refusal::TooManyMembers);
    }
    check_available(resources, network, wanted.ip, None)?;
    check_aliases(resources, server.id, wanted)
}

/// Checks new alias IPs of a server: each must be free or already its own. An alias IP of another server must be
/// removed from that one first. The error for it is not documented; `ip_not_available` is the error for an address in
/// use.
pub(crate) fn check_aliases(resources: &Resources, server: ServerId, wanted: &Attachment) -> Result<(), Refusal> {
    let network = resources.network(wanted.network)?;
    let mut seen = BTreeSet::from([wanted.ip]);
    for &alias in &wanted.alias_ips {
        if !seen.insert(alias) {
            return Err(Refusal::AliasTwice(alias));
        }
        check_available(resources, network, alias, Some(server))?;
    }
    Ok(())
}

/// The address of a server without a given one: the lowest free address of a cloud subnet, or of the subnet `only`.
pub(crate) fn first_free(resources: &Resources, network: &Network, only: Option<Ipv4Net>) -> Result<Ipv4Addr, Refusal> {
    let in_use = addresses(resources, network.id, None);
    let subnets = network.subnets.iter().filter(|subnet| !matches!(subnet.kind, SubnetKind::Vswitch { .. }));
    subnets
        .filter(|subnet| only.is_none_or(|only| only == subnet.ip_range))
        .flat_map(|subnet| subnet.ip_range.hosts())
        .find(|ip| *ip != network.gateway() && !in_use.contains(ip))
        .ok_or(Refusal::NoSubnetAvailable)
}

fn check_available(
    resources: &Resources,
    network: &Network,
    ip: Ipv4Addr,
    holder: Option<ServerId>,
) -> Result<(), Refusal> {
    let Some(subnet) = network.subnet_of(ip) else { return Err(Refusal::IpUnavailable(ip)) };
    let reserved = [network.gateway(), subnet.ip_range.network(), subnet.ip_range.broadcast()].contains(&ip);
    if reserved || addresses(resources, network.id, holder).contains(&ip) {
        return Err(Refusal::IpUnavailable(ip));
    }
    Ok(())
}

/// The addresses in use in a network, without the alias IPs of the server `except`.
fn addresses(resources: &Resources, network: NetworkId, except: Option<ServerId>) -> BTreeSet<Ipv4Addr> {
    let addresses_of = |(server, attachment): (&Server, &Attachment)| {
        let aliases = if except == Some(server.id) { Vec::new() } else { attachment.alias_ips.clone() };
        aliases.into_iter().chain([attachment.ip]).collect::<Vec<_>>()
    };
    resources.members(network).flat_map(addresses_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::model::samples::{network, resources, server};

    fn sample() -> Resources {
        resources(
            network("10.0.0.0/16", &["10.0.0.0/24", "10.0.1.0/29"]),
            [server(1, "10.0.0.2", &["10.0.0.10"]), server(2, "10.0.0.3", &[])],
        )
    }

    fn unattached(id: u64) -> Server {
        Server { attachments: Vec::new(), ..server(id, "10.0.0.9", &[]) }
    }

    fn attachment(ip: &str, alias_ips: &[&str]) -> Attachment {
        server(9, ip, alias_ips).attachments.remove(0)
    }

    fn unavailable(ip: &str) -> Result<(), Refusal> {
        Err(Refusal::IpUnavailable(ip.parse().unwrap()))
    }

    #[test]
    fn a_server_takes_a_free_address_of_a_subnet() {
        let resources = sample();
        let attach = |ip: &str, aliases: &[&str]| check(&resources, &unattached(9), &attachment(ip, aliases));
        assert_eq!(attach("10.0.0.4", &["10.0.0.5", "10.0.1.2"]), Ok(()));
        assert_eq!(attach("10.0.0.2", &[]), unavailable("10.0.0.2")); // a server's address
        assert_eq!(attach("10.0.0.10", &[]), unavailable("10.0.0.10")); // a server's alias
        assert_eq!(attach("10.0.0.1", &[]), unavailable("10.0.0.1")); // the gateway
        assert_eq!(attach("10.0.0.255", &[]), unavailable("10.0.0.255"));
        assert_eq!(attach("10.0.1.0", &[]), unavailable("10.0.1.0"));
        assert_eq!(attach("10.0.2.2", &[]), unavailable("10.0.2.2")); // in no subnet
        assert_eq!(attach("10.0.0.4", &["10.0.0.3"]), unavailable("10.0.0.3"));
    }

    #[test]
    fn a_server_is_in_a_network_once() {
        let resources = sample();
        let again = check(&resources, &resources.servers[&ServerId(1)], &attachment("10.0.0.4", &[]));
        assert_eq!(again, Err(Refusal::AlreadyAttached));
    }

    #[test]
    fn the_networks_of_a_server_do_not_overlap_and_are_three_at_most() {
        let mut resources = sample();
        let mut crowded = unattached(9);
        for (id, range) in [(2, "10.0.0.0/8"), (3, "192.168.0.0/24"), (4, "192.168.1.0/24")] {
            let id = NetworkId(id);
            resources.networks.insert(id, Network { id, ..network(range, &[]) });
            crowded.attachments.push(Attachment { network: id, ..attachment("10.0.0.9", &[]) });
        }
        assert_eq!(check(&resources, &crowded, &attachment("10.0.0.4", &[])), Err(Refusal::NetworksOverlap));
        resources.network_mut(NetworkId(2)).unwrap().ip_range = "10.7.0.0/16".parse().unwrap();
        assert_eq!(check(&resources, &crowded, &attachment("10.0.0.4", &[])), Err(Refusal::TooManyNetworks));
    }

    #[test]
    fn a_network_has_a_hundred_members() {
        let mut resources = resources(network("10.0.0.0/16", &["10.0.0.0/24"]), []);
        for id in 2..=101 {
            let next = unattached(id);
            let wanted = attachment(&format!("10.0.0.{id}"), &[]);
            assert_eq!(check(&resources, &next, &wanted), Ok(()));
            resources.servers.insert(next.id, Server { attachments: vec![wanted], ..next });
        }
        assert_eq!(check(&resources, &unattached(200), &attachment("10.0.0.200", &[])), Err(Refusal::TooManyMembers));
    }

    #[test]
    fn aliases_are_free_or_already_the_servers_own() {
        let resources = sample();
        let change =
            |id: u64, own: &str, aliases: &[&str]| check_aliases(&resources, ServerId(id), &attachment(own, aliases));
        assert_eq!(change(1, "10.0.0.2", &["10.0.0.10", "10.0.0.11"]), Ok(()));
        assert_eq!(change(1, "10.0.0.2", &[]), Ok(()));
        assert_eq!(change(2, "10.0.0.3", &["10.0.0.10"]), unavailable("10.0.0.10"));
        assert_eq!(change(2, "10.0.0.3", &["10.0.0.2"]), unavailable("10.0.0.2"));
        let twice = Err(Refusal::AliasTwice("10.0.0.12".parse().unwrap()));
        assert_eq!(change(2, "10.0.0.3", &["10.0.0.12", "10.0.0.12"]), twice);
        let own = Err(Refusal::AliasTwice("10.0.0.3".parse().unwrap()));
        assert_eq!(change(2, "10.0.0.3", &["10.0.0.3"]), own);
    }

    #[test]
    fn a_server_without_a_given_address_gets_the_lowest_free_one() {
        let mut resources = sample();
        let network = resources.networks[&NetworkId(1)].clone();
        assert_eq!(first_free(&resources, &network, None), Ok("10.0.0.4".parse().unwrap()));
        resources.servers.insert(ServerId(3), server(3, "10.0.0.4", &["10.0.0.5"]));
        assert_eq!(first_free(&resources, &network, None), Ok("10.0.0.6".parse().unwrap()));
        let second = Some("10.0.1.0/29".parse().unwrap());
        assert_eq!(first_free(&resources, &network, second), Ok("10.0.1.1".parse().unwrap()));
        let nowhere = Some("10.0.2.0/24".parse().unwrap());
        assert_eq!(first_free(&resources, &network, nowhere), Err(Refusal::NoSubnetAvailable));
        let bare = Network { subnets: Vec::new(), ..network };
        assert_eq!(first_free(&resources, &bare, None), Err(Refusal::NoSubnetAvailable));
    }
}
