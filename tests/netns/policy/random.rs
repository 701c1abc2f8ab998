//! Random configurations of the kinds that operators write.

use std::fmt::Write as _;

use bastiond::internals::config::{Config, Environment, parse};
use fastrand::Rng;

use crate::gateway::Result;

/// The site's networks, and one that it does not have.
const NETWORKS: [&str; 4] = ["10.0", "10.2", "10.3", "10.9"];
/// The site's public addresses that are not its first.
const FLOATING: [&str; 3] = ["203.0.113.50", "203.0.113.51", "203.0.113.52"];

/// A valid configuration, as text and parsed. Drafts that contradict themselves are skipped.
pub(super) fn configuration(rng: &mut Rng) -> Result<(String, Config)> {
    let mut problems = Vec::new();
    for _ in 0..50 {
        let text = draft(rng);
        match parse(&text, &Environment::default()) {
            Ok(config) => return Ok((text, config)),
            Err(error) => problems.push(format!("{error:?}\n{text}")),
        }
    }
    Err(format!("no draft is valid; the last one was:\n{}", problems.pop().unwrap_or_default()).into())
}

fn draft(rng: &mut Rng) -> String {
    let mut text = String::new();
    // The addresses of static NAT, which nothing else may use.
    let (shared, own) = FLOATING.split_at(rng.usize(0..=FLOATING.len()));
    nat(rng, shared, &mut text);
    forwards(rng, shared, &mut text);
    protocol_forwards(rng, shared, &mut text);
    statics(rng, own, &mut text);
    egress(rng, &mut text);
    networks(rng, shared, &mut text);
    if rng.bool() {
        let _ = writeln!(text, "[tenants]\nallow = {}", lines(rng, &["from", "to"], 6));
    }
    firewall(rng, &mut text);
    protocol_services(rng, &mut text);
    if rng.u8(0..3) == 0 {
        tunnel(rng, &mut text);
    }
    text
}

/// A tunnel with a laptop and a site with random networks.
fn tunnel(rng: &mut Rng, text: &mut String) {
    let snat = ["true", "false", "\"auto\""];
    let _ = writeln!(text, "[wireguard]\naddresses = [\"10.100.0.1/24\", \"fd00:100::1/64\"]");
    let _ = writeln!(text, "full_tunnel = {}\nsnat = {}", rng.bool(), snat[rng.usize(0..3)]);
    let groups = if rng.bool() { groups(rng, text) } else { &[] };
    let mut behind = vec!["192.168.178.0/24", "10.0.200.0/24", "10.0.1.0/24", "10.77.0.0/16", "172.20.0.0/14"];
    behind.retain(|_| rng.bool());
    for (key, ranges) in [
        ("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", vec!["10.100.0.2", "fd00:100::2"]),
        ("TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=", [vec!["10.100.0.3"], behind].concat()),
    ] {
        let _ = writeln!(text, "[[wireguard.peer]]\npublic_key = \"{key}\"\nallowed_ips = {ranges:?}");
        if !groups.is_empty() {
            let named: Vec<&str> = groups.iter().copied().filter(|_| rng.bool()).collect();
            let _ = writeln!(text, "groups = {named:?}");
            peer_lists(rng, text);
        }
    }
}

/// Two groups of peers, and sometimes what peers without lists reach; then the section's blocks of groups. The names.
fn groups(rng: &mut Rng, text: &mut String) -> &'static [&'static str] {
    if rng.u8(0..3) == 0 {
        let _ = writeln!(text, "default_reach = {}", entries(rng, true));
    }
    for name in ["dev", "ops_2"] {
        let _ = writeln!(text, "[[wireguard.group]]\nname = \"{name}\"");
        peer_lists(rng, text);
    }
    &["dev", "ops_2"]
}

