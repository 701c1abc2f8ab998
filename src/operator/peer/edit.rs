//! The text of a peer's file, and changes of it that keep what a person wrote around the keys. Pure.

use std::time::SystemTime;

use ipnet::IpNet;
use toml_edit::{Array, Datetime, DocumentMut, Item, TomlError, Value};
use zeroize::Zeroizing;

use super::name::PeerName;
use bastiond_tunnel::endpoint::EndpointName;
use bastiond_tunnel::key::{PresharedKey, PublicKey};

/// A peer as its new file says it.
#[derive(Debug, Clone)]
pub(super) struct NewPeer {
    pub(super) name: PeerName,
    pub(super) public_key: PublicKey,
    pub(super) preshared_key: Option<PresharedKey>,
    pub(super) allowed_ips: Vec<IpNet>,
    pub(super) endpoint: Option<EndpointName>,
    pub(super) persistent_keepalive: Option<u16>,
    pub(super) expires: Option<SystemTime>,
    pub(super) enabled: bool,
    /// Names of groups.
    pub(super) groups: Vec<String>,
    /// Entries of its list `reach`.
    pub(super) reach: Vec<String>,
}

impl NewPeer {
    /// The file's text. `remark` is its first line.
    pub(super) fn text(&self, remark: &str) -> Zeroizing<String> {
        let mut file = DocumentMut::new();
        if self.name.has_to_be_written() {
            file["name"] = toml_edit::value(self.name.as_str());
        }
        file["public_key"] = toml_edit::value(self.public_key.to_string());
        if let Some(key) = &self.preshared_key {
            file["preshared_key"] = toml_edit::value(key.to_base64().as_str());
        }
        file["allowed_ips"] = toml_edit::value(self.allowed_ips.iter().map(ToString::to_string).collect::<Array>());
        if let Some(endpoint) = &self.endpoint {
            file["endpoint"] = toml_edit::value(endpoint.to_string());
        }
        if let Some(seconds) = self.persistent_keepalive {
            file["persistent_keepalive"] = toml_edit::value(i64::from(seconds));
        }
        if let Some(expires) = self.expires {
            file["expires"] = Item::Value(Value::from(datetime(expires)));
        }
        if !self.enabled {
            file["enabled"] = toml_edit::value(false);
        }
        for (key, entries) in [("groups", &self.groups), ("reach", &self.reach)] {
            if !entries.is_empty() {
                file[key] = toml_edit::value(entries.iter().collect::<Array>());
            }
        }
        Zeroizing::new(format!("# {remark}\n{file}"))
    }
}

/// A change of one key.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Enabled(bool),
    /// `None`: never.
    Expires(Option<SystemTime>),
    PublicKey(PublicKey),
    PresharedKey(PresharedKey),
    /// The name; `None`: the file's own.
    Name(Option<String>),
}

/// The text with the changes.
pub(super) fn changed(text: &str, changes: &[Change]) -> Result<Zeroizing<String>, TomlError> {
    let mut file: DocumentMut = text.parse()?;
    for change in changes {
        match change {
            Change::Enabled(enabled) => set(&mut file, "enabled", (*enabled).into()),
            Change::Expires(Some(time)) => set(&mut file, "expires", datetime(*time).into()),
            Change::Expires(None) => {
                file.remove("expires");
            }
            Change::PublicKey(key) => set(&mut file, "public_key", key.to_string().into()),
            Change::PresharedKey(key) => set(&mut file, "preshared_key", key.to_base64().as_str().into()),
            Change::Name(Some(name)) => set(&mut file, "name", name.as_str().into()),
            Change::Name(None) => {
                file.remove("name");
            }
        }
    }
    Ok(Zeroizing::new(file.to_string()))
}

/// Whether the text has a key.
pub(super) fn has_key(text: &str, key: &str) -> bool {
    text.parse::<DocumentMut>().is_ok_and(|file| file.contains_key(key))
}

/// Sets a key. The spaces and the comment around its former value stay.
fn set(file: &mut DocumentMut, key: &str, mut value: Value) {
    if let Some(Item::Value(former)) = file.get_mut(key) {
        *value.decor_mut() = former.decor().clone();
        *former = value;
    } else {
        file[key] = Item::Value(value);
    }
}

/// To the second, in UTC.
fn datetime(time: SystemTime) -> Datetime {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.parse().expect("RFC 3339 times are those of TOML")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_new_file_has_the_keys_that_differ_from_the_defaults() {
        let peer = NewPeer {
            name: "alice".parse().unwrap(),
            public_key: PublicKey([1; 32]),
            preshared_key: None,
            allowed_ips: vec!["10.100.0.2/32".parse().unwrap(), "fd00:100::2/128".parse().unwrap()],
            endpoint: None,
            persistent_keepalive: None,
            expires: None,
            enabled: true,
            groups: Vec::new(),
            reach: Vec::new(),
        };
        assert_eq!(
            peer.text("added").as_str(),
            "# added\npublic_key = \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"\n\
             allowed_ips = [\"10.100.0.2/32\", \"fd00:100::2/128\"]\n"
        );
        let full = NewPeer {
            name: "alice/phone".parse().unwrap(),
            preshared_key: Some(PresharedKey([2; 32])),
            endpoint: Some("vpn.example.org:51820".parse().unwrap()),
            persistent_keepalive: Some(25),
            expires: Some(at(1_801_418_400)),
            enabled: false,
            groups: vec!["dev".to_owned(), "ops".to_owned()],
            reach: vec!["10.0.1.0/24:tcp/5432".to_owned()],
            ..peer
        };
        assert_eq!(
            full.text("added").as_str(),
            "# added\nname = \"alice/phone\"\npublic_key = \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"\n\
             preshared_key = \"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\"\n\
             allowed_ips = [\"10.100.0.2/32\", \"fd00:100::2/128\"]\nendpoint = \"vpn.example.org:51820\"\n\
             persistent_keepalive = 25\nexpires = 2027-01-31T18:00:00Z\nenabled = false\n\
             groups = [\"dev\", \"ops\"]\nreach = [\"10.0.1.0/24:tcp/5432\"]\n"
        );
    }

    #[test]
    fn a_change_keeps_comments_order_and_spaces() {
        let text = "# Alice, until her contract ends\n\npublic_key  =  'old'   # her laptop\nallowed_ips = [ # both\n  \
                    \"10.100.0.2\",\n]\nexpires = 2026-12-31T00:00:00+01:00 # ask HR\n# the end\n";
        let changes =
            [Change::PublicKey(PublicKey([1; 32])), Change::Expires(Some(at(1_801_418_400))), Change::Enabled(false)];
        assert_eq!(
            changed(text, &changes).unwrap().as_str(),
            "# Alice, until her contract ends\n\npublic_key  =  \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"   # her \
             laptop\nallowed_ips = [ # both\n  \"10.100.0.2\",\n]\nexpires = 2027-01-31T18:00:00Z # ask HR\nenabled = \
             false\n# the end\n"
        );
        let never = changed(text, &[Change::Expires(None)]).unwrap();
        assert!(!never.contains("expires") && never.contains("# the end"), "{}", never.as_str());
        assert!(changed("public_key = ", &[]).is_err());
    }
}
