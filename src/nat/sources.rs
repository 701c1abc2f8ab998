//! The firewall report: counters, and the sets that the rules fill with sources, read when an operator asks. An
//! operator can also end a ban.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::command::Command;
use super::counters::{Count, read_counters};
use super::element::{Element as SetElement, FieldValue};
use super::listed_set;
use super::model::TABLE;
use super::nft::{Error, Nft};
use super::status::{Ban, Bans, FirewallReport, Source, Sources};
use crate::error::chain;

/// How many sources of each kind the report lists.
const LISTED: usize = 10;
/// One customer's share of IPv6: an attacker has all of it, so the rules ban it as one source
/// (`desired::limited_sources`).
const PREFIX_OF_ONE: u8 = 64;

/// What the rules have counted, and whose packets they dropped; `None` if there is no table, or the counters cannot be
/// read.
pub(crate) async fn firewall_report() -> Option<FirewallReport> {
    let counters = match read_counters() {
        Ok(counters) if counters.is_empty() => return None,
        Ok(counters) => counters,
        Err(error) => {
            tracing::debug!(component = "nat", %error, "the counters cannot be read");
            return None;
        }
    };
    let nft = Nft::find().ok()?;
    let mut listed = Vec::new();
    for name in ["scanning", "over_new_flows", "over_flows", "over_ssh", "refused_peers", "banned4", "banned6"] {
        listed.push(list_set(&nft, name).await.unwrap_or_else(|error| {
            tracing::debug!(component = "nat", set = name, error = %chain(&error), "cannot be listed");
            Set::default()
        }));
    }
    let [scanning, over_new_flows, over_flows, over_ssh, refused_peers, banned4, banned6] = listed.try_into().ok()?;
    Some(FirewallReport {
        counters,
        scanning: scanning.into_sources(),
        over_new_flows: over_new_flows.into_sources(),
        over_flows: over_flows.into_sources(),
        over_ssh: over_ssh.into_sources(),
        refused_peers: refused_peers.into_sources(),
        banned: bans(banned4, banned6),
    })
}

/// Lets a source log in again. Returns whether it was banned. Its attempts are forgotten, too: otherwise the next one
/// would bring the ban back.
pub(crate) async fn unban(address: IpAddr) -> Result<bool, Error> {
    let (ending, source) = match address {
        IpAddr::V4(_) => ("4", address),
        IpAddr::V6(v6) => ("6", Ipv6Net::new_assert(v6, PREFIX_OF_ONE).trunc().addr().into()),
    };
    let nft = Nft::find()?;
    let remove = async |set: &str| {
        let elements = [SetElement::new([FieldValue::Address(source)])].into();
        nft.apply(&[Command::DeleteElements { set: format!("{set}{ending}").into(), elements }]).await
    };
    // First, since no attempt is counted during a ban. nft refuses if there was no attempt.
    let tries = remove("ssh_tries").await;
    if let Err(error @ (Error::Missing { .. } | Error::Run { .. } | Error::TimedOut { .. })) = tries {
        return Err(error);
    }
    match remove("banned").await {
        Ok(()) => Ok(true),
        // nft says in words only that there was no such element, so the set is listed to find out.
        Err(error @ Error::Refused { .. }) => {
            let banned = list_set(&nft, &format!("banned{ending}")).await?;
            if banned.elements.iter().any(|element| element.address == source) { Err(error) } else { Ok(false) }
        }
        Err(error) => Err(error),
    }
}

async fn list_set(nft: &Nft, name: &str) -> Result<Set, Error> {
    read_set(&nft.run(&["-j", "list", "set", "inet", TABLE, name], None).await?)
}

/// A set of sources.
#[derive(Debug, Default, PartialEq, Eq)]
struct Set {
    /// For how many seconds an element stays after its last update.
    timeout: Option<u64>,
    elements: Vec<Element>,
}

/// A source that a rule or an operator added.
#[derive(Debug, PartialEq, Eq)]
struct Element {
    address: IpAddr,
    /// Seconds until it is removed; `None`: never.
    expires: Option<u64>,
    counter: Option<Count>,
}

/// Reads nft's listing of a set; what the report does not need is skipped.
fn read_set(listing: &str) -> Result<Set, Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ListedElement {
        Bare(IpAddr),
        Full { elem: Full },
    }
    #[derive(Deserialize)]
    struct Full {
        val: IpAddr,
        expires: Option<u64>,
        counter: Option<Count>,
    }
    let Some(set) = listed_set::read(listing)? else { return Ok(Set::default()) };
    let element = |element| match element {
        ListedElement::Bare(address) => Element { address, expires: None, counter: None },
        ListedElement::Full { elem: Full { val, expires, counter } } => Element { address: val, expires, counter },
    };
    Ok(Set { timeout: set.timeout, elements: set.elem.into_iter().map(element).collect() })
}

