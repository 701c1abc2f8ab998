//! What of the configuration this server cannot do, by the keys it is written under.
//!
//! The file alone does not tell: networks are discovered, and a floating IP may be assigned a minute later. So these
//! are problems of the gateway, not of the file: what they are about is left out, and the rest works.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use crate::config::Config;
use crate::hetzner::unroutable;
use crate::inputs::{Tunnel, is_reserved};
use crate::net::{overlap, v4};
use crate::outcome::Problem;
use crate::site::{PrivateLink, Site, is_reachable_inside};

/// All of them, in the order of the file. None while the site is not known: then nothing can be said.
pub(super) fn site_conflicts(config: &Config, site: &Site) -> Vec<Problem> {
    let mut found = site.conflicts.clone();
    if !site.private.is_empty() {
        check_hosts(config, site, &mut found);
    }
    if site.public.as_ref().is_some_and(|public| !public.addresses.is_empty()) {
        check_addresses(config, site, &mut found);
    }
    found
}

/// Sources of the bastion's own services, and of forwards, that no link can deliver: private ranges of nobody here.
pub(super) fn unreachable_sources(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Vec<Problem> {
    let Some(public) = site.public.as_ref().filter(|_| !site.private.is_empty()) else { return Vec::new() };
    let in_tunnel: Vec<IpNet> = tunnel.into_iter().flat_map(Tunnel::sources).collect();
    let unroutable = unroutable(&public.addresses);
    // A list may name all private ranges at once: then one of them that exists is enough.
    let report = |key: String, sources: &[Ipv4Net]| -> Vec<Problem> {
        let is_private = |range: &&Ipv4Net| unroutable.iter().any(|block| block.contains(*range));
        let is_missing = |range: &&Ipv4Net| !is_reachable_inside(site, &in_tunnel, **range);
        let is_whole_block = |range: &&Ipv4Net| unroutable.contains(range);
        let missing = sources.iter().filter(is_private).filter(is_missing).filter(|range| !is_whole_block(range));
        let hint = |range: &Ipv4Net| {
            let what = format!("{key}: {range} is private, and no link of this server delivers packets from there");
            let advice = "if it is behind a private network, its route in the Hetzner Network makes it known, or \
                          `also` in [[network]] or [[site.private]]; else remove it";
            Problem::new("source-undeliverable", what, advice)
        };
        missing.map(hint).collect()
    };
    let mut found = report("firewall.ssh_from".to_owned(), &v4(config.firewall.ssh_from.iter().copied()));
    for service in &config.firewall.services {
        found.extend(report(format!("{}.from", service.key), &v4(service.from.iter().copied())));
    }
    for forward in &config.nat.forwards {
        found.extend(report(format!("{}.from", forward.key), &forward.from));
    }
    found
}

/// Finds hosts and ranges that are in no network of this server.
fn check_hosts(config: &Config, site: &Site, found: &mut Vec<Problem>) {
    let networks: Vec<String> =
        site.private.iter().flat_map(PrivateLink::ranges).map(|range| range.to_string()).collect();
    let served = networks.join(", ");
    let outside = |key: String, host: Ipv4Addr, what: &str| {
        let inside = site.private.iter().any(|link| link.serves(host));
        let text = || format!("{key}: {host} is in no private network of this server, so {what}");
        (!inside).then(|| Problem::new("host-in-no-network", text(), format!("name a host of {served}")))
    };
    let own = |key: String, host: Ipv4Addr| {
        let is_own = site.private.iter().any(|link| link.holds(host));
        let text = || format!("{key}: {host} is this server itself");
        (is_own).then(|| {
            Problem::new("host-is-this-server", text(), "open a service of this server with [[firewall.service]]")
        })
    };
    for forward in &config.nat.forwards {
        let key = || format!("{}.to", forward.label());
        found.extend(outside(key(), forward.to, "nothing is forwarded to it").or_else(|| own(key(), forward.to)));
    }
    for entry in &config.nat.statics {
        let key = || format!("{}.private", entry.label());
        let what = "it does not get the public address";
        found.extend(outside(key(), entry.private, what).or_else(|| own(key(), entry.private)));
    }
    for policy in &config.networks {
        let Some(range) = policy.network.range() else { continue };
        if site.private.iter().all(|link| link.network != range) {
            let what = format!("{}.range: {range} is no private network of this server", policy.key);
            found.push(Problem::new(
                "range-in-no-network",
                what,
                format!("its networks are {served}; write the whole range"),
            ));
        }
    }
    let apart =
        |range: &Ipv4Net| site.private.iter().flat_map(PrivateLink::ranges).all(|served| !overlap(served, *range));
    for (index, line) in config.tenants.iter().enumerate() {
        for (side, ranges) in [("from", &line.from), ("to", &line.to)] {
            found.extend(ranges.iter().filter(|range| apart(range)).map(|range| {
                let what = format!("tenants.allow[{index}].{side}: {range} is in no private network of this server");
                Problem::new("range-in-no-network", what, format!("its networks are {served}"))
            }));
        }
    }
}

/// Finds public addresses that this server does not have, and ports that it needs itself.
fn check_addresses(config: &Config, site: &Site, found: &mut Vec<Problem>) {
    let Some(public) = &site.public else { return };
    let missing = |found: &mut Vec<Problem>, key: String, address: Ipv4Addr, what: &str| {
        if !public.addresses.contains(&address) {
            let text = format!("{key}: {} does not have {address}, so {what}", public.interface);
            let advice = format!(
                "assign it to this server (a floating IP in the cloud) and configure it: ip addr add {address}/32 \
                 dev {}",
                public.interface
            );
            found.push(Problem::new("address-missing", text, advice));
        }
    };
    for (index, address) in config.nat.egress_addresses.iter().enumerate() {
        missing(found, format!("nat.egress_addresses[{index}]"), *address, "no flow leaves under it");
    }
    for policy in &config.networks {
        for (index, address) in policy.egress_addresses.iter().flatten().enumerate() {
            missing(found, format!("{}.egress_addresses[{index}]", policy.key), *address, "no flow leaves under it");
        }
        for entry in &policy.egress {
            for (index, address) in entry.addresses.iter().enumerate() {
                missing(found, format!("{}.addresses[{index}]", entry.key), *address, "no flow leaves under it");
            }
        }
    }
    for entry in &config.nat.statics {
        missing(
            found,
            format!("{}.public", entry.label()),
            entry.public,
            "it is used only if packets for it come here all the same",
        );
    }
    for entry in config.nat.statics.iter().filter(|entry| site.own_address() == Some(entry.public)) {
        let what = format!(
            "{}.public: {} is this server's own first address, so it does not become a host's",
            entry.label(),
            entry.public
        );
        found.push(Problem::new(
            "static-own-address",
            what,
            "forward single ports of it to a private host with [[nat.forward]]",
        ));
    }
    for forward in &config.nat.forwards {
        let wanted = if forward.public.is_empty() { &public.addresses } else { &forward.public };
        if let Some(address) = wanted.iter().find(|address| is_reserved(forward, **address, config, site)) {
            let what = format!(
                "{}.port: this server itself needs {} of {address}, for SSH or the tunnel",
                forward.label(),
                forward.ports
            );
            found.push(Problem::new("forward-port-reserved", what, "choose another port, or another public address"));
        }
        for (index, address) in forward.public.iter().enumerate() {
            let what = "it is used only if packets for it come here all the same";
            missing(found, format!("{}.public[{index}]", forward.label()), *address, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::desired;
    use super::super::tests::{config, one_network};
    use super::*;

    fn texts_of(text: &str) -> Vec<String> {
        site_conflicts(&config(text), &one_network()).into_iter().map(|problem| problem.what).collect()
    }

    #[test]
    fn everything_that_this_server_does_not_have_is_reported_at_once() {
        let text = r#"
            tenants.allow = [{ from = ["10.0.0.0/16"], to = ["10.9.0.0/16"] }]
            [nat]
            egress_addresses = ["203.0.113.50"]
            [[nat.forward]]
            port = 443
            to = "10.7.0.4"
            public = ["203.0.113.51"]
            [[nat.forward]]
            port = 444
            to = "10.0.0.2"
            [[nat.static]]
            public = "203.0.113.52"
            private = "10.7.0.5"
            [[nat.static]]
            public = "198.51.100.2"
            private = "10.0.0.6"
            [[network]]
            range = "10.0.0.0/24"
            egress_addresses = ["203.0.113.53"]
        "#;
        assert_eq!(
            texts_of(text),
            [
                "nat.forward[0].to: 10.7.0.4 is in no private network of this server, so nothing is forwarded to it",
                "nat.forward[1].to: 10.0.0.2 is this server itself",
                "nat.static[0].private: 10.7.0.5 is in no private network of this server, so it does not get the \
                 public \
                 address",
                "network[0].range: 10.0.0.0/24 is no private network of this server",
                "tenants.allow[0].to: 10.9.0.0/16 is in no private network of this server",
                "nat.egress_addresses[0]: eth0 does not have 203.0.113.50, so no flow leaves under it",
                "network[0].egress_addresses[0]: eth0 does not have 203.0.113.53, so no flow leaves under it",
                "nat.static[0].public: eth0 does not have 203.0.113.52, so it is used only if packets for it come \
                 here all \
                 the same",
                "nat.static[1].public: 198.51.100.2 is this server's own first address, so it does not become a host's",
                "nat.forward[0].public[0]: eth0 does not have 203.0.113.51, so it is used only if packets for it \
                 come here \
                 all the same",
            ]
        );
        assert_eq!(site_conflicts(&config(text), &Site::default()), []);
    }

    #[test]
    fn ports_that_the_bastion_needs_itself_are_not_forwarded() {
        let text = r#"
            [[nat.forward]]
            port = 2222
            to = "10.0.0.4"
            [[nat.forward]]
            port = "51000-52000"
            protocol = "udp"
            public = ["198.51.100.2"]
            to = "10.0.0.4"
        "#;
        let site = Site { sshd_ports: [2222].into(), ..one_network() };
        let texts: Vec<String> = site_conflicts(&config(text), &site).into_iter().map(|problem| problem.what).collect();
        assert_eq!(
            texts,
            [
                "nat.forward[0].port: this server itself needs 2222 of 198.51.100.2, for SSH or the tunnel",
                "nat.forward[1].port: this server itself needs 51000-52000 of 198.51.100.2, for SSH or the tunnel",
            ]
        );
        let rules = desired::desired(&config(text), &site, None, desired::Machine::default());
        let empty = |name: &str| rules.sets.iter().find(|set| set.name == name).unwrap().elements.is_empty();
        assert!(empty("forwards") && empty("forward_ranges"));
    }

    #[test]
    fn what_this_server_has_is_no_conflict() {
        let text = r#"
            [nat]
            egress_addresses = ["198.51.100.2"]
            [[nat.forward]]
            port = 443
            to = "10.0.0.4"
            [[network]]
            range = "10.0.0.0/16"
        "#;
        assert_eq!(texts_of(text), Vec::<String>::new());
    }
}