/// Some of the lists of a peer or of a group.
fn peer_lists(rng: &mut Rng, text: &mut String) {
    for (key, one_in, reached) in [("reach", 2, true), ("deny", 3, true), ("from", 2, false)] {
        if rng.u8(0..one_in) == 0 {
            let _ = writeln!(text, "{key} = {}", entries(rng, reached));
        }
    }
}

/// A list of peers without `internet`, which needs the full tunnel.
fn entries(rng: &mut Rng, reached: bool) -> String {
    let mut entries: Vec<String> = (0..rng.usize(0..5)).map(|_| entry(rng)).collect();
    entries.sort();
    entries.dedup();
    if reached && rng.bool() {
        entries.push("bastion:ssh".to_owned());
    }
    format!("{entries:?}")
}

fn entry(rng: &mut Rng) -> String {
    let network = NETWORKS[rng.usize(0..4)];
    let place = match rng.u8(0..8) {
        0 => "private".to_owned(),
        1 => "peers".to_owned(),
        2 => format!("{network}.0.0/16"),
        3 => format!("{network}.{}.0/24", rng.u8(0..3)),
        4 => "10.100.0.2".to_owned(),
        5 => "192.168.178.0/24".to_owned(),
        6 => "0.0.0.0/0".to_owned(),
        _ => format!("{network}.{}.{}", rng.u8(0..3), rng.u8(4..9)),
    };
    let first = rng.u16(1..2000);
    match rng.u8(0..6) {
        0 | 1 => place,
        2 => format!("{place}:icmp"),
        3 => format!("{place}:tcp"),
        4 => format!("{place}:udp/{first}-{}", first + rng.u16(1..2000)),
        _ => format!("{place}:tcp/{},{first}-{}", rng.u16(4000..5000), first + rng.u16(1..2000)),
    }
}

fn nat(rng: &mut Rng, shared: &[&str], text: &mut String) {
    let _ = writeln!(text, "[nat]\nrandom_ports = {}", rng.bool());
    if !shared.is_empty() && rng.bool() {
        let addresses: Vec<&str> = std::iter::once("198.51.100.2").chain(shared.iter().copied()).collect();
        let _ = writeln!(text, "egress_addresses = {addresses:?}");
        if rng.bool() {
            let _ = writeln!(text, "drain = {:?}", &addresses[1..]);
        }
    }
}

fn forwards(rng: &mut Rng, shared: &[&str], text: &mut String) {
    // The plan compares sets of more than 64 elements one element at a time.
    let count = [0, 1, 3, 70, 120][rng.usize(0..5)];
    let skipped = rng.u16(0..40);
    for index in (0..count).filter(|index| index % 41 != skipped) {
        let first = 2000 + index * 20;
        let range = rng.u8(0..4) == 0;
        let port = if range { format!("\"{first}-{}\"", first + rng.u16(1..10)) } else { first.to_string() };
        let to = format!("{}.{}.{}", NETWORKS[rng.usize(0..4)], rng.u8(0..4), rng.u8(4..250));
        let protocol = ["tcp", "udp", "both", "sctp"][rng.usize(0..4)];
        let _ = writeln!(text, "[[nat.forward]]\nprotocol = \"{protocol}\"\nport = {port}\nto = \"{to}\"");
        if !range && rng.bool() {
            let _ = writeln!(text, "to_port = {}", rng.u16(1..9999));
        }
        if rng.u8(0..3) == 0 {
            let _ = writeln!(text, "from = {}", ranges(rng));
        }
        if rng.u8(0..4) == 0 {
            text.push_str("snat = true\n");
        }
        if !shared.is_empty() && rng.bool() {
            let _ = writeln!(text, "public = {:?}", &shared[..rng.usize(1..=shared.len())]);
        }
    }
}

/// Protocols without ports, by their names and numbers.
const WITHOUT_PORTS: [&str; 4] = ["\"gre\"", "\"esp\"", "112", "253"];

