//! Writes a configuration as a file.

use std::fmt::Display;

use super::super::*;

fn quoted(text: impl Display) -> String {
    format!("\"{text}\"")
}

fn or_auto(text: Option<impl Display>) -> String {
    text.map_or_else(|| quoted("auto"), |text| text.to_string())
}

fn or_false(number: Option<impl Display>) -> String {
    number.map_or_else(|| "false".to_owned(), |number| number.to_string())
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    format!("[{}]", items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", "))
}

/// A list whose absence means "any" or "everyone".
fn unless_empty<T>(key: &str, items: &[T], shown: impl Fn(&T) -> String) -> Option<String> {
    (!items.is_empty()).then(|| format!("{key} = {}", list(items.iter().map(shown))))
}

fn in_quotes<T: Display>(item: &T) -> String {
    quoted(item)
}

/// The file with every key of the configuration.
pub(super) fn written(config: &Config) -> String {
    let Config { log, site, nat, egress, networks, tenants, firewall, hcloud, health, wireguard, hosts, warnings: _ } =
        config;
    let mut lines = vec![
        "[log]".to_owned(),
        format!("level = {}", quoted(log.level).to_lowercase()),
        "[hcloud]".to_owned(),
        format!("enabled = {}", hcloud.enabled),
        format!("endpoint = {}", quoted(&hcloud.endpoint)),
        format!("token_file = {}", quoted(hcloud.token.files[0].display())),
        format!("destinations = {}", list(hcloud.destinations.iter().map(quoted))),
        format!("take_over = {}", hcloud.take_over),
        format!("poll_interval = {}", quoted(humantime::format_duration(hcloud.poll_interval))),
        "[health]".to_owned(),
        format!("enabled = {}", health.enabled),
        format!("targets = {}", list(health.targets.iter().map(quoted))),
        "[site]".to_owned(),
        format!("public_interface = {}", or_auto(site.public_interface.as_ref().map(quoted))),
        format!("server_id = {}", or_auto(site.server_id)),
        format!("metadata_endpoint = {}", quoted(&site.metadata_endpoint)),
        format!("docker = {}", written_docker(site.docker)),
    ];
    for link in &site.private {
        lines.push("[[site.private]]".to_owned());
        lines.push(format!("interface = {}", quoted(&link.interface)));
        lines.push(format!("network = {}", quoted(link.network)));
        lines.push(format!("address = {}", or_auto(link.address.map(quoted))));
        lines.extend(link.network_id.map(|id| format!("network_id = {id}")));
        lines.push(format!("also = {}", list(link.also.iter().map(quoted))));
    }
    lines.extend(written_nat(nat));
    lines.extend([
        "[egress]".to_owned(),
        format!("guard = {}", egress.guard),
        format!("new_flows_per_second = {}", or_false(egress.new_flows_per_second)),
        format!("max_flows = {}", or_false(egress.max_flows)),
        format!("network_new_flows_per_second = {}", or_false(egress.network_new_flows_per_second)),
    ]);
    lines.extend(written_lists(&egress.lists));
    for NetworkPolicy { key: _, name: label, network, also, egress_addresses, egress: of_hosts, lists } in networks {
        let name = match network {
            NetworkName::Range(range) => format!("range = {}", quoted(range)),
            NetworkName::Interface(name) => format!("interface = {}", quoted(name)),
        };
        lines.extend(["[[network]]".to_owned(), name]);
        lines.extend(label.as_ref().map(|label| format!("name = {}", quoted(label))));
        lines.push(format!("also = {}", list(also.iter().map(quoted))));
        lines.extend(egress_addresses.as_ref().map(|pool| format!("egress_addresses = {}", written_pool(pool))));
        lines.extend(written_lists(lists));
        for entry in of_hosts {
            lines.push("[[network.egress]]".to_owned());
            lines.push(format!("from = {}", list(entry.from.iter().map(quoted))));
            lines.push(format!("addresses = {}", written_pool(&entry.addresses)));
        }
    }
    lines.extend(["[tenants]".to_owned(), format!("allow = {}", list(tenants.iter().map(written_acl)))]);
    lines.extend(written_firewall(firewall));
    lines.push("[hosts]".to_owned());
    lines.extend(hosts.iter().map(|(name, ranges)| format!("{name} = {}", list(ranges.iter().map(quoted)))));
    lines.extend(wireguard.iter().flat_map(written_tunnel));
    lines.join("\n")
}

