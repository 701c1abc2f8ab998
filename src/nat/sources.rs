//! Who was dropped: the sets that the rules fill with sources, read when somebody asks, and a ban that an operator lifts.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::command::Command;
use super::counters::{Count, counters};
use super::element::{Element as SetElement, FieldValue};
use super::model::TABLE;
use super::nft::{Error, Nft};
use super::status::{Ban, Bans, FirewallReport, Source, Sources};
use crate::error::chain;

/// So many of each kind are told.
const TOLD: usize = 10;
/// An attacker has one customer's share of IPv6: the rules ban that (`desired::input`).
const PREFIX_OF_ONE: u8 = 64;

/// What the rules have counted and remembered; `None` if there is no table, or it cannot be looked at.
pub async fn firewall_report() -> Option<FirewallReport> {
    let counters = match counters() {
        Ok(counters) if counters.is_empty() => return None,
        Ok(counters) => counters,
        Err(error) => {
            tracing::debug!(component = "nat", %error, "the counters cannot be read");
            return None;
        }
    };
    let nft = Nft::find().ok()?;
    let mut listed = Vec::new();
    for name in ["scanning", "over_new_flows", "over_flows", "banned4", "banned6"] {
        listed.push(list(&nft, name).await.unwrap_or_else(|error| {
            tracing::debug!(component = "nat", set = name, error = %chain(&error), "cannot be listed");
            Set::default()
        }));
    }
    let [scanning, over_new_flows, over_flows, banned4, banned6] = listed.try_into().ok()?;
    Some(FirewallReport {
        counters,
        scanning: scanning.busiest(),
        over_new_flows: over_new_flows.busiest(),
        over_flows: over_flows.busiest(),
        banned: bans(banned4, banned6),
    })
}

/// Lets a source log in again; whether it was banned. What it tried before is forgotten, too: the next try would bring the ban
/// back.
pub async fn unban(address: IpAddr) -> Result<bool, Error> {
    let (ending, source) = match address {
        IpAddr::V4(_) => ("4", address),
        IpAddr::V6(v6) => ("6", Ipv6Net::new_assert(v6, PREFIX_OF_ONE).trunc().addr().into()),
    };
    let nft = Nft::find()?;
    let remove = async |set: &str| {
        let elements = [SetElement::new([FieldValue::Address(source)])].into();
        nft.apply(&[Command::DeleteElements { set: format!("{set}{ending}").into(), elements }]).await
    };
    // First: while the ban stands, no try is counted. Refused: nothing was.
    let tries = remove("ssh_tries").await;
    if let Err(error @ (Error::Missing { .. } | Error::Run { .. } | Error::TimedOut { .. })) = tries {
        return Err(error);
    }
    match remove("banned").await {
        Ok(()) => Ok(true),
        // nft says it in words only; so look whether it is there.
        Err(error @ Error::Refused { .. }) => {
            let banned = list(&nft, &format!("banned{ending}")).await?;
            if banned.elements.iter().any(|element| element.address == source) { Err(error) } else { Ok(false) }
        }
        Err(error) => Err(error),
    }
}

async fn list(nft: &Nft, name: &str) -> Result<Set, Error> {
    read(&nft.run(&["-j", "list", "set", "inet", TABLE, name], None).await?)
}

/// A set of sources.
#[derive(Debug, Default, PartialEq, Eq)]
struct Set {
    /// How long an element stays after it was last touched, in seconds.
    timeout: Option<u64>,
    elements: Vec<Element>,
}

/// A source that a rule, or a person, put there.
#[derive(Debug, PartialEq, Eq)]
struct Element {
    address: IpAddr,
    /// Seconds until it goes; `None`: it stays.
    expires: Option<u64>,
    counter: Option<Count>,
}

