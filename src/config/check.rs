//! From the file as it stands to a [`Config`], or to every [`Problem`] at once. The defaults are written here and nowhere else.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::Table;

use super::raw::{
    Entry, KNOWN_KEYS, NumberOrSwitch, NumberOrWord, NumbersOrWord, RawConfig, RawFirewall, RawHcloud, RawLog, RawNat,
    RawPrivateLink, RawSite,
};
use super::{Config, Environment, Firewall, Hcloud, Log, Nat, PrivateLink, Problem, Site, TokenSource};
use crate::net::{InterfaceName, NetworkId, ServerId, overlap};

/// Hetzner's public API (Hetzner API documentation, "Getting started").
const DEFAULT_ENDPOINT: &str = "https://api.hetzner.cloud/v1";
/// The metadata service's link-local address (Hetzner documentation, "Server metadata").
const DEFAULT_METADATA_ENDPOINT: &str = "http://169.254.169.254";
const DEFAULT_TOKEN_FILE: &str = "/etc/bastiond/hcloud-token";
/// The port that WireGuard's own documentation and most clients use.
const DEFAULT_WIREGUARD_PORT: u16 = 51820;
/// 180 calls an hour for each network: a twentieth of the 3600 that the whole project shares.
const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(20);
const POLL_INTERVAL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// Ids of the API are positive and below 2^53 (Hetzner API documentation: they fit a JSON number).
const MAX_ID: i64 = (1 << 53) - 1;
/// Hetzner attaches a server to three networks at most; ten leave room for links of other kinds.
const MAX_PRIVATE_LINKS: usize = 10;
/// Hetzner's public gateway: the API refuses routes that contain it.
const HETZNER_PUBLIC_GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);

pub(super) fn check(raw: RawConfig, environment: &Environment) -> Result<Config, Vec<Problem>> {
    let mut found = Findings::default();
    found.unknown("", &raw.unknown);
    let config = Config {
        log: log(found.section("log", raw.log), &mut found),
        site: site(found.section("site", raw.site), environment, &mut found),
        nat: nat(found.section("nat", raw.nat), &mut found),
        firewall: firewall(found.section("firewall", raw.firewall), &mut found),
        hcloud: hcloud(found.section("hcloud", raw.hcloud), environment, &mut found),
    };
    if found.problems.is_empty() {
        return Ok(config);
    }
    found.problems.sort();
    Err(found.problems)
}

/// The problems found so far.
#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
}

impl Findings {
    fn report(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        self.problems.push(Problem::new(key, reason));
    }

    /// The value if there is one of the right shape; a wrong shape is reported.
    fn value<T>(&mut self, key: &str, entry: Entry<T>) -> Option<T> {
        match entry {
            Entry::Absent => None,
            Entry::Good(value) => Some(value),
            Entry::Bad(reason) => {
                self.report(key, reason);
                None
            }
        }
    }

    fn section<T: Default>(&mut self, key: &str, entry: Entry<T>) -> T {
        self.value(key, entry).unwrap_or_default()
    }

    /// The value parsed from its text, or `None` for `auto`.
    fn parsed_unless_auto<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str, entry: Entry<String>) -> Option<T> {
        let text = self.value(key, entry).filter(|text| text != "auto")?;
        self.parsed(key, &text)
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.report(key, error.to_string())).ok()
    }

    /// Keys that the section does not have, each with the known one that looks most like it.
    fn unknown(&mut self, section: &str, unknown: &Table) {
        for name in unknown.keys() {
            let key = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            let reason = match similar(&strip_indices(&key)) {
                Some(known) => format!("unknown key; did you mean `{known}`?"),
                None => "unknown key".to_owned(),
            };
            self.report(key, reason);
        }
    }

    /// A port from 1 to 65535.
    fn port(&mut self, key: &str, number: i64) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|&port| port > 0);
        if port.is_none() {
            self.report(key, format!("{number} is no port (1 to 65535)"));
        }
        port
    }

    fn id(&mut self, key: &str, number: i64) -> Option<u64> {
        let id = u64::try_from(number).ok().filter(|_| (1..=MAX_ID).contains(&number));
        if id.is_none() {
            self.report(key, format!("{number} is no id of the Hetzner API (1 to {MAX_ID})"));
        }
        id
    }

    /// A range written by its first address: `10.0.0.1/16` is more likely a slip than meant.
    fn network(&mut self, key: &str, text: &str) -> Option<Ipv4Net> {
        let Ok(network) = text.parse::<Ipv4Net>() else {
            self.report(key, format!("`{text}` is no IPv4 range (like 10.0.0.0/16)"));
            return None;
        };
        if network.trunc() != network {
            self.report(key, format!("`{text}` has host bits set; the range is {}", network.trunc()));
            return None;
        }
        Some(network)
    }

    /// An `http(s)` base URL without a trailing slash.
    fn base_url(&mut self, key: &str, text: &str) -> Option<String> {
        match reqwest::Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                self.report(key, format!("`{text}` is neither an http nor an https URL"));
                None
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() => {
                self.report(key, format!("`{text}` must be a plain base URL: no user, query or fragment"));
                None
            }
            Ok(_) => Some(text.trim_end_matches('/').to_owned()),
            Err(error) => {
                self.report(key, format!("`{text}` is no URL: {error}"));
                None
            }
        }
    }
}