fn written_docker(docker: DockerBridges) -> &'static str {
    match docker {
        DockerBridges::Report => "\"auto\"",
        DockerBridges::Serve => "true",
        DockerBridges::Ignore => "false",
    }
}

fn written_pool(addresses: &[Ipv4Addr]) -> String {
    or_auto((!addresses.is_empty()).then(|| list(addresses.iter().map(quoted))))
}

fn written_ports(ports: Ports) -> String {
    if ports.is_single() { ports.to_string() } else { quoted(ports) }
}

fn written_acl(rule: &Acl) -> String {
    let Acl { from, to, protocol, ports } = rule;
    let keys = [
        unless_empty("from", from, in_quotes),
        unless_empty("to", to, in_quotes),
        Some(match protocol {
            Protocol::Other(protocol) => format!("protocol = {}", protocol.number()),
            named => format!("protocol = {}", quoted(format!("{named:?}").to_lowercase())),
        }),
        unless_empty("ports", ports, |&ports| written_ports(ports)),
    ];
    format!("{{ {} }}", keys.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn written_transports(transports: Transports) -> String {
    match transports.without_ports() {
        Some(protocol) => format!("protocol = {}", protocol.number()),
        None => format!("protocol = {}", quoted(format!("{transports:?}").to_lowercase())),
    }
}

fn written_lists(lists: &EgressLists) -> Vec<String> {
    let EgressLists { smtp, allow, deny } = lists;
    let mut lines = vec![format!("smtp = {smtp}"), format!("deny = {}", list(deny.iter().map(written_acl)))];
    lines.extend(allow.as_ref().map(|allow| format!("allow = {}", list(allow.iter().map(written_acl)))));
    lines
}

fn written_nat(nat: &Nat) -> Vec<String> {
    let Nat { random_ports, egress_addresses, drain, fastpath, forwards, statics } = nat;
    let fastpath = match fastpath {
        Fastpath::Auto => "\"auto\"",
        Fastpath::Bpf => "\"bpf\"",
        Fastpath::Flowtable => "\"flowtable\"",
        Fastpath::Off => "false",
    };
    let mut lines = vec![
        "[nat]".to_owned(),
        format!("random_ports = {random_ports}"),
        format!("egress_addresses = {}", written_pool(egress_addresses)),
        format!("drain = {}", list(drain.iter().map(quoted))),
        format!("fastpath = {fastpath}"),
    ];
    for Forward { key: _, name, public, transports, ports, to, to_port, from, snat } in forwards {
        lines.push("[[nat.forward]]".to_owned());
        lines.extend(name.as_ref().map(|name| format!("name = {}", quoted(name))));
        lines.push(format!("public = {}", written_pool(public)));
        lines.push(written_transports(*transports));
        lines.extend(transports.without_ports().is_none().then(|| format!("port = {}", written_ports(*ports))));
        lines.push(format!("to = {}", quoted(to)));
        lines.extend(to_port.map(|port| format!("to_port = {port}")));
        lines.extend(unless_empty("from", from, in_quotes));
        lines.push(format!("snat = {snat}"));
    }
    for StaticNat { key: _, name, public, private, open } in statics {
        lines.push("[[nat.static]]".to_owned());
        lines.extend(name.as_ref().map(|name| format!("name = {}", quoted(name))));
        lines.push(format!("public = {}", quoted(public)));
        lines.push(format!("private = {}", quoted(private)));
        lines.push(format!("open = {}", list(open.iter().map(written_acl))));
    }
    lines
}

fn written_firewall(firewall: &Firewall) -> Vec<String> {
    let log_drops = match firewall.log_drops {
        LogDrops::Journal => quoted("journal"),
        LogDrops::Group(group) => group.to_string(),
        LogDrops::Off => "false".to_owned(),
    };
    let mut lines = vec![
        "[firewall]".to_owned(),
        format!("ssh_ports = {}", or_auto(firewall.ssh_ports.as_ref().map(list))),
        format!("ssh_from = {}", list(firewall.ssh_from.iter().map(quoted))),
        format!("ssh_only_by_tunnel = {}", firewall.ssh_only_by_tunnel),
        format!("ssh_attempts = {}", or_false(firewall.ssh_attempts)),
        format!("ssh_ban = {}", quoted(humantime::format_duration(firewall.ssh_ban))),
        format!("wireguard_port = {}", or_false(firewall.wireguard_port)),
        format!("pings_per_second = {}", or_false(firewall.pings_per_second)),
        format!("syns_per_second = {}", or_false(firewall.syns_per_second)),
        format!("new_flows_per_second = {}", or_false(firewall.new_flows_per_second)),
        format!("max_flows = {}", or_false(firewall.max_flows)),
        format!("fair_share = {}", firewall.fair_share),
        format!("blocklist = {}", list(firewall.blocklist.iter().map(quoted))),
        format!("log_drops = {log_drops}"),
        format!("metadata_users = {}", or_false(firewall.metadata_users.as_ref().map(list))),
    ];
    for Service { key: _, name, transports, ports, from } in &firewall.services {
        lines.push("[[firewall.service]]".to_owned());
        lines.extend(name.as_ref().map(|name| format!("name = {}", quoted(name))));
        lines.push(written_transports(*transports));
        lines.extend(unless_empty("ports", ports, |&ports| written_ports(ports)));
        lines.extend(unless_empty("from", from, in_quotes));
    }
    lines
}

fn written_tunnel(tunnel: &Wireguard) -> Vec<String> {
    fn list(nets: &[IpNet]) -> String {
        format!("{:?}", nets.iter().map(ToString::to_string).collect::<Vec<_>>())
    }
    let mut lines = vec![
        "[wireguard]".to_owned(),
        format!("interface = \"{}\"", tunnel.interface),
        format!("listen_port = {}", tunnel.listen_port),
        format!("private_key_file = {:?}", tunnel.private_key_file),
        format!("addresses = {}", list(&tunnel.addresses)),
        format!("mtu = {}", tunnel.mtu.map_or("\"auto\"".to_owned(), |mtu| mtu.to_string())),
        format!("fwmark = {}", tunnel.fwmark),
        format!("backend = \"{:?}\"", tunnel.backend).to_lowercase(),
        format!("full_tunnel = {}", tunnel.full_tunnel),
        format!("routes = {}", tunnel.routes),
        match tunnel.snat {
            Snat::Auto => "snat = \"auto\"".to_owned(),
            Snat::Always => "snat = true".to_owned(),
            Snat::Never => "snat = false".to_owned(),
        },
    ];
    lines.extend(tunnel.endpoint.as_ref().map(|endpoint| format!("endpoint = \"{endpoint}\"")));
    lines.push(format!("dns = {:?}", tunnel.dns.iter().map(ToString::to_string).collect::<Vec<_>>()));
    lines.extend(tunnel.default_reach.as_ref().map(|entries| written_entries("default_reach", entries)));
    for group in &tunnel.groups {
        lines.extend(["[[wireguard.group]]".to_owned(), format!("name = {}", quoted(&group.name))]);
        lines.extend(written_access(&group.lists));
    }
    for peer in &tunnel.peers {
        lines.push("[[wireguard.peer]]".to_owned());
        lines.extend(peer.name.as_ref().map(|name| format!("name = \"{name}\"")));
        lines.push(format!("public_key = \"{}\"", peer.public_key));
        lines.extend(peer.preshared_key.as_ref().map(|key| format!("preshared_key = \"{}\"", *key.to_base64())));
        lines.push(format!("allowed_ips = {}", list(&peer.allowed_ips)));
        lines.extend(peer.endpoint.as_ref().map(|endpoint| format!("endpoint = \"{endpoint}\"")));
        lines.extend(peer.persistent_keepalive.map(|seconds| format!("persistent_keepalive = {seconds}")));
        lines.push(format!("enabled = {}", peer.enabled));
        lines.extend(peer.expires.map(|time| format!("expires = {}", humantime::format_rfc3339_seconds(time))));
        lines.extend(unless_empty("groups", &peer.access.groups, in_quotes));
        lines.extend(written_access(&peer.access.lists));
    }
    lines
}

fn written_entries(key: &str, entries: &[AccessEntry]) -> String {
    format!("{key} = {}", list(entries.iter().map(quoted)))
}

fn written_access(lists: &AccessLists) -> Vec<String> {
    let AccessLists { reach, deny, from } = lists;
    let mut lines = vec![written_entries("deny", deny)];
    lines.extend(reach.as_ref().map(|entries| written_entries("reach", entries)));
    lines.extend(from.as_ref().map(|entries| written_entries("from", entries)));
    lines
}
