//! What may pass: the items of `[nat]`, `[egress]`, `[[network]]`, `[tenants]` and `[firewall]`.

use std::fmt::Display;

use super::item::{Item, duration, list, name, or};
use crate::config::policy::{
    Acl, Egress, EgressLists, Fastpath, Firewall, Forward, LogDrops, Nat, NetworkName, NetworkPolicy, Service,
    StaticNat,
};

pub(super) fn of_nat(nat: &Nat) -> Vec<Item<'_>> {
    let Nat { random_ports, egress_addresses, drain, fastpath, forwards, statics } = nat;
    let fastpath = match fastpath {
        Fastpath::Auto => "auto",
        Fastpath::Bpf => "bpf",
        Fastpath::Flowtable => "flowtable",
        Fastpath::Off => "false",
    };
    let mut items = vec![
        Item::key("nat.random_ports", random_ports),
        Item::key("nat.egress_addresses", auto_or(egress_addresses)),
        Item::key("nat.drain", list(drain)),
        Item::key("nat.fastpath", fastpath),
    ];
    items.extend(forwards.iter().map(of_forward));
    items.extend(statics.iter().map(of_static));
    items
}

fn of_forward(forward: &Forward) -> Item<'_> {
    // The key is the block's place in the file, which changes when another block comes before it.
    let Forward { key: _, name: label, public, transports: _, ports: _, to, to_port, from, snat } = forward;
    let traffic = forward.traffic();
    let public = if public.is_empty() { String::new() } else { format!("{} ", list(public)) };
    let to_port = to_port.map_or_else(String::new, |port| format!(":{port}"));
    let snat = if *snat { " snat" } else { "" };
    let text = format!("{public}{traffic} -> {to}{to_port}{snat}{}{}", sources(from), name(label.as_ref()));
    let identity = label.clone().unwrap_or_else(|| format!("{public}{traffic}"));
    Item::named("forward", identity, text)
}

fn of_static(entry: &StaticNat) -> Item<'_> {
    let StaticNat { key: _, name: label, public, private, open } = entry;
    let open = if open.is_empty() { " open to nothing".to_owned() } else { format!(" open {}", acls(open)) };
    Item::named("static", public.to_string(), format!("{public} <-> {private}{open}{}", name(label.as_ref())))
}

pub(super) fn of_egress(egress: &Egress) -> Vec<Item<'_>> {
    let Egress { guard, new_flows_per_second, max_flows, network_new_flows_per_second, lists } = egress;
    let EgressLists { smtp, allow, deny } = lists;
    let allowed = if allow.is_some() { "only what is listed" } else { "everything" };
    let mut items = vec![
        Item::key("egress.guard", guard),
        Item::key("egress.smtp", smtp),
        Item::key("egress.new_flows_per_second", limit(*new_flows_per_second)),
        Item::key("egress.max_flows", limit(*max_flows)),
        Item::key("egress.network_new_flows_per_second", limit(*network_new_flows_per_second)),
        Item::key("egress.allow", allowed),
    ];
    items.extend(allow.iter().flatten().map(|line| Item::entry("egress allow", acl(line))));
    items.extend(deny.iter().map(|line| Item::entry("egress deny", acl(line))));
    items
}

/// A network's block. Lists that are those of `[egress]` are not repeated.
pub(super) fn of_network<'a>(network: &'a NetworkPolicy, egress: &Egress) -> Vec<Item<'a>> {
    let NetworkPolicy { key: _, name: label, network, also, egress_addresses, egress: of_hosts, lists } = network;
    let EgressLists { smtp, allow, deny } = lists;
    let range = match network {
        NetworkName::Range(range) => range.to_string(),
        NetworkName::Interface(interface) => interface.to_string(),
    };
    let item = |aspect: &str, text: String| Item::named("network", format!("{range} {aspect}"), text);
    let mut items = vec![item("", range.clone())];
    items.extend(label.iter().map(|name| item("name", format!("{range} name = {name:?}"))));
    items.extend(also.iter().map(|behind| Item::entry("network", format!("{range} also {behind}"))));
    if let Some(addresses) = egress_addresses {
        items.push(item("addresses", format!("{range} egress_addresses = {}", auto_or(addresses))));
    }
    items.extend(of_hosts.iter().map(|entry| {
        let text = format!("{range} egress of {} = {}", list(&entry.from), auto_or(&entry.addresses));
        Item::entry("network", text)
    }));
    if *smtp != egress.lists.smtp {
        items.push(item("smtp", format!("{range} smtp = {smtp}")));
    }
    if *allow != egress.lists.allow {
        let allowed = if allow.is_some() { "only what is listed" } else { "everything" };
        items.push(item("allow", format!("{range} allow = {allowed}")));
        items.extend(allow.iter().flatten().map(|line| {
            let text = format!("{range} allow {}", acl(line));
            Item::entry("network", text)
        }));
    }
    if *deny != egress.lists.deny {
        let denied = if deny.is_empty() { "nothing" } else { "what is listed" };
        items.push(item("deny", format!("{range} deny = {denied}")));
        items.extend(deny.iter().map(|line| Item::entry("network", format!("{range} deny {}", acl(line)))));
    }
    items
}