/// Forwards of whole protocols.
fn protocol_forwards(rng: &mut Rng, shared: &[&str], text: &mut String) {
    for protocol in WITHOUT_PORTS {
        if rng.bool() {
            continue;
        }
        let to = format!("{}.{}.{}", NETWORKS[rng.usize(0..4)], rng.u8(0..4), rng.u8(4..250));
        let snat = rng.u8(0..4) == 0;
        let _ = writeln!(text, "[[nat.forward]]\nprotocol = {protocol}\nto = \"{to}\"\nsnat = {snat}");
        if rng.bool() {
            let _ = writeln!(text, "from = {}", ranges(rng));
        }
        if !shared.is_empty() && rng.bool() {
            let _ = writeln!(text, "public = {:?}", &shared[..rng.usize(1..=shared.len())]);
        }
    }
}

fn statics(rng: &mut Rng, own: &[&str], text: &mut String) {
    for (index, public) in own.iter().enumerate().take(rng.usize(0..=own.len())) {
        let private = format!("{}.8.{}", NETWORKS[rng.usize(0..4)], index + 4);
        let _ = writeln!(text, "[[nat.static]]\npublic = \"{public}\"\nprivate = \"{private}\"");
        if rng.u8(0..4) > 0 {
            let _ = writeln!(text, "open = {}", lines(rng, &["from"], 5));
        }
    }
}

fn egress(rng: &mut Rng, text: &mut String) {
    let _ = writeln!(text, "[egress]\nguard = {}\nsmtp = {}", rng.bool(), rng.bool());
    for limit in ["new_flows_per_second", "max_flows"] {
        match rng.u8(0..3) {
            0 => {}
            1 => _ = writeln!(text, "{limit} = false"),
            _ => _ = writeln!(text, "{limit} = {}", rng.u16(1..4) * 100),
        }
    }
    lists(rng, text);
}

fn lists(rng: &mut Rng, text: &mut String) {
    if rng.u8(0..3) == 0 {
        let _ = writeln!(text, "allow = {}", lines(rng, &["to"], 8));
    }
    if rng.bool() {
        // Sometimes more than the 64 elements up to which a set is replaced as a whole.
        let most = if rng.u8(0..4) == 0 { 90 } else { 8 };
        let _ = writeln!(text, "deny = {}", lines(rng, &["to"], most));
    }
}

fn networks(rng: &mut Rng, shared: &[&str], text: &mut String) {
    for network in NETWORKS {
        if rng.u8(0..3) > 0 {
            continue;
        }
        let _ = writeln!(text, "[[network]]\nrange = \"{network}.0.0/16\"");
        if !shared.is_empty() && rng.bool() {
            let _ = writeln!(text, "egress_addresses = {:?}", ["198.51.100.2", shared[0]]);
        }
        if rng.bool() {
            let _ = writeln!(text, "smtp = {}", rng.bool());
        }
        lists(rng, text);
        if !shared.is_empty() && rng.bool() {
            let hosts = [format!("{network}.1.0/24"), format!("{network}.1.7"), format!("{network}.0.0/16")];
            let from = &hosts[rng.usize(0..hosts.len())..];
            let _ = writeln!(text, "[[network.egress]]\nfrom = {from:?}\naddresses = {:?}", &shared[..1]);
        }
    }
}

