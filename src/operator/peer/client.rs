//! A client's configuration in the format of wg-quick(8), which the WireGuard apps take too. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::config::{Peer, Wireguard};
use crate::reconcile::WayIn;
use bastiond_tunnel::key::{PresharedKey, PrivateKey};

/// Seconds between packets that keep the client's own NAT open: the value of WireGuard's documentation.
const KEEPALIVE: u16 = 25;

/// What stands in a configuration for what is not known.
pub(super) mod placeholder {
    pub(crate) const PRIVATE_KEY: &str = "PRIVATE_KEY_OF_THE_CLIENT";
    pub(crate) const PUBLIC_KEY: &str = "PUBLIC_KEY_OF_THE_SERVER";
    pub(crate) const ENDPOINT: &str = "ADDRESS_OF_THE_SERVER:PORT";
}

/// A client, and the way in.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) label: &'a str,
    /// Its own addresses in the tunnel.
    pub(super) addresses: Vec<IpAddr>,
    /// Its private key, which this server forgets; `None`: only the client has it.
    pub(super) private_key: Option<PrivateKey>,
    pub(super) preshared_key: Option<&'a PresharedKey>,
    /// Whether all of its traffic goes through the tunnel.
    pub(super) full_tunnel: bool,
    pub(super) way_in: &'a WayIn,
}

impl Client<'_> {
    /// The configuration. The text is a secret.
    pub(super) fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(1024));
        let mut line = |words: std::fmt::Arguments<'_>| {
            text.write_fmt(words).and_then(|()| text.write_char('\n')).expect("writing to a string does not fail");
        };
        line(format_args!("# {}", self.label));
        line(format_args!("[Interface]"));
        match &self.private_key {
            Some(key) => line(format_args!("PrivateKey = {}", key.to_base64().as_str())),
            None => line(format_args!("PrivateKey = {}", placeholder::PRIVATE_KEY)),
        }
        line(format_args!("Address = {}", list(self.addresses.iter().map(|address| IpNet::from(*address)))));
        if !self.way_in.dns.is_empty() {
            line(format_args!("DNS = {}", list(&self.way_in.dns)));
        }
        if let Some(mtu) = self.way_in.mtu {
            line(format_args!("MTU = {mtu}"));
        }
        line(format_args!("\n[Peer]"));
        match self.way_in.public_key {
            Some(key) => line(format_args!("PublicKey = {key}")),
            None => line(format_args!("PublicKey = {}", placeholder::PUBLIC_KEY)),
        }
        if let Some(key) = self.preshared_key {
            line(format_args!("PresharedKey = {}", key.to_base64().as_str()));
        }
        line(format_args!("Endpoint = {}", self.way_in.endpoint.as_deref().unwrap_or(placeholder::ENDPOINT)));
        if self.full_tunnel {
            line(format_args!("AllowedIPs = 0.0.0.0/0, ::/0"));
        } else {
            line(format_args!("AllowedIPs = {}", list(&self.way_in.networks)));
        }
        line(format_args!("PersistentKeepalive = {KEEPALIVE}"));
        text
    }

    /// What a person has to replace in the text.
    pub(super) fn gaps(&self) -> Vec<&'static str> {
        let gaps = [
            (self.private_key.is_none(), placeholder::PRIVATE_KEY),
            (self.way_in.public_key.is_none(), placeholder::PUBLIC_KEY),
            (self.way_in.endpoint.is_none(), placeholder::ENDPOINT),
        ];
        gaps.into_iter().filter(|(is_gap, _)| *is_gap).map(|(_, words)| words).collect()
    }
}

/// A peer's own addresses in the tunnel: the single ones among its ranges in the tunnel's networks.
pub(super) fn addresses(peer: &Peer, tunnel: &Wireguard) -> Vec<IpAddr> {
    let is_inside = |range: &&IpNet| tunnel.networks().any(|network| network.contains(*range));
    let is_single = |range: &&IpNet| range.prefix_len() == range.max_prefix_len();
    peer.allowed_ips.iter().filter(is_single).filter(is_inside).map(IpNet::addr).collect()
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastiond_tunnel::file;

    const PRIVATE: &str = "cAdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LGo=";

    fn way_in() -> WayIn {
        WayIn {
            public_key: Some("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap()),
            endpoint: Some("198.51.100.2:51820".to_owned()),
            mtu: Some(1420),
            dns: vec!["10.0.0.2".parse().unwrap()],
            networks: vec!["10.0.0.0/16".parse().unwrap(), "10.100.0.0/24".parse().unwrap()],
        }
    }

    #[test]
    fn a_client_gets_all_that_wg_quick_needs() {
        let (key, way_in) = (PresharedKey([2; 32]), way_in());
        let mut client = Client {
            label: "alice/phone",
            addresses: vec!["10.100.0.2".parse().unwrap(), "fd00:100::2".parse().unwrap()],
            private_key: Some(PRIVATE.parse().unwrap()),
            preshared_key: Some(&key),
            full_tunnel: false,
            way_in: &way_in,
        };
        let text = client.text();
        assert_eq!(
            text.as_str(),
            "# alice/phone
[Interface]
PrivateKey = cAdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LGo=
Address = 10.100.0.2/32, fd00:100::2/128
DNS = 10.0.0.2
MTU = 1420

[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
PresharedKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=
Endpoint = 198.51.100.2:51820
AllowedIPs = 10.0.0.0/16, 10.100.0.0/24
PersistentKeepalive = 25
"
        );
        assert_eq!(client.gaps(), <[&str; 0]>::default());
        let read = file::parse(text.as_bytes()).unwrap();
        assert_eq!(read.private_key, client.private_key);
        assert_eq!((read.mtu, read.warnings), (Some(1420), Vec::new()));
        assert_eq!(read.peers[0].preshared_key, Some(key.clone()));
        client.full_tunnel = true;
        assert!(client.text().contains("\nAllowedIPs = 0.0.0.0/0, ::/0\n"));
    }

    #[test]
    fn what_is_not_known_is_a_placeholder_that_no_program_takes_for_a_value() {
        let way_in = WayIn { networks: way_in().networks, ..WayIn::default() };
        let client = Client {
            label: "alice",
            addresses: vec!["10.100.0.2".parse().unwrap()],
            private_key: None,
            preshared_key: None,
            full_tunnel: false,
            way_in: &way_in,
        };
        let text = client.text();
        assert_eq!(client.gaps().len(), 3);
        assert!(client.gaps().iter().all(|gap| text.contains(gap)), "{}", text.as_str());
        assert_eq!(file::parse(text.as_bytes()).unwrap_err().len(), 3);
    }
}
