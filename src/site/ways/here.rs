//! Addresses of private networks that are on this server, although they are not its own: packets to the hosts that have
//! them end here, and everything else still looks right. Pure.

use super::super::model::{PrivateLink, Site};
use super::super::observe::Kernel;
use super::super::route::Route;
use crate::outcome::Problem;

/// How many of them are named for one network.
const SHOWN: usize = 4;

/// Problems, and hints for further addresses of a link itself, such as one that moves between two servers.
pub(super) fn foreign_addresses(kernel: &Kernel, site: &Site) -> (Vec<Problem>, Vec<Problem>) {
    let (mut problems, mut hints) = (Vec::new(), Vec::new());
    for link in site.private.iter().filter(|link| !link.is_local) {
        let is_foreign = |route: &&Route| link.network.contains(&route.destination) && !is_own(link, route);
        for route in kernel.local_routes.iter().filter(is_foreign).take(SHOWN) {
            let name = route.interface.map_or_else(String::new, |interface| kernel.name(interface));
            let is_of_link = name == link.interface.as_str() && route.destination.prefix_len() == 32;
            if is_of_link { &mut hints } else { &mut problems }.push(problem(link, route, &name));
        }
    }
    (problems, hints)
}

/// Whether it is this server's address in the network.
fn is_own(link: &PrivateLink, route: &Route) -> bool {
    route.destination.prefix_len() == 32 && link.holds(route.destination.addr())
}

fn problem(link: &PrivateLink, route: &Route, interface: &str) -> Problem {
    let network = link.network;
    let is_address = route.destination.prefix_len() == 32;
    let (what, remove) = if is_address {
        let address = route.destination.addr();
        (address.to_string(), format!("ip addr del {address}/32 dev {interface}"))
    } else {
        let range = route.destination;
        (range.to_string(), format!("ip route del local {range} dev {interface}"))
    };
    Problem::new(
        "address-of-network",
        format!(
            "{what} of the private network {network} is on {interface} of this server and is not its own: packets to \
             hosts there end here"
        ),
        format!("if it belongs to a host: {remove}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::observe::Link;
    use super::super::super::route::RouteKind;
    use super::*;

    #[test]
    fn an_address_of_a_network_on_another_link_is_a_problem_and_one_more_on_its_link_a_hint() {
        let link = |index, name: &str| Link {
            index,
            name: name.parse().unwrap(),
            mac: None,
            mtu: 1450,
            up: true,
            addresses: Vec::new(),
            has_lease: false,
        };
        let local = |destination: &str, interface| Route {
            kind: RouteKind::Unicast,
            destination: destination.parse().unwrap(),
            gateway: None,
            interface: Some(interface),
            further: Vec::new(),
            metric: 0,
            table: 255,
            protocol: 2,
        };
        let site = Site { private: vec![PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16")], ..Site::default() };
        let reported = |routes: &[Route]| {
            let kernel = Kernel {
                links: vec![link(1, "lo"), link(3, "eth1")],
                local_routes: routes.to_vec(),
                ..Kernel::default()
            };
            let (problems, hints) = foreign_addresses(&kernel, &site);
            let advice = |problems: Vec<Problem>| problems.into_iter().map(|it| it.advice).collect::<Vec<_>>();
            (advice(problems), advice(hints))
        };
        assert_eq!(
            reported(&[local("10.0.0.2/32", 3), local("127.0.0.0/8", 1), local("10.9.0.1/32", 1)]),
            (vec![], vec![])
        );
        let on_lo = "if it belongs to a host: ip addr del 10.0.1.5/32 dev lo".to_owned();
        assert_eq!(reported(&[local("10.0.1.5/32", 1)]), (vec![on_lo], vec![]));
        let range = "if it belongs to a host: ip route del local 10.0.1.0/24 dev lo".to_owned();
        assert_eq!(reported(&[local("10.0.1.0/24", 1)]), (vec![range], vec![]));
        let more = "if it belongs to a host: ip addr del 10.0.0.9/32 dev eth1".to_owned();
        assert_eq!(reported(&[local("10.0.0.9/32", 3)]), (vec![], vec![more]));
    }
}