fn log(raw: RawLog, found: &mut Findings) -> Log {
    found.unknown("log", &raw.unknown);
    let level = found.value("log.level", raw.level).and_then(|text| {
        let level = match text.as_str() {
            "error" => Some(tracing::Level::ERROR),
            "warn" => Some(tracing::Level::WARN),
            "info" => Some(tracing::Level::INFO),
            "debug" => Some(tracing::Level::DEBUG),
            "trace" => Some(tracing::Level::TRACE),
            _ => None,
        };
        if level.is_none() {
            found.report("log.level", format!("`{text}` is none of error, warn, info, debug, trace"));
        }
        level
    });
    Log { level: level.unwrap_or(tracing::Level::INFO) }
}

fn site(raw: RawSite, environment: &Environment, found: &mut Findings) -> Site {
    found.unknown("site", &raw.unknown);
    let public_interface = found.parsed_unless_auto::<InterfaceName>("site.public_interface", raw.public_interface);
    let server_id = match found.value("site.server_id", raw.server_id) {
        None => None,
        Some(NumberOrWord::Number(number)) => found.id("site.server_id", number).map(ServerId),
        Some(NumberOrWord::Word(word)) => {
            if word != "auto" {
                found.report("site.server_id", format!("`{word}` is neither a number nor \"auto\""));
            }
            None
        }
    };
    let from_file = found.value("site.metadata_endpoint", raw.metadata_endpoint);
    let metadata_endpoint =
        endpoint("site.metadata_endpoint", from_file, environment.hcloud_metadata_endpoint.as_deref(), found)
            .unwrap_or_else(|| DEFAULT_METADATA_ENDPOINT.to_owned());
    let links = found.value("site.private", raw.private).unwrap_or_default();
    if links.len() > MAX_PRIVATE_LINKS {
        found.report("site.private", format!("{} links; at most {MAX_PRIVATE_LINKS} are supported", links.len()));
    }
    let mut private = Vec::new();
    for (index, link) in links.into_iter().take(MAX_PRIVATE_LINKS).enumerate() {
        private.extend(private_link(&format!("site.private[{index}]"), link, found));
    }
    private_links_differ(&private, public_interface.as_ref(), found);
    Site { public_interface, server_id, metadata_endpoint, private }
}

fn private_link(key: &str, raw: RawPrivateLink, found: &mut Findings) -> Option<PrivateLink> {
    found.unknown(key, &raw.unknown);
    let missing = |entry: &Entry<String>| *entry == Entry::Absent;
    for (name, entry) in [("interface", &raw.interface), ("network", &raw.network)] {
        if missing(entry) {
            found.report(
                format!("{key}.{name}"),
                "is needed: a private link written by hand has both interface and network",
            );
        }
    }
    let interface_key = format!("{key}.interface");
    let interface = found.value(&interface_key, raw.interface).and_then(|text| found.parsed(&interface_key, &text));
    let network_key = format!("{key}.network");
    let network = found.value(&network_key, raw.network).and_then(|text| found.network(&network_key, &text));
    let address_key = format!("{key}.address");
    let address = found.parsed_unless_auto::<Ipv4Addr>(&address_key, raw.address);
    let id_key = format!("{key}.network_id");
    let network_id = found.value(&id_key, raw.network_id).and_then(|id| found.id(&id_key, id)).map(NetworkId);
    let (interface, network) = (interface?, network?);
    if let Some(address) = address.filter(|address| !network.contains(address)) {
        found.report(address_key, format!("{address} is outside of {network}"));
    }
    Some(PrivateLink { interface, network, address, network_id })
}

