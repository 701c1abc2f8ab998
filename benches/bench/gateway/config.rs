//! What the bastions of the lines are told, and how much of it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::addresses::CLIENT;

/// Everything that a bastion without metadata and without a cloud has to be told.
const SITE: &str = r#"
[site]
public_interface = "eth0"

[[site.private]]
interface = "eth1"
network = "10.0.0.0/16"
address = "10.0.0.2"

[hcloud]
enabled = false
"#;

/// The public port of the first forward; the others follow it.
const FIRST_PORT: u16 = 10_000;

/// What of a configuration has a price, if anything of it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// So many port forwards, so many lines of an egress list, and so many pairs of tenants.
    pub(crate) entries: u16,
    /// What the lines of the egress list are about.
    pub(crate) denied: Denied,
    /// Which limits a source of flows has.
    pub(crate) limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// One port of one host each.
    Hosts,
    /// Some ports of a network each.
    Networks,
}

/// All beyond reach: it is their price that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    Off,
    /// On new flows a second.
    Rate,
    /// On flows at the same time.
    Count,
    Both,
}

impl Policy {
    pub(crate) const fn of(entries: u16) -> Self {
        Self { entries, denied: Denied::Hosts, limits: Limits::Off }
    }

    pub(crate) const fn limited(limits: Limits) -> Self {
        Self { limits, ..Self::of(0) }
    }

    /// The configuration file.
    pub(crate) fn config(self) -> String {
        let limit = |on| if on { "1000000" } else { "false" };
        let rate = limit(matches!(self.limits, Limits::Rate | Limits::Both));
        let count = limit(matches!(self.limits, Limits::Count | Limits::Both));
        let deny: String = (0..self.entries).map(|index| self.denied.line(index)).collect();
        let tenants: String = (0..self.entries).map(pair).collect();
        format!(
            "{SITE}[egress]\nnew_flows_per_second = {rate}\nmax_flows = {count}\ndeny = [\n{deny}]\n[tenants]\nallow = [\n{tenants}]\n\
             [firewall]\nsyns_per_second = false\n{}",
            forwards(self.entries, self.last_port()),
        )
    }

    /// The public port of the last forward, which leads to the client; `None`: there is no forward.
    pub(crate) fn last_port(self) -> Option<u16> {
        (self.entries > 0).then(|| FIRST_PORT + self.entries - 1)
    }
}

/// So many forwards, and one more from `last` to the same port of the client in place of the last one.
pub(crate) fn forwards(count: u16, last: Option<u16>) -> String {
    let mut text = String::new();
    for index in 0..count.saturating_sub(1) {
        let [high, low] = index.to_be_bytes();
        let port = FIRST_PORT + index;
        let _ = writeln!(text, "[[nat.forward]]\nport = {port}\nto = \"10.0.{}.{low}\"\nto_port = 8080", 100 + high);
    }
    if let Some(port) = last {
        let _ = writeln!(text, "[[nat.forward]]\nprotocol = \"both\"\nport = {port}\nto = \"{CLIENT}\"");
    }
    text
}

/// [`SITE`] with forwards and nothing else.
pub(crate) fn only_forwards(count: u16, last: Option<u16>) -> String {
    format!("{SITE}{}", forwards(count, last))
}

impl Denied {
    fn line(self, index: u16) -> String {
        let [high, low] = index.to_be_bytes();
        let protocol = if index % 2 == 0 { "tcp" } else { "udp" };
        let port = 1000 + index % 50_000;
        match self {
            Self::Hosts => {
                let host = Ipv4Addr::new(11, 0, high, low);
                format!("{{ to = [\"{host}\"], protocol = \"{protocol}\", ports = [{port}] }},\n")
            }
            Self::Networks => {
                let network = Ipv4Addr::new(11, high, low, 16);
                format!(
                    "{{ to = [\"{network}/28\"], protocol = \"{protocol}\", ports = [\"{port}-{}\"] }},\n",
                    port + 9
                )
            }
        }
    }
}

fn pair(index: u16) -> String {
    let [high, low] = index.to_be_bytes();
    format!(
        "{{ from = [\"10.0.{}.{low}\"], to = [\"10.0.{}.{low}\"], protocol = \"tcp\", ports = [5432] }},\n",
        100 + high,
        200 + high
    )
}
