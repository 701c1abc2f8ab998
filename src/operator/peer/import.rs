//! Peers of another WireGuard server, from its file. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::Deserialize;

use super::name::PeerName;
use bastiond_tunnel::endpoint::EndpointName;
use bastiond_tunnel::file;
use bastiond_tunnel::key::{InvalidKey, PresharedKey, PublicKey};

/// What other programs write before a name in a comment, in lower case.
const BEFORE_NAMES: [&str; 7] = ["begin_peer", "friendly_name", "client", "name", "peer", "user", "device"];

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It is no file of wg-quick.
    #[error("line {line}: {reason}")]
    Line { line: usize, reason: String },
    /// It is no file of wg-easy.
    #[error("it looks like JSON, and is not what wg-easy writes")]
    Json(#[from] serde_json::Error),
    /// A client of wg-easy is wrong.
    #[error("the client {name:?} has the {what} {text:?}, which is none")]
    Client { name: String, what: &'static str, text: String },
    /// A client's key is wrong.
    #[error("the client {name:?} has a wrong key")]
    Key { name: String, source: InvalidKey },
    /// There is nothing in it.
    #[error("it has no peers")]
    Empty,
}

/// A peer of the other server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Imported {
    /// What the file calls it.
    pub(super) called: Option<String>,
    pub(super) public_key: PublicKey,
    pub(super) preshared_key: Option<PresharedKey>,
    pub(super) allowed_ips: Vec<IpNet>,
    pub(super) endpoint: Option<EndpointName>,
    pub(super) persistent_keepalive: Option<u16>,
    pub(super) enabled: bool,
    pub(super) expires: Option<SystemTime>,
}

/// The peers in a file of wg-quick, or in wg-easy's `wg0.json`.
pub(super) fn parse(text: &str) -> Result<Vec<Imported>, Error> {
    let peers = if text.trim_start().starts_with('{') { of_wg_easy(text)? } else { of_wg_quick(text)? };
    if peers.is_empty() { Err(Error::Empty) } else { Ok(peers) }
}

fn of_wg_quick(text: &str) -> Result<Vec<Imported>, Error> {
    let parsed = file::parse(text.as_bytes()).map_err(|problems| {
        let first = problems.into_iter().next();
        first.map_or(Error::Empty, |file::Problem { line, reason }| Error::Line { line, reason })
    })?;
    let names = names(text);
    let peers = parsed.peers.into_iter().map(|peer| Imported {
        called: names.get(&peer.public_key).cloned(),
        public_key: peer.public_key,
        preshared_key: peer.preshared_key,
        allowed_ips: peer.allowed_ips,
        endpoint: peer.endpoint,
        persistent_keepalive: peer.persistent_keepalive.filter(|seconds| *seconds > 0),
        enabled: true,
        expires: None,
    });
    Ok(peers.collect())
}

/// The names that comments give to peers: the comment in the line above `[Peer]`, or the first one in the section.
fn names(text: &str) -> BTreeMap<PublicKey, String> {
    let (mut names, mut above, mut name, mut is_peer) = (BTreeMap::new(), None, None, false);
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix('#') {
            let comment = name_in(comment);
            if is_peer && name.is_none() {
                name.clone_from(&comment);
            }
            above = comment;
            continue;
        }
        if line.starts_with('[') {
            is_peer = line.eq_ignore_ascii_case("[peer]");
            name = above.take();
        }
        above = None;
        let Some((key, value)) = line.split_once('=').filter(|_| is_peer) else { continue };
        if key.trim().eq_ignore_ascii_case("publickey") {
            let value = value.split('#').next().unwrap_or_default().trim();
            if let (Ok(key), Some(name)) = (value.parse(), name.clone()) {
                names.insert(key, name);
            }
        }
    }
    names
}

