//! Which address of the tunnel a new peer gets. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Peer, Wireguard};

/// Why a peer cannot have an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// The tunnel has no network to choose from.
    #[error(
        "the tunnel has no addresses of its own, so a peer cannot get one; write wireguard.addresses, for example \
         [\"10.100.0.1/24\"], into the configuration, and reload"
    )]
    NoNetwork,
    /// All are in use.
    #[error("every address of {network} is in use; widen it in wireguard.addresses, or name another one by --address")]
    Full { network: IpNet },
    /// It is in none of the tunnel's networks.
    #[error("{address} is outside of the tunnel's networks ({networks}); choose an address inside")]
    Outside { address: IpAddr, networks: String },
    /// It is the tunnel's own.
    #[error("{address} is this server's own address in the tunnel; choose another")]
    Own { address: IpAddr },
    /// No host can have it.
    #[error("{address} is the network or broadcast address of {network}; choose another")]
    Reserved { address: IpAddr, network: IpNet },
    /// It is listed twice.
    #[error("{address} is given twice; leave one out")]
    Twice { address: IpAddr },
    /// Another peer has it.
    #[error("{address} is in use by {label}; choose another, or leave --address out for a free one")]
    InUse {
        address: IpAddr,
        label: String,
        /// The other peer.
        peer: Box<Peer>,
    },
}

/// The addresses for a new peer: those that are wanted, or else the next free ones of the tunnel's first IPv4 and first
/// IPv6 network.
pub(super) fn choose(tunnel: &Wireguard, wanted: &[IpAddr]) -> Result<Vec<IpAddr>, Error> {
    if tunnel.addresses.is_empty() {
        return Err(Error::NoNetwork);
    }
    if wanted.is_empty() {
        let first = |is_v4: bool| tunnel.networks().find(|network| matches!(network, IpNet::V4(_)) == is_v4);
        let networks = [first(true), first(false)].into_iter().flatten();
        return networks.map(|network| next_free(network, tunnel).ok_or(Error::Full { network })).collect();
    }
    for (index, &address) in wanted.iter().enumerate() {
        check(address, tunnel)?;
        if wanted[..index].contains(&address) {
            return Err(Error::Twice { address });
        }
    }
    Ok(wanted.to_vec())
}

fn check(address: IpAddr, tunnel: &Wireguard) -> Result<(), Error> {
    let Some(network) = tunnel.networks().find(|network| network.contains(&address)) else {
        let networks: Vec<String> = tunnel.networks().map(|network| network.to_string()).collect();
        return Err(Error::Outside { address, networks: networks.join(", ") });
    };
    if tunnel.addresses.iter().any(|own| own.addr() == address) {
        return Err(Error::Own { address });
    }
    let (first, last) = hosts(network);
    if !(first..=last).contains(&number(address)) {
        return Err(Error::Reserved { address, network });
    }
    let holder = tunnel
        .peers
        .iter()
        .find(|peer| peer.allowed_ips.iter().any(|range| counts(*range, network) && range.contains(&address)));
    match holder {
        Some(peer) => Err(Error::InUse { address, label: peer.label(), peer: Box::new(peer.clone()) }),
        None => Ok(()),
    }
}

/// Whether a range of a peer takes addresses of the network away. A site may have all of it, or more: the single
/// addresses of others are longer prefixes, and belong to them.
fn counts(range: IpNet, network: IpNet) -> bool {
    network.contains(&range) && range != network
}

/// The lowest address of the network that nobody has.
fn next_free(network: IpNet, tunnel: &Wireguard) -> Option<IpAddr> {
    let own = tunnel.addresses.iter().map(|own| IpNet::from(own.addr())).filter(|own| network.contains(own));
    let of_peers = tunnel.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied());
    let taken = own.chain(of_peers.filter(|range| counts(*range, network)));
    let mut taken: Vec<(u128, u128)> =
        taken.map(|range| (number(range.network()), number(range.broadcast()))).collect();
    taken.sort_unstable();
    let (mut candidate, last) = hosts(network);
    for (start, end) in taken {
        if candidate < start {
            break;
        }
        candidate = candidate.max(end.checked_add(1)?);
    }
    (candidate <= last).then(|| address(candidate, network))
}

