//! The configuration that was applied last, kept in the state directory.
//!
//! A start with a file that is wrong, unreadable or missing uses it: without it a restart, which a library update or a
//! reboot makes at any time, would take the tunnel away, or leave a server whose rules nobody keeps. What is kept are
//! the texts, with the secrets in them, in a file that only its owner can read; see [`Bundle`].

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::bundle::{Bundle, load_with_texts};
use super::environment::Environment;
use super::error::Error;
use super::model::Config;
use crate::state;

/// In the state directory.
const FILE: &str = "last-good.json";
/// Raised when a newer version can no longer read what the file holds.
const FORMAT: u32 = 1;
/// What a daemon leaves in the state directory. Where one of these is, there was a configuration once.
const TRACES: [&str; 5] = [FILE, "rules.json", "sysctl.json", "wireguard.key", "wireguard.pub"];

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    /// When it was applied, in seconds since 1970-01-01 UTC.
    applied_unix: u64,
    texts: Bundle,
}

/// The configuration that was applied last.
#[derive(Debug)]
pub(crate) struct LastGood {
    /// What it says.
    pub(crate) config: Config,
    /// When it was applied.
    pub(crate) applied: SystemTime,
}

/// Keeps the texts of a configuration that is applied.
pub(crate) fn keep_last_good(
    texts: Bundle,
    environment: &Environment,
    applied: SystemTime,
) -> Result<(), state::Error> {
    let applied_unix = applied.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    state::write_json(&path(environment), &Kept { format: FORMAT, applied_unix, texts })
}

/// The configuration that was applied last; `None` if none is kept, or if it is not good any more.
pub(crate) fn last_good(environment: &Environment) -> Option<LastGood> {
    let kept: Kept = state::read_json(&path(environment)).filter(|kept: &Kept| kept.format == FORMAT)?;
    let config = kept.texts.check(environment).ok()?;
    Some(LastGood { config, applied: UNIX_EPOCH + Duration::from_secs(kept.applied_unix) })
}

fn path(environment: &Environment) -> PathBuf {
    environment.state_directory().join(FILE)
}

/// The configuration that a start uses.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub config: Config,
    /// Its texts, if it is the file's.
    pub(crate) texts: Option<Bundle>,
    /// Why it is not the file's.
    pub fallback: Option<Fallback>,
}

/// Why a start does not use the file's configuration, and what it uses.
#[derive(Debug)]
pub struct Fallback {
    /// What is wrong with the file.
    pub error: Error,
    /// When the configuration that is used was applied; `None`: there never was one, and the defaults are used.
    pub applied: Option<SystemTime>,
}

/// The configuration of the file at `path`; or else the one that was applied last; or else, where the file is missing
/// and there never was one, that of an empty file.
///
/// # Errors
/// The file is wrong, and there is no other configuration.
pub fn start(path: &Path, environment: &Environment) -> Result<Start, Error> {
    let error = match load_with_texts(path, environment) {
        Ok((config, texts)) => return Ok(Start { config, texts: Some(texts), fallback: None }),
        Err(error) => error,
    };
    if let Some(LastGood { config, applied }) = last_good(environment) {
        return Ok(Start { config, texts: None, fallback: Some(Fallback { error, applied: Some(applied) }) });
    }
    // An empty file opens SSH to everyone. A server that had a configuration is never opened because the file is gone.
    let had_one = TRACES.iter().any(|name| environment.state_directory().join(name).symlink_metadata().is_ok());
    match super::parse("", environment) {
        Ok(config) if error.is_missing_file() && !had_one => {
            let texts = Some(Bundle::of_missing_file(path));
            Ok(Start { config, texts, fallback: Some(Fallback { error, applied: None }) })
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Server {
        directory: tempfile::TempDir,
        environment: Environment,
    }

    impl Server {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let state = directory.path().join("state");
            std::fs::create_dir(&state).unwrap();
            Self { environment: Environment { state_directory: Some(state), ..Environment::default() }, directory }
        }

        fn file(&self) -> PathBuf {
            self.directory.path().join("config.toml")
        }

        fn start(&self) -> Result<Start, Error> {
            start(&self.file(), &self.environment)
        }

        fn apply(&self, text: &str) {
            std::fs::write(self.file(), text).unwrap();
            let texts = self.start().unwrap().texts.unwrap();
            keep_last_good(texts, &self.environment, UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
        }
    }

    /// A reason that is reported, and how it comes about.
    type Spoil = (&'static str, fn(&Path));

    const NARROW: &str = "[firewall]\nssh_from = [\"192.0.2.7\"]\n";

    #[test]
    fn a_start_with_a_wrong_unreadable_or_missing_file_uses_what_was_applied_last() {
        let server = Server::new();
        server.apply(NARROW);
        let narrow = super::super::parse(NARROW, &Environment::default()).unwrap().firewall.ssh_from;
        let spoil: [Spoil; 4] = [
            ("firewall.ssh_form", |file| std::fs::write(file, "firewall.ssh_form = []").unwrap()),
            ("os error 2", |file| std::fs::remove_file(file).unwrap()),
            ("is a directory", |file| std::fs::create_dir(file).unwrap()),
            ("os error 40", |file| {
                std::fs::remove_dir(file).unwrap();
                std::os::unix::fs::symlink(file, file).unwrap();
            }),
        ];
        for (reason, spoil) in spoil {
            spoil(&server.file());
            let start = server.start().unwrap();
            assert_eq!(start.config.firewall.ssh_from, narrow, "{reason}");
            let Fallback { error, applied } = start.fallback.unwrap();
            let whole = format!("{} {:?}", crate::error::chain(&error), error.diagnostics());
            assert!(whole.contains(reason), "{whole}");
            assert_eq!(applied, Some(UNIX_EPOCH + Duration::from_secs(1000)));
            assert!(start.texts.is_none());
        }
    }

    #[test]
    fn only_a_server_that_never_had_a_configuration_takes_a_missing_file_for_an_empty_one() {
        let server = Server::new();
        let start = server.start().unwrap();
        assert_eq!(start.config, super::super::parse("", &Environment::default()).unwrap());
        assert_eq!(start.fallback.unwrap().applied, None);
        for trace in ["rules.json", "last-good.json"] {
            let kept = server.environment.state_directory().join(trace);
            std::fs::write(&kept, "not what we wrote").unwrap();
            assert!(server.start().unwrap_err().is_missing_file(), "{trace}");
            std::fs::remove_file(kept).unwrap();
        }
        std::fs::write(server.file(), "colour = 1").unwrap();
        assert_eq!(server.start().unwrap_err().diagnostics().len(), 1, "a wrong file is not an empty one");
    }

    #[test]
    fn what_is_kept_can_be_read_by_its_owner_only_and_is_replaced_as_a_whole() {
        let server = Server::new();
        server.apply("");
        server.apply(NARROW);
        let kept = server.environment.state_directory().join(FILE);
        assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        let last = last_good(&server.environment).unwrap();
        assert_eq!(last.config.firewall.ssh_from.len(), 1);
        let text = std::fs::read_to_string(&kept).unwrap();
        std::fs::write(&kept, text.replace("\"format\":1", "\"format\":2")).unwrap();
        assert!(last_good(&server.environment).is_none(), "a format of another version is not read");
    }
}
