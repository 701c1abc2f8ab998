//! `[nat]`, and the public addresses that several sections use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::budget::Budget;
use super::diagnostics::Diagnostics;
use super::forwards::{self, CheckedForward};
use super::private::PrivateNetworks;
use super::statics::{self, CheckedStatic};
use crate::config::policy::{Fastpath, Nat};
use crate::config::raw::{Entry, FastpathChoice, RawNat, TextsOrAuto};

/// Sources are spread over a pool by a map with one element per address. No server has as many floating IPs.
const MAX_POOL: usize = 64;

/// The section, in which some keys may be wrong. The others are still compared with other sections.
pub(super) struct CheckedNat {
    random_ports: bool,
    pool: Pool,
    drain: Vec<(usize, Ipv4Addr)>,
    fastpath: Fastpath,
    pub(super) forwards: Vec<CheckedForward>,
    statics: Vec<CheckedStatic>,
}

/// One list of egress addresses.
#[derive(Default)]
pub(super) struct Pool {
    /// The list's key: `nat.egress_addresses`.
    key: String,
    /// Each with its index in the list; empty: the public interface's own address.
    addresses: Vec<(usize, Ipv4Addr)>,
    /// Whether the list has wrong elements, which are missing here.
    is_incomplete: bool,
}

impl Pool {
    pub(super) fn into_addresses(self) -> Vec<Ipv4Addr> {
        self.addresses.into_iter().map(|(_, address)| address).collect()
    }
}

pub(super) fn check_nat(
    raw: RawNat,
    private: &PrivateNetworks,
    budget: &mut Budget,
    diagnostics: &mut Diagnostics,
) -> CheckedNat {
    diagnostics.reject_unknown_keys("nat", &raw.unknown);
    let drain = diagnostics.parse_list("nat", "drain", raw.drain, None, |text: &str| private.parse_public(text));
    let forwards = diagnostics.value("nat.forward", raw.forward).map(|blocks| blocks.0).unwrap_or_default();
    let statics = diagnostics.value("nat.static", raw.statics).map(|blocks| blocks.0).unwrap_or_default();
    CheckedNat {
        random_ports: diagnostics.field("nat", "random_ports", raw.random_ports).unwrap_or(true),
        pool: check_pool("nat", "egress_addresses", raw.egress_addresses, private, diagnostics).unwrap_or_default(),
        drain: drain.unwrap_or_default(),
        fastpath: match diagnostics.field("nat", "fastpath", raw.fastpath) {
            None | Some(FastpathChoice::Auto) => Fastpath::Auto,
            Some(FastpathChoice::Bpf) => Fastpath::Bpf,
            Some(FastpathChoice::Flowtable) => Fastpath::Flowtable,
            Some(FastpathChoice::Off) => Fastpath::Off,
            Some(FastpathChoice::Xdp) => {
                diagnostics.error("nat.fastpath", "\"xdp\" is not built yet; choose \"bpf\" or \"auto\"");
                Fastpath::Auto
            }
        },
        forwards: forwards::check_forwards(forwards, private, diagnostics),
        statics: statics::check_statics(statics, private, budget, diagnostics),
    }
}

/// The list of egress addresses of a section under this name; `None` if it has no such key.
pub(super) fn check_pool(
    section: &str,
    name: &str,
    raw: Entry<TextsOrAuto>,
    private: &PrivateNetworks,
    diagnostics: &mut Diagnostics,
) -> Option<Pool> {
    let key = format!("{section}.{name}");
    let mut texts = match raw {
        Entry::Absent => return None,
        Entry::Good(TextsOrAuto::Auto) => return Some(Pool::default()),
        Entry::Good(TextsOrAuto::Texts(texts)) => texts,
        Entry::Bad(reason) => {
            diagnostics.error(&key, reason);
            return Some(Pool { key, addresses: Vec::new(), is_incomplete: true });
        }
    };
    let count = texts.len();
    if count > MAX_POOL {
        diagnostics.error(&key, format!("{count} addresses; at most {MAX_POOL} are supported"));
        texts.truncate(MAX_POOL);
    }
    let empty = "an empty list names no address; write \"auto\" for the public interface's own address";
    let texts = Entry::Good(texts);
    let addresses = diagnostics.parse_list(section, name, texts, Some(empty), |text: &str| private.parse_public(text));
    let addresses = addresses.unwrap_or_default();
    Some(Pool { key, is_incomplete: addresses.len() < count, addresses })
}

impl CheckedNat {
    /// Compares all uses of public addresses. `pools` are the pools of `[[network]]`.
    pub(super) fn check_public_addresses<'a>(
        &'a self,
        pools: impl Iterator<Item = &'a Pool>,
        diagnostics: &mut Diagnostics,
    ) {
        let pools: Vec<&Pool> = std::iter::once(&self.pool).chain(pools).collect();
        let mut pooled = BTreeMap::new();
        for pool in &pools {
            for (index, address) in &pool.addresses {
                pooled.entry(*address).or_insert_with(|| format!("{}[{index}]", pool.key));
            }
        }
        if !pools.iter().any(|pool| pool.is_incomplete) {
            self.check_drain(&pools, &pooled, diagnostics);
        }
        let mut owners: BTreeMap<Ipv4Addr, &str> = BTreeMap::new();
        for CheckedStatic { key, public, .. } in &self.statics {
            let Some(public) = *public else { continue };
            if let Some(pool) = pooled.get(&public) {
                let reason =
                    format!("{public} is also {pool}; an address can belong to one host or be shared, not both");
                diagnostics.error(format!("{key}.public"), reason);
            }
            owners.entry(public).or_insert(key);
        }
        for forward in &self.forwards {
            for (index, address) in forward.public.iter().flatten() {
                if let Some(owner) = owners.get(address) {
                    let reason = format!(
                        "{address} belongs to the host of {owner}; open ports there with `open`, or choose another \
                         address"
                    );
                    diagnostics.error(format!("{}.public[{index}]", forward.key), reason);
                }
            }
        }
    }

    /// Compares `nat.drain` with all pools and the addresses in them.
    fn check_drain(&self, pools: &[&Pool], pooled: &BTreeMap<Ipv4Addr, String>, diagnostics: &mut Diagnostics) {
        for (index, address) in self.drain.iter().filter(|(_, address)| !pooled.contains_key(address)) {
            let reason = format!("{address} is not in any list of egress_addresses; only those can be drained");
            diagnostics.error(format!("nat.drain[{index}]"), reason);
        }
        let drained: BTreeSet<Ipv4Addr> = self.drain.iter().map(|&(_, address)| address).collect();
        for Pool { key, addresses, .. } in pools {
            if !addresses.is_empty() && addresses.iter().all(|(_, address)| drained.contains(address)) {
                let reason = format!("drains every address of {key}, so new flows would have none; keep at least one");
                diagnostics.error("nat.drain", reason);
            }
        }
    }

    /// The section's values. Call it only if there are no errors: blocks with errors are left out.
    pub(super) fn finish(self) -> Nat {
        Nat {
            random_ports: self.random_ports,
            egress_addresses: self.pool.into_addresses(),
            drain: self.drain.into_iter().map(|(_, address)| address).collect(),
            fastpath: self.fastpath,
            forwards: self.forwards.into_iter().filter_map(CheckedForward::finish).collect(),
            statics: self.statics.into_iter().filter_map(CheckedStatic::finish).collect(),
        }
    }
}
