//! What is compared: programs that are a WireGuard interface, and are told what to do through its UAPI socket.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::case::OURS;

/// Whose program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    WireguardGo,
    Boringtun,
    Gotatun,
}

/// A program that can be started.
#[derive(Debug)]
pub(crate) struct Program {
    pub(super) kind: Kind,
    /// With its version, if it is another's.
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// Everybody whose bar we have to take.
pub(super) const PEERS: [(Kind, &str); 3] =
    [(Kind::WireguardGo, "wireguard-go"), (Kind::Boringtun, "boringtun-cli"), (Kind::Gotatun, "gotatun-cli")];

impl Program {
    /// Ours, and those that `scripts/install-bench-peers` listed in `peers/subjects`.
    pub(super) fn all(programs: &Path, peers: &Path) -> Result<Vec<Self>> {
        let path = programs.join("bastiond-tunnel");
        if !path.exists() {
            let hint = "cargo build --release -p bastiond-tunnel";
            return Err(format!("there is no {} to measure: {hint}", path.display()).into());
        }
        let mut all = vec![Self { kind: Kind::Ours, name: OURS.to_owned(), path }];
        let list = peers.join("subjects");
        let text = std::fs::read_to_string(&list).map_err(|error| {
            format!("nothing to compare with, {}: {error}; scripts/install-bench-peers makes it", list.display())
        })?;
        all.extend(text.lines().map(Self::listed).collect::<Result<Vec<_>>>()?);
        for (kind, name) in PEERS {
            if !all.iter().any(|program| program.kind == kind) {
                eprintln!("tunnel: there is no {name} to compare with");
            }
        }
        Ok(all)
    }

    /// `wireguard-go 0.0.20260522 /somewhere/wireguard-go`
    fn listed(line: &str) -> Result<Self> {
        let mut words = line.splitn(3, ' ');
        let (Some(name), Some(version), Some(path)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("strange line in the list of peers: {line}").into());
        };
        let kind = PEERS.into_iter().find_map(|(kind, known)| (known == name).then_some(kind));
        let kind = kind.ok_or_else(|| format!("unknown peer: {line}"))?;
        Ok(Self { kind, name: format!("{name} {version}"), path: path.into() })
    }

    /// A short word for names of interfaces, which have at most 15 letters.
    pub(super) fn tag(&self) -> &'static str {
        match self.kind {
            Kind::Ours => "ours",
            Kind::WireguardGo => "wggo",
            Kind::Boringtun => "boring",
            Kind::Gotatun => "gota",
        }
    }

    /// Such that it stays in the foreground, and logs errors only.
    pub(super) fn arguments(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Ours | Kind::WireguardGo => &["--foreground"],
            // It would else become the user who is logged in.
            Kind::Boringtun => &["--foreground", "--disable-drop-privileges"],
            Kind::Gotatun => &["--foreground", "--disable-drop-privileges", "--verbosity", "error"],
        }
    }
}
