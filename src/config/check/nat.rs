//! `[nat]`

use std::collections::BTreeSet;

use super::super::findings::Findings;
use super::super::raw::RawNat;
use super::super::{Fastpath, Nat};

pub(super) fn section(raw: RawNat, found: &mut Findings) -> Nat {
    found.unknown("nat", &raw.unknown);
    Nat {
        random_ports: found.value("nat.random_ports", raw.random_ports).unwrap_or(true),
        egress_addresses: Vec::new(),
        drain: BTreeSet::new(),
        fastpath: Fastpath::Auto,
        forwards: Vec::new(),
        statics: Vec::new(),
    }
}
