//! Files in `peers.d` that are about to change, and where a peer is written: for the commands that change peers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use zeroize::Zeroizing;

use super::environment::Environment;
use super::error::Error;
use super::files::{Disk, FileContent, Files, PeerFiles, ReadError};
use super::model::Config;
use super::raw::{self, Entry, RawConfig};
use bastiond_tunnel::key::PublicKey;

/// Files of `peers.d` with their new texts; `None`: the file is removed.
pub(crate) type PeerEdits = BTreeMap<PathBuf, Option<Zeroizing<String>>>;

/// The directory of the peers' files that belongs to a configuration file.
pub(crate) fn peers_directory(configuration: &Path) -> PathBuf {
    Disk::beside(configuration).peers_directory().to_owned()
}

/// Reads and checks the file at `path` and the files that belong to it, as if the edits were written.
pub(crate) fn load_edited(path: &Path, environment: &Environment, edits: &PeerEdits) -> Result<Config, Error> {
    load_with(path, environment, &Edited { disk: Disk::beside(path), edits, has_others: true })
}

/// The same with the edited files alone: what they say by themselves is checked, and not against other peers' files.
pub(crate) fn load_edited_alone(path: &Path, environment: &Environment, edits: &PeerEdits) -> Result<Config, Error> {
    load_with(path, environment, &Edited { disk: Disk::beside(path), edits, has_others: false })
}

fn load_with(path: &Path, environment: &Environment, files: &Edited<'_>) -> Result<Config, Error> {
    let file = files.read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    super::check_located(path, &file, environment, files)
}

/// The file system with edits.
struct Edited<'a> {
    disk: Disk,
    edits: &'a PeerEdits,
    /// Whether the other files in `peers.d` are there too.
    has_others: bool,
}

impl Files for Edited<'_> {
    fn read(&self, path: &Path) -> Result<FileContent, ReadError> {
        match self.edits.get(path) {
            None => self.disk.read(path),
            Some(Some(text)) => Ok(FileContent { text: text.clone(), world_readable: false }),
            Some(None) => Err(io::Error::from_raw_os_error(nix::errno::Errno::ENOENT as i32).into()),
        }
    }

    fn peers(&self) -> io::Result<PeerFiles> {
        let mut peers = if self.has_others { self.disk.peers()? } else { PeerFiles::default() };
        peers.used.retain(|path| !self.edits.contains_key(path));
        peers.used.extend(self.edits.iter().filter(|(_, text)| text.is_some()).map(|(path, _)| path.clone()));
        peers.used.sort();
        Ok(peers)
    }
}

/// Where a peer is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PeerPlace {
    /// In a file of its own in `peers.d`.
    OwnFile(PathBuf),
    /// In a line of another file.
    Elsewhere {
        /// The configuration file, or a file of wg-quick.
        path: PathBuf,
        /// The line with the peer's public key, from 1.
        line: usize,
    },
}

impl fmt::Display for PeerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnFile(path) => write!(f, "{}", path.display()),
            Self::Elsewhere { path, line } => write!(f, "{}, line {line}", path.display()),
        }
    }
}

/// Where the peer with this key is written. `likely` is the file that is looked into first: there may be ten thousand.
pub(crate) fn find_peer(configuration: &Path, key: PublicKey, likely: Option<&Path>) -> Option<PeerPlace> {
    let disk = Disk::beside(configuration);
    let text = |path: &Path| disk.read(path).ok().map(|content| content.text);
    let key = key.to_string();
    let holds = |path: &&Path| text(path).is_some_and(|text| line_with(&text, &key).is_some());
    if let Some(path) = likely.filter(holds) {
        return Some(PeerPlace::OwnFile(path.to_owned()));
    }
    let main = text(configuration)?;
    let elsewhere = |path: &Path, text: &str| {
        let line = line_with(text, &key)?;
        Some(PeerPlace::Elsewhere { path: path.to_owned(), line })
    };
    if let Some(place) = elsewhere(configuration, &main) {
        return Some(place);
    }
    let wg_file = wg_file(&main).and_then(|path| elsewhere(&path, &text(&path)?));
    let own_file = || {
        let files = disk.peers().unwrap_or_default().used;
        files.iter().map(PathBuf::as_path).find(holds).map(|path| PeerPlace::OwnFile(path.to_owned()))
    };
    wg_file.or_else(own_file)
}

