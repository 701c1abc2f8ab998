//! Why a configuration cannot be used.

use std::path::PathBuf;

use super::diagnostic::Diagnostic;
use super::files::ReadError;

/// Why a configuration cannot be used. Both variants end the daemon with exit code 78 (`EX_CONFIG`).
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
        /// All errors, sorted by key.
        diagnostics: Vec<Diagnostic>,
    },
}

impl Error {
    /// The errors in the file; empty if the file cannot be read.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid { diagnostics, .. } => diagnostics,
            Self::Read { .. } => &[],
        }
    }
}
