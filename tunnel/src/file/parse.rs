//! Bytes in, a [`File`] or everything that is wrong with them out.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::{File, FilePeer, Ignored, MAX_BYTES, Problem, Table};
use crate::endpoint::EndpointName;
use crate::key::{InvalidKey, PresharedKey, PrivateKey, PublicKey};
use crate::syntax::{decimal, interface_address, mark, quoted};

/// After so many problems it is clear that this is the wrong file.
const MAX_PROBLEMS: usize = 100;

/// From the least that every link carries (RFC 791 §3.2) to the largest packet there is.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65535;

/// A key less similar than this is not suggested (Jaro-Winkler, 0 to 1).
const RESEMBLANCE: f64 = 0.85;

/// The keys of `[Interface]` as wg(8) and wg-quick(8) spell them.
const INTERFACE_KEYS: [&str; 12] = [
    "PrivateKey",
    "ListenPort",
    "FwMark",
    "Address",
    "MTU",
    "Table",
    "DNS",
    "PreUp",
    "PostUp",
    "PreDown",
    "PostDown",
    "SaveConfig",
];

/// The keys of `[Peer]` as wg(8) spells them.
const PEER_KEYS: [&str; 5] = ["PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"];

/// Routing tables that have a name everywhere (`RT_TABLE_*` in linux/rtnetlink.h).
const TABLE_NAMES: [(&str, u32); 3] = [("default", 253), ("main", 254), ("local", 255)];

/// Reads a configuration file. Sections and keys may be in capitals or not, as wg(8) and wg-quick(8) have it. It is
/// stricter than they are where a file sets one thing twice: there, the last value would win silently.
pub fn parse(bytes: &[u8]) -> Result<File, Vec<Problem>> {
    if bytes.len() > MAX_BYTES {
        let reason = format!("more than {MAX_BYTES} bytes are no configuration");
        return Err(vec![Problem { line: 1, reason }]);
    }
    let mut reading = Reading::default();
    // Some editors put a byte order mark in front.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for line in bytes.split(|&byte| byte == b'\n') {
        reading.line += 1;
        reading.take_line(line);
        if reading.problems.len() >= MAX_PROBLEMS {
            reading.report("so many problems that the rest was not read");
            break;
        }
    }
    reading.end_peer();
    // A peer without a key is known at its end only.
    reading.problems.sort_by_key(|problem| problem.line);
    if reading.problems.is_empty() { Ok(reading.file) } else { Err(reading.problems) }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Section {
    #[default]
    None,
    Interface,
    Peer,
    /// It was reported; its content is skipped.
    Unknown,
}

/// A peer whose section has begun.
#[derive(Default)]
struct Draft {
    line: usize,
    public_key: Option<PublicKey>,
    preshared_key: Option<PresharedKey>,
    /// By their order: one is removed as fast as it is added, however many there are.
    allowed_ips: BTreeMap<usize, IpNet>,
    endpoint: Option<EndpointName>,
    persistent_keepalive: Option<u16>,
}

/// The state of the parser.
#[derive(Default)]
struct Reading {
    line: usize,
    section: Section,
    /// The line of `[Interface]`.
    interface: Option<usize>,
    /// The lines of this section's keys that may occur once.
    once: HashMap<&'static str, usize>,
    peer: Option<Draft>,
    /// The line of each peer's key.
    public_keys: HashMap<PublicKey, usize>,
    /// The line of the section of an allowed-ip's peer, and the allowed-ip's number in the order of all.
    owners: HashMap<IpNet, (usize, usize)>,
    /// How many allowed-ips there were.
    allowed_ips: usize,
    file: File,
    problems: Vec<Problem>,
}

impl Reading {
    fn report(&mut self, reason: impl Into<String>) {
        self.problems.push(Problem { line: self.line, reason: reason.into() });
    }

