//! `[[nat.static]]`

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::super::findings::Findings;
use super::super::raw::{Entry, RawStatic};
use super::super::{Acl, StaticNat, values};
use super::acl::{self, Kind};
use super::budget::Budget;
use super::private::PrivateNetworks;

/// An entry of which some keys may be wrong; the others are still compared with those of other entries.
pub(super) struct CheckedStatic {
    pub(super) key: String,
    name: Option<String>,
    pub(super) public: Option<Ipv4Addr>,
    private: Option<Ipv4Addr>,
    open: Vec<Acl>,
}

impl CheckedStatic {
    pub(super) fn whole(self) -> Option<StaticNat> {
        let Self { key, name, public, private, open } = self;
        Some(StaticNat { key, name, public: public?, private: private?, open })
    }
}

pub(super) fn blocks(
    blocks: Vec<Entry<RawStatic>>,
    private: &PrivateNetworks,
    budget: &mut Budget,
    found: &mut Findings,
) -> Vec<CheckedStatic> {
    let blocks = found.elements("nat.static", blocks);
    let statics: Vec<_> = blocks.into_iter().map(|(key, raw)| block(key, raw, private, budget, found)).collect();
    found.names_differ(statics.iter().map(|entry| (entry.key.as_str(), &entry.name)));
    let (mut publics, mut privates) = (BTreeMap::new(), BTreeMap::new());
    for CheckedStatic { key, public, private, .. } in &statics {
        for (name, address, seen) in [("public", public, &mut publics), ("private", private, &mut privates)] {
            let Some(address) = address else { continue };
            if let Some(earlier) = seen.get(address) {
                found.report(format!("{key}.{name}"), format!("{address} is also {earlier}.{name}"));
            } else {
                seen.insert(address, key);
            }
        }
    }
    statics
}

fn block(
    key: String,
    raw: RawStatic,
    networks: &PrivateNetworks,
    budget: &mut Budget,
    found: &mut Findings,
) -> CheckedStatic {
    found.unknown(&key, &raw.unknown);
    let reason = "a public address and a private host belong to each other";
    found.needed(&key, "public", &raw.public, reason);
    found.needed(&key, "private", &raw.private, reason);
    let name = found.read(&key, "name", raw.name, values::label);
    let public = found.read(&key, "public", raw.public, |text: &str| networks.public(text));
    let private = found.read(&key, "private", raw.private, |text: &str| networks.host(text));
    let open = acl::list(&key, "open", raw.open, Kind::Open, budget, found).unwrap_or_default();
    CheckedStatic { key, name, public, private, open }
}