/// nft's listing of a set, as far as we read it; what else is in it is skipped.
fn read(listing: &str) -> Result<Set, Error> {
    #[derive(Deserialize)]
    struct Document {
        nftables: Vec<Object>,
    }
    #[derive(Deserialize)]
    struct Object {
        set: Option<Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        timeout: Option<u64>,
        #[serde(default)]
        elem: Vec<OfSet>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OfSet {
        Bare(IpAddr),
        Full { elem: Full },
    }
    #[derive(Deserialize)]
    struct Full {
        val: IpAddr,
        expires: Option<u64>,
        counter: Option<Count>,
    }
    let document: Document = serde_json::from_str(listing).map_err(|source| Error::Unreadable { source })?;
    let Some(set) = document.nftables.into_iter().find_map(|object| object.set) else { return Ok(Set::default()) };
    let element = |element| match element {
        OfSet::Bare(address) => Element { address, expires: None, counter: None },
        OfSet::Full { elem: Full { val, expires, counter } } => Element { address: val, expires, counter },
    };
    Ok(Set { timeout: set.timeout, elements: set.elem.into_iter().map(element).collect() })
}

impl Set {
    fn busiest(self) -> Sources {
        let timeout = self.timeout;
        let source = |element: Element| Source {
            address: element.address,
            packets: element.counter.unwrap_or_default().packets,
            seconds_ago: timeout.zip(element.expires).map(|(timeout, expires)| timeout.saturating_sub(expires)),
        };
        let mut all: Vec<Source> = self.elements.into_iter().map(source).collect();
        all.sort_by_key(|source| (std::cmp::Reverse(source.packets), source.address));
        let more = all.len().saturating_sub(TOLD);
        all.truncate(TOLD);
        Sources { busiest: all, more }
    }
}

/// Those who are banned for the longest time to come first.
fn bans(banned4: Set, banned6: Set) -> Bans {
    let ban = |element: Element| Ban {
        source: match element.address {
            IpAddr::V4(v4) => IpNet::V4(Ipv4Net::from(v4)),
            IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(v6, PREFIX_OF_ONE)),
        },
        seconds_left: element.expires,
    };
    let mut all: Vec<Ban> = banned4.elements.into_iter().chain(banned6.elements).map(ban).collect();
    // Without an end is longest.
    all.sort_by_key(|ban| (std::cmp::Reverse(ban.seconds_left.unwrap_or(u64::MAX)), ban.source));
    let more = all.len().saturating_sub(TOLD);
    all.truncate(TOLD);
    Bans { longest: all, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rules_remember_is_read_with_its_counters_and_ages() {
        let sources = read(include_str!("../../tests/data/sources/scanning.json")).unwrap().busiest();
        let source = |last: u8, packets, seconds_ago| Source {
            address: IpAddr::from([127, 0, 0, last]),
            packets,
            seconds_ago: Some(seconds_ago),
        };
        assert_eq!(sources, Sources { busiest: vec![source(1, 5, 1), source(2, 1, 1)], more: 0 });
    }

    #[test]
    fn bans_of_rules_and_of_people_are_told_by_what_is_left_of_them() {
        let v4 = r#"{"nftables": [{"metainfo": {}}, {"set": {"name": "banned4", "size": 65535, "elem": [
            {"elem": {"val": "192.0.2.66", "timeout": 600, "expires": 42}}, "192.0.2.7"]}}]}"#;
        let v6 = r#"{"nftables": [{"set": {"elem": [{"elem": {"val": "2001:db8:1:2::", "timeout": 600, "expires": 599}}]}}]}"#;
        let bans = bans(read(v4).unwrap(), read(v6).unwrap());
        let ban = |source: &str, seconds_left| Ban { source: source.parse().unwrap(), seconds_left };
        let longest =
            vec![ban("192.0.2.7/32", None), ban("2001:db8:1:2::/64", Some(599)), ban("192.0.2.66/32", Some(42))];
        assert_eq!(bans, Bans { longest, more: 0 });
    }

    #[test]
    fn ten_are_told_and_the_rest_counted() {
        let element = |number: u8| Element {
            address: IpAddr::from([10, 0, 0, number]),
            expires: Some(u64::from(number)),
            counter: Some(Count { packets: u64::from(number % 13), bytes: 0 }),
        };
        let set = || Set { timeout: Some(3600), elements: (0..37).map(element).collect() };
        let told = set().busiest();
        assert_eq!((told.busiest.len(), told.more), (10, 27));
        assert_eq!(told.busiest[0].address, IpAddr::from([10, 0, 0, 12]));
        let bans = bans(set(), Set::default());
        assert_eq!((bans.longest.len(), bans.more, bans.longest[0].seconds_left), (10, 27, Some(36)));
    }

    #[test]
    fn an_empty_set_has_nobody_and_what_is_no_listing_is_an_error() {
        assert_eq!(read(r#"{"nftables": [{"set": {"name": "scanning"}}]}"#).unwrap(), Set::default());
        assert_eq!(read(r#"{"nftables": []}"#).unwrap(), Set::default());
        read("").unwrap_err();
        read(r#"{"nftables": [{"set": {"elem": [{"elem": {"val": 7}}]}}]}"#).unwrap_err();
    }
}
