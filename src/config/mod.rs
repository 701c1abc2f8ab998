//! The configuration: the file, its defaults, its checks, and a few environment variables.
//!
//! Code outside this module gets only checked values, and nothing here observes the system: [`parse`] is a pure
//! function of the file's text and the [`Environment`], and [`load`] adds only the files that belong to it. Therefore
//! `bastionctl check` and the daemon always agree.

mod access;
mod bundle;
mod check;
mod diagnostic;
mod difference;
mod edited;
mod environment;
mod error;
mod files;
mod last_good;
mod locate;
mod model;
mod policy;
mod protocol;
mod raw;
mod secret;
mod wireguard;

use std::path::{Path, PathBuf};

pub(crate) use access::{AccessEntry, AccessLists, Place};
#[cfg(test)]
pub(crate) use access::{Group, PeerAccess};
pub(crate) use bundle::{Bundle, load_with_texts};
pub(crate) use diagnostic::{Diagnostic, Severity};
#[cfg(test)]
pub(crate) use difference::ChangeKind;
pub(crate) use difference::{Change, difference};
pub(crate) use edited::{PeerEdits, PeerPlace, find_peer, load_edited, load_edited_alone, peers_directory};
pub(crate) use environment::BPF_DIRECTORY;
pub use environment::Environment;
pub(crate) use error::Error;
pub(crate) use files::ReadError;
pub(crate) use last_good::Start;
pub use last_good::{Fallback, start};
pub(crate) use last_good::{LastGood, keep_last_good, last_good};
pub use model::Config;
#[cfg(test)]
pub(crate) use model::Log;
pub(crate) use model::{DockerBridges, Hcloud, PrivateLink, Site, TokenSource};
pub use policy::{Acl, Fastpath, Forward, Service};
#[cfg(test)]
pub(crate) use policy::{Egress, EgressOfHosts, Nat};
pub(crate) use policy::{EgressLists, Firewall, LogDrops, NetworkName, NetworkPolicy, StaticNat};
pub(crate) use protocol::{IpProtocol, Transport, has_ports, protocol_name, protocol_number};
pub use protocol::{Ports, Protocol, Transports};
pub use secret::Secret;
pub use wireguard::BackendChoice;
pub(crate) use wireguard::{Peer, Snat, Wireguard};

use check::CheckContext;
use files::{FileContent, Files, NoFiles};

/// The path at which the package installs the file.
pub(crate) const DEFAULT_PATH: &str = "/etc/bastiond/config.toml";

/// Reads and checks the file at `path` and the files that belong to it.
pub(crate) fn load(path: &Path, environment: &Environment) -> Result<Config, Error> {
    let files = files::Disk::beside(path);
    let file = files.read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    check_located(path, &file, environment, &files)
}

/// Checks a file, and says of each problem where it is.
fn check_located(
    path: &Path,
    file: &FileContent,
    environment: &Environment,
    files: &impl Files,
) -> Result<Config, Error> {
    match check_with(&file.text, file.world_readable, environment, files) {
        Ok(mut config) => {
            locate_all(&mut config.warnings, &file.text, files);
            Ok(config)
        }
        Err(mut diagnostics) => {
            locate_all(&mut diagnostics, &file.text, files);
            Err(Error::Invalid { path: path.to_owned(), diagnostics })
        }
    }
}

/// Adds the places in the files to diagnostics, and sorts them by place.
fn locate_all(diagnostics: &mut [Diagnostic], text: &str, files: &impl Files) {
    if diagnostics.is_empty() {
        return;
    }
    locate::locate(diagnostics, text, None);
    // So that those about one file are beside each other: there may be thousands of files.
    diagnostics.sort_by(|one, other| one.key.cmp(&other.key));
    let about = |path: PathBuf| {
        let file = peer_file_name(&path);
        let beginning = format!("{file}: ");
        let first = diagnostics.partition_point(|diagnostic| diagnostic.key < beginning);
        let about_it = diagnostics[first..].iter().take_while(|diagnostic| diagnostic.key.starts_with(&beginning));
        let about_it = first..first + about_it.count();
        (!about_it.is_empty()).then_some((path, file, about_it))
    };
    // All of them first: a diagnostic that has its place has another key.
    let peers: Vec<_> = files.peers().unwrap_or_default().used.into_iter().filter_map(about).collect();
    for (path, file, about_it) in peers {
        if let Ok(content) = files.read(&path) {
            locate::locate(&mut diagnostics[about_it], &content.text, Some(&file));
        }
    }
    let place = |diagnostic: &Diagnostic| diagnostic.place.as_ref().map(|place| (place.file.clone(), place.line));
    diagnostics.sort_by_key(|diagnostic| (place(diagnostic).is_none(), place(diagnostic), diagnostic.key.clone()));
}

/// `peers.d/alice.toml`
fn peer_file_name(path: &Path) -> String {
    format!("peers.d/{}", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Checks the text of a configuration that has no other files. Returns every error at once, sorted by key.
pub fn parse(text: &str, environment: &Environment) -> Result<Config, Vec<Diagnostic>> {
    parse_with(text, environment, &NoFiles)
}

/// Checks the text of a configuration and the files that belong to it. Returns every error at once, sorted by key.
fn parse_with(text: &str, environment: &Environment, files: &impl Files) -> Result<Config, Vec<Diagnostic>> {
    check_with(text, false, environment, files)
}

fn check_with(
    text: &str,
    world_readable: bool,
    environment: &Environment,
    files: &impl Files,
) -> Result<Config, Vec<Diagnostic>> {
    let raw = raw::parse(text).map_err(|error| vec![*error])?;
    check::check(raw, &CheckContext { environment, files, world_readable })
}

#[cfg(test)]
mod tests;