impl Set {
    /// The elements as sources, by their packets.
    fn into_sources(self) -> Sources {
        let timeout = self.timeout;
        let source = |element: Element| Source {
            address: element.address,
            name: None,
            packets: element.counter.unwrap_or_default().packets,
            seconds_ago: timeout.zip(element.expires).map(|(timeout, expires)| timeout.saturating_sub(expires)),
        };
        let mut all: Vec<Source> = self.elements.into_iter().map(source).collect();
        all.sort_by_key(|source| (std::cmp::Reverse(source.packets), source.address));
        let more = all.len().saturating_sub(LISTED);
        all.truncate(LISTED);
        Sources { busiest: all, more }
    }
}

/// All bans, the longest remaining first.
fn bans(banned4: Set, banned6: Set) -> Bans {
    let ban = |element: Element| Ban {
        source: match element.address {
            IpAddr::V4(v4) => IpNet::V4(Ipv4Net::from(v4)),
            IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(v6, PREFIX_OF_ONE)),
        },
        seconds_left: element.expires,
    };
    let mut all: Vec<Ban> = banned4.elements.into_iter().chain(banned6.elements).map(ban).collect();
    // A ban without an end is the longest.
    all.sort_by_key(|ban| (std::cmp::Reverse(ban.seconds_left.unwrap_or(u64::MAX)), ban.source));
    let more = all.len().saturating_sub(LISTED);
    all.truncate(LISTED);
    Bans { longest: all, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_with_their_counters_and_ages() {
        let sources = read_set(include_str!("../../tests/data/sources/scanning.json")).unwrap().into_sources();
        let source = |last: u8, packets, seconds_ago| Source {
            address: IpAddr::from([127, 0, 0, last]),
            name: None,
            packets,
            seconds_ago: Some(seconds_ago),
        };
        assert_eq!(sources, Sources { busiest: vec![source(1, 5, 1), source(2, 1, 1)], more: 0 });
    }

    #[test]
    fn bans_of_rules_and_of_people_are_sorted_by_their_remaining_time() {
        let v4 = r#"{"nftables": [{"metainfo": {}}, {"set": {"name": "banned4", "size": 65535, "elem": [
            {"elem": {"val": "192.0.2.66", "timeout": 600, "expires": 42}}, "192.0.2.7"]}}]}"#;
        let v6 = r#"{"nftables": [{"set": {"elem": [
            {"elem": {"val": "2001:db8:1:2::", "timeout": 600, "expires": 599}}]}}]}"#;
        let bans = bans(read_set(v4).unwrap(), read_set(v6).unwrap());
        let ban = |source: &str, seconds_left| Ban { source: source.parse().unwrap(), seconds_left };
        let longest =
            vec![ban("192.0.2.7/32", None), ban("2001:db8:1:2::/64", Some(599)), ban("192.0.2.66/32", Some(42))];
        assert_eq!(bans, Bans { longest, more: 0 });
    }

    #[test]
    fn ten_sources_are_listed_and_the_rest_counted() {
        let element = |number: u8| Element {
            address: IpAddr::from([10, 0, 0, number]),
            expires: Some(u64::from(number)),
            counter: Some(Count { packets: u64::from(number % 13), bytes: 0 }),
        };
        let set = || Set { timeout: Some(3600), elements: (0..37).map(element).collect() };
        let sources = set().into_sources();
        assert_eq!((sources.busiest.len(), sources.more), (10, 27));
        assert_eq!(sources.busiest[0].address, IpAddr::from([10, 0, 0, 12]));
        let bans = bans(set(), Set::default());
        assert_eq!((bans.longest.len(), bans.more, bans.longest[0].seconds_left), (10, 27, Some(36)));
    }

    #[test]
    fn an_empty_set_has_no_sources_and_a_text_that_is_no_listing_is_an_error() {
        assert_eq!(read_set(r#"{"nftables": [{"set": {"name": "scanning"}}]}"#).unwrap(), Set::default());
        assert_eq!(read_set(r#"{"nftables": []}"#).unwrap(), Set::default());
        read_set("").unwrap_err();
        read_set(r#"{"nftables": [{"set": {"elem": [{"elem": {"val": 7}}]}}]}"#).unwrap_err();
    }
}
