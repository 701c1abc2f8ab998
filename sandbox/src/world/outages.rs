//! Outages: each breaks one part of the world alone, and can be ended.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::{World, addresses as at};
use crate::cloud::{Fault, Injection, Matching, MetadataAnswer, NetworkId, Times};
use crate::namespace::{self, Namespace};

/// How often a link is asked whether it carries packets, and the pause between two questions.
const CARRIER_TRIES: usize = 150;
const CARRIER_PAUSE: Duration = Duration::from_millis(20);

/// One part of the world that does not work. Different outages can be there at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outage {
    /// The bastion's public link has no carrier.
    PublicCarrier,
    /// The bastion's public link looks well, and carries no IP packet in either direction.
    Uplink,
    /// The internet's way back to one of the bastion's public addresses is lost.
    WayBack(Ipv4Addr),
    /// A host on the internet, such as a resolver, gets no packet.
    Host(Ipv4Addr),
    /// The data plane of a network routes a destination to another server than the API says, or nowhere.
    DataPlaneRoute {
        /// The network.
        network: NetworkId,
        /// The destination of the route.
        destination: Ipv4Net,
        /// The address of the server that gets the packets; `None`: no server.
        to: Option<Ipv4Addr>,
    },
    /// The bastion's link to a network has no carrier.
    PrivateCarrier(NetworkId),
    /// The bastion's link to a network looks well, and the network's gateway loses every packet from and to it.
    PrivateLink(NetworkId),
    /// A network carries packets up to this many bytes, and loses longer ones without an ICMP error.
    PathMtu(NetworkId, u32),
    /// The metadata services take this long to answer.
    MetadataSlow(Duration),
    /// The metadata services list no network.
    MetadataEmpty,
    /// The metadata services answer 503.
    MetadataUnavailable,
    /// The metadata services do not answer.
    MetadataSilent,
    /// The API answers every request like this.
    Api(Fault),
}

impl World {
    /// Begins an outage.
    ///
    /// # Errors
    /// `ip` or `nft` refuses, for example because the outage is there already.
    pub fn begin(&self, outage: &Outage) -> Result<(), namespace::Error> {
        match outage {
            Outage::PublicCarrier => {
                // Without this the kernel removes the IPv6 address with the carrier.
                self.internet.sysctl("net.ipv6.conf.bastion.keep_addr_on_down", "1")?;
                let routes =
                    |family| self.internet.run_with_input("ip", &[family, "route", "show", "dev", "bastion"], "");
                *self.lost_routes.lock() = routes("-4")? + &routes("-6")?;
                self.internet.ip("link set bastion down")?;
                Ok(())
            }
            Outage::Uplink => {
                self.lose(outage, &[("prerouting", "iifname bastion"), ("postrouting", "oifname bastion")])
            }
            Outage::WayBack(address) => {
                self.lose(outage, &[("postrouting", &format!("oifname bastion ip daddr {address}"))])
            }
            Outage::Host(address) => self.lose(outage, &[("prerouting", &format!("ip daddr {address}"))]),
            Outage::DataPlaneRoute { network, destination, to } => {
                self.gateway(*network).override_route(*destination, *to);
                Ok(())
            }
            Outage::PrivateCarrier(network) => self.gateway(*network).unplug(self.bastion_id),
            Outage::PrivateLink(network) => self.gateway(*network).lose_packets(self.bastion_id),
            Outage::PathMtu(network, mtu) => self.gateway(*network).shrink(*mtu),
            Outage::MetadataSlow(delay) => {
                self.cloud.delay_metadata(*delay);
                Ok(())
            }
            Outage::MetadataEmpty => {
                self.answer_metadata(MetadataAnswer::NoNetworks);
                Ok(())
            }
            Outage::MetadataUnavailable => {
                self.answer_metadata(MetadataAnswer::Unavailable);
                Ok(())
            }
            Outage::MetadataSilent => {
                self.answer_metadata(MetadataAnswer::Silent);
                Ok(())
            }
            Outage::Api(fault) => {
                let (matching, times) = (Matching::any(), Times::UntilCleared);
                self.cloud.inject(Injection { matching, fault: fault.clone(), times });
                Ok(())
            }
        }
    }

