//! The settings that a gateway needs. Pure.

use super::flow_table;
use super::model::{IP_FORWARD, Machine, Need, Setting};
use crate::config::Fastpath;
use crate::inputs::{Inputs, counts_flows};
use crate::net::InterfaceName;

/// The settings of `net/ipv4/conf/all` that are written.
const FOR_ALL: [&str; 3] = ["send_redirects", "accept_redirects", "accept_source_route"];
/// The setting of IPv6 links that is written.
const ROUTER_ADVERTISEMENTS: &str = "accept_ra";
/// The settings of each link that are written.
const PER_LINK: [&str; 3] = ["rp_filter", "send_redirects", "forwarding"];

/// The links that are there before the rules: public and private.
fn links<'a>(inputs: &Inputs<'a>) -> impl Iterator<Item = &'a InterfaceName> {
    let public = inputs.site.public.iter().map(|link| &link.interface);
    public.chain(inputs.site.private.iter().map(|link| &link.interface))
}

/// The interface of the tunnel, which is made after the rules are loaded.
fn tunnel<'a>(inputs: &Inputs<'a>) -> Option<&'a InterfaceName> {
    inputs.tunnel.map(|tunnel| &tunnel.interface)
}

fn must(path: String, value: &str) -> Setting {
    Setting { path, value: value.to_owned(), need: Need::Must }
}

/// The settings that make the links of a gateway safe. Source: the kernel's `Documentation/networking/ip-sysctl.rst`.
pub(super) fn hardening(inputs: &Inputs<'_>, machine: Machine) -> Vec<Setting> {
    let mut settings = vec![
        // Redirects are sent if `all` or the interface says so, and would tell private hosts to bypass the gateway.
        must("net/ipv4/conf/all/send_redirects".to_owned(), "0"),
        // On a router these two count only if both `all` and the interface say so: `all` is enough to switch them off.
        must("net/ipv4/conf/all/accept_redirects".to_owned(), "0"),
        must("net/ipv4/conf/all/accept_source_route".to_owned(), "0"),
    ];
    settings.extend(links(inputs).flat_map(|interface| link_hardening(interface, machine)));
    settings.extend(inputs.site.private.iter().map(|link| no_router_advertisements(&link.interface)));
    // It exists since the daemon listens to flows: that loads the kernel's module.
    settings.extend(counts_flows(inputs.config).then(flow_table::events));
    settings
}

/// A neighbour on a private link could become the bastion's IPv6 router by one packet. Hetzner's networks have no IPv6,
/// and routers only where the cloud says so. The file is missing where IPv6 is switched off.
fn no_router_advertisements(interface: &InterfaceName) -> Setting {
    Setting {
        path: format!("net/ipv6/conf/{interface}/{ROUTER_ADVERTISEMENTS}"),
        value: "0".to_owned(),
        need: Need::Tuned,
    }
}

fn link_hardening(interface: &InterfaceName, machine: Machine) -> [Setting; 2] {
    // Not strict: the way back may differ from the way in (tunnels, several networks), and the rules check sources
    // themselves. Loose (2) refuses nothing where there is a default route, and its route look-up makes each packet
    // some 3 % dearer. But the greater one of `all` and the interface counts, so 2 is the way out of a strict `all`.
    let rp_filter = if machine.strict_sources { "2" } else { "0" };
    [
        must(format!("net/ipv4/conf/{interface}/rp_filter"), rp_filter),
        must(format!("net/ipv4/conf/{interface}/send_redirects"), "0"),
    ]
}

/// The settings that wait for the rules: the flow table's, those of the tunnel's interface, and forwarding.
pub(super) fn forwarding(inputs: &Inputs<'_>, machine: Machine) -> Vec<Setting> {
    let mut settings = flow_table::desired(machine.memory);
    settings.extend(flow_table::unseen_packets().filter(|_| inputs.config.nat.fastpath == Fastpath::Bpf));
    settings.extend(tunnel(inputs).into_iter().flat_map(|interface| link_hardening(interface, machine)));
    settings.extend(tunnel(inputs).map(no_router_advertisements));
    // A change of it sets every interface's switch, and resets `accept_redirects` of `all` to what hardening wants.
    settings.push(must(IP_FORWARD.to_owned(), "1"));
    // A packet is routed by the switch of the interface that it came in by, and others may turn that off alone
    // (systemd-networkd's IPv4Forwarding=).
    let interfaces = links(inputs).chain(tunnel(inputs));
    settings.extend(interfaces.map(|interface| must(format!("net/ipv4/conf/{interface}/forwarding"), "1")));
    settings
}

/// Whether a setting is one that this program writes. What the state directory says of others is not believed: root
/// restores former values, and the daemon's account may have written them.
pub(super) fn is_written_here(path: &str) -> bool {
    let of_table = |name| flow_table::SETTINGS.contains(&name);
    let of_link = |interface: &str, name| interface.parse::<InterfaceName>().is_ok() && PER_LINK.contains(&name);
    match path.split('/').collect::<Vec<_>>()[..] {
        ["net", "ipv4", "ip_forward"] => true,
        ["net", "ipv4", "conf", "all", name] => FOR_ALL.contains(&name),
        ["net", "ipv4", "conf", interface, name] => of_link(interface, name),
        ["net", "ipv6", "conf", interface, ROUTER_ADVERTISEMENTS] => interface.parse::<InterfaceName>().is_ok(),
        ["net", "netfilter", name] => name.strip_prefix(flow_table::PREFIX).is_some_and(of_table),
        _ => false,
    }
}

/// Whether this is a value of such a setting: each of them is a small number.
pub(super) fn is_value(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}