/// `Alice's laptop` in `# Client: Alice's laptop (3f2504e0-…)`; `None` if nothing is left.
fn name_in(comment: &str) -> Option<String> {
    let mut name = comment.trim_matches(|c: char| c == '#' || c.is_whitespace());
    for word in BEFORE_NAMES {
        let Some(rest) = name.get(word.len()..).filter(|_| name[..word.len()].eq_ignore_ascii_case(word)) else {
            continue;
        };
        if rest.starts_with([' ', ':', '=']) {
            name = rest.trim_start_matches([' ', ':', '=']);
            break;
        }
    }
    let name = name.split(" (").next().unwrap_or(name).trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The part of wg-easy's file that is of use.
#[derive(Debug, Deserialize)]
struct WgEasy {
    clients: BTreeMap<String, WgEasyClient>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WgEasyClient {
    name: String,
    address: String,
    public_key: String,
    #[serde(default)]
    pre_shared_key: Option<zeroize::Zeroizing<String>>,
    #[serde(default = "enabled")]
    enabled: bool,
    #[serde(default, alias = "expiredAt", alias = "expiresAt")]
    expire_at: Option<String>,
}

fn enabled() -> bool {
    true
}

fn of_wg_easy(text: &str) -> Result<Vec<Imported>, Error> {
    let file: WgEasy = serde_json::from_str(text)?;
    let mut peers = Vec::new();
    for client in file.clients.into_values() {
        let wrong = |what, text: &str| Error::Client { name: client.name.clone(), what, text: text.to_owned() };
        let key = |source| Error::Key { name: client.name.clone(), source };
        let address: IpAddr = client.address.trim().parse().map_err(|_| wrong("address", &client.address))?;
        let expires = client
            .expire_at
            .as_deref()
            .map(|text| humantime::parse_rfc3339(text).map_err(|_| wrong("time of expiry", text)));
        let preshared_key = client.pre_shared_key.as_ref().filter(|text| !text.trim().is_empty());
        peers.push(Imported {
            public_key: client.public_key.trim().parse().map_err(key)?,
            preshared_key: preshared_key.map(|text| text.trim().parse()).transpose().map_err(key)?,
            allowed_ips: vec![address.into()],
            endpoint: None,
            persistent_keepalive: None,
            enabled: client.enabled,
            expires: expires.transpose()?,
            called: Some(client.name),
        });
    }
    peers.sort_by_cached_key(|peer| peer.allowed_ips.clone());
    Ok(peers)
}

/// Names for the peers, different from each other and from those that `is_taken`.
pub(super) fn names_for(peers: &[Imported], is_taken: impl Fn(&PeerName) -> bool) -> Vec<PeerName> {
    let mut names: Vec<PeerName> = Vec::with_capacity(peers.len());
    let mut files = std::collections::BTreeSet::new();
    for peer in peers {
        let wished = peer.called.as_deref().and_then(PeerName::resembling);
        let wished = wished.unwrap_or_else(|| "imported".parse().expect("this is a name"));
        let numbered = (2..).map(|number| wished.numbered(number));
        let is_free = |name: &PeerName| !is_taken(name) && !files.contains(&name.file_name());
        let name = std::iter::once(wished.clone()).chain(numbered).find(is_free).expect("there are enough numbers");
        files.insert(name.file_name());
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../tests/data/wireguard/wg-example.conf");
    const ADA: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    const BOB: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

    fn in_words(peers: &[Imported]) -> Vec<String> {
        let words = |peer: &Imported| {
            let ranges: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
            let endpoint = peer.endpoint.as_ref().map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
            format!("{:?} {}{endpoint}", peer.called.as_deref().unwrap_or(""), ranges.join(" "))
        };
        peers.iter().map(words).collect()
    }

    #[test]
    fn the_example_of_wg_is_read() {
        assert_eq!(
            in_words(&parse(EXAMPLE).unwrap()),
            [
                "\"\" 10.192.122.3/32 10.192.124.0/24 at 192.95.5.67:1234",
                "\"\" 10.192.122.4/32 192.168.0.0/16 at [2607:5300:60:6b0::c05f:543]:2468",
                "\"\" 10.10.10.230/32 at test.wireguard.com:18981"
            ]
        );
        let names = names_for(&parse(EXAMPLE).unwrap(), |name| name.as_str() == "imported-2");
        assert_eq!(names.iter().map(PeerName::as_str).collect::<Vec<_>>(), ["imported", "imported-3", "imported-4"]);
    }

    #[test]
    fn comments_above_a_peer_or_at_its_beginning_are_its_name() {
        let key = |n: u8| PublicKey([n; 32]);
        let text = format!(
            "# the whole tunnel\n[Interface]\n# not a name\nListenPort = 51820\n\n### Client alice\n[Peer]\nPublicKey = \
             {}\n# not this\n\n[Peer]\n# Name = Bob's phone\nPublicKey = {} # key\n\n# BEGIN_PEER carol\n[Peer]\nPublicKey = {}\n\
             # END_PEER carol\n\n# far away\n\n[Peer]\npublickey={}\n# Client: Dave (3f2504e0)\n[peer]\nPublicKey = {}\n\
             # client\n[Peer]\nPublicKey = {}\n",
            key(1),
            key(2),
            key(3),
            key(4),
            key(5),
            key(6)
        );
        let called: Vec<String> =
            parse(&text).unwrap().into_iter().map(|peer| peer.called.unwrap_or_default()).collect();
        assert_eq!(called, ["alice", "Bob's phone", "carol", "", "Dave", "client"]);
    }

    #[test]
    fn the_clients_of_wg_easy_are_read_with_their_state() {
        let text = format!(
            r#"{{"server": {{"privateKey": "x", "publicKey": "y", "address": "10.8.0.1"}}, "clients": {{
                "b": {{"id": "b", "name": "Bob \"the\" phone", "address": "10.8.0.3", "publicKey": "{BOB}",
                       "preSharedKey": "", "enabled": false, "createdAt": "2024-01-01T00:00:00.000Z"}},
                "a": {{"id": "a", "name": "ada", "address": "10.8.0.2", "privateKey": "z", "publicKey": "{ADA}",
                       "preSharedKey": "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=", "enabled": true,
                       "expiredAt": "2027-01-31T18:00:00.000Z"}}}}}}"#
        );
        let peers = parse(&text).unwrap();
        assert_eq!(in_words(&peers), ["\"ada\" 10.8.0.2/32", "\"Bob \\\"the\\\" phone\" 10.8.0.3/32"]);
        let states: Vec<_> =
            peers.iter().map(|peer| (peer.enabled, peer.preshared_key.is_some(), peer.expires.is_some())).collect();
        assert_eq!(states, [(true, true, true), (false, false, false)]);
        let names = names_for(&peers, |_| false);
        assert_eq!(names.iter().map(PeerName::as_str).collect::<Vec<_>>(), ["ada", "Bob-the-phone"]);
    }

    #[test]
    fn a_file_of_something_else_is_refused_with_the_place() {
        for (text, expected) in [
            ("", "it has no peers"),
            ("[Interface]\nListenPort = 1\n", "it has no peers"),
            ("{\"version\": 1}", "it looks like JSON, and is not what wg-easy writes"),
            ("{\"clients\": {}}", "it has no peers"),
            ("[Peer]\nPublicKey = short\n", "line 2: PublicKey: "),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
        let wrong = format!(r#"{{"clients": {{"a": {{"name": "a\u001b", "address": "x", "publicKey": "{ADA}"}}}}}}"#);
        let error = parse(&wrong).unwrap_err().to_string();
        assert_eq!(error, "the client \"a\\u{1b}\" has the address \"x\", which is none");
    }
}