    /// Ends an outage that was begun.
    ///
    /// # Errors
    /// `ip` or `nft` refuses, for example because there is no such outage.
    pub fn end(&self, outage: &Outage) -> Result<(), namespace::Error> {
        match outage {
            Outage::PublicCarrier => {
                let routes = std::mem::take(&mut *self.lost_routes.lock());
                // The kernel makes those of its own again.
                let own = routes.lines().filter(|line| !line.contains("proto kernel"));
                let mut lines = vec!["link set bastion up".to_owned()];
                lines.extend(own.map(|line| format!("route replace {} dev bastion", line.trim())));
                self.internet.ip(&lines.join("\n"))?;
                wait_for_carrier(&self.bastion, &self.settings.interfaces.public)?;
                wait_for_carrier(&self.internet, "bastion")
            }
            Outage::Uplink | Outage::WayBack(_) | Outage::Host(_) => {
                self.internet.nft(&format!("delete table inet {}", table_of(outage)))?;
                Ok(())
            }
            Outage::DataPlaneRoute { network, destination, .. } => {
                self.gateway(*network).follow_cloud_again(*destination);
                Ok(())
            }
            Outage::PrivateCarrier(network) => self.gateway(*network).plug_in(self.bastion_id),
            Outage::PrivateLink(network) => self.gateway(*network).carry_packets(self.bastion_id),
            Outage::PathMtu(network, _) => self.gateway(*network).widen(),
            Outage::MetadataSlow(_) => {
                self.cloud.delay_metadata(Duration::ZERO);
                Ok(())
            }
            Outage::MetadataEmpty | Outage::MetadataUnavailable | Outage::MetadataSilent => {
                self.answer_metadata(MetadataAnswer::Prompt);
                Ok(())
            }
            Outage::Api(_) => {
                self.cloud.clear_faults();
                Ok(())
            }
        }
    }

    /// Gives the bastion another public address, such as a floating IP that is configured on it: the provider routes it
    /// to the bastion, and the bastion has it.
    pub fn add_public_address(&self, address: Ipv4Addr) -> Result<(), namespace::Error> {
        let via = at::BASTION;
        self.internet.ip(&format!("route replace {address}/32 via {via} dev bastion onlink"))?;
        self.bastion.ip(&format!("addr replace {address}/32 dev {}", self.settings.interfaces.public))?;
        Ok(())
    }

    /// Drops packets at the internet's router, by pairs of a hook and a condition.
    fn lose(&self, outage: &Outage, places: &[(&str, &str)]) -> Result<(), namespace::Error> {
        let chain = |(hook, condition): &(&str, &str)| {
            let priority = if *hook == "prerouting" { -400 } else { 400 };
            format!(
                "chain {hook} {{ type filter hook {hook} priority {priority}; policy accept; {condition} drop; }}\n"
            )
        };
        let chains: String = places.iter().map(chain).collect();
        self.internet.nft(&format!("table inet {} {{\n{chains}}}", table_of(outage)))?;
        Ok(())
    }

    fn answer_metadata(&self, answer: MetadataAnswer) {
        self.cloud.update_settings(|settings| settings.metadata = answer);
    }
}

/// Waits until the kernel says that a link carries packets again: it tells of carriers at most once a second.
fn wait_for_carrier(namespace: &Namespace, interface: &str) -> Result<(), namespace::Error> {
    for _ in 0..CARRIER_TRIES {
        if namespace.ip(&format!("link show dev {interface}"))?.contains("state UP") {
            break;
        }
        std::thread::sleep(CARRIER_PAUSE);
    }
    Ok(())
}

/// The name of the table that drops an outage's packets.
fn table_of(outage: &Outage) -> String {
    let name = |address: &Ipv4Addr| address.to_string().replace('.', "_");
    match outage {
        Outage::WayBack(address) => format!("way_back_{}", name(address)),
        Outage::Host(address) => format!("host_{}", name(address)),
        _ => "uplink".to_owned(),
    }
}