pub(super) fn of_firewall(firewall: &Firewall) -> Vec<Item<'_>> {
    let Firewall {
        ssh_ports,
        ssh_from,
        ssh_only_by_tunnel,
        ssh_attempts,
        ssh_ban,
        wireguard_port,
        services,
        pings_per_second,
        syns_per_second,
        new_flows_per_second,
        max_flows,
        fair_share,
        blocklist,
        log_drops,
        metadata_users,
    } = firewall;
    let log_drops = match log_drops {
        LogDrops::Journal => "journal".to_owned(),
        LogDrops::Group(group) => group.to_string(),
        LogDrops::Off => "false".to_owned(),
    };
    let mut items = vec![
        Item::key("firewall.ssh_ports", or(ssh_ports.as_ref().map(list), "auto")),
        Item::key("firewall.ssh_only_by_tunnel", ssh_only_by_tunnel),
        Item::key("firewall.ssh_attempts", limit(*ssh_attempts)),
        Item::key("firewall.ssh_ban", duration(*ssh_ban)),
        Item::key("firewall.wireguard_port", or(wireguard_port.as_ref(), "closed")),
        Item::key("firewall.pings_per_second", limit(*pings_per_second)),
        Item::key("firewall.syns_per_second", limit(*syns_per_second)),
        Item::key("firewall.new_flows_per_second", limit(*new_flows_per_second)),
        Item::key("firewall.max_flows", limit(*max_flows)),
        Item::key("firewall.fair_share", fair_share),
        Item::key("firewall.log_drops", log_drops),
        Item::key("firewall.metadata_users", or(metadata_users.as_ref().map(list), "everyone")),
    ];
    items.extend(ssh_from.iter().map(|source| Item::entry("ssh", format!("from {source}"))));
    items.extend(blocklist.iter().map(|source| Item::entry("blocklist", source.to_string())));
    items.extend(services.iter().map(of_service));
    items
}

fn of_service(service: &Service) -> Item<'_> {
    let Service { key: _, name: label, transports, ports, from } = service;
    let ports = if ports.is_empty() { String::new() } else { format!(" {}", joined(ports)) };
    let what = format!("{transports}{ports}");
    let text = format!("{what}{}{}", sources(from), name(label.as_ref()));
    Item::named("service", label.clone().unwrap_or(what), text)
}

/// One line of an access list: `tcp 443 from 10.0.0.0/16 to 192.0.2.0/24`.
pub(super) fn acl(line: &Acl) -> String {
    let Acl { from, to, protocol, ports } = line;
    let ports = if ports.is_empty() { String::new() } else { format!(" {}", joined(ports)) };
    let to = if to.is_empty() { String::new() } else { format!(" to {}", joined(to)) };
    format!("{protocol}{ports}{}{to}", sources(from))
}

fn acls(lines: &[Acl]) -> String {
    let mut lines: Vec<String> = lines.iter().map(acl).collect();
    // Their order has no meaning.
    lines.sort_unstable();
    lines.join("; ")
}

/// ` from …`, or nothing: from everyone.
fn sources<T: Display>(from: &[T]) -> String {
    if from.is_empty() { String::new() } else { format!(" from {}", joined(from)) }
}

/// `a, b`, in one order whatever the file's is.
fn joined<T: Display>(values: &[T]) -> String {
    let mut values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.sort_unstable();
    values.join(", ")
}

/// `false` is how the file says that there is none.
fn limit(limit: Option<u32>) -> String {
    or(limit, "false")
}

fn auto_or<T: Display>(values: &[T]) -> String {
    if values.is_empty() { "auto".to_owned() } else { list(values) }
}
