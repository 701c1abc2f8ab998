//! `[nat]`, and who may have which public address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::super::findings::Findings;
use super::super::raw::{Entry, RawNat, SwitchOrAuto, TextsOrAuto};
use super::super::{Fastpath, Nat};
use super::budget::Budget;
use super::forwards::{self, CheckedForward};
use super::private::PrivateNetworks;
use super::statics::{self, CheckedStatic};

/// Sources are spread over a pool by a map with an element for each address; no server has so many floating IPs.
const MAX_POOL: usize = 64;

/// The section, of which some may be wrong; the rest is still compared with other sections.
pub(super) struct CheckedNat {
    pub(super) random_ports: bool,
    pub(super) pool: Pool,
    drain: Vec<(usize, Ipv4Addr)>,
    fastpath: Fastpath,
    pub(super) forwards: Vec<CheckedForward>,
    statics: Vec<CheckedStatic>,
}

/// Egress addresses of one place.
#[derive(Default)]
pub(super) struct Pool {
    /// Where they are written: `nat.egress_addresses`.
    key: String,
    /// Each with its index; empty: the public interface's own.
    addresses: Vec<(usize, Ipv4Addr)>,
    /// Whether some of them are wrong, and so not among these.
    lacks_some: bool,
}

impl Pool {
    pub(super) fn into_addresses(self) -> Vec<Ipv4Addr> {
        self.addresses.into_iter().map(|(_, address)| address).collect()
    }
}

pub(super) fn section(raw: RawNat, private: &PrivateNetworks, budget: &mut Budget, found: &mut Findings) -> CheckedNat {
    found.unknown("nat", &raw.unknown);
    let drain = found.list("nat", "drain", raw.drain, None, |text: &str| private.public(text));
    let forwards = found.value("nat.forward", raw.forward).map(|blocks| blocks.0).unwrap_or_default();
    let statics = found.value("nat.static", raw.statics).map(|blocks| blocks.0).unwrap_or_default();
    CheckedNat {
        random_ports: found.field("nat", "random_ports", raw.random_ports).unwrap_or(true),
        pool: pool("nat", raw.egress_addresses, private, found).unwrap_or_default(),
        drain: drain.unwrap_or_default(),
        fastpath: match found.field("nat", "fastpath", raw.fastpath) {
            None | Some(SwitchOrAuto::Auto) => Fastpath::Auto,
            Some(SwitchOrAuto::Switch(true)) => Fastpath::On,
            Some(SwitchOrAuto::Switch(false)) => Fastpath::Off,
        },
        forwards: forwards::blocks(forwards, private, found),
        statics: statics::blocks(statics, private, budget, found),
    }
}

/// The `egress_addresses` of a section; `None` where there are none.
pub(super) fn pool(
    section: &str,
    raw: Entry<TextsOrAuto>,
    private: &PrivateNetworks,
    found: &mut Findings,
) -> Option<Pool> {
    let name = "egress_addresses";
    let key = format!("{section}.{name}");
    let mut texts = match raw {
        Entry::Absent => return None,
        Entry::Good(TextsOrAuto::Auto) => return Some(Pool::default()),
        Entry::Good(TextsOrAuto::Texts(texts)) => texts,
        Entry::Bad(reason) => {
            found.report(&key, reason);
            return Some(Pool { key, addresses: Vec::new(), lacks_some: true });
        }
    };
    let count = texts.len();
    if count > MAX_POOL {
        found.report(&key, format!("{count} addresses; at most {MAX_POOL} are supported"));
        texts.truncate(MAX_POOL);
    }
    let empty = "an empty list names no address; write \"auto\" for the public interface's own";
    let addresses = found.list(section, name, Entry::Good(texts), Some(empty), |text: &str| private.public(text));
    let addresses = addresses.unwrap_or_default();
    Some(Pool { key, lacks_some: addresses.len() < count, addresses })
}

impl CheckedNat {
    /// Compares what the file says of public addresses. `pools` are those of `[[network]]`.
    pub(super) fn addresses_differ<'a>(&'a self, pools: impl Iterator<Item = &'a Pool>, found: &mut Findings) {
        let pools: Vec<&Pool> = std::iter::once(&self.pool).chain(pools).collect();
        let mut pooled = BTreeMap::new();
        for pool in &pools {
            for (index, address) in &pool.addresses {
                pooled.entry(*address).or_insert_with(|| format!("{}[{index}]", pool.key));
            }
        }
        if !pools.iter().any(|pool| pool.lacks_some) {
            self.drain_some(&pools, &pooled, found);
        }
        let mut owners: BTreeMap<Ipv4Addr, &str> = BTreeMap::new();
        for CheckedStatic { key, public, .. } in &self.statics {
            let Some(public) = *public else { continue };
            if let Some(pool) = pooled.get(&public) {
                let reason = format!("{public} is also {pool}: it can belong to one host, or to all");
                found.report(format!("{key}.public"), reason);
            }
            owners.entry(public).or_insert(key);
        }
        for forward in &self.forwards {
            for (index, address) in forward.public.iter().flatten() {
                if let Some(owner) = owners.get(address) {
                    let reason = format!(
                        "{address} belongs to the host of {owner}: say there what is open (`open`), or choose another address"
                    );
                    found.report(format!("{}.public[{index}]", forward.key), reason);
                }
            }
        }
    }

    /// Compares `nat.drain` with all pools and what is in them.
    fn drain_some(&self, pools: &[&Pool], pooled: &BTreeMap<Ipv4Addr, String>, found: &mut Findings) {
        for (index, address) in self.drain.iter().filter(|(_, address)| !pooled.contains_key(address)) {
            let reason = format!("{address} is in no list of egress_addresses: only those can be drained");
            found.report(format!("nat.drain[{index}]"), reason);
        }
        let drained: BTreeSet<Ipv4Addr> = self.drain.iter().map(|&(_, address)| address).collect();
        for Pool { key, addresses, .. } in pools {
            if !addresses.is_empty() && addresses.iter().all(|(_, address)| drained.contains(address)) {
                found.report("nat.drain", format!("nothing is left of {key}: new flows would have no address"));
            }
        }
    }

    /// Only where nothing is wrong.
    pub(super) fn whole(self) -> Nat {
        Nat {
            random_ports: self.random_ports,
            egress_addresses: self.pool.into_addresses(),
            drain: self.drain.into_iter().map(|(_, address)| address).collect(),
            fastpath: self.fastpath,
            forwards: self.forwards.into_iter().filter_map(CheckedForward::whole).collect(),
            statics: self.statics.into_iter().filter_map(CheckedStatic::whole).collect(),
        }
    }
}