fn private_links_differ(links: &[PrivateLink], public: Option<&InterfaceName>, found: &mut Findings) {
    for (index, link) in links.iter().enumerate() {
        if Some(&link.interface) == public {
            found.report(format!("site.private[{index}].interface"), "is also site.public_interface");
        }
        for (earlier_index, earlier) in links[..index].iter().enumerate() {
            if earlier.interface == link.interface {
                found.report(
                    format!("site.private[{index}].interface"),
                    format!("is also site.private[{earlier_index}].interface"),
                );
            }
            if overlap(earlier.network, link.network) {
                found.report(
                    format!("site.private[{index}].network"),
                    format!("{} overlaps {} of site.private[{earlier_index}]", link.network, earlier.network),
                );
            }
        }
    }
}

fn nat(raw: RawNat, found: &mut Findings) -> Nat {
    found.unknown("nat", &raw.unknown);
    Nat { random_ports: found.value("nat.random_ports", raw.random_ports).unwrap_or(true) }
}

fn firewall(raw: RawFirewall, found: &mut Findings) -> Firewall {
    found.unknown("firewall", &raw.unknown);
    let ssh_ports = match found.value("firewall.ssh_ports", raw.ssh_ports) {
        None => None,
        Some(NumbersOrWord::Numbers(numbers)) => Some(ssh_ports(&numbers, found)),
        Some(NumbersOrWord::Word(word)) => {
            if word != "auto" {
                found.report("firewall.ssh_ports", format!("`{word}` is neither a list of ports nor \"auto\""));
            }
            None
        }
    };
    let ssh_from = match found.value("firewall.ssh_from", raw.ssh_from) {
        None => vec![everywhere_v4().into(), everywhere_v6().into()],
        Some(texts) => ssh_sources(&texts, found),
    };
    let wireguard_port = match found.value("firewall.wireguard_port", raw.wireguard_port) {
        None => Some(DEFAULT_WIREGUARD_PORT),
        Some(NumberOrSwitch::Switch(false)) => None,
        Some(NumberOrSwitch::Switch(true)) => {
            found.report("firewall.wireguard_port", "must be a port number, or false for a closed port");
            None
        }
        Some(NumberOrSwitch::Number(number)) => found.port("firewall.wireguard_port", number),
    };
    Firewall { ssh_ports, ssh_from, wireguard_port }
}

fn ssh_ports(numbers: &[i64], found: &mut Findings) -> BTreeSet<u16> {
    if numbers.is_empty() {
        // Closing SSH for good is the tunnel's business, when there is one: here it would only lock the operator out.
        found.report("firewall.ssh_ports", "an empty list would lock you out; name a port or write \"auto\"");
    }
    let mut ports = BTreeSet::new();
    for (index, &number) in numbers.iter().enumerate() {
        ports.extend(found.port(&format!("firewall.ssh_ports[{index}]"), number));
    }
    ports
}

fn ssh_sources(texts: &[String], found: &mut Findings) -> Vec<IpNet> {
    if texts.is_empty() {
        found.report(
            "firewall.ssh_from",
            "an empty list would lock you out; name who may connect, or leave the key away",
        );
    }
    let mut sources: Vec<IpNet> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let key = format!("firewall.ssh_from[{index}]");
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        match parsed {
            Ok(source) if source.trunc() != source => {
                found.report(key, format!("`{text}` has host bits set; the range is {}", source.trunc()));
            }
            Ok(source) if sources.contains(&source) => found.report(key, format!("{source} is listed twice")),
            Ok(source) => sources.push(source),
            Err(_) => found
                .report(key, format!("`{text}` is neither an address nor a range (like 203.0.113.7 or 2001:db8::/32)")),
        }
    }
    sources
}

