//! The settings that a gateway needs. Pure.

use super::flow_table;
use super::model::{IP_FORWARD, Machine, Need, Setting};
use crate::inputs::Inputs;
use crate::net::InterfaceName;

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
    settings
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
    settings.extend(tunnel(inputs).into_iter().flat_map(|interface| link_hardening(interface, machine)));
    // A change of it sets every interface's switch, and resets `accept_redirects` of `all` to what hardening wants.
    settings.push(must(IP_FORWARD.to_owned(), "1"));
    // A packet is routed by the switch of the interface that it came in by, and others may turn that off alone
    // (systemd-networkd's IPv4Forwarding=).
    let interfaces = links(inputs).chain(tunnel(inputs));
    settings.extend(interfaces.map(|interface| must(format!("net/ipv4/conf/{interface}/forwarding"), "1")));
    settings
}
