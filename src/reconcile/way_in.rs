//! What clients of the tunnel have to know of this server.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Gateway;
use crate::config::{self, Config};
use crate::inputs::tunnel;
use crate::net::without_nested;
use crate::outcome::{ComponentName, Problem, State};
use crate::site::Site;
use bastiond_tunnel::key::PublicKey;

/// The way into the private networks, for a client's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WayIn {
    /// This server's public key, once there is one.
    pub(crate) public_key: Option<PublicKey>,
    /// Where clients reach it, `vpn.example.org:51820`; `None` while its public address is not known.
    pub(crate) endpoint: Option<String>,
    /// Largest IP packet inside, in bytes; `None` if it is not known.
    pub(crate) mtu: Option<u32>,
    /// The resolvers that clients use.
    pub(crate) dns: Vec<IpAddr>,
    /// What clients reach by the tunnel: the tunnel's networks, the private ones, and what is behind these. None is
    /// inside of another.
    pub(crate) networks: Vec<IpNet>,
}

impl WayIn {
    /// The way in as far as the configuration and the site tell.
    pub(crate) fn new(tunnel: &config::Wireguard, mtu: Option<u32>, site: &Site) -> Self {
        let public = site.public.as_ref().and_then(|link| link.addresses.first());
        let at_public_address =
            || public.map(|address| SocketAddr::new(IpAddr::V4(*address), tunnel.listen_port).to_string());
        let private = site.private.iter().flat_map(crate::site::PrivateLink::ranges).map(IpNet::V4);
        Self {
            public_key: tunnel.private_key.as_ref().map(bastiond_tunnel::key::PrivateKey::public),
            endpoint: tunnel.endpoint.as_ref().map(ToString::to_string).or_else(at_public_address),
            mtu: tunnel.mtu.or(mtu),
            dns: tunnel.dns.clone(),
            networks: without_nested(tunnel.networks().chain(private)),
        }
    }
}

impl WayIn {
    /// The way in as far as the configuration alone tells; `None` if it has no tunnel.
    pub(crate) fn of_configuration(config: &Config) -> Option<Self> {
        let tunnel = config.wireguard.as_ref()?;
        let private = config.site.private.iter().flat_map(|link| [link.network].into_iter().chain(link.also.clone()));
        let way_in = Self::new(tunnel, None, &Site::default());
        let networks = without_nested(way_in.networks.into_iter().chain(private.map(IpNet::V4)));
        Some(Self { networks, ..way_in })
    }
}

impl Gateway {
    /// The way in, if there is a tunnel.
    pub(crate) fn way_in(&self, config: &Config) -> Option<WayIn> {
        let wanted = config.wireguard.as_ref()?;
        let mtu = tunnel(config, &self.site, &self.seen_return_routes).map(|tunnel| tunnel.mtu);
        let way_in = WayIn::new(wanted, mtu, &self.site);
        let of_interface = self.report.tunnel.as_ref().and_then(|tunnel| tunnel.public_key);
        Some(WayIn { public_key: of_interface.or(way_in.public_key), ..way_in })
    }

    /// What keeps peers from what the configuration gives them: components that have failed or are held back.
    pub(crate) fn obstacles_of_peers(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        for name in [ComponentName::Site, ComponentName::Nat, ComponentName::Wireguard, ComponentName::Routes] {
            let Some(report) = self.report.components.get(&name) else { continue };
            if !matches!(report.state, State::Failed | State::HeldBack) {
                continue;
            }
            obstacles.extend(report.problems.iter().map(|Problem { what, advice, .. }| format!("{what}: {advice}")));
            if report.problems.is_empty() {
                obstacles.push(format!("{name} {}: {}", report.state, report.detail));
            }
        }
        obstacles
    }
}
