//! Why the component cannot do its work.

use super::{api, token};
use crate::outcome::ComponentError;

/// Why the routes of a network cannot be observed or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// A call failed.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// `HCLOUD_NETWORK` is one name for several links.
    #[error("HCLOUD_NETWORK names one network, but {links} private links have no network id")]
    OneNameForMany {
        /// The number of links without an id.
        links: usize,
    },
    /// `HCLOUD_NETWORK` names no network of the project.
    #[error("the project has no network called `{name}` (HCLOUD_NETWORK)")]
    NoSuchNetwork {
        /// The name that was looked up.
        name: String,
    },
}

impl Error {
    /// Whether the same call may succeed soon without a person's help.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_transient())
    }
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Token(_) => "token-unreadable",
            Self::Api(error) => error.problem_code(),
            Self::OneNameForMany { .. } => "network-name-ambiguous",
            Self::NoSuchNetwork { .. } => "network-unknown",
        }
    }

    fn advice(&self) -> String {
        let advice = match self {
            Self::Token(error) => error.advice(),
            Self::Api(error) => error.advice(),
            Self::OneNameForMany { .. } => "write network_id into each [[site.private]]",
            Self::NoSuchNetwork { .. } => "name a network of the token's project",
        };
        advice.to_owned()
    }
}
