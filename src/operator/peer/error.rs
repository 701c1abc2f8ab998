//! Why a command about peers is not carried out.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{address, import, name, qr, store, until};
use crate::config::{self, PeerPlace};
use crate::control::client;
use crate::exit;
use crate::regular_file;
use bastiond_tunnel::key::InvalidKey;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The configuration, with the change or without it, is wrong.
    #[error(transparent)]
    Configuration(#[from] config::Error),
    /// The daemon finds the changed configuration wrong.
    #[error("the daemon refuses the change, which is undone: {reason}")]
    Refused { reason: String, problems: Vec<String> },
    /// There is no daemon that could tell.
    #[error(transparent)]
    NoDaemon(#[from] client::Error),
    /// It answers something else.
    #[error("{reason}")]
    NotAllowed { reason: String },
    #[error(transparent)]
    Name(#[from] name::InvalidName),
    #[error(transparent)]
    Until(#[from] until::Error),
    #[error(transparent)]
    Address(#[from] address::Error),
    #[error("{error} ({place})")]
    AddressInUse { error: address::Error, place: PeerPlace },
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{text:?} is {source}")]
    PublicKey { text: String, source: InvalidKey },
    #[error("there is a peer {name} already ({place}); choose another name, or remove that one")]
    NameInUse { name: String, place: String },
    #[error("this key belongs to the peer {label} already ({place}); make a key for each device")]
    KeyInUse { label: String, place: String },
    #[error("there is no peer {name:?}{}; `bastionctl peer list` shows all", similar.as_ref().map_or_else(String::new, |name| format!("; did you mean {name:?}?")))]
    Unknown { name: String, similar: Option<String> },
    #[error("{label} is written in {place}: edit it there, and run `systemctl reload bastiond`")]
    Elsewhere { label: String, place: PeerPlace },
    #[error("the configuration has no tunnel: add [wireguard] with addresses, for example [\"10.100.0.1/24\"], to {}", path.display())]
    NoTunnel { path: PathBuf },
    #[error(
        "peers do not reach the internet through this server; set wireguard.full_tunnel = true, and reload, before"
    )]
    NoFullTunnel,
    #[error(
        "the private key is not on this server, so no app can use the code; `bastionctl peer rotate NAME --qr` makes a new key"
    )]
    CodeWithoutKey,
    #[error("the preshared key is in the file that {} names; change that file", path.display())]
    PresharedKeyFile { path: PathBuf },
    #[error("{} cannot be changed", path.display())]
    Edit { path: PathBuf, source: toml_edit::TomlError },
    #[error("there is {} already; choose another file", path.display())]
    OutputExists { path: PathBuf },
    #[error(transparent)]
    Code(#[from] qr::Error),
    #[error("no app can use a code of it before that; run `bastionctl peer rotate NAME --qr` when it is known")]
    CodeWithGaps,
    #[error("cannot read {}", path.display())]
    ImportRead { path: PathBuf, source: regular_file::Error },
    #[error("cannot import {}", path.display())]
    Import { path: PathBuf, source: import::Error },
    #[error("cannot write {}", path.display())]
    Output { path: PathBuf, source: io::Error },
}

impl Error {
    /// The daemon has answered another request than the one that was made.
    pub(super) fn not_understood() -> Self {
        Self::NotAllowed { reason: "the daemon's answer is not one to this request".to_owned() }
    }

    /// Prints it, and returns the exit code for it.
    pub(super) fn exit(&self) -> ExitCode {
        match self {
            Self::Configuration(error) => exit::wrong_configuration(error),
            Self::Refused { problems, .. } => exit::refused_configuration(&self.to_string(), problems),
            Self::NoDaemon(error) => exit::no_daemon(error),
            other => exit::failure(other),
        }
    }
}
