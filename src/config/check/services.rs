//! `[[firewall.service]]`

use super::diagnostics::Diagnostics;
use super::lockout::ssh_port_in;
use super::values;
use crate::config::policy::{Firewall, Service};
use crate::config::protocol::{Transport, Transports};
use crate::config::raw::{Entry, RawService};

pub(super) fn check_services(blocks: Vec<Entry<RawService>>, diagnostics: &mut Diagnostics) -> Vec<Service> {
    let blocks = diagnostics.elements("firewall.service", blocks);
    let services: Vec<_> = blocks.into_iter().map(|(key, raw)| check_service(key, raw, diagnostics)).collect();
    diagnostics.check_names_are_unique(services.iter().map(|service| (service.key.as_str(), &service.name)));
    services
}

/// Wrong values are left out, so that the rest can be compared with other services.
fn check_service(key: String, raw: RawService, diagnostics: &mut Diagnostics) -> Service {
    diagnostics.reject_unknown_keys(&key, &raw.unknown);
    let name = diagnostics.parse_field(&key, "name", raw.name, values::parse_label);
    let transports = match raw.protocol {
        Entry::Absent => Some(Transports::Tcp),
        written => diagnostics.parse_field(&key, "protocol", written, values::parse_transports),
    };
    let ports = match transports.and_then(Transports::without_ports) {
        None => {
            if transports.is_some() {
                diagnostics.require(&key, "ports", &raw.ports, "a list of ports, with ranges in quotes");
            }
            let empty = "an empty list opens nothing; list a port";
            diagnostics.parse_list(&key, "ports", raw.ports, Some(empty), values::parse_ports)
        }
        Some(protocol) => {
            diagnostics.refuse_ports(&key, "ports", &raw.ports, protocol);
            if protocol.is_icmp() {
                let reason = format!(
                    "{protocol} needs no service: this server answers pings (firewall.pings_per_second) and accepts \
                     errors about its connections; remove the block"
                );
                diagnostics.error(format!("{key}.protocol"), reason);
            }
            None
        }
    };
    let empty = "an empty list would admit no one; remove the key to admit everyone";
    let from = diagnostics.parse_list(&key, "from", raw.from, Some(empty), values::parse_net);
    Service {
        key,
        name,
        transports: transports.unwrap_or(Transports::Tcp),
        ports: ports.unwrap_or_default().into_iter().map(|(_, ports)| ports).collect(),
        from: from.unwrap_or_default().into_iter().map(|(_, range)| range).collect(),
    }
}

/// Warns about a service that opens an SSH port, because `firewall.ssh_from` and the SSH limits then do not apply to
/// it.
pub(super) fn warn_about_ssh_ports(firewall: &Firewall, diagnostics: &mut Diagnostics) {
    for service in firewall.services.iter().filter(|service| service.transports.each().contains(&Transport::Tcp)) {
        let ports = service.ports.iter().enumerate();
        for (index, port) in ports.filter_map(|(index, &ports)| Some((index, ssh_port_in(ports, firewall)?))) {
            let reason = format!(
                "opens SSH port {port} to sources that firewall.ssh_from and the SSH limits would stop; remove the port"
            );
            diagnostics.warn(format!("{}.ports[{index}]", service.key), reason);
        }
    }
}