/// The line with this text, from 1, comments left out.
fn line_with(text: &str, searched: &str) -> Option<usize> {
    let holds = |line: &str| !line.trim_start().starts_with('#') && line.contains(searched);
    text.lines().position(holds).map(|index| index + 1)
}

/// The file that `wireguard.file` names.
fn wg_file(text: &str) -> Option<PathBuf> {
    let raw: RawConfig = raw::parse(text).ok()?;
    let Entry::Good(tunnel) = raw.wireguard else { return None };
    let Entry::Good(path) = tunnel.file else { return None };
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    const BOB: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

    fn peer(key: &str, address: &str) -> String {
        format!("public_key = \"{key}\"\nallowed_ips = [\"{address}\"]\n")
    }

    #[test]
    fn edits_are_checked_with_all_other_files_before_they_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let (path, peers) = (directory.path().join("config.toml"), directory.path().join("peers.d"));
        std::fs::create_dir(&peers).unwrap();
        std::fs::write(&path, "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n").unwrap();
        std::fs::write(peers.join("ada.toml"), peer(ADA, "10.100.0.2")).unwrap();
        let labels = |edits: &PeerEdits| {
            let config = load_edited(&path, &Environment::default(), edits).map_err(|error| error.lines())?;
            Ok::<_, Vec<String>>(config.wireguard.unwrap().peers.iter().map(super::super::Peer::label).collect())
        };
        let edits = |name: &str, text: Option<String>| PeerEdits::from([(peers.join(name), text.map(Zeroizing::new))]);
        assert_eq!(labels(&PeerEdits::new()), Ok(vec!["ada".to_owned()]));
        let added = edits("aaa.toml", Some(peer(BOB, "10.100.0.3")));
        assert_eq!(labels(&added), Ok(vec!["aaa".to_owned(), "ada".to_owned()]));
        assert_eq!(labels(&edits("ada.toml", None)), Ok(Vec::new()));
        let alone = load_edited_alone(&path, &Environment::default(), &added).unwrap();
        assert_eq!(alone.wireguard.unwrap().peers.iter().map(super::super::Peer::label).collect::<Vec<_>>(), ["aaa"]);
        let clash = labels(&edits("bob.toml", Some(peer(BOB, "10.100.0.2")))).unwrap_err();
        assert_eq!(
            clash,
            ["peers.d/bob.toml: line 2, column 16: allowed_ips[0]: 10.100.0.2/32 is also in allowed_ips of \
              peers.d/ada.toml; a range can belong to only one peer"]
        );
    }

    #[test]
    fn a_peer_is_found_in_its_file_in_the_configuration_and_in_a_file_of_wg_quick() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("peers.d")).unwrap();
        std::fs::write(at("peers.d/ada.toml"), peer(ADA, "10.100.0.2")).unwrap();
        let block = format!("# not {ADA}\n[[wireguard.peer]]\n{}", peer(BOB, "10.100.0.3"));
        std::fs::write(at("config.toml"), block).unwrap();
        let find = |key: &str, likely: Option<&Path>| find_peer(&at("config.toml"), key.parse().unwrap(), likely);
        let ada = Some(PeerPlace::OwnFile(at("peers.d/ada.toml")));
        assert_eq!(find(ADA, Some(&at("peers.d/ada.toml"))), ada);
        assert_eq!(find(ADA, Some(&at("peers.d/somebody.toml"))), ada);
        assert_eq!(find(BOB, None), Some(PeerPlace::Elsewhere { path: at("config.toml"), line: 3 }));
        assert_eq!(find("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", None), None);
        std::fs::write(at("wg0.conf"), format!("[Interface]\n[Peer]\nPublicKey = {BOB}\n")).unwrap();
        std::fs::write(at("config.toml"), format!("[wireguard]\nfile = {:?}\n", at("wg0.conf"))).unwrap();
        assert_eq!(find(BOB, None), Some(PeerPlace::Elsewhere { path: at("wg0.conf"), line: 3 }));
    }
}
