//! The texts of a configuration: of the file and of every file that belongs to it.
//!
//! They are what a configuration is checked from, so another process can check the same one, and so can a later start,
//! whatever became of the files. `bastionctl plan` sends a candidate that only its caller may read to the daemon.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use super::error::Error;
use super::files::{Disk, FileContent, Files, PeerFiles, ReadError};
use super::model::Config;

/// The texts, which may hold secrets: `Debug` shows none of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The file.
    path: PathBuf,
    content: FileContent,
    /// What was in `peers.d`.
    peers: PeerFiles,
    /// The files that were read, by the names under which the configuration knows them. The daemon's own files (its
    /// state directory, its credentials) are never among them.
    files: BTreeMap<PathBuf, FileContent>,
}

impl Bundle {
    /// Those of a file that does not exist: the same as of an empty one.
    pub(super) fn of_missing_file(path: &Path) -> Self {
        let content = FileContent { text: zeroize::Zeroizing::default(), world_readable: false };
        Self { path: path.to_owned(), content, peers: PeerFiles::default(), files: BTreeMap::new() }
    }

    /// The configuration file that the texts came from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The texts' length, in bytes.
    pub(crate) fn size(&self) -> usize {
        let files = self.files.values().chain([&self.content]).map(|file| file.text.len());
        files.sum()
    }

    /// Checks the configuration. Files that it names and that were not there are absent for it, even if they are there
    /// now, unless they are the daemon's own.
    pub(crate) fn check(&self, environment: &Environment) -> Result<Config, Error> {
        let files = Kept { bundle: self, own: OwnFiles::of(environment), disk: Disk::beside(&self.path) };
        super::check_located(&self.path, &self.content, environment, &files)
    }
}

/// Reads and checks the file at `path` and the files that belong to it; with the texts.
pub(crate) fn load_with_texts(path: &Path, environment: &Environment) -> Result<(Config, Bundle), Error> {
    let disk = Disk::beside(path);
    let content = disk.read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let files = Recorder { own: OwnFiles::of(environment), disk, read: RefCell::default() };
    let config = super::check_located(path, &content, environment, &files)?;
    let Recorder { disk, read, .. } = files;
    // Err: the check has reported it.
    let peers = disk.peers().unwrap_or_default();
    Ok((config, Bundle { path: path.to_owned(), content, peers, files: read.into_inner() }))
}

/// Which files are the daemon's own: they are read where they are, and never copied.
struct OwnFiles(Vec<PathBuf>);

impl OwnFiles {
    fn of(environment: &Environment) -> Self {
        let credentials = environment.credentials_directory.clone();
        Self([environment.state_directory()].into_iter().chain(credentials).collect())
    }

    fn contain(&self, path: &Path) -> bool {
        self.0.iter().any(|directory| path.starts_with(directory))
    }
}

/// The file system, with a note of what was read.
struct Recorder {
    own: OwnFiles,
    disk: Disk,
    read: RefCell<BTreeMap<PathBuf, FileContent>>,
}

impl Files for Recorder {
    fn read(&self, path: &Path) -> Result<FileContent, ReadError> {
        let content = self.disk.read(path)?;
        if !self.own.contain(path) {
            self.read.borrow_mut().insert(path.to_owned(), content.clone());
        }
        Ok(content)
    }

    fn peers(&self) -> io::Result<PeerFiles> {
        self.disk.peers()
    }
}

/// What a bundle holds, and the daemon's own files.
struct Kept<'a> {
    bundle: &'a Bundle,
    own: OwnFiles,
    disk: Disk,
}

impl Files for Kept<'_> {
    fn read(&self, path: &Path) -> Result<FileContent, ReadError> {
        match self.bundle.files.get(path) {
            Some(content) => Ok(content.clone()),
            None if self.own.contain(path) => self.disk.read(path),
            None => Err(io::Error::from_raw_os_error(nix::errno::Errno::ENOENT as i32).into()),
        }
    }

    fn peers(&self) -> io::Result<PeerFiles> {
        Ok(self.bundle.peers.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    const PRESHARED: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

    /// A configuration of a main file, a peer's file and a key's file, and the environment of a daemon.
    fn written(directory: &Path) -> (PathBuf, Environment) {
        let path = directory.join("config.toml");
        std::fs::create_dir(directory.join("peers.d")).unwrap();
        std::fs::create_dir(directory.join("state")).unwrap();
        std::fs::write(&path, "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n").unwrap();
        let secret = directory.join("ada.psk");
        std::fs::write(&secret, PRESHARED).unwrap();
        let peer = format!(
            "public_key = \"{KEY}\"\nallowed_ips = [\"10.100.0.2/32\"]\npreshared_key_file = \"{}\"\n",
            secret.display()
        );
        std::fs::write(directory.join("peers.d/ada.toml"), peer).unwrap();
        std::fs::write(directory.join("state/wireguard.key"), PRESHARED).unwrap();
        (path, Environment { state_directory: Some(directory.join("state")), ..Environment::default() })
    }

    #[test]
    fn the_texts_give_the_same_configuration_after_the_files_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, environment) = written(directory.path());
        let (config, bundle) = load_with_texts(&path, &environment).unwrap();
        assert_eq!(super::super::load(&path, &environment).unwrap(), config);
        assert_eq!(config.wireguard.as_ref().unwrap().peers[0].name.as_deref(), Some("ada"));
        let sent = serde_json::to_string(&bundle).unwrap();
        std::fs::remove_dir_all(directory.path().join("peers.d")).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(directory.path().join("ada.psk")).unwrap();
        let received: Bundle = serde_json::from_str(&sent).unwrap();
        assert_eq!(received.check(&environment).unwrap(), config);
        assert_eq!(received.path(), path);
    }

    #[test]
    fn the_daemons_own_key_is_read_in_its_place_and_never_copied() {
        let directory = tempfile::tempdir().unwrap();
        let (path, environment) = written(directory.path());
        let (config, bundle) = load_with_texts(&path, &environment).unwrap();
        assert!(config.wireguard.unwrap().private_key.is_some());
        let own = directory.path().join("state/wireguard.key");
        assert!(!bundle.files.contains_key(&own), "{:?}", bundle.files);
        std::fs::remove_file(own).unwrap();
        assert_eq!(bundle.check(&environment).unwrap().wireguard.unwrap().private_key, None);
    }

    #[test]
    fn the_texts_show_in_no_log() {
        let directory = tempfile::tempdir().unwrap();
        let (path, environment) = written(directory.path());
        let (_, bundle) = load_with_texts(&path, &environment).unwrap();
        assert!(!format!("{bundle:?}").contains(PRESHARED));
        assert!(bundle.size() > PRESHARED.len());
    }
}
