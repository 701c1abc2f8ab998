//! Which key the tunnel has: the one that its file holds, or the one that it had before. Peers know the public key by
//! heart, so a key is made only where there never was one, and a running tunnel keeps its key until a person decides.

use std::path::{Path, PathBuf};

use super::keyfile;
use crate::error::chain;
use crate::net::InterfaceName;
use crate::outcome::{ComponentError as _, Problem};
use crate::own_file;
use bastiond_tunnel::key::{PrivateKey, PublicKey};

/// The file with the public key of the tunnel, in the state directory. Without it the next key is the first one.
const FILE: &str = "wireguard.pub";
/// The largest file that is read, in bytes. A key takes 45.
const MAX_BYTES: u64 = 4096;

/// The public key that peers of this server know.
#[derive(Debug, Clone)]
pub(super) struct KnownKey(PathBuf);

impl KnownKey {
    /// The key of the tunnel whose state is in this directory.
    pub(super) fn in_directory(state_directory: &Path) -> Self {
        Self(state_directory.join(FILE))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The public key that was in use last; `None` if there never was one.
    pub(super) fn read(&self) -> Option<PublicKey> {
        let content = own_file::read(&self.0, MAX_BYTES).ok()?;
        std::str::from_utf8(&content.bytes).ok()?.trim().parse().ok()
    }

    /// Remembers the key in use.
    pub(super) fn write(&self, key: &PublicKey) {
        let written = own_file::replace(&self.0, format!("{key}\n").as_bytes());
        if let Err(error) = written {
            let path = self.0.display();
            tracing::warn!(component = "wireguard", %error, "{path} cannot be written: a lost key is not noticed");
        }
    }
}

/// What is known about the tunnel's key.
#[derive(Debug)]
pub(super) struct ObservedKey {
    /// The key that the configuration was loaded with.
    pub(super) configured: Option<PrivateKey>,
    /// The file of the key.
    pub(super) path: PathBuf,
    /// What the file holds now.
    pub(super) file: Result<Option<PrivateKey>, keyfile::Error>,
    /// The public key that was in use last.
    pub(super) known: Option<PublicKey>,
    /// The file with that public key.
    pub(super) known_path: PathBuf,
    /// Whether a person has reloaded the configuration since the key was chosen last.
    pub(super) is_reloaded: bool,
}

/// Which key the interface gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyChoice {
    /// The key; `None` if it has yet to be made.
    pub(super) key: Option<PrivateKey>,
    /// The file in which it is made.
    pub(super) make: Option<PathBuf>,
    /// What a person has to decide.
    pub(super) problem: Option<Problem>,
}

impl ObservedKey {
    /// Chooses the key of the interface, which has `current` now if it runs. `is_met`: a peer has completed a handshake
    /// with the current key, so that a person has given the public key to peers.
    ///
    /// # Errors
    /// There is no key, and none may be made.
    pub(super) fn choose(
        &self,
        interface: &InterfaceName,
        current: Option<&PrivateKey>,
        is_met: bool,
    ) -> Result<KeyChoice, Problem> {
        let path = self.path.display();
        let configured = self.configured.as_ref();
        let wanted = if self.is_reloaded { configured.or(current) } else { current.or(configured) };
        let Some(key) = wanted else { return self.first_key(is_met) };
        let (code, what, advice) = match &self.file {
            Ok(Some(found)) if found == key => return Ok(self.use_key(key, is_met)),
            Ok(Some(found)) => (
                "key-replaced",
                format!("{path} holds another key, {}", found.public()),
                "if it is intended, `systemctl reload bastiond`: every peer needs the new public key then; otherwise \
                 put the former one back"
                    .to_owned(),
            ),
            Ok(None) => ("key-lost", format!("the private key {path} is gone"), self.restoring(interface)),
            Err(error) => (error.code(), chain(error), format!("{}; {}", error.advice(), self.restoring(interface))),
        };
        let what = format!("{what}; the tunnel goes on with the key that it has, {}", key.public());
        Ok(KeyChoice { key: Some(key.clone()), make: None, problem: Some(Problem::new(code, what, advice)) })
    }

    /// The key of an interface that starts, and of which the configuration knew none.
    fn first_key(&self, is_met: bool) -> Result<KeyChoice, Problem> {
        match (&self.file, self.known) {
            (Ok(Some(key)), _) => Ok(self.use_key(key, is_met)),
            (Ok(None), None) => Ok(KeyChoice { make: Some(self.path.clone()), ..KeyChoice::default() }),
            (Ok(None), Some(known)) => Err(Problem::new(
                "key-lost",
                format!("the private key {} is gone; peers know this server by {known}", self.path.display()),
                format!(
                    "put the key back from a back-up; or, for a new one, which every peer needs then: `rm {}`",
                    self.known_path.display()
                ),
            )),
            (Err(error), _) => Err(Problem::from_error(error)),
        }
    }