    fn take_line(&mut self, line: &[u8]) {
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let Ok(line) = std::str::from_utf8(line) else {
            return self.report("not UTF-8 text");
        };
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return self.begin(name.trim());
        }
        match line.split_once('=') {
            Some((key, value)) => self.take_pair(key.trim_end(), value.trim_start()),
            None => self.report("neither a section in brackets nor `Key = value`"),
        }
    }

    fn begin(&mut self, section: &str) {
        self.end_peer();
        self.once.clear();
        self.section = if section.eq_ignore_ascii_case("Interface") {
            if let Some(line) = self.interface.replace(self.line) {
                self.report(format!("[Interface] is there already, in line {line}"));
            }
            Section::Interface
        } else if section.eq_ignore_ascii_case("Peer") {
            self.peer = Some(Draft { line: self.line, ..Draft::default() });
            Section::Peer
        } else {
            self.report(format!("{} is no section; there are [Interface] and [Peer]", quoted(section)));
            Section::Unknown
        };
    }

    fn end_peer(&mut self) {
        let Some(draft) = self.peer.take() else { return };
        let Draft { line, public_key, preshared_key, allowed_ips, endpoint, persistent_keepalive } = draft;
        match public_key {
            Some(public_key) => {
                let allowed_ips = allowed_ips.into_values().collect();
                let peer = FilePeer { public_key, preshared_key, allowed_ips, endpoint, persistent_keepalive };
                self.file.peers.push(peer);
            }
            // One that is wrong was reported.
            None if self.once.contains_key("PublicKey") => {}
            None => self.problems.push(Problem { line, reason: "[Peer] needs a PublicKey".to_owned() }),
        }
    }

    fn take_pair(&mut self, key: &str, value: &str) {
        let known = |keys: &[&'static str]| keys.iter().copied().find(|known| known.eq_ignore_ascii_case(key));
        let (here, elsewhere) = match self.section {
            Section::Interface => (known(&INTERFACE_KEYS), known(&PEER_KEYS).map(|_| "[Peer]")),
            Section::Peer => (known(&PEER_KEYS), known(&INTERFACE_KEYS).map(|_| "[Interface]")),
            Section::None => return self.report("a section, [Interface] or [Peer], has to come first"),
            Section::Unknown => return,
        };
        let section = self.section;
        match (here, elsewhere) {
            (Some(key), _) if section == Section::Interface => self.take_interface_pair(key, value),
            (Some(key), _) => self.take_peer_pair(key, value),
            (None, Some(elsewhere)) => self.report(format!("{} belongs to {elsewhere}", quoted(key))),
            (None, None) => {
                let advice = similar(section, key).map_or(String::new(), |known| format!("; did you mean {known}?"));
                self.report(format!("{} is no key{advice}", quoted(key)));
            }
        }
    }

    fn take_interface_pair(&mut self, key: &'static str, value: &str) {
        match key {
            "Address" => return self.take_addresses(value),
            "PrivateKey" | "ListenPort" | "FwMark" | "MTU" | "Table" => {}
            _ => return self.file.ignored.push(Ignored { line: self.line, key }),
        }
        if !self.is_first(key) {
            return;
        }
        match key {
            "PrivateKey" => self.file.private_key = self.private_key(value),
            "ListenPort" => self.file.listen_port = self.plain(key, value, "a port (0 to 65535)", decimal),
            "FwMark" => self.file.fwmark = self.plain(key, value, "off or a number of 32 bits", or_off(mark)),
            "MTU" => {
                let mtu = |text: &str| decimal(text).filter(|mtu| MTUS.contains(mtu));
                self.file.mtu = self.plain(key, value, "a number of bytes (68 to 65535)", mtu);
            }
            _ => {
                let expected = "auto, off or the number of a routing table (1 to 4294967295)";
                self.file.table = self.plain(key, value, expected, table).unwrap_or_default();
            }
        }
    }

    fn take_peer_pair(&mut self, key: &'static str, value: &str) {
        if key == "AllowedIPs" {
            return self.take_allowed_ips(value);
        }
        if !self.is_first(key) {
            return;
        }
        // Taken out while the values' problems are reported.
        let Some(mut peer) = self.peer.take() else { return };
        match key {
            "PublicKey" => peer.public_key = self.public_key(value),
            "PresharedKey" => {
                peer.preshared_key = self.key::<PresharedKey>(key, value).filter(|key| !key.is_none());
            }
            "Endpoint" => {
                let expected =
                    "an address or a name with a port, as in 192.0.2.1:51820, [2001:db8::1]:51820, [fe80::1%2]:51820";
                peer.endpoint = self.plain(key, value, expected, endpoint);
            }
            _ => {
                let expected = "off or a number of seconds (0 to 65535)";
                peer.persistent_keepalive = self.plain(key, value, expected, or_off(decimal));
            }
        }
        self.peer = Some(peer);
    }

    /// Whether the key was not there yet in this section.
    fn is_first(&mut self, key: &'static str) -> bool {
        let earlier = self.once.insert(key, self.line);
        if let Some(line) = earlier {
            self.report(format!("{key} is there already, in line {line}"));
        }
        earlier.is_none()
    }

    fn plain<T>(&mut self, key: &str, value: &str, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let read = read(value);
        if read.is_none() {
            self.report(format!("{key}: {} is not {expected}", quoted(value)));
        }
        read
    }

    fn key<T: FromStr<Err = InvalidKey>>(&mut self, name: &str, value: &str) -> Option<T> {
        value.parse().map_err(|error: InvalidKey| self.report(format!("{name}: {error}"))).ok()
    }

    fn private_key(&mut self, value: &str) -> Option<PrivateKey> {
        let key = self.key::<PrivateKey>("PrivateKey", value)?;
        // Zeroes mean that there is none; a private key has lost them by now, since some of its bits are set always.
        let is_none = value.parse::<PresharedKey>().is_ok_and(|key| key.is_none());
        (!is_none).then_some(key)
    }

    fn public_key(&mut self, value: &str) -> Option<PublicKey> {
        let key = self.key("PublicKey", value)?;
        let earlier = self.public_keys.insert(key, self.line);
        if let Some(line) = earlier {
            self.report(format!("PublicKey: line {line} has this peer already"));
        }
        Some(key)
    }

    fn take_addresses(&mut self, value: &str) {
        for text in value.split(|c: char| c == ',' || c.is_whitespace()).filter(|text| !text.is_empty()) {
            match or_single(interface_address)(text) {
                Some(address) => self.file.addresses.push(address),
                None => self.report(format!("Address: {} is no address, as in 10.0.0.1/24", quoted(text))),
            }
        }
    }

    /// With `+` before it an allowed-ip is added, as it is without, and with `-` it is taken away. That is of use to
    /// `wg addconf`; in a whole file, one that is taken away must have been added before to mean anything.
    fn take_allowed_ips(&mut self, value: &str) {
        if value.is_empty() {
            return;
        }
        let Some(mut peer) = self.peer.take() else { return };
        for text in value.split(',').map(str::trim) {
            let (text, remove) = match text.strip_prefix('-') {
                Some(rest) => (rest, true),
                None => (text.strip_prefix('+').unwrap_or(text), false),
            };
            let Some(net) = or_single(interface_address)(text).map(|net| net.trunc()) else {
                self.report(format!("AllowedIPs: {} is no prefix, as in 10.0.0.0/24", quoted(text)));
                continue;
            };
            match self.owners.entry(net) {
                Entry::Vacant(_) if remove => {}
                Entry::Vacant(entry) => {
                    self.allowed_ips += 1;
                    entry.insert((peer.line, self.allowed_ips));
                    peer.allowed_ips.insert(self.allowed_ips, net);
                }
                Entry::Occupied(entry) => match *entry.get() {
                    (owner, place) if owner == peer.line && remove => {
                        entry.remove();
                        peer.allowed_ips.remove(&place);
                    }
                    (owner, _) if owner == peer.line || remove => {}
                    (owner, _) => {
                        self.report(format!("AllowedIPs: {net} belongs to the peer of line {owner} already"));
                    }
                },
            }
        }
        self.peer = Some(peer);
    }
}

