//! The routes that private networks need so that their hosts can answer peers of the tunnel.
//!
//! Which ranges are wanted follows from configuration and site. Which ones the cloud's networks really have is
//! observed by the hcloud component ([`SeenReturnRoutes`]), and decides whether peers are masqueraded.

use ipnet::{IpNet, Ipv4Net};

use super::tunnel::{SeenReturnRoutes, Tunnel, tunnel};
use crate::config::{Config, Snat};
use crate::site::Site;

/// The tunnel's ranges that each private network is to send to this server, so that its hosts can answer peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WantedReturnRoutes {
    /// The ranges, those of the tunnel's own networks first.
    pub ranges: Vec<Ipv4Net>,
    /// Whether peers are masqueraded where a range cannot be had (`wireguard.snat = "auto"`).
    pub else_masqueraded: bool,
}

/// The ranges that need a route; none where there is no tunnel, where all its peers are masqueraded
/// (`snat = true`), or where somebody else adds the routes (`routes = false`).
pub(crate) fn wanted_return_routes(config: &Config, site: &Site) -> WantedReturnRoutes {
    let snat = config.wireguard.as_ref().map_or(Snat::Always, |wanted| wanted.snat);
    let tunnel = tunnel(config, site, &SeenReturnRoutes::new());
    let tunnel = tunnel.filter(|tunnel| snat != Snat::Always && tunnel.routes);
    let own = |range: &Ipv4Net, tunnel: &Tunnel| tunnel.networks.iter().any(|own| IpNet::V4(*range).contains(own));
    let ranges = tunnel.map(|tunnel| {
        let mut ranges = tunnel.routed();
        ranges.sort_by_key(|range| !own(range, &tunnel));
        ranges
    });
    WantedReturnRoutes { ranges: ranges.unwrap_or_default(), else_masqueraded: snat == Snat::Auto }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_version_0_1_0_is_read() {
        // `ways-back.json` in the runtime directory.
        let seen: SeenReturnRoutes = serde_json::from_str(r#"{"eth1":["10.100.0.0/24","192.168.178.0/24"]}"#).unwrap();
        let ranges = vec!["10.100.0.0/24".parse().unwrap(), "192.168.178.0/24".parse().unwrap()];
        assert_eq!(seen, SeenReturnRoutes::from([("eth1".parse().unwrap(), ranges)]));
    }
}
