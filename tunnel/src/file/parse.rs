//! Bytes in, a [`File`] or everything that is wrong with them out.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use ipnet::IpNet;

use super::values::{
    IGNORED_KEYS, INTERFACE_KEYS, PEER_KEYS, WG_QUICK_KEYS, endpoint, or_off, or_single, similar, squeezed, table,
};
use super::{File, FilePeer, Ignored, MAX_BYTES, Problem, hook};
use crate::endpoint::EndpointName;
use crate::key::{InvalidKey, PresharedKey, PrivateKey, PublicKey};
use crate::syntax::{decimal, interface_address, mark, quoted};

/// After so many problems it is clear that this is the wrong file.
const MAX_PROBLEMS: usize = 100;

/// From the least that every link carries (RFC 791 §3.2) to the largest packet there is.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65535;

/// Reads a configuration file as wg(8) and wg-quick(8) do: sections and keys may be in capitals or not, and where a
/// file sets one thing twice, the last value counts. They do that silently; here it is a warning.
pub fn parse(bytes: &[u8]) -> Result<File, Vec<Problem>> {
    if bytes.len() > MAX_BYTES {
        let reason = format!("more than {MAX_BYTES} bytes are no configuration");
        return Err(vec![Problem { line: 1, reason }]);
    }
    if is_utf_16(bytes) {
        let reason = "UTF-16 text; save the file as UTF-8 (iconv -f UTF-16 -t UTF-8)".to_owned();
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
    if reading.problems.is_empty() { Ok(reading.into_file()) } else { Err(reading.problems) }
}

/// Windows' editors call it Unicode: with a byte order mark, or with the first character of a section in two bytes.
fn is_utf_16(bytes: &[u8]) -> bool {
    match *bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        // Little endian, or big endian, without the mark.
        [a, b, c, d, ..] => (b == 0 && d == 0 && a != 0 && c != 0) || (a == 0 && c == 0 && b != 0 && d != 0),
        _ => false,
    }
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
    /// The lines of keys that may occur once: of `[Interface]`, and of this peer.
    interface_keys: HashMap<&'static str, usize>,
    peer_keys: HashMap<&'static str, usize>,
    peer: Option<Draft>,
    /// For each peer of the file, the line of its section.
    peer_lines: Vec<usize>,
    /// The place of each peer in the file.
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

    fn warn(&mut self, reason: impl Into<String>) {
        if self.file.warnings.len() < MAX_PROBLEMS {
            self.file.warnings.push(Problem { line: self.line, reason: reason.into() });
        }
    }

    /// Allowed-ips that a later peer took are gone by now.
    fn into_file(mut self) -> File {
        for (peer, section) in self.file.peers.iter_mut().zip(&self.peer_lines) {
            peer.allowed_ips.retain(|net| self.owners.get(net).is_some_and(|(owner, _)| owner == section));
        }
        self.file.warnings.sort_by_key(|warning| warning.line);
        self.file
    }

    fn take_line(&mut self, line: &[u8]) {
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let text = String::from_utf8_lossy(line);
        let is_ignored = || {
            let key = text.split('=').next().unwrap_or_default().trim();
            self.section == Section::Interface && IGNORED_KEYS.iter().any(|known| known.eq_ignore_ascii_case(key))
        };
        if matches!(text, Cow::Owned(_)) && !is_ignored() {
            return self.report("not UTF-8 text");
        }
        if line.contains(&0) {
            return self.report("a byte of zero; save the file as UTF-8 text");
        }
        let line = text.trim();
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
        self.peer_keys.clear();
        self.section = if section.eq_ignore_ascii_case("Interface") {
            if let Some(line) = self.interface.replace(self.line) {
                self.warn(format!("[Interface] is there already, in line {line}; both count, as with wg-quick"));
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
        let Some(public_key) = public_key else {
            // One that is wrong was reported.
            if !self.peer_keys.contains_key("PublicKey") {
                self.problems.push(Problem { line, reason: "[Peer] needs a PublicKey".to_owned() });
            }
            return;
        };
        let allowed_ips = allowed_ips.into_values().collect();
        let peer = FilePeer { public_key, preshared_key, allowed_ips, endpoint, persistent_keepalive };
        match self.public_keys.entry(public_key) {
            Entry::Vacant(entry) => {
                entry.insert(self.file.peers.len());
                self.file.peers.push(peer);
                self.peer_lines.push(line);
            }
            Entry::Occupied(entry) => {
                let place = *entry.get();
                let (Some(former), Some(former_line)) =
                    (self.file.peers.get_mut(place), self.peer_lines.get_mut(place))
                else {
                    return;
                };
                let reason =
                    format!("the peer of line {former_line} has this PublicKey, too; the last one counts, as with wg");
                // What wg(8) sends of a peer replaces everything but an endpoint that is not there (config.c).
                *former = FilePeer { endpoint: peer.endpoint.clone().or(former.endpoint.take()), ..peer };
                *former_line = line;
                if self.file.warnings.len() < MAX_PROBLEMS {
                    self.file.warnings.push(Problem { line, reason });
                }
            }
        }
    }

    fn take_pair(&mut self, key: &str, value: &str) {
        // wg(8) takes white space away wherever it is, wg-quick(8) only at both ends.
        let (squeezed_key, squeezed_value) = (squeezed(key), squeezed(value));
        let is_of_wg = |known: &str| !WG_QUICK_KEYS.contains(&known);
        let known = |keys: &[&'static str]| {
            let is = |known: &str| known.eq_ignore_ascii_case(if is_of_wg(known) { &squeezed_key } else { key });
            keys.iter().copied().find(|known| is(known))
        };
        let (here, elsewhere) = match self.section {
            Section::Interface => (known(&INTERFACE_KEYS), known(&PEER_KEYS).map(|_| "[Peer]")),
            Section::Peer => (known(&PEER_KEYS), known(&INTERFACE_KEYS).map(|_| "[Interface]")),
            Section::None => return self.report("a section, [Interface] or [Peer], has to come first"),
            Section::Unknown => return,
        };
        let section = self.section;
        match (here, elsewhere) {
            (Some(key), _) if section == Section::Interface => {
                self.take_interface_pair(key, if is_of_wg(key) { &squeezed_value } else { value });
            }
            (Some(key), _) => self.take_peer_pair(key, &squeezed_value),
            (None, Some(elsewhere)) => self.report(format!("{} belongs to {elsewhere}", quoted(key))),
            (None, None) => {
                let keys = if section == Section::Interface { &INTERFACE_KEYS[..] } else { &PEER_KEYS };
                let advice = similar(keys, key).map_or(String::new(), |known| format!("; did you mean {known}?"));
                self.report(format!("{} is no key{advice}", quoted(key)));
            }
        }
    }

    fn take_interface_pair(&mut self, key: &'static str, value: &str) {
        match key {
            "Address" => return self.take_addresses(value),
            "PrivateKey" | "ListenPort" | "FwMark" | "MTU" | "Table" => {}
            _ => {
                let sets = if key == "PreUp" || key == "PostUp" { hook::settings(value) } else { Vec::new() };
                return self.file.ignored.push(Ignored { line: self.line, key, sets });
            }
        }
        if value.is_empty() && (key == "MTU" || key == "Table") {
            return self.warn(format!("{key} has no value; it is left out, as with wg-quick"));
        }
        let earlier = self.interface_keys.insert(key, self.line);
        self.note_repeated(key, earlier);
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
        let earlier = self.peer_keys.insert(key, self.line);
        self.note_repeated(key, earlier);
        // Taken out while the values' problems are reported.
        let Some(mut peer) = self.peer.take() else { return };
        match key {
            "PublicKey" => peer.public_key = self.public_key(value),
            "PresharedKey" => {
                peer.preshared_key = self.key::<PresharedKey>(key, value).filter(|key| !key.is_none());
            }
            "Endpoint" => {
                let expected = "an address or a name with a port, as in 192.0.2.1:51820, [2001:db8::1]:51820, \
                                [fe80::1%eth0]:51820";
                peer.endpoint = self.plain(key, value, expected, endpoint);
            }
            _ => {
                let expected = "off or a number of seconds (0 to 65535)";
                peer.persistent_keepalive = self.plain(key, value, expected, or_off(decimal));
            }
        }
        self.peer = Some(peer);
    }

    /// Warns of a key that was there before.
    fn note_repeated(&mut self, key: &str, earlier: Option<usize>) {
        if let Some(line) = earlier {
            self.warn(format!("{key} is there already, in line {line}; the last one counts, as with wg"));
        }
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
        self.key("PublicKey", value)
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
            let Some(address) = or_single(interface_address)(text) else {
                self.report(format!("AllowedIPs: {} is no prefix, as in 10.0.0.0/24", quoted(text)));
                continue;
            };
            let net = address.trunc();
            if net != address {
                let single = IpNet::from(address.addr());
                self.warn(format!("AllowedIPs: {address} is the whole range {net}; did you mean {single}?"));
            }
            match self.owners.entry(net) {
                Entry::Vacant(_) if remove => {}
                Entry::Vacant(entry) => {
                    self.allowed_ips += 1;
                    entry.insert((peer.line, self.allowed_ips));
                    peer.allowed_ips.insert(self.allowed_ips, net);
                }
                Entry::Occupied(mut entry) => match *entry.get() {
                    (owner, place) if owner == peer.line && remove => {
                        entry.remove();
                        peer.allowed_ips.remove(&place);
                    }
                    (owner, _) if owner == peer.line || remove => {}
                    (owner, _) => {
                        self.allowed_ips += 1;
                        entry.insert((peer.line, self.allowed_ips));
                        peer.allowed_ips.insert(self.allowed_ips, net);
                        let reason = format!(
                            "AllowedIPs: the peer of line {owner} has {net}, too; the last one has it, as with wg"
                        );
                        self.warn(reason);
                    }
                },
            }
        }
        self.peer = Some(peer);
    }
}
