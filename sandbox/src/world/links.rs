//! The public side: the links of the internet and the addresses of its hosts.

use std::net::Ipv6Addr;

use super::addresses as at;
use super::hosts;
use super::resolver;
use crate::namespace::{self, Namespace};

/// The MAC address of the bastion's public interface. At Hetzner those begin with 96:00.
pub const BASTION_MAC: &str = "96:00:00:2a:00:02";

/// Connects the server and the bastion's public interface to the internet's router.
pub(super) fn connect_internet(
    internet: &Namespace,
    server: &Namespace,
    bastion: &Namespace,
    public: &str,
    bastion_v6: Ipv6Addr,
) -> Result<(), namespace::Error> {
    let (server_ns, bastion_ns) = (server.name(), bastion.name());
    let prefix = prefix_64(bastion_v6);
    internet.ip(&format!(
        "link add name server type veth peer name eth0 netns {server_ns}
         link add name bastion type veth peer name {public} netns {bastion_ns} address {BASTION_MAC}
         link set server up
         link set bastion up
         addr add {api}/24 dev server
         addr add {router_v6}/64 dev server nodad
         addr add {gateway}/32 dev bastion
         addr add {gateway_v6}/64 dev bastion nodad
         addr add {metadata}/32 dev lo
         addr add {resolver}/32 dev lo
         addr add {other_resolver}/32 dev lo
         route add {bastion}/32 dev bastion scope link
         route add 10.0.0.0/8 via {bastion} dev bastion onlink
         route add {bastion_v6}/128 dev bastion
         route add {prefix}/64 via {bastion_v6} dev bastion",
        api = at::API,
        router_v6 = at::ROUTER_V6,
        gateway = at::PUBLIC_GATEWAY,
        gateway_v6 = at::PUBLIC_GATEWAY_V6,
        metadata = at::METADATA,
        resolver = resolver::RESOLVERS[0],
        other_resolver = resolver::RESOLVERS[1],
        bastion = at::BASTION,
    ))?;
    server.ip(&format!(
        "link set eth0 up
         addr add {}/24 dev eth0
         addr add {}/64 dev eth0 nodad
         route add default via {} dev eth0
         route add default via {} dev eth0",
        at::SERVER,
        at::SERVER_V6,
        at::API,
        at::ROUTER_V6,
    ))?;
    // The metadata service of a server is on the server's own host, closer than any router.
    bastion.ip(&format!("addr add {}/32 dev lo\nlink set {public} up", at::METADATA))?;
    Ok(())
}

/// Configures a server's public interface as DHCP and cloud-init do.
pub(super) fn configure_public(
    bastion: &Namespace,
    interface: &str,
    bastion_v6: Ipv6Addr,
) -> Result<(), namespace::Error> {
    bastion.ip(&format!(
        "addr add {}/32 dev {interface}
         route add default via {} dev {interface} onlink
         addr add {bastion_v6}/64 dev {interface} nodad
         route add default via {} dev {interface}",
        at::BASTION,
        at::PUBLIC_GATEWAY,
        at::PUBLIC_GATEWAY_V6,
    ))?;
    Ok(())
}

/// The laptop and the NAT router in front of it.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) router: Namespace,
    pub(super) laptop: Namespace,
}

impl Home {
    pub(super) fn build(internet: &Namespace, router: &str, laptop: &str) -> Result<Self, namespace::Error> {
        let home = Self { router: hosts::router(router)?, laptop: hosts::host(laptop)? };
        let (provider, public) = (at::HOME_GATEWAY, at::HOME);
        let (inside, laptop) = (at::LAPTOP_GATEWAY, at::LAPTOP);
        internet.ip(&format!(
            "link add name home type veth peer name wan netns {}
             link set home up
             addr add {provider}/24 dev home",
            home.router.name()
        ))?;
        home.router.ip(&format!(
            "link add name lan type veth peer name eth0 netns {}
             link set wan up
             link set lan up
             addr add {public}/24 dev wan
             addr add {inside}/24 dev lan
             route add default via {provider} dev wan",
            home.laptop.name()
        ))?;
        home.router.nft(
            "table ip home {
                 chain postrouting {
                     type nat hook postrouting priority srcnat; policy accept;
                     oifname \"wan\" masquerade
                 }
                 chain forward {
                     type filter hook forward priority filter; policy drop;
                     ct state established,related accept
                     iifname \"lan\" accept
                 }
             }",
        )?;
        home.laptop.ip(&format!(
            "link set eth0 up
             addr add {laptop}/24 dev eth0
             route add default via {inside} dev eth0"
        ))?;
        Ok(home)
    }
}

/// The /64 network of an address.
fn prefix_64(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)
}
