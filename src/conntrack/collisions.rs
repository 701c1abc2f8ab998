//! Private hosts whose packets the kernel drops, because another one speaks the same protocol without ports with the
//! same destination.
//!
//! Source NAT tells the answers of hosts apart by ports. GRE, ESP and others have none, so behind one address there is
//! place for one flow between it and a destination. The kernel translates the second host's packet all the same, finds
//! that the answers' tuple is taken, and drops the packet (`__nf_conntrack_confirm` in
//! `net/netfilter/nf_conntrack_core.c`; measured for GRE, ESP and protocol 41). Only the number `insert_failed` tells.
//! So the rules note who sends first packets of such protocols, and while that number grows, those without a flow are
//! looked for here.

use std::net::Ipv4Addr;

use super::model::{Flow, Layer4, Tuple};
use super::observe::find_flow;
use super::socket::Error;
use crate::config::{Config, protocol_name};
use crate::inputs::PortlessSender;
use crate::outcome::Problem;
use crate::site::Site;

/// How many collisions are looked for and reported.
const REPORTED: usize = 10;
/// How many senders are looked at.
const LOOKED_AT: usize = 1000;
/// A flow's first packet is noted once. Two may be on their way at the same time.
const WITHOUT_FLOW: u64 = 3;

/// GRE is tracked with keys where its ports would be; without PPTP they are 0 (`nf_conntrack_proto_gre.c`).
const GRE: u8 = 47;

/// A host whose packets are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Collision {
    host: Ipv4Addr,
    protocol: u8,
    destination: Ipv4Addr,
    /// The public address that both would have.
    address: Ipv4Addr,
    /// The host that has the place; `None`: this server itself.
    holder: Option<Ipv4Addr>,
}

/// Finds them. `addresses`: those under which hosts reach the internet. Blocks.
pub(super) fn find(senders: &[PortlessSender], addresses: &[Ipv4Addr]) -> Result<Vec<Collision>, Error> {
    find_with(senders, addresses, find_flow)
}

fn find_with<E>(
    senders: &[PortlessSender],
    addresses: &[Ipv4Addr],
    find_flow: impl Fn(&Tuple) -> Result<Option<Flow>, E>,
) -> Result<Vec<Collision>, E> {
    let mut found = Vec::new();
    for sender in senders.iter().filter(|sender| sender.packets >= WITHOUT_FLOW).take(LOOKED_AT) {
        let PortlessSender { host, protocol, destination, .. } = *sender;
        if find_flow(&portless(host, destination, protocol))?.is_some() {
            continue;
        }
        for address in addresses {
            // The kernel finds a flow by the tuple of either direction.
            let Some(holder) = find_flow(&portless(destination, *address, protocol))? else { continue };
            // A flow from outside may lead to a host by a forward.
            let is_from_outside = holder.original.source == destination;
            let inside = if is_from_outside { holder.reply.source } else { holder.original.source };
            let holder = Some(inside).filter(|inside| inside != address);
            found.push(Collision { host, protocol, destination, address: *address, holder });
            break;
        }
        if found.len() == REPORTED {
            break;
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn portless(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Tuple {
    let layer4 = if protocol == GRE { Layer4::Ports { source: 0, destination: 0 } } else { Layer4::None };
    Tuple { source, destination, protocol, layer4, zone: None }
}

/// The addresses under which private hosts may reach the internet.
pub(super) fn egress_addresses(config: &Config, site: &Site) -> Vec<Ipv4Addr> {
    let own = site.public.iter().flat_map(|public| public.addresses.iter().copied());
    own.filter(|own| !config.nat.is_static_address(*own)).collect()
}

impl Collision {
    pub(super) fn problem(&self) -> Problem {
        let Self { host, protocol, destination, address, holder } = self;
        let name = protocol_name(*protocol);
        let holder = holder.map_or_else(|| "this server itself".to_owned(), |holder| holder.to_string());
        Problem::new(
            "portless-collision",
            format!(
                "{host} and {holder} both speak {name} with {destination} as {address}: packets of {host} are dropped, \
                 since {name} has no ports that tell the answers apart"
            ),
            format!(
                "give {host} a public address of its own with [[nat.static]], or another one with [[network.egress]]; \
                 for IPsec, NAT traversal (UDP 4500) helps too"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::super::model::Status;
    use super::*;

    const BASTION: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);
    const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
    const WEB: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
    const WORKER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);

    fn sends(host: Ipv4Addr, protocol: u8, packets: u64) -> PortlessSender {
        PortlessSender { host, protocol, destination: SERVER, packets }
    }

    /// A flow from one address to another, translated to a third.
    fn flow(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, under: Ipv4Addr) -> Flow {
        Flow {
            original: portless(from, to, protocol),
            reply: portless(to, under, protocol),
            status: Status::CONFIRMED,
            mark: 0,
            id: Some(1),
            zone: 0,
        }
    }

    fn texts(senders: &[PortlessSender], table: &[Flow]) -> Vec<String> {
        let find = |tuple: &Tuple| {
            Ok::<_, Infallible>(table.iter().find(|flow| [flow.original, flow.reply].contains(tuple)).copied())
        };
        let Ok(found) = find_with(senders, &[BASTION, OTHER], find);
        found.iter().map(|collision| collision.problem().what).collect()
    }

    #[test]
    fn a_host_without_a_flow_collides_with_the_one_that_has_the_place() {
        let senders = [sends(WORKER, 47, 9), sends(WEB, 47, 1), sends(WORKER, 50, 3)];
        let table = [flow(WEB, SERVER, 47, BASTION), flow(WORKER, SERVER, 50, BASTION)];
        let expected = "10.0.1.5 and 10.0.0.4 both speak gre with 203.0.113.10 as 198.51.100.2: packets of 10.0.1.5 \
                        are dropped, since gre has no ports that tell the answers apart";
        assert_eq!(texts(&senders, &table), [expected]);
    }

    #[test]
    fn a_flow_of_this_server_itself_has_the_place_in_either_direction() {
        for table in [flow(BASTION, SERVER, 41, BASTION), flow(SERVER, BASTION, 41, SERVER)] {
            let texts = texts(&[sends(WEB, 41, 5)], &[table]);
            assert!(texts[0].starts_with("10.0.0.4 and this server itself both speak 6in4 with"), "{texts:?}");
        }
    }

    #[test]
    fn a_forward_from_the_same_destination_has_the_place_for_its_host() {
        let mut forwarded = flow(SERVER, BASTION, 47, SERVER);
        forwarded.reply.source = WEB;
        let texts = texts(&[sends(WORKER, 47, 5)], &[forwarded]);
        assert!(texts[0].starts_with("10.0.1.5 and 10.0.0.4 both speak gre with"), "{texts:?}");
    }

    #[test]
    fn hosts_with_addresses_of_their_own_and_hosts_whose_packets_are_lost_otherwise_are_not_named() {
        let senders = [sends(WORKER, 50, 9), sends(WEB, 50, 9)];
        let table = [flow(WEB, SERVER, 50, BASTION), flow(WORKER, SERVER, 50, OTHER)];
        assert_eq!(texts(&senders, &table), Vec::<String>::new());
        // Nobody has the place: another program drops these packets.
        assert_eq!(texts(&senders, &[]), Vec::<String>::new());
        // Two packets on their way at once.
        assert_eq!(texts(&[sends(WORKER, 47, 2)], &[flow(WEB, SERVER, 47, BASTION)]), Vec::<String>::new());
    }
}
