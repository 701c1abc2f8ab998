//! Why a configuration cannot be used.

use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;
use super::files::ReadError;
use crate::error::chain;

/// Why a configuration cannot be used. Where there is no other one, both variants end the daemon with exit code 78
/// (`EX_CONFIG`).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        path: PathBuf,
        /// What the system says, or that the file is too large.
        source: ReadError,
    },
    /// The file is wrong.
    #[error("the configuration {} has {} problem(s)", path.display(), diagnostics.len())]
    Invalid {
        path: PathBuf,
        /// All errors, in the order of the file.
        diagnostics: Vec<Diagnostic>,
    },
}

impl Error {
    /// The configuration file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Invalid { path, .. } | Self::Read { path, .. } => path,
        }
    }

    /// Whether the file does not exist.
    pub(super) fn is_missing_file(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.is_not_found())
    }

    /// Each problem on a line, for a report: those in the file, or why it cannot be read.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Invalid { diagnostics, .. } => diagnostics.iter().map(ToString::to_string).collect(),
            Self::Read { .. } => vec![chain(self)],
        }
    }

    /// The errors in the file; empty if the file cannot be read.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid { diagnostics, .. } => diagnostics,
            Self::Read { .. } => &[],
        }
    }
}
