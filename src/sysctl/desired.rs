//! The settings that a gateway needs. Pure.

use super::flow_table;
use super::model::{IP_FORWARD, Machine, Need, Setting};
use crate::inputs::Inputs;
use crate::net::InterfaceName;

/// The interfaces of the gateway: public, private, tunnel.
fn interfaces<'a>(inputs: &Inputs<'a>) -> Vec<&'a InterfaceName> {
    let public = inputs.site.public.iter().map(|link| &link.interface);
    let private = inputs.site.private.iter().map(|link| &link.interface);
    public.chain(private).chain(inputs.tunnel.map(|tunnel| &tunnel.interface)).collect()
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
    for interface in interfaces(inputs) {
        // Not strict: the way back may differ from the way in (tunnels, several networks), and the rules check sources
        // themselves. Loose (2) refuses nothing where there is a default route, and its route look-up makes each packet
        // some 3 % dearer. But the greater one of `all` and the interface counts, so 2 is the way out of a
        // strict `all`.
        let rp_filter = if machine.strict_sources { "2" } else { "0" };
        settings.push(must(format!("net/ipv4/conf/{interface}/rp_filter"), rp_filter));
        settings.push(must(format!("net/ipv4/conf/{interface}/send_redirects"), "0"));
    }
    settings
}

/// The settings that wait for the rules: the flow table's, and forwarding.
pub(super) fn forwarding(inputs: &Inputs<'_>, machine: Machine) -> Vec<Setting> {
    let mut settings = flow_table::desired(machine.memory);
    // A change of it sets every interface's switch, and resets `accept_redirects` of `all` to what hardening wants.
    settings.push(must(IP_FORWARD.to_owned(), "1"));
    // A packet is routed by the switch of the interface that it came in by, and others may turn that off alone
    // (systemd-networkd's IPv4Forwarding=).
    settings.extend(
        interfaces(inputs).into_iter().map(|interface| must(format!("net/ipv4/conf/{interface}/forwarding"), "1")),
    );
    settings
}