    fn use_key(&self, key: &PrivateKey, is_met: bool) -> KeyChoice {
        let former = self.known.filter(|known| *known != key.public() && !self.is_reloaded && !is_met);
        let problem = former.map(|former| {
            let public = key.public();
            Problem::new(
                "key-replaced",
                format!(
                    "{} holds another key than before: the public key is {public}, and was {former}; peers that have \
                     the former one cannot connect",
                    self.path.display()
                ),
                "if it is intended, give the peers the new public key and `systemctl reload bastiond`; otherwise put \
                 the former key back, and restart",
            )
        });
        KeyChoice { key: Some(key.clone()), make: None, problem }
    }

    fn restoring(&self, interface: &InterfaceName) -> String {
        format!(
            "put it back before the next restart: `wg show {interface} private-key | install -o bastiond -g bastiond \
             -m 0600 /dev/stdin {}`",
            self.path.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PrivateKey {
        PrivateKey::from_bytes([byte; 32])
    }

    fn observed(configured: Option<u8>, file: Result<Option<u8>, ()>, known: Option<u8>) -> ObservedKey {
        let unreadable = || {
            let source = std::io::ErrorKind::PermissionDenied.into();
            keyfile::Error::Read { path: "/state/wireguard.key".into(), source }
        };
        ObservedKey {
            configured: configured.map(key),
            path: "/state/wireguard.key".into(),
            file: file.map(|found| found.map(key)).map_err(|()| unreadable()),
            known: known.map(|byte| key(byte).public()),
            known_path: "/state/wireguard.pub".into(),
            is_reloaded: false,
        }
    }

    /// The chosen key, whether one is made, and the problem.
    fn choose(observed: &ObservedKey, current: Option<u8>) -> (Option<PrivateKey>, bool, String) {
        let current = current.map(key);
        match observed.choose(&"wg0".parse().unwrap(), current.as_ref(), false) {
            Ok(KeyChoice { key, make, problem }) => {
                (key, make.is_some(), problem.map_or_else(String::new, |problem| problem.what))
            }
            Err(problem) => (None, false, format!("none: {}", problem.what)),
        }
    }

    #[test]
    fn a_key_is_made_only_where_there_never_was_one() {
        assert_eq!(choose(&observed(None, Ok(None), None), None), (None, true, String::new()));
        let expected = format!(
            "none: the private key /state/wireguard.key is gone; peers know this server by {}",
            key(1).public()
        );
        assert_eq!(choose(&observed(None, Ok(None), Some(1)), None), (None, false, expected));
        let unreadable = "none: cannot read the private key /state/wireguard.key: permission denied".to_owned();
        assert_eq!(choose(&observed(None, Err(()), None), None), (None, false, unreadable));
    }

    #[test]
    fn a_running_tunnel_keeps_its_key_while_its_file_is_gone_unreadable_or_another() {
        for (configured, is_reloaded) in [(None, false), (Some(1), false), (None, true)] {
            for (file, what) in [
                (Ok(None), "the private key /state/wireguard.key is gone".to_owned()),
                (Err(()), "cannot read the private key /state/wireguard.key: permission denied".to_owned()),
                (Ok(Some(2)), format!("/state/wireguard.key holds another key, {}", key(2).public())),
            ] {
                let observed = ObservedKey { is_reloaded, ..observed(configured, file, Some(1)) };
                let kept = format!("{what}; the tunnel goes on with the key that it has, {}", key(1).public());
                assert_eq!(choose(&observed, Some(1)), (Some(key(1)), false, kept), "{configured:?}");
            }
        }
    }

    #[test]
    fn another_key_is_taken_by_a_reload_and_reported_after_a_start_until_a_peer_has_it() {
        let replaced = observed(Some(2), Ok(Some(2)), Some(1));
        let reloaded = ObservedKey { is_reloaded: true, ..observed(Some(2), Ok(Some(2)), Some(1)) };
        assert_eq!(choose(&reloaded, Some(1)), (Some(key(2)), false, String::new()));
        let (chosen, _, problem) = choose(&replaced, Some(1));
        assert_eq!(chosen, Some(key(1)), "left to the kernel by a former daemon");
        assert!(problem.starts_with("/state/wireguard.key holds another key, "), "{problem}");
        for current in [None, Some(2)] {
            let (chosen, _, problem) = choose(&replaced, current);
            assert_eq!(chosen, Some(key(2)));
            assert!(problem.starts_with("/state/wireguard.key holds another key than before: "), "{problem}");
        }
        let wg0 = "wg0".parse().unwrap();
        assert_eq!(replaced.choose(&wg0, Some(&key(2)), true).unwrap().problem, None, "a peer has the new key");
        for known in [None, Some(1)] {
            let same = observed(Some(1), Ok(Some(1)), known);
            assert_eq!(choose(&same, Some(1)), (Some(key(1)), false, String::new()));
        }
    }

    #[test]
    fn the_public_key_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownKey::in_directory(directory.path());
        assert_eq!(known.read(), None);
        known.write(&key(1).public());
        known.write(&key(2).public());
        assert_eq!(known.read(), Some(key(2).public()));
        assert_eq!(std::fs::read_to_string(known.path()).unwrap(), format!("{}\n", key(2).public()));
    }
}
