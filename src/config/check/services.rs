//! `[[firewall.service]]`

use super::super::findings::Findings;
use super::super::raw::{Entry, RawService};
use super::super::{Firewall, Service, Transport, Transports, values};
use super::firewall::ssh_port_in;

pub(super) fn blocks(blocks: Vec<Entry<RawService>>, found: &mut Findings) -> Vec<Service> {
    let blocks = found.elements("firewall.service", blocks);
    let services: Vec<_> = blocks.into_iter().map(|(key, raw)| block(key, raw, found)).collect();
    found.names_differ(services.iter().map(|service| (service.key.as_str(), &service.name)));
    services
}

/// Without what is wrong, for the comparison with other services.
fn block(key: String, raw: RawService, found: &mut Findings) -> Service {
    found.unknown(&key, &raw.unknown);
    found.needed(&key, "ports", &raw.ports, "a list of ports, and of ranges in quotes");
    let name = found.read(&key, "name", raw.name, values::label);
    let transports = found.read(&key, "protocol", raw.protocol, values::transports);
    let ports = found.list(&key, "ports", raw.ports, Some("an empty list opens nothing; name a port"), values::ports);
    let nobody = "an empty list would let nobody in; leave the key away for everybody";
    let from = found.list(&key, "from", raw.from, Some(nobody), values::net);
    Service {
        key,
        name,
        transports: transports.unwrap_or(Transports::Tcp),
        ports: ports.unwrap_or_default().into_iter().map(|(_, ports)| ports).collect(),
        from: from.unwrap_or_default().into_iter().map(|(_, range)| range).collect(),
    }
}

/// Warns of a service that opens an SSH port: then more people reach it than `firewall.ssh_from` says, and no limit holds.
pub(super) fn spare_ssh(firewall: &Firewall, found: &mut Findings) {
    for service in firewall.services.iter().filter(|service| service.transports.each().contains(&Transport::Tcp)) {
        let ports = service.ports.iter().enumerate();
        for (index, port) in ports.filter_map(|(index, &ports)| Some((index, ssh_port_in(ports, firewall)?))) {
            let reason = format!("opens SSH's port {port} past firewall.ssh_from and its limits");
            found.warn(format!("{}.ports[{index}]", service.key), reason);
        }
    }
}