fn or_off<T: Default>(read: impl FnOnce(&str) -> Option<T>) -> impl FnOnce(&str) -> Option<T> {
    |text| if text.eq_ignore_ascii_case("off") { Some(T::default()) } else { read(text) }
}

/// An address without a prefix is one with all its bits.
fn or_single(read: impl FnOnce(&str) -> Option<IpNet>) -> impl FnOnce(&str) -> Option<IpNet> {
    |text| text.parse::<IpAddr>().map(IpNet::from).ok().or_else(|| read(text))
}

fn table(text: &str) -> Option<Table> {
    let named = TABLE_NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, number)| number);
    match text.to_ascii_lowercase().as_str() {
        "auto" => Some(Table::Auto),
        "off" => Some(Table::Off),
        // iproute2 reads numbers of both kinds.
        _ => named.or_else(|| mark(text)).filter(|&number| number != 0).map(Table::Number),
    }
}

/// wg(8) takes an IPv6 address without its brackets as well: the last colon is the port's.
fn endpoint(text: &str) -> Option<EndpointName> {
    let bare = || {
        let (address, port) = text.rsplit_once(':')?;
        format!("[{}]:{port}", address.parse::<Ipv6Addr>().ok()?).parse().ok()
    };
    text.parse().ok().or_else(bare)
}

/// The key that was meant, if one is near enough.
fn similar(section: Section, key: &str) -> Option<&'static str> {
    let known: &[&str] = if section == Section::Interface { &INTERFACE_KEYS } else { &PEER_KEYS };
    let key = key.to_ascii_lowercase();
    let scored = known.iter().map(|&known| (strsim::jaro_winkler(&key, &known.to_ascii_lowercase()), known));
    scored.filter(|&(score, _)| score > RESEMBLANCE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