fn firewall(rng: &mut Rng, text: &mut String) {
    text.push_str("[firewall]\n");
    for limit in ["ssh_attempts", "pings_per_second", "syns_per_second"] {
        match rng.u8(0..3) {
            0 => {}
            1 => _ = writeln!(text, "{limit} = false"),
            _ => _ = writeln!(text, "{limit} = {}", rng.u16(1..4) * 10),
        }
    }
    let bans = ["1s", "10m", "24h"];
    let _ = writeln!(text, "ssh_ban = \"{}\"", bans[rng.usize(0..3)]);
    if rng.bool() {
        let _ = writeln!(text, "ssh_ports = [22, {}]", rng.u16(1024..1900));
    }
    if rng.bool() {
        let _ = writeln!(text, "ssh_from = [\"192.0.2.0/24\", \"2001:db8::/32\", \"192.0.2.{}\"]", rng.u8(..));
    }
    if rng.bool() {
        let _ = writeln!(
            text,
            "blocklist = [\"198.18.{}.0/24\", \"12.{}.0.0/16\", \"2001:db8:bad::/48\"]",
            rng.u8(..),
            rng.u8(0..3)
        );
    }
    let drops = ["\"journal\"", "7", "false"];
    let _ = writeln!(text, "log_drops = {}", drops[rng.usize(0..3)]);
    for index in 0..rng.u16(0..3) {
        let first = 300 + index * 100;
        let protocol = ["tcp", "udp", "both", "sctp"][rng.usize(0..4)];
        let ports = format!("[{first}, \"{}-{}\"]", first - rng.u16(0..9), first + rng.u16(1..9));
        let _ = writeln!(text, "[[firewall.service]]\nprotocol = \"{protocol}\"\nports = {ports}");
        if rng.bool() {
            let _ = writeln!(text, "from = [\"10.0.0.0/8\", \"10.{}.0.0/16\", \"2001:db8::/64\"]", rng.u8(..));
        }
    }
}

/// Services of whole protocols.
fn protocol_services(rng: &mut Rng, text: &mut String) {
    for protocol in WITHOUT_PORTS {
        if rng.u8(0..4) > 0 {
            continue;
        }
        let _ = writeln!(text, "[[firewall.service]]\nprotocol = {protocol}");
        if rng.bool() {
            let _ = writeln!(text, "from = [\"10.0.0.0/8\", \"12.{}.0.0/16\", \"2001:db8::/64\"]", rng.u8(0..3));
        }
    }
}

/// An access list whose entries may overlap.
fn lines(rng: &mut Rng, sides: &[&str], most: usize) -> String {
    let count = rng.usize(0..=most);
    let lines: Vec<String> = (0..count).map(|_| line(rng, sides)).collect();
    format!("[{}]", lines.join(", "))
}

fn line(rng: &mut Rng, sides: &[&str]) -> String {
    let mut keys = Vec::new();
    for side in sides {
        // Entries between tenants need both.
        if sides.len() > 1 {
            keys.push(format!(
                "{side} = [\"{}.0.0/16\", \"{}.1.{}\"]",
                NETWORKS[rng.usize(0..4)],
                NETWORKS[rng.usize(0..4)],
                rng.u8(..)
            ));
        } else if rng.bool() {
            keys.push(format!("{side} = {}", ranges(rng)));
        }
    }
    match rng.u8(0..6) {
        0 => {}
        1 => keys.push("protocol = \"icmp\"".to_owned()),
        2 => keys.push(format!("protocol = {}", WITHOUT_PORTS[rng.usize(0..4)])),
        kind => {
            keys.push(format!("protocol = \"{}\"", ["tcp", "udp", "sctp"][usize::from(kind - 3)]));
            if rng.bool() {
                let first = rng.u16(1..2000);
                keys.push(format!("ports = [{}, \"{first}-{}\"]", rng.u16(1..2000), first + rng.u16(1..2000)));
            }
        }
    }
    format!("{{ {} }}", keys.join(", "))
}

/// Ranges of the internet, some of them nested.
fn ranges(rng: &mut Rng) -> String {
    let ranges: Vec<String> = (0..rng.u8(1..4))
        .map(|_| {
            let length = [8, 16, 20, 24, 27, 32][rng.usize(0..6)];
            let address = std::net::Ipv4Addr::new(rng.u8(11..14), rng.u8(0..3), rng.u8(0..3), rng.u8(..));
            let network = ipnet::Ipv4Net::new(address, length).expect("a length of IPv4").trunc();
            format!("\"{network}\"")
        })
        .collect();
    format!("[{}]", ranges.join(", "))
}
