//! The peers, wherever they are written, and what they have in common.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::super::Peer;
use super::super::files::Files;
use super::super::findings::Findings;
use super::super::raw::{self, Entry, RawPeer};
use super::super::values;
use super::site::unroutable;
use super::{Surroundings, keys};
use bastiond_tunnel::endpoint::{EndpointName, InvalidEndpoint};
use bastiond_tunnel::key::{InvalidKey, PresharedKey, PublicKey};

/// A peer of which some keys may be wrong; the others are still compared with those of other peers.
pub(super) struct CheckedPeer {
    /// Where it is written: `wireguard.peer[0]`, `peers.d/alice.toml`.
    pub(super) place: String,
    /// What the names of its keys begin with: `wireguard.peer[0].`, `peers.d/alice.toml: `.
    pub(super) prefix: String,
    pub(super) name: Option<String>,
    pub(super) public_key: Option<PublicKey>,
    pub(super) preshared_key: Option<PresharedKey>,
    /// Each with its key.
    pub(super) allowed_ips: Vec<(String, IpNet)>,
    pub(super) endpoint: Option<EndpointName>,
    pub(super) persistent_keepalive: Option<u16>,
}

impl CheckedPeer {
    pub(super) fn whole(self) -> Option<Peer> {
        let Self { name, public_key, preshared_key, allowed_ips, endpoint, persistent_keepalive, .. } = self;
        let allowed_ips = allowed_ips.into_iter().map(|(_, net)| net).collect();
        Some(Peer { name, public_key: public_key?, preshared_key, allowed_ips, endpoint, persistent_keepalive })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// The blocks of the file.
pub(super) fn of_blocks(
    blocks: Vec<Entry<RawPeer>>,
    around: &Surroundings<'_, impl Files>,
    found: &mut Findings,
) -> Vec<CheckedPeer> {
    let blocks = found.elements("wireguard.peer", blocks);
    let checked = blocks.into_iter().map(|(place, raw)| {
        let prefix = format!("{place}.");
        peer(place, prefix, raw, around.readable_by_all, around, found)
    });
    checked.collect()
}

/// The files of `peers.d`.
pub(super) fn of_directory(around: &Surroundings<'_, impl Files>, found: &mut Findings) -> Vec<CheckedPeer> {
    let paths = around.files.peers().unwrap_or_else(|error| {
        found.report("peers.d", format!("cannot be listed: {error}"));
        Vec::new()
    });
    paths.iter().filter_map(|path| of_file(path, around, found)).collect()
}

fn of_file(path: &Path, around: &Surroundings<'_, impl Files>, found: &mut Findings) -> Option<CheckedPeer> {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let place = format!("peers.d/{file_name}");
    let file = match around.files.read(path) {
        Ok(file) => file,
        Err(error) => {
            found.report(place, format!("cannot be read: {error}"));
            return None;
        }
    };
    match raw::parse::<RawPeer>(&file.text) {
        Ok(raw) => {
            let mut checked = peer(place.clone(), format!("{place}: "), raw, file.readable_by_all, around, found);
            let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            checked.name = checked.name.or_else(stem);
            Some(checked)
        }
        Err(problem) => {
            found.report(format!("{place}: {}", problem.key), problem.reason);
            None
        }
    }
}

fn peer(
    place: String,
    prefix: String,
    raw: RawPeer,
    readable_by_all: bool,
    around: &Surroundings<'_, impl Files>,
    found: &mut Findings,
) -> CheckedPeer {
    let key = |name: &str| format!("{prefix}{name}");
    found.unknown_below(&prefix, "wireguard.peer", &raw.unknown);
    let name = found
        .value(&key("name"), raw.name)
        .and_then(|name| values::label(&name).map_err(|reason| found.report(key("name"), reason)).ok());
    if matches!(raw.public_key, Entry::Absent) {
        found.report(key("public_key"), "is needed: `wg pubkey` makes it of the peer's private key");
    }
    let public_key = found.value(&key("public_key"), raw.public_key).and_then(|text| {
        let parsed = text.trim().parse();
        parsed.map_err(|error: InvalidKey| found.report(key("public_key"), format!("`{text}` is {error}"))).ok()
    });
    let preshared_key = preshared_key(&prefix, raw.preshared_key, raw.preshared_key_file, around, found);
    if preshared_key.as_ref().is_some_and(|(_, inline)| *inline) && readable_by_all {
        found.warn(
            key("preshared_key"),
            "everybody on this server may read it: `chgrp bastiond` and `chmod 640` the file, or move the key into a \
             preshared_key_file",
        );
    }
    let listed = found.value(&key("allowed_ips"), raw.allowed_ips).unwrap_or_default();
    let allowed_ips = allowed_ips(&key("allowed_ips"), listed, found);
    let endpoint = found.value(&key("endpoint"), raw.endpoint).and_then(|text| {
        text.parse().map_err(|error: InvalidEndpoint| found.report(key("endpoint"), error.to_string())).ok()
    });
    let persistent_keepalive =
        found.value(&key("persistent_keepalive"), raw.persistent_keepalive).and_then(|seconds| {
            let kept = u16::try_from(seconds).ok().filter(|&seconds| seconds > 0);
            if kept.is_none() {
                let reason = format!("{seconds} is not between 1 and 65535 seconds; leave the key away for none");
                found.report(key("persistent_keepalive"), reason);
            }
            kept
        });
    let preshared_key = preshared_key.map(|(preshared_key, _)| preshared_key);
    CheckedPeer { place, prefix, name, public_key, preshared_key, allowed_ips, endpoint, persistent_keepalive }
}

/// The key, and whether it is written right here.
fn preshared_key(
    prefix: &str,
    inline: Entry<String>,
    file: Entry<String>,
    around: &Surroundings<'_, impl Files>,
    found: &mut Findings,
) -> Option<(PresharedKey, bool)> {
    let (inline_key, file_key) = (format!("{prefix}preshared_key"), format!("{prefix}preshared_key_file"));
    let inline = found.value(&inline_key, inline).map(zeroize::Zeroizing::new);
    let file = found.value(&file_key, file);
    if inline.is_some() && file.is_some() {
        found.report(&file_key, "stands beside preshared_key: write only one of them");
        return None;
    }
    if let Some(text) = inline {
        // Without the text: it may be a key that was cut off.
        let parsed = text.trim().parse().map_err(|error: InvalidKey| found.report(&inline_key, error.to_string()));
        return parsed.ok().map(|preshared_key| (preshared_key, true));
    }
    let text = file?;
    let path = keys::absolute(&file_key, &text, found)?;
    match keys::read(&file_key, path, around.files, found) {
        Ok(preshared_key) => preshared_key.map(|preshared_key| (preshared_key, false)),
        Err(error) => {
            keys::report_unreadable(&file_key, path, &error, found);
            None
        }
    }
}

fn allowed_ips(key: &str, listed: Vec<Entry<String>>, found: &mut Findings) -> Vec<(String, IpNet)> {
    let mut allowed_ips: Vec<(String, IpNet)> = Vec::new();
    for (key, text) in found.elements(key, listed) {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match parsed {
            Ok(net) if net.trunc() != net => {
                found.report(key, format!("`{text}` has host bits set; the range is {}", net.trunc()));
            }
            Ok(net) => allowed_ips.push((key, net)),
            Err(_) => found.report(
                key,
                format!("`{text}` is neither an address nor a range (like 10.100.0.7, 192.168.0.0/16 or fd00::7)"),
            ),
        }
    }
    allowed_ips
}

/// Names, keys and allowed-ips belong to one peer each.
pub(super) fn differ(peers: &[CheckedPeer], found: &mut Findings) {
    let (mut names, mut public_keys, mut ranges) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for peer in peers {
        if let Some(earlier) = peer.name.as_ref().and_then(|name| names.insert(name, &peer.place)) {
            found.report(peer.key("name"), format!("is also the name of {earlier}"));
        }
        if let Some(earlier) = peer.public_key.and_then(|key| public_keys.insert(key, &peer.place)) {
            found.report(peer.key("public_key"), format!("is also the key of {earlier}"));
        }
        for (key, net) in &peer.allowed_ips {
            match ranges.insert(*net, &peer.place) {
                Some(earlier) if *earlier == peer.place => found.report(key, format!("{net} is listed twice")),
                Some(earlier) => found.report(key, format!("{net} is also an allowed-ip of {earlier}")),
                None => {}
            }
        }
        if peer.allowed_ips.is_empty() {
            found.warn(peer.key("allowed_ips"), "there are none, so nothing can be sent to or taken from this peer");
        }
    }
}

/// What an allowed-ip may be that no peer can own.
pub(super) fn nobodys(net: IpNet) -> Option<IpNet> {
    match net {
        IpNet::V4(net) if net.prefix_len() > 0 => unroutable(net).map(IpNet::V4),
        IpNet::V4(_) | IpNet::V6(_) => None,
    }
}
