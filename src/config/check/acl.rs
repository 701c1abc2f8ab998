//! Access lists, wherever they are written.

use super::super::findings::Findings;
use super::super::raw::{Entry, RawAcl, RawTenants};
use super::super::{Acl, Ports, Protocol, values};
use super::budget::Budget;

const EMPTY: &str = "an empty list matches nothing; leave the key away for any";

/// Which list it is, and so what its lines may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `allow` and `deny` of `[egress]` and `[[network]]`.
    Egress,
    /// `open` of `[[nat.static]]`.
    Open,
    /// `allow` of `[tenants]`.
    Tenants,
}

/// The lines of a list; `None` where there is no list.
pub(super) fn list(
    block: &str,
    name: &str,
    raw: Entry<Vec<Entry<RawAcl>>>,
    kind: Kind,
    budget: &mut Budget,
    found: &mut Findings,
) -> Option<Vec<Acl>> {
    let lines = found.field(block, name, raw)?;
    let mut rules = Vec::with_capacity(lines.len());
    for (key, raw) in found.elements(&format!("{block}.{name}"), lines) {
        let rule = line(&key, raw, kind, found);
        budget.take(|| format!("{block}.{name}"), [rule.from.len(), rule.to.len(), rule.ports.len()]);
        rules.push(rule);
    }
    Some(rules)
}

/// `[tenants]`
pub(super) fn tenants(raw: RawTenants, budget: &mut Budget, found: &mut Findings) -> Vec<Acl> {
    found.unknown("tenants", &raw.unknown);
    list("tenants", "allow", raw.allow, Kind::Tenants, budget, found).unwrap_or_default()
}

fn line(key: &str, raw: RawAcl, kind: Kind, found: &mut Findings) -> Acl {
    found.unknown(key, &raw.unknown);
    let (from, to) = (&raw.from, &raw.to);
    match kind {
        Kind::Egress => {
            let reason =
                "does not belong here: the list is for all hosts of a network ([[network]] has lists of its own)";
            strange(key, "from", from, reason, found);
        }
        Kind::Open => strange(key, "to", to, "does not belong here: the host of this block is meant", found),
        Kind::Tenants => {
            let reason = "a line lets one private network reach another";
            found.needed(key, "from", from, reason);
            found.needed(key, "to", to, reason);
        }
    }
    let from = found.list(key, "from", raw.from, Some(EMPTY), values::net_v4);
    let to = found.list(key, "to", raw.to, Some(EMPTY), values::net_v4);
    let is_written = !matches!(raw.protocol, Entry::Absent);
    let protocol = found.read(key, "protocol", raw.protocol, protocol);
    let ports = found.list(key, "ports", raw.ports, Some(EMPTY), values::ports);
    let has_ports = match protocol {
        Some(Protocol::Tcp | Protocol::Udp) => true,
        Some(Protocol::Any | Protocol::Icmp) => false,
        // A protocol that is wrong has been told of.
        None => is_written,
    };
    if ports.is_some() && !has_ports {
        found.report(
            format!("{key}.ports"),
            "only TCP and UDP have ports: write protocol = \"tcp\" or \"udp\" beside it",
        );
    }
    Acl { from: elements(from), to: elements(to), protocol: protocol.unwrap_or_default(), ports: elements(ports) }
}

fn strange<T>(key: &str, name: &str, entry: &Entry<T>, reason: &str, found: &mut Findings) {
    if !matches!(entry, Entry::Absent) {
        found.report(format!("{key}.{name}"), reason);
    }
}

fn elements<T>(list: Option<Vec<(usize, T)>>) -> Vec<T> {
    list.unwrap_or_default().into_iter().map(|(_, element)| element).collect()
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "any" => Ok(Protocol::Any),
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "icmp" => Ok(Protocol::Icmp),
        _ => Err(format!("`{text}` is none of any, tcp, udp, icmp")),
    }
}

impl Acl {
    /// Whether it names TCP port `port`, by itself or in a range.
    pub(super) fn names_tcp(&self, port: u16) -> bool {
        self.protocol == Protocol::Tcp && self.ports.iter().any(|ports| ports.overlaps(Ports::single(port)))
    }
}
