//! The compared programs: userspace WireGuard interfaces that are configured through their UAPI sockets.

use std::path::{Path, PathBuf};

use crate::case::OURS;
use crate::run::Result;

/// The project of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    WireguardGo,
    Boringtun,
    Gotatun,
}

/// An installed program.
#[derive(Debug)]
pub(crate) struct Program {
    pub(super) kind: Kind,
    /// The name, with the version unless it is ours.
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// The programs that we are compared with.
pub(super) const PEERS: [(Kind, &str); 3] =
    [(Kind::WireguardGo, "wireguard-go"), (Kind::Boringtun, "boringtun-cli"), (Kind::Gotatun, "gotatun-cli")];

impl Program {
    /// Ours, and those that `scripts/install-bench-peers` listed in `peers/subjects`.
    pub(super) fn all(programs: &Path, peers: &Path) -> Result<Vec<Self>> {
        let path = programs.join("bastiond-tunnel");
        if !path.exists() {
            let hint = "cargo build --release -p bastiond-tunnel";
            return Err(format!("{} does not exist; build it: {hint}", path.display()).into());
        }
        let mut all = vec![Self { kind: Kind::Ours, name: OURS.to_owned(), path }];
        let list = peers.join("subjects");
        let text = std::fs::read_to_string(&list).map_err(|error| {
            format!(
                "cannot read the list of compared programs, {}: {error}; run scripts/install-bench-peers",
                list.display()
            )
        })?;
        all.extend(text.lines().map(Self::parse).collect::<Result<Vec<_>>>()?);
        for (kind, name) in PEERS {
            if !all.iter().any(|program| program.kind == kind) {
                eprintln!("tunnel: {name} is not installed, so it is not compared");
            }
        }
        Ok(all)
    }

    /// Parses a line such as `wireguard-go 0.0.20260522 /somewhere/wireguard-go`.
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.splitn(3, ' ');
        let (Some(name), Some(version), Some(path)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("invalid line in the list of compared programs: {line}").into());
        };
        let kind = PEERS.into_iter().find_map(|(kind, known)| (known == name).then_some(kind));
        let kind = kind.ok_or_else(|| format!("unknown program: {line}"))?;
        Ok(Self { kind, name: format!("{name} {version}"), path: path.into() })
    }

    /// A short word for the names of interfaces, which have at most 15 characters.
    pub(super) fn tag(&self) -> &'static str {
        match self.kind {
            Kind::Ours => "ours",
            Kind::WireguardGo => "wggo",
            Kind::Boringtun => "boring",
            Kind::Gotatun => "gota",
        }
    }

    /// The options for staying in the foreground and logging errors only.
    pub(super) fn arguments(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Ours | Kind::WireguardGo => &["--foreground"],
            // Otherwise it drops privileges to the user who is logged in.
            Kind::Boringtun => &["--foreground", "--disable-drop-privileges"],
            Kind::Gotatun => &["--foreground", "--disable-drop-privileges", "--verbosity", "error"],
        }
    }
}
