//! `[[nat.static]]`

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::acl::{self, ListKind};
use super::budget::Budget;
use super::diagnostics::Diagnostics;
use super::private::PrivateNetworks;
use super::values;
use crate::config::policy::{Acl, StaticNat};
use crate::config::raw::{Entry, RawStatic};

/// A block in which some keys may be wrong. The others are still compared with other blocks.
pub(super) struct CheckedStatic {
    pub(super) key: String,
    name: Option<String>,
    pub(super) public: Option<Ipv4Addr>,
    private: Option<Ipv4Addr>,
    open: Vec<Acl>,
}

impl CheckedStatic {
    pub(super) fn finish(self) -> Option<StaticNat> {
        let Self { key, name, public, private, open } = self;
        Some(StaticNat { key, name, public: public?, private: private?, open })
    }
}

pub(super) fn check_statics(
    blocks: Vec<Entry<RawStatic>>,
    private: &PrivateNetworks,
    budget: &mut Budget,
    diagnostics: &mut Diagnostics,
) -> Vec<CheckedStatic> {
    let blocks = diagnostics.elements("nat.static", blocks);
    let statics: Vec<_> =
        blocks.into_iter().map(|(key, raw)| check_static(key, raw, private, budget, diagnostics)).collect();
    diagnostics.check_names_are_unique(statics.iter().map(|entry| (entry.key.as_str(), &entry.name)));
    let (mut publics, mut privates) = (BTreeMap::new(), BTreeMap::new());
    for CheckedStatic { key, public, private, .. } in &statics {
        for (name, address, seen) in [("public", public, &mut publics), ("private", private, &mut privates)] {
            let Some(address) = address else { continue };
            if let Some(earlier) = seen.get(address) {
                let reason = format!("{address} is also {earlier}.{name}; write one block for each address");
                diagnostics.error(format!("{key}.{name}"), reason);
            } else {
                seen.insert(address, key);
            }
        }
    }
    statics
}

fn check_static(
    key: String,
    raw: RawStatic,
    networks: &PrivateNetworks,
    budget: &mut Budget,
    diagnostics: &mut Diagnostics,
) -> CheckedStatic {
    diagnostics.reject_unknown_keys(&key, &raw.unknown);
    let meaning = "each block assigns a public address to a private host";
    diagnostics.require(&key, "public", &raw.public, meaning);
    diagnostics.require(&key, "private", &raw.private, meaning);
    let name = diagnostics.parse_field(&key, "name", raw.name, values::parse_label);
    let public = diagnostics.parse_field(&key, "public", raw.public, |text: &str| networks.parse_public(text));
    let private = diagnostics.parse_field(&key, "private", raw.private, |text: &str| networks.parse_host(text));
    let open = acl::check_list(&key, "open", raw.open, ListKind::Open, budget, diagnostics).unwrap_or_default();
    CheckedStatic { key, name, public, private, open }
}