fn hcloud(raw: RawHcloud, environment: &Environment, found: &mut Findings) -> Hcloud {
    found.unknown("hcloud", &raw.unknown);
    let from_file = found.value("hcloud.endpoint", raw.endpoint);
    let endpoint = endpoint("hcloud.endpoint", from_file, environment.hcloud_endpoint.as_deref(), found)
        .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    let token_file = found.value("hcloud.token_file", raw.token_file).unwrap_or_else(|| DEFAULT_TOKEN_FILE.to_owned());
    if !token_file.starts_with('/') {
        found.report("hcloud.token_file", format!("`{token_file}` is no absolute path"));
    }
    let destinations = match found.value("hcloud.destinations", raw.destinations) {
        None => vec![everywhere_v4()],
        Some(texts) => destinations(&texts, found),
    };
    let poll_interval = found.value("hcloud.poll_interval", raw.poll_interval).and_then(|text| {
        match humantime::parse_duration(&text) {
            Ok(interval) if POLL_INTERVAL_RANGE.contains(&interval) => Some(interval),
            Ok(_) => {
                found.report("hcloud.poll_interval", format!("`{text}` is not between 1s and 24h"));
                None
            }
            Err(error) => {
                found.report(
                    "hcloud.poll_interval",
                    format!("`{text}` is no time span (like \"20s\" or \"5m\"): {error}"),
                );
                None
            }
        }
    });
    let credential = environment.credentials_directory.as_ref().map(|directory| directory.join("hcloud-token"));
    let files = credential.into_iter().chain([PathBuf::from(token_file)]).chain(environment.hcloud_token_file.clone());
    Hcloud {
        enabled: found.value("hcloud.enabled", raw.enabled).unwrap_or(true),
        endpoint,
        token: TokenSource { files: files.collect(), value: environment.hcloud_token.clone() },
        destinations,
        take_over: found.value("hcloud.take_over", raw.take_over).unwrap_or(false),
        poll_interval: poll_interval.unwrap_or(DEFAULT_POLL_INTERVAL),
        network: environment.hcloud_network.clone(),
    }
}

fn destinations(texts: &[String], found: &mut Findings) -> Vec<Ipv4Net> {
    let mut destinations: Vec<Ipv4Net> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let key = format!("hcloud.destinations[{index}]");
        let Some(destination) = found.network(&key, text) else { continue };
        // The rules that the API enforces (its documentation of "Add a route to a Network").
        if destination != everywhere_v4() && !is_private(destination) {
            found.report(key, format!("{destination} is neither 0.0.0.0/0 nor inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16: Hetzner takes no other"));
        } else if destination != everywhere_v4() && destination.contains(&HETZNER_PUBLIC_GATEWAY) {
            found.report(
                key,
                format!("{destination} contains {HETZNER_PUBLIC_GATEWAY}, which Hetzner keeps for itself"),
            );
        } else if let Some(other) = destinations.iter().find(|&&other| {
            other == destination
                || (overlap(other, destination) && other.prefix_len() > 0 && destination.prefix_len() > 0)
        }) {
            found.report(key, format!("{destination} overlaps {other}: Hetzner takes only one of them"));
        } else {
            destinations.push(destination);
        }
    }
    destinations
}

/// The file's value unless the environment has one: variables win, as in the official tools.
fn endpoint(
    key: &str,
    from_file: Option<String>,
    from_environment: Option<&str>,
    found: &mut Findings,
) -> Option<String> {
    let from_file = from_file.and_then(|text| found.base_url(key, &text));
    match from_environment {
        Some(text) => found.base_url(key, text),
        None => from_file,
    }
}

fn is_private(range: Ipv4Net) -> bool {
    let blocks =
        [(Ipv4Addr::new(10, 0, 0, 0), 8), (Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(192, 168, 0, 0), 16)];
    blocks.into_iter().any(|(address, prefix)| Ipv4Net::new_assert(address, prefix).contains(&range))
}

fn everywhere_v4() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)
}

fn everywhere_v6() -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)
}

/// `site.private[0].netwrk` without its index, as the known keys are written.
fn strip_indices(key: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for c in key.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => {}
            _ => plain.push(c),
        }
    }
    plain
}

/// The known key, or section, that an unknown one was probably meant to be.
fn similar(key: &str) -> Option<&'static str> {
    let sections = KNOWN_KEYS.iter().filter_map(|known| known.split('.').next());
    let candidates = KNOWN_KEYS.iter().copied().chain(sections);
    let scored = candidates.map(|known| (strsim::jaro_winkler(key, known), known));
    // Below this the suggestion would be a guess ("dns" is nobody's slip for "log").
    let near = scored.filter(|&(score, _)| score > 0.85);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