/// The first and the last address that a host can have. In a network of two addresses both can (RFC 3021, RFC 6164);
/// the first address of an IPv6 network is its routers' anycast address (RFC 4291 section 2.6.1).
fn hosts(network: IpNet) -> (u128, u128) {
    let (first, last) = (number(network.network()), number(network.broadcast()));
    match network {
        _ if network.max_prefix_len() - network.prefix_len() <= 1 => (first, last),
        IpNet::V4(_) => (first + 1, last - 1),
        IpNet::V6(_) => (first + 1, last),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address with this number, of the network's kind.
fn address(number: u128, network: IpNet) -> IpAddr {
    match network {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).expect("the number is in an IPv4 network").into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};

    fn peer(index: usize, key: &bastiond_tunnel::key::PublicKey, range: &str) -> String {
        format!("[[wireguard.peer]]\nname = \"p{index}\"\npublic_key = \"{key}\"\nallowed_ips = [{range:?}]\n")
    }

    /// A tunnel with peers that have these ranges.
    fn tunnel(addresses: &[&str], ranges: &[&str]) -> Wireguard {
        let mut text = format!("[wireguard]\naddresses = {addresses:?}\n");
        for (index, range) in ranges.iter().enumerate() {
            let key = bastiond_tunnel::key::PublicKey([u8::try_from(index + 1).unwrap(); 32]);
            text.push_str(&peer(index, &key, range));
        }
        parse(&text, &Environment::default()).unwrap().wireguard.unwrap()
    }

    fn chosen(addresses: &[&str], ranges: &[&str], wanted: &[&str]) -> String {
        let wanted: Vec<IpAddr> = wanted.iter().map(|address| address.parse().unwrap()).collect();
        match choose(&tunnel(addresses, ranges), &wanted) {
            Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_lowest_free_address_of_each_family_is_chosen() {
        let both = ["10.100.0.1/24", "fd00:100::1/64"];
        assert_eq!(chosen(&both, &[], &[]), "10.100.0.2 fd00:100::2");
        assert_eq!(
            chosen(&both, &["10.100.0.2/32", "10.100.0.4/32", "fd00:100::3/128"], &[]),
            "10.100.0.3 fd00:100::2"
        );
        // A range of another peer is skipped as a whole, and the bastion need not have the first address.
        assert_eq!(chosen(&["10.100.0.3/24"], &["10.100.0.0/30", "10.100.0.4/31"], &[]), "10.100.0.6");
        // Of several networks of one family the first one is taken.
        assert_eq!(chosen(&["10.100.0.1/24", "10.101.0.1/24"], &[], &[]), "10.100.0.2");
        // Sites that have the tunnel's network, or more, or something else, take no address away.
        assert_eq!(chosen(&["10.100.0.1/24"], &["10.100.0.0/24", "0.0.0.0/0", "192.168.7.0/24"], &[]), "10.100.0.2");
    }

    #[test]
    fn network_and_broadcast_addresses_are_never_chosen() {
        assert_eq!(chosen(&["10.100.0.1/30"], &[], &[]), "10.100.0.2");
        assert_eq!(
            chosen(&["10.100.0.1/30"], &["10.100.0.2/32"], &[]),
            "every address of 10.100.0.0/30 is in use; widen it in wireguard.addresses, or name another one by --address"
        );
        assert_eq!(chosen(&["10.100.0.0/31"], &[], &[]), "10.100.0.1");
        assert!(chosen(&["10.100.0.1/32"], &[], &[]).starts_with("every address of 10.100.0.1/32 is in use"));
        assert_eq!(chosen(&["255.255.255.1/24"], &["255.255.255.0/25"], &[]), "255.255.255.128");
        assert_eq!(chosen(&["fd00::2/127"], &[], &[]), "fd00::3");
    }

    #[test]
    fn an_address_that_is_given_is_checked() {
        let both = ["10.100.0.1/24", "fd00:100::1/64"];
        assert_eq!(chosen(&both, &[], &["10.100.0.77"]), "10.100.0.77");
        assert_eq!(chosen(&both, &[], &["fd00:100::77", "10.100.0.77"]), "fd00:100::77 10.100.0.77");
        for (wanted, expected) in [
            (&["10.101.0.2"][..], "10.101.0.2 is outside of the tunnel's networks (10.100.0.0/24, fd00:100::/64)"),
            (&["10.100.0.1"], "10.100.0.1 is this server's own address"),
            (&["10.100.0.0"], "10.100.0.0 is the network or broadcast address of 10.100.0.0/24"),
            (&["10.100.0.255"], "10.100.0.255 is the network or broadcast address of 10.100.0.0/24"),
            (&["fd00:100::"], "fd00:100:: is the network or broadcast address of fd00:100::/64"),
            (&["10.100.0.9", "10.100.0.9"], "10.100.0.9 is given twice"),
            (&["10.100.0.5"], "10.100.0.5 is in use by p0"),
        ] {
            let found = chosen(&both, &["10.100.0.4/31"], wanted);
            assert!(found.starts_with(expected), "{wanted:?}: {found}");
        }
        assert!(chosen(&[], &["10.100.0.4/31"], &[]).starts_with("the tunnel has no addresses of its own"));
    }

    #[test]
    fn ten_thousand_peers_leave_the_next_address() {
        let mut tunnel = tunnel(&["10.100.0.1/16"], &["10.100.0.2/32"]);
        let peer = tunnel.peers[0].clone();
        tunnel.peers = (2..10_002_u32)
            .rev()
            .map(|n| Peer { allowed_ips: vec![IpNet::from(IpAddr::V4((0x0a64_0000 + n).into()))], ..peer.clone() })
            .collect();
        assert_eq!(choose(&tunnel, &[]), Ok(vec!["10.100.39.18".parse().unwrap()]));
    }
}
