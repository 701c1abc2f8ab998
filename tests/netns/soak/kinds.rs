//! The kinds of faults: each hits a whole network or a public address, on the bastion or in the cloud, or should not
//! hit anything.

use std::time::Duration;

use sandbox::cloud::Fault;
use sandbox::world::{Outage, World, addresses as at};

use super::SECOND_ADDRESS;
use crate::gateway::{Result, ensure};

/// A kind of fault.
pub(super) struct Kind {
    pub name: &'static str,
    what: What,
}

enum What {
    /// In the sandbox's world.
    World(fn(&World) -> Outage),
    /// Lines of `ip` on the bastion, and those that undo them.
    Ip(&'static str, &'static str),
    /// An nft script on the bastion, and one that undoes it. What the daemon repairs needs none.
    Nft(&'static str, &'static str),
    /// Arguments of iptables on the bastion, after `-A` and, to undo it, after `-D`.
    Iptables(&'static str),
    /// A setting of the bastion's kernel and a wrong value, which the daemon repairs.
    Sysctl(&'static str, &'static str),
    /// Somebody removes the cloud's route, which the daemon adds again.
    RemovedRoute,
}

const fn kind(name: &'static str, what: What) -> Kind {
    Kind { name, what }
}

/// The whole internet.
fn everywhere() -> ipnet::Ipv4Net {
    ipnet::Ipv4Net::default()
}

const STRANGERS: &str = "delete table ip stranger";

pub(super) const KINDS: [Kind; 30] = [
    kind("the uplink is silent", What::World(|_| Outage::Uplink)),
    kind("the public link has no carrier", What::World(|_| Outage::PublicCarrier)),
    kind("the way back to the first address is lost", What::World(|_| Outage::WayBack(at::BASTION))),
    kind("the way back to the second address is lost", What::World(|_| Outage::WayBack(SECOND_ADDRESS))),
    kind(
        "the first network's route is gone in the data plane",
        What::World(|world| Outage::DataPlaneRoute {
            network: world.private_network_id(),
            destination: everywhere(),
            to: None,
        }),
    ),
    kind(
        "the second network's route is gone in the data plane",
        What::World(|world| Outage::DataPlaneRoute {
            network: world.second_network_id(),
            destination: everywhere(),
            to: None,
        }),
    ),
    kind(
        "the first network's route leads to another server",
        What::World(|world| Outage::DataPlaneRoute {
            network: world.private_network_id(),
            destination: everywhere(),
            to: Some(at::WORKER),
        }),
    ),
    kind(
        "the first private link has no carrier",
        What::World(|world| Outage::PrivateCarrier(world.private_network_id())),
    ),
    kind(
        "the second private link has no carrier",
        What::World(|world| Outage::PrivateCarrier(world.second_network_id())),
    ),
    kind("the first private link is silent", What::World(|world| Outage::PrivateLink(world.private_network_id()))),
    kind("the second private link is silent", What::World(|world| Outage::PrivateLink(world.second_network_id()))),
    kind("one resolver is dead", What::World(|_| Outage::Host([185, 12, 64, 1].into()))),
    kind("the metadata service is silent", What::World(|_| Outage::MetadataSilent)),
    kind("the metadata service answers 503", What::World(|_| Outage::MetadataUnavailable)),
    kind("the metadata service lists no network", What::World(|_| Outage::MetadataEmpty)),
    kind("the metadata service is slow", What::World(|_| Outage::MetadataSlow(Duration::from_millis(2500)))),
    kind("the API fails", What::World(|_| Outage::Api(Fault::Status { code: 503, json: true }))),
    kind("somebody removes the cloud's route", What::RemovedRoute),
    kind(
        "somebody sets eth1 down",
        What::Ip(
            "link set eth1 down",
            "link set eth1 up
             route replace 10.0.0.1/32 dev eth1 scope link
             route replace 10.0.0.0/16 via 10.0.0.1 dev eth1",
        ),
    ),
    kind(
        "somebody sets eth0 down",
        What::Ip("link set eth0 down", "link set eth0 up\nroute replace default via 172.31.1.1 dev eth0 onlink"),
    ),
    kind(
        "the default route is gone",
        What::Ip("route del default", "route add default via 172.31.1.1 dev eth0 onlink"),
    ),
    kind(
        "the private network's own route is gone",
        What::Ip("route del 10.0.0.0/16", "route add 10.0.0.0/16 via 10.0.0.1 dev eth1"),
    ),
    kind(
        "somebody's rule for what comes in by eth1",
        What::Ip("rule add pref 90 iif eth1 blackhole", "rule del pref 90 iif eth1 blackhole"),
    ),
    kind(
        "somebody's rule for the network's sources",
        What::Ip("rule add pref 91 from 10.0.0.0/16 blackhole", "rule del pref 91 from 10.0.0.0/16 blackhole"),
    ),
    kind("forwarding is switched off", What::Sysctl("net.ipv4.ip_forward", "0")),
    kind("forwarding of eth1 is switched off", What::Sysctl("net.ipv4.conf.eth1.forwarding", "0")),
    kind("somebody flushes all rules", What::Nft("flush ruleset", "")),
    kind("our translation is flushed", What::Nft("flush chain inet bastiond postrouting", "")),
    kind("somebody's iptables drops what comes from eth1", What::Iptables("FORWARD -i eth1 -j DROP")),
    kind(
        "somebody's nft drops what comes in by eth2",
        What::Nft(
            "table ip stranger { chain in { type filter hook prerouting priority -150; iifname \"eth2\" drop; }; }",
            STRANGERS,
        ),
    ),
];

impl Kind {
    pub(super) fn begin(&self, world: &World) -> Result {
        let bastion = world.bastion();
        match &self.what {
            What::World(outage) => world.begin(&outage(world))?,
            What::Ip(begin, _) => drop(bastion.ip(begin)?),
            What::Nft(begin, _) => drop(bastion.nft(begin)?),
            What::Iptables(rule) => iptables(world, "-A", rule)?,
            What::Sysctl(key, value) => bastion.sysctl(key, value)?,
            What::RemovedRoute => world.cloud().remove_route(world.private_network_id(), everywhere()),
        }
        Ok(())
    }

    pub(super) fn end(&self, world: &World) -> Result {
        let bastion = world.bastion();
        match &self.what {
            What::World(outage) => world.end(&outage(world))?,
            What::Ip(_, end) => drop(bastion.ip(end)?),
            What::Nft(_, "") | What::Sysctl(..) | What::RemovedRoute => {}
            What::Nft(_, end) => drop(bastion.nft(end)?),
            What::Iptables(rule) => iptables(world, "-D", rule)?,
        }
        Ok(())
    }
}

fn iptables(world: &World, what: &str, rule: &str) -> Result {
    let arguments = [what].into_iter().chain(rule.split(' '));
    let output = world.bastion().command("iptables").args(arguments).output()?;
    ensure(output.status.success(), format!("{output:?}"))
}
