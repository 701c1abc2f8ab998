//! Suggests a known key for an unknown one.

use crate::config::raw::KNOWN_KEYS;

/// Keys less similar than this are not suggested ("proxy" is not a typo of "port"). A Jaro-Winkler similarity, 0 to 1.
const MIN_SIMILARITY: f64 = 0.85;

/// What people call some keys, after other programs: the section, their name, and the key.
const OTHER_NAMES: &[((&str, &str), &str)] = &[
    (("wireguard", "port"), "wireguard.listen_port"),
    (("wireguard", "address"), "wireguard.addresses"),
    (("wireguard", "private_key"), "wireguard.private_key_file"),
    (("wireguard.peer", "group"), "wireguard.peer.groups"),
    (("wireguard.peer", "psk"), "wireguard.peer.preshared_key"),
    (("wireguard.peer", "keepalive"), "wireguard.peer.persistent_keepalive"),
    (("firewall", "ssh_port"), "firewall.ssh_ports"),
    (("network", "max_flows"), "egress.max_flows"),
    (("network", "new_flows_per_second"), "egress.network_new_flows_per_second"),
    (("nat.forward", "target"), "nat.forward.to"),
    (("wireguard.group", "allow"), "wireguard.group.reach"),
    (("wireguard.peer", "allow"), "wireguard.peer.reach"),
    (("nat.forward", "ports"), "nat.forward.port"),
];

/// The name as it must be written in the file, on one line.
pub(super) fn quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { name.to_owned() } else { format!("{name:?}") }
}

/// The known key or section that an unknown key probably stands for.
///
/// Compares only last parts, because whole keys of one section resemble each other by their beginnings. A key of the
/// same section wins; then the most similar key; among equals the key of the nearest section. Keys in blocks of other
/// sections, such as `name` and `port`, are never suggested.
pub(super) fn similar_key(section: &str, name: &str) -> Option<&'static str> {
    const OWN: u8 = 2;
    let section = without_indexes(section);
    let name = name.to_lowercase();
    let same = OTHER_NAMES.iter().find(|(other, _)| *other == (section.as_str(), name.as_str()));
    if let Some((_, known)) = same {
        return Some(known);
    }
    let sections = KNOWN_KEYS.iter().filter_map(|known| known.rsplit_once('.')).map(|(section, _)| section);
    let scored = KNOWN_KEYS.iter().copied().chain(sections).chain(["hosts"]).map(|known| {
        let (known_section, known_name) = known.rsplit_once('.').unwrap_or(("", known));
        // The same section, or a block in it.
        let nearness = if known_section == section { OWN } else { u8::from(known_section.starts_with(&section)) };
        (strsim::jaro_winkler(&name, known_name), nearness, known)
    });
    let is_in_block = |known: &str| known.matches('.').count() > 1;
    let near = scored
        .filter(|&(similarity, nearness, known)| similarity > MIN_SIMILARITY && (nearness > 0 || !is_in_block(known)));
    let best = near.max_by(|a, b| (a.1 == OWN).cmp(&(b.1 == OWN)).then(a.0.total_cmp(&b.0)).then(a.1.cmp(&b.1)));
    best.map(|(.., known)| known)
}

/// The name that another one probably stands for.
pub(super) fn similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(&name, &known.to_lowercase()), known));
    let near = scored.filter(|(similarity, _)| *similarity > MIN_SIMILARITY);
    near.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

/// `nat.static.open` for `nat.static[0].open[1]`.
fn without_indexes(block: &str) -> String {
    block.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_gets_the_intended_key_as_suggestion() {
        for (section, typo, meant) in [
            ("", "firewal", Some("firewall")),
            ("", "HCloud", Some("hcloud")),
            ("", "private", Some("site.private")),
            ("", "ssh_from", Some("firewall.ssh_from")),
            ("", "proxy", None),
            ("", "", None),
            ("hcloud", "take_ovr", Some("hcloud.take_over")),
            ("hcloud", "ssh_from", Some("firewall.ssh_from")),
            ("hcloud", "x", None),
            ("firewall", "ssh_port", Some("firewall.ssh_ports")),
            ("firewall", "rules", None),
            ("site", "public_iface", Some("site.public_interface")),
            ("site", "interface", Some("site.private.interface")),
            ("site", "privat", Some("site.private")),
            ("site.private[3]", "netwrk", Some("site.private.network")),
            ("site.private[3]", "gateway", None),
            ("log", "private", Some("site.private")),
            ("nat", "private", Some("nat.static.private")),
            ("wireguard", "port", Some("wireguard.listen_port")),
            ("wireguard.peer[2]", "psk", Some("wireguard.peer.preshared_key")),
            ("wireguard", "listen_prt", Some("wireguard.listen_port")),
            ("wireguard", "peers", Some("wireguard.peer")),
            ("wireguard", "allowed_ips", Some("wireguard.peer.allowed_ips")),
            ("wireguard.peer[3]", "allowedips", Some("wireguard.peer.allowed_ips")),
            ("wireguard.peer[3]", "interface", Some("wireguard.interface")),
            ("nat", "forwards", Some("nat.forward")),
            ("nat.forward[3]", "form", Some("nat.forward.from")),
            ("nat.static[3]", "opn", Some("nat.static.open")),
            ("nat.static[3].open[1]", "port", Some("nat.static.open.ports")),
            ("firewall.service[0]", "port", Some("firewall.service.ports")),
            ("egress.deny[1]", "port", Some("egress.deny.ports")),
            ("", "networks", Some("network")),
        ] {
            assert_eq!(similar_key(section, typo), meant, "{typo} in [{section}]");
        }
    }

    #[test]
    fn a_key_that_needs_quotes_is_printed_in_quotes() {
        assert_eq!(quoted("take-over_2"), "take-over_2");
        assert_eq!(quoted("log.level"), "\"log.level\"");
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(quoted(""), "\"\"");
    }
}
