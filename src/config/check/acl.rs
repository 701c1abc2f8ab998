//! Access lists, in every section that has them.

use super::budget::Budget;
use super::diagnostics::Diagnostics;
use super::values;
use crate::config::policy::Acl;
use crate::config::protocol::{IpProtocol, Protocol};
use crate::config::raw::{Entry, NameOrNumber, RawAcl, RawTenants};

const EMPTY: &str = "an empty list matches nothing; remove the key to match everything";

/// Which list an entry is in, and so which keys it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKind {
    /// `allow` and `deny` of `[egress]` and `[[network]]`.
    Egress,
    /// `open` of `[[nat.static]]`.
    Open,
    /// `allow` of `[tenants]`.
    Tenants,
}

/// The entries of a list; `None` if there is no list.
pub(super) fn check_list(
    block: &str,
    name: &str,
    raw: Entry<Vec<Entry<RawAcl>>>,
    kind: ListKind,
    budget: &mut Budget,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<Acl>> {
    let entries = diagnostics.field(block, name, raw)?;
    let mut rules = Vec::with_capacity(entries.len());
    for (key, raw) in diagnostics.elements(&format!("{block}.{name}"), entries) {
        let rule = check_entry(&key, raw, kind, diagnostics);
        budget.add(|| format!("{block}.{name}"), [rule.from.len(), rule.to.len(), rule.ports.len()]);
        rules.push(rule);
    }
    Some(rules)
}

/// `[tenants]`
pub(super) fn check_tenants(raw: RawTenants, budget: &mut Budget, diagnostics: &mut Diagnostics) -> Vec<Acl> {
    diagnostics.reject_unknown_keys("tenants", &raw.unknown);
    check_list("tenants", "allow", raw.allow, ListKind::Tenants, budget, diagnostics).unwrap_or_default()
}

fn check_entry(key: &str, raw: RawAcl, kind: ListKind, diagnostics: &mut Diagnostics) -> Acl {
    diagnostics.reject_unknown_keys(key, &raw.unknown);
    let (from, to) = (&raw.from, &raw.to);
    match kind {
        ListKind::Egress => {
            let reason = "is not allowed here: this list applies to every host; use the lists of [[network]] to \
                          choose a network";
            reject_key(key, "from", from, reason, diagnostics);
        }
        ListKind::Open => {
            let reason = "is not allowed here: the destination is the private host of this block; remove the key";
            reject_key(key, "to", to, reason, diagnostics);
        }
        ListKind::Tenants => {
            let meaning = "each entry allows flows from one private network (`from`) to another (`to`)";
            diagnostics.require(key, "from", from, meaning);
            diagnostics.require(key, "to", to, meaning);
        }
    }
    let from = diagnostics.parse_list(key, "from", raw.from, Some(EMPTY), values::parse_net_v4);
    let to = diagnostics.parse_list(key, "to", raw.to, Some(EMPTY), values::parse_net_v4);
    let protocol_is_written = !matches!(raw.protocol, Entry::Absent);
    let parse_protocol = |written: &NameOrNumber| values::parse_protocol(written, ("any", Protocol::Any));
    let protocol = diagnostics.parse_field(key, "protocol", raw.protocol, parse_protocol);
    let ports = diagnostics.parse_list(key, "ports", raw.ports, Some(EMPTY), values::parse_ports);
    let refused = match protocol {
        Some(Protocol::Tcp | Protocol::Udp | Protocol::Sctp) => None,
        Some(Protocol::Icmp) => Some(IpProtocol::ICMP.refused_ports("ports")),
        Some(Protocol::Other(protocol)) => Some(protocol.refused_ports("ports")),
        // A wrong protocol has its own error already.
        None if protocol_is_written => None,
        Some(Protocol::Any) | None => {
            Some("not every protocol has ports; add protocol = \"tcp\" or protocol = \"udp\"".to_owned())
        }
    };
    if let Some(reason) = refused.filter(|_| ports.is_some()) {
        diagnostics.error(format!("{key}.ports"), reason);
    }
    Acl {
        from: without_indexes(from),
        to: without_indexes(to),
        protocol: protocol.unwrap_or_default(),
        ports: without_indexes(ports),
    }
}

fn reject_key<T>(block: &str, name: &str, entry: &Entry<T>, reason: &str, diagnostics: &mut Diagnostics) {
    if !matches!(entry, Entry::Absent) {
        diagnostics.error(format!("{block}.{name}"), reason);
    }
}

fn without_indexes<T>(list: Option<Vec<(usize, T)>>) -> Vec<T> {
    list.unwrap_or_default().into_iter().map(|(_, element)| element).collect()
}
