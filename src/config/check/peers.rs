//! The peers from all their places, and what must differ between them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use ipnet::IpNet;

use super::context::CheckContext;
use super::diagnostics::Diagnostics;
use super::{key_files, values};
use crate::config::access::PeerAccess;
use crate::config::files::{Files, PeerFiles, remedy};
use crate::config::peer_file_name;
use crate::config::raw::{self, Entry, RawPeer, Timestamp};
use crate::config::wireguard::Peer;
use bastiond_tunnel::endpoint::{EndpointName, InvalidEndpoint};
use bastiond_tunnel::key::{InvalidKey, PresharedKey, PublicKey};

/// A peer in which some keys may be wrong. The others are still compared with other peers.
pub(super) struct CheckedPeer {
    /// Where it is written: `wireguard.peer[0]`, `peers.d/alice.toml`.
    pub(super) place: String,
    /// The beginning of its keys' names: `wireguard.peer[0].`, `peers.d/alice.toml: `.
    pub(super) prefix: String,
    /// The key that names the file of wg-quick which it is in. That key names no peer.
    pub(super) wg_file_key: Option<&'static str>,
    pub(super) name: Option<String>,
    pub(super) public_key: Option<PublicKey>,
    pub(super) preshared_key: Option<PresharedKey>,
    /// Each with its key.
    pub(super) allowed_ips: Vec<(String, IpNet)>,
    pub(super) in_private_network: bool,
    pub(super) endpoint: Option<EndpointName>,
    pub(super) persistent_keepalive: Option<u16>,
    pub(super) enabled: bool,
    pub(super) expires: Option<SystemTime>,
    /// Its groups and lists, as they are written.
    pub(super) access: RawAccess,
}

/// A peer's groups and lists, as they are written.
#[derive(Default)]
pub(super) struct RawAccess {
    pub(super) groups: Entry<Vec<Entry<String>>>,
    pub(super) lists: RawLists,
}

/// The lists of a peer or a group, as they are written.
#[derive(Default)]
pub(super) struct RawLists {
    pub(super) reach: Entry<Vec<Entry<String>>>,
    pub(super) deny: Entry<Vec<Entry<String>>>,
    pub(super) from: Entry<Vec<Entry<String>>>,
}

