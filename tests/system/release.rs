//! The releases that machines boot, and how each configures its network: as Hetzner's documentation describes it by
//! hand, <https://docs.hetzner.com/cloud/networks/server-configuration/>.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use sandbox::world::{World, addresses as at};

use crate::machine::Machine;
use crate::shared::Result;

/// A release that the package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    Debian12,
    Debian13,
    Ubuntu2404,
}

impl Release {
    pub(crate) const ALL: [Self; 3] = [Self::Debian12, Self::Debian13, Self::Ubuntu2404];

    /// The name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debian12 => "Debian 12",
            Self::Debian13 => "Debian 13",
            Self::Ubuntu2404 => "Ubuntu 24.04",
        }
    }

    /// The variable with the path of its tree.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Debian12 => "BASTIOND_SYSTEM_ROOT",
            Self::Debian13 => "BASTIOND_SYSTEM_ROOT_DEBIAN13",
            Self::Ubuntu2404 => "BASTIOND_SYSTEM_ROOT_UBUNTU2404",
        }
    }

    /// Whether its tree could be built.
    pub(crate) fn is_there(self) -> bool {
        std::env::var_os(self.variable()).is_some_and(|value| !value.is_empty())
    }

    /// The command that sets up a private host's link anew, as an administrator does it. `netplan apply` needs udevd,
    /// which does not run in containers.
    pub(crate) fn restart_network(self) -> &'static [&'static str] {
        match self {
            Self::Debian12 | Self::Debian13 => &["systemctl", "restart", "networking.service"],
            Self::Ubuntu2404 => &["networkctl", "reconfigure", "eth0"],
        }
    }

    /// Writes the network configuration of a machine.
    pub(crate) fn configure(self, machine: &Machine, links: &[Link]) -> Result {
        match self {
            // There is no DNS here, and the machine would wait for it.
            Self::Debian12 | Self::Debian13 => {
                machine.write("/etc/resolv.conf", 0o644, "nameserver 127.0.0.1\n")?;
                machine.write("/etc/network/interfaces", 0o644, interfaces(links))
            }
            // /etc/resolv.conf is systemd-resolved's.
            Self::Ubuntu2404 => machine.write("/etc/netplan/50-world.yaml", 0o600, netplan(links)),
        }
    }
}

/// The configuration of a link.
pub(crate) enum Link {
    /// The public one of a server.
    Public { name: &'static str, address: Ipv4Addr, v6: Ipv6Addr },
    /// One to a private network.
    Private { name: &'static str, address: Ipv4Addr, network: at::Range },
}

impl Link {
    /// The links of the bastion.
    pub(crate) fn of_bastion(world: &World) -> [Self; 3] {
        [
            Self::Public { name: "eth0", address: at::BASTION, v6: world.bastion_v6() },
            Self::Private { name: "eth1", address: at::BASTION_PRIVATE, network: at::PRIVATE },
            Self::Private { name: "eth2", address: at::BASTION_SECOND, network: at::SECOND },
        ]
    }
}

/// The file for ifupdown.
fn interfaces(links: &[Link]) -> String {
    let mut text = String::from("auto lo\niface lo inet loopback\n");
    for link in links {
        let _ = match link {
            Link::Public { name, address, v6 } => write!(
                text,
                "\nauto {name}\niface {name} inet static\n    address {address}/32\n    \
                 up ip route add default via {gateway} dev {name} onlink\n    \
                 up ip addr add {v6}/64 dev {name} nodad\n    up ip route add default via {gateway_v6} dev {name}\n",
                gateway = at::PUBLIC_GATEWAY,
                gateway_v6 = at::PUBLIC_GATEWAY_V6,
            ),
            Link::Private { name, address, network } => write!(
                text,
                "\nauto {name}\niface {name} inet static\n    address {address}/32\n    \
                 up ip route add {gateway}/32 dev {name} scope link\n    \
                 up ip route add {range} via {gateway} dev {name}\n",
                gateway = network.gateway(),
                range = network.range,
            ),
        };
    }
    text
}

/// The file for netplan, which systemd-networkd carries out.
fn netplan(links: &[Link]) -> String {
    let mut text = String::from("network:\n  version: 2\n  renderer: networkd\n  ethernets:\n");
    for link in links {
        let _ = match link {
            Link::Public { name, address, v6 } => write!(
                text,
                "    {name}:\n      accept-ra: false\n      addresses: [\"{address}/32\", \"{v6}/64\"]\n      routes:\n\
                 \x20       - {{to: 0.0.0.0/0, via: {gateway}, on-link: true}}\n\
                 \x20       - {{to: \"::/0\", via: \"{gateway_v6}\", on-link: true}}\n",
                gateway = at::PUBLIC_GATEWAY,
                gateway_v6 = at::PUBLIC_GATEWAY_V6,
            ),
            Link::Private { name, address, network } => write!(
                text,
                "    {name}:\n      accept-ra: false\n      addresses: [\"{address}/32\"]\n      routes:\n\
                 \x20       - {{to: {gateway}/32, scope: link}}\n\
                 \x20       - {{to: {range}, via: {gateway}}}\n",
                gateway = network.gateway(),
                range = network.range,
            ),
        };
    }
    text
}
