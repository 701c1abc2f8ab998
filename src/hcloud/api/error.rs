//! What can go wrong with a call, and whether trying again may help.

use std::fmt;

use crate::http;

/// The API's error codes that we act on; every other one is kept as its text (Hetzner API documentation, "Errors").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// The token is wrong.
    Unauthorized,
    /// The token may not do that.
    Forbidden,
    /// The token may only read.
    TokenReadonly,
    /// There is no such thing.
    NotFound,
    /// The request is understood and refused.
    InvalidInput,
    /// Another change of the resource is running.
    Conflict,
    /// The same, as some endpoints say it.
    Locked,
    /// Too many calls; the whole project shares them.
    RateLimitExceeded,
    /// Hetzner works on it.
    Maintenance,
    /// Any other.
    Other(String),
}

impl Code {
    /// Reads the API's word.
    pub fn of(word: &str) -> Self {
        match word {
            "unauthorized" => Self::Unauthorized,
            "forbidden" => Self::Forbidden,
            "token_readonly" => Self::TokenReadonly,
            "not_found" => Self::NotFound,
            "invalid_input" => Self::InvalidInput,
            "conflict" => Self::Conflict,
            "locked" => Self::Locked,
            "rate_limit_exceeded" => Self::RateLimitExceeded,
            "maintenance" => Self::Maintenance,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TokenReadonly => "token_readonly",
            Self::NotFound => "not_found",
            Self::InvalidInput => "invalid_input",
            Self::Conflict => "conflict",
            Self::Locked => "locked",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::Maintenance => "maintenance",
            Self::Other(word) => word,
        })
    }
}

/// Why a call did not bring what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client can be made.
    #[error("cannot set up the API client")]
    Setup(#[source] reqwest::Error),
    /// No answer, or not a whole one. A change may have been made all the same.
    #[error("{call} brought no answer")]
    Transport {
        /// Method and path.
        call: String,
        /// What happened.
        source: http::Error,
    },
    /// The API said no.
    #[error("{call} was refused: {message} ({code}, HTTP {status})")]
    Refused {
        /// Method and path.
        call: String,
        /// HTTP status.
        status: u16,
        /// The API's code.
        code: Code,
        /// The API's words: for people only, they change.
        message: String,
    },
    /// Something before the API said no: a proxy, a load balancer, a wrong endpoint.
    #[error("{call} was answered with HTTP {status} and no error of the API")]
    Foreign {
        /// Method and path.
        call: String,
        /// HTTP status.
        status: u16,
    },
    /// An answer that is not what the API documents.
    #[error("the answer to {call} cannot be read")]
    Unreadable {
        /// Method and path.
        call: String,
        /// Where it departs.
        source: serde_json::Error,
    },
    /// The change was accepted and then failed.
    #[error("{command} (action {action}) failed: {message} ({code})")]
    ActionFailed {
        /// The action's number.
        action: u64,
        /// `add_route`, `delete_route`.
        command: String,
        /// The action's own error code; often `action_failed`.
        code: String,
        /// The API's words.
        message: String,
    },
    /// The change was accepted and does not end.
    #[error("{command} (action {action}) did not end within {seconds} s")]
    ActionUnfinished {
        /// The action's number.
        action: u64,
        /// `add_route`, `delete_route`.
        command: String,
        /// How long was waited.
        seconds: u64,
    },
}

impl Error {
    /// Whether the same call may succeed soon, without anybody's help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Setup(_) => false,
            // A truncated answer, most likely; the same call is answered whole the next time.
            Self::Unreadable { .. }
            | Self::Transport { .. }
            | Self::ActionFailed { .. }
            | Self::ActionUnfinished { .. } => true,
            Self::Foreign { status, .. } => *status == 429 || *status >= 500,
            Self::Refused { status, code, .. } => match code {
                Code::Conflict | Code::Locked | Code::RateLimitExceeded | Code::Maintenance => true,
                _ => *status >= 500,
            },
        }
    }

    /// The API's code, if it gave one.
    pub fn code(&self) -> Option<&Code> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        if matches!(self, Self::Setup(_)) {
            return "install the certificate authorities: apt install ca-certificates";
        }
        match self.code() {
            Some(Code::Unauthorized) => "check the token; it belongs to one project",
            Some(Code::Forbidden | Code::TokenReadonly) => {
                "the token may only read: give one with read and write permission"
            }
            Some(Code::NotFound) => "check that the token belongs to the project of this network",
            Some(Code::RateLimitExceeded) => "other clients of the project use up its calls; tried again by itself",
            _ if self.is_transient() => "tried again by itself",
            _ => "look at the message; tried again at the next poll",
        }
    }
}
