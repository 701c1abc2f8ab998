//! What is said about metadata that is not believed and about MTUs, in an operator's words.

use super::super::metadata::{Doubt, Failure, MetadataView};
use super::super::model::PrivateLink;
use crate::hetzner::{NETWORK_MTU, VSWITCH_MTU};
use crate::net::{NetworkId, ServerId};
use crate::outcome::Problem;

/// Why the metadata is not known, or not up to date.
pub(super) fn silent_metadata(metadata: &MetadataView) -> Option<Problem> {
    let (what, advice) = match &metadata.error {
        Some(Failure { text, is_slow: true }) => (
            format!("the metadata service does not answer: it accepts the connection, but is slow: {text}"),
            "wait: the daemon asks again by itself, and gives it 15 s each time",
        ),
        Some(Failure { text, is_slow: false }) => (
            format!("the metadata service does not answer: {text}"),
            "on a server outside Hetzner Cloud, write the private links into [[site.private]]",
        ),
        None if metadata.latest.is_none() && !metadata.settled => (
            "the metadata service has not answered yet".to_owned(),
            "wait: the first answer may take several seconds, and the networks are served once it is there",
        ),
        None => return None,
    };
    Some(Problem::new("metadata-silent", what, advice))
}

/// What of the metadata is not believed, while it contradicts what stands.
pub(super) fn doubtful(doubt: &Doubt, links: &[PrivateLink], server_id: Option<ServerId>) -> Option<Problem> {
    let link_of = |id: &NetworkId| links.iter().find(|link| link.network_id == Some(*id));
    let what = match doubt {
        Doubt::Unlisted(id) => {
            let link = link_of(id)?;
            format!(
                "the metadata service no longer lists network {id}, but {} still has its address {}: it is served",
                link.interface, link.address
            )
        }
        Doubt::Range(id, range) => {
            let link = link_of(id)?;
            format!(
                "the metadata service lists network {id} with the range {range}, but {} has the route of {}, which is \
                 served",
                link.interface, link.network
            )
        }
        Doubt::Interface(id, mac) => {
            let link = link_of(id)?;
            format!(
                "the metadata service lists network {id} with the Ethernet address {mac}, which no interface has, but {} \
                 still has its address {}: it is served",
                link.interface, link.address
            )
        }
        Doubt::Server(id) => format!(
            "the metadata service calls this server {id}, and called it {} before",
            server_id.map_or_else(String::new, |id| id.to_string())
        ),
    };
    let advice = "the daemon asks again by itself; if it lasts, look at the server in the cloud's console";
    Some(Problem::new("metadata-doubtful", what, advice))
}

/// A link that sends packets which the network does not carry.
pub(super) fn mtu_problem(link: &PrivateLink) -> Option<Problem> {
    let limit = link.lower_limit()?;
    Some(Problem::new(
        "link-mtu-too-large",
        format!(
            "{} has MTU {}, but Hetzner's networks carry packets of at most {limit} bytes: larger ones are lost",
            link.interface, link.mtu
        ),
        format!(
            "run `ip link set {} mtu {limit}`, and correct the network configuration and that of hosts with a larger \
             MTU; until then only TCP connections keep below it",
            link.interface
        ),
    ))
}

/// A link with an MTU that costs throughput, unless it leads to a vSwitch.
pub(super) fn mtu_hint(link: &PrivateLink) -> Option<Problem> {
    let is_small = link.network_id.is_some() && link.mtu < NETWORK_MTU && link.mtu != VSWITCH_MTU;
    is_small.then(|| {
        Problem::new(
            "link-mtu-small",
            format!("{} has MTU {}, and Hetzner's networks carry {NETWORK_MTU} bytes", link.interface, link.mtu),
            format!("if that is not intended: ip link set {} mtu {NETWORK_MTU}", link.interface),
        )
    })
}