impl CheckedPeer {
    pub(super) fn finish(self, access: PeerAccess) -> Option<Peer> {
        let allowed_ips = self.allowed_ips.into_iter().map(|(_, net)| net).collect();
        Some(Peer {
            name: self.name,
            public_key: self.public_key?,
            preshared_key: self.preshared_key,
            allowed_ips,
            in_private_network: self.in_private_network,
            endpoint: self.endpoint,
            persistent_keepalive: self.persistent_keepalive,
            enabled: self.enabled,
            expires: self.expires,
            access,
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// The `[[wireguard.peer]]` blocks.
pub(super) fn check_peer_blocks(
    blocks: Vec<Entry<RawPeer>>,
    context: &CheckContext<'_, impl Files>,
    diagnostics: &mut Diagnostics,
) -> Vec<CheckedPeer> {
    let blocks = diagnostics.elements("wireguard.peer", blocks);
    let checked = blocks.into_iter().map(|(place, raw)| {
        let prefix = format!("{place}.");
        check_peer(place, prefix, raw, context.world_readable, context, diagnostics)
    });
    checked.collect()
}

/// The files of `peers.d`.
pub(super) fn check_peer_files(
    context: &CheckContext<'_, impl Files>,
    diagnostics: &mut Diagnostics,
) -> Vec<CheckedPeer> {
    let files = context.files.peers().unwrap_or_else(|error| {
        diagnostics.error("peers.d", format!("cannot list the directory: {error}"));
        PeerFiles::default()
    });
    for (name, reason) in files.ignored {
        diagnostics.warn(format!("peers.d/{name}"), format!("{reason}, so it is no peer's file and is not used"));
    }
    files.used.iter().filter_map(|path| check_peer_file(path, context, diagnostics)).collect()
}

fn check_peer_file(
    path: &Path,
    context: &CheckContext<'_, impl Files>,
    diagnostics: &mut Diagnostics,
) -> Option<CheckedPeer> {
    let place = peer_file_name(path);
    let file = match context.files.read(path) {
        Ok(file) => file,
        Err(error) => {
            diagnostics.error(place, format!("cannot read the file: {error}{}", remedy(&error, path)));
            return None;
        }
    };
    match raw::parse::<RawPeer>(&file.text) {
        Ok(raw) => {
            let prefix = format!("{place}: ");
            let mut checked = check_peer(place, prefix, raw, file.world_readable, context, diagnostics);
            let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            checked.name = checked.name.or_else(stem);
            Some(checked)
        }
        Err(error) => {
            diagnostics.syntax_error(&place, *error);
            None
        }
    }
}

fn check_peer(
    place: String,
    prefix: String,
    raw: RawPeer,
    world_readable: bool,
    context: &CheckContext<'_, impl Files>,
    diagnostics: &mut Diagnostics,
) -> CheckedPeer {
    let key = |name: &str| format!("{prefix}{name}");
    diagnostics.reject_unknown_keys_with_prefix(&prefix, "wireguard.peer", &raw.unknown);
    let name = diagnostics
        .value(&key("name"), raw.name)
        .and_then(|name| values::parse_label(&name).map_err(|reason| diagnostics.error(key("name"), reason)).ok());
    if matches!(raw.public_key, Entry::Absent) {
        let reason = "is missing: `wg pubkey` derives it from the peer's private key";
        diagnostics.error(key("public_key"), reason);
    }
    let public_key = diagnostics.value(&key("public_key"), raw.public_key).and_then(|text| {
        let parsed = text.trim().parse();
        parsed.map_err(|error: InvalidKey| diagnostics.error(key("public_key"), format!("`{text}` is {error}"))).ok()
    });
    let preshared_key = check_preshared_key(&prefix, raw.preshared_key, raw.preshared_key_file, context, diagnostics);
    if preshared_key.as_ref().is_some_and(|key| key.is_inline) && world_readable {
        diagnostics.warn(
            key("preshared_key"),
            "every user of this server can read it; run `chgrp bastiond` and `chmod 640` on the file, or move the \
             key into a preshared_key_file",
        );
    }
    let listed = diagnostics.value(&key("allowed_ips"), raw.allowed_ips).unwrap_or_default();
    let allowed_ips = check_allowed_ips(&key("allowed_ips"), listed, diagnostics);
    let in_private_network = diagnostics.value(&key("in_private_network"), raw.in_private_network).unwrap_or(false);
    let endpoint = diagnostics.value(&key("endpoint"), raw.endpoint).and_then(|text| {
        text.parse().map_err(|error: InvalidEndpoint| diagnostics.error(key("endpoint"), error.to_string())).ok()
    });
    let persistent_keepalive =
        diagnostics.value(&key("persistent_keepalive"), raw.persistent_keepalive).and_then(|seconds| {
            let valid = u16::try_from(seconds).ok().filter(|&seconds| seconds > 0);
            if valid.is_none() {
                let reason = format!("{seconds} is not between 1 and 65535 seconds; remove the key for no keepalives");
                diagnostics.error(key("persistent_keepalive"), reason);
            }
            valid
        });
    let preshared_key = preshared_key.map(|checked| checked.key);
    let enabled = diagnostics.value(&key("enabled"), raw.enabled).unwrap_or(true);
    let expires = diagnostics.value(&key("expires"), raw.expires).map(|Timestamp(expires)| expires);
    CheckedPeer {
        place,
        prefix,
        wg_file_key: None,
        name,
        public_key,
        preshared_key,
        allowed_ips,
        in_private_network,
        endpoint,
        persistent_keepalive,
        enabled,
        expires,
        access: RawAccess { groups: raw.groups, lists: RawLists { reach: raw.reach, deny: raw.deny, from: raw.from } },
    }
}

struct CheckedPresharedKey {
    key: PresharedKey,
    /// Whether the peer's own block or file holds it, rather than a file of its own.
    is_inline: bool,
}

fn check_preshared_key(
    prefix: &str,
    inline: Entry<String>,
    file: Entry<String>,
    context: &CheckContext<'_, impl Files>,
    diagnostics: &mut Diagnostics,
) -> Option<CheckedPresharedKey> {
    let (inline_key, file_key) = (format!("{prefix}preshared_key"), format!("{prefix}preshared_key_file"));
    let inline = diagnostics.value(&inline_key, inline).map(zeroize::Zeroizing::new);
    let file = diagnostics.value(&file_key, file);
    if inline.is_some() && file.is_some() {
        diagnostics.error(&file_key, "preshared_key is set too; remove one of them");
        return None;
    }
    if let Some(text) = inline {
        // Without the text, which may be a truncated key.
        let parsed = text.trim().parse().map_err(|error: InvalidKey| diagnostics.error(&inline_key, error.to_string()));
        return parsed.ok().map(|key| CheckedPresharedKey { key, is_inline: true });
    }
    let text = file?;
    let path = key_files::parse_absolute_path(&file_key, &text, diagnostics)?;
    match key_files::read_key(&file_key, path, context.files, diagnostics) {
        Ok(key) => key.map(|key| CheckedPresharedKey { key, is_inline: false }),
        Err(error) => {
            key_files::report_read_error(&file_key, path, &error, diagnostics);
            None
        }
    }
}

fn check_allowed_ips(key: &str, listed: Vec<Entry<String>>, diagnostics: &mut Diagnostics) -> Vec<(String, IpNet)> {
    let mut allowed_ips: Vec<(String, IpNet)> = Vec::new();
    for (key, text) in diagnostics.elements(key, listed) {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match parsed {
            Ok(net) if net.trunc() != net => {
                let (single, whole) = (IpNet::from(net.addr()), net.trunc());
                let reason = format!("`{text}` has host bits set; did you mean {single}? {whole} is the whole range");
                diagnostics.error(key, reason);
            }
            Ok(net) => allowed_ips.push((key, net)),
            Err(_) => diagnostics.error(
                key,
                format!("`{text}` is neither an address nor a range (like 10.100.0.7, 192.168.0.0/16 or fd00::7)"),
            ),
        }
    }
    allowed_ips
}

/// Reports names, public keys and allowed-ips that more than one peer has.
pub(super) fn check_peers_differ(peers: &[CheckedPeer], diagnostics: &mut Diagnostics) {
    let (mut names, mut public_keys, mut ranges) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for peer in peers {
        if let Some(earlier) = peer.name.as_ref().and_then(|name| names.insert(name, &peer.place)) {
            let reason = format!("is also the name of {earlier}; choose another name");
            diagnostics.error(peer.key("name"), reason);
        }
        if let Some(earlier) = peer.public_key.and_then(|key| public_keys.insert(key, &peer.place)) {
            let reason = format!("is also the key of {earlier}; make a key for each peer");
            diagnostics.error(peer.key("public_key"), reason);
        }
        for (key, net) in &peer.allowed_ips {
            match ranges.insert(*net, &peer.place) {
                Some(earlier) if *earlier == peer.place => {
                    diagnostics.error(key, format!("{net} is listed twice; remove one of them"));
                }
                Some(earlier) => {
                    let reason =
                        format!("{net} is also in allowed_ips of {earlier}; a range can belong to only one peer");
                    diagnostics.error(key, reason);
                }
                None => {}
            }
        }
        if peer.allowed_ips.is_empty() {
            let reason = "is empty, so no packet can be sent to this peer or accepted from it; list its addresses";
            match peer.wg_file_key {
                Some(key) => diagnostics.warn(key, format!("AllowedIPs of {} {reason}", peer.place)),
                None => diagnostics.warn(peer.key("allowed_ips"), reason),
            }
        }
    }
}
