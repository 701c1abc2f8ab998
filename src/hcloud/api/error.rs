//! Why a call fails, and whether a retry may help.

use std::fmt;

use crate::http;
use crate::printable::printable;

/// The API's error codes that we act on; every other one is kept as its text (Hetzner API documentation, "Errors").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// The token is wrong.
    Unauthorized,
    /// The token lacks the permission.
    Forbidden,
    /// The token may only read.
    TokenReadonly,
    /// The resource does not exist.
    NotFound,
    /// The request has a wrong value.
    InvalidInput,
    /// Another change of the resource is running.
    Conflict,
    /// The same as `Conflict`, from other endpoints.
    Locked,
    /// Too many calls. All clients of the project share the limit.
    RateLimitExceeded,
    /// The API is under maintenance.
    Maintenance,
    /// Any other code.
    Other(String),
}

impl Code {
    /// The code with this name in the API.
    pub fn from_name(name: &str) -> Self {
        match name {
            "unauthorized" => Self::Unauthorized,
            "forbidden" => Self::Forbidden,
            "token_readonly" => Self::TokenReadonly,
            "not_found" => Self::NotFound,
            "invalid_input" => Self::InvalidInput,
            "conflict" => Self::Conflict,
            "locked" => Self::Locked,
            "rate_limit_exceeded" => Self::RateLimitExceeded,
            "maintenance" => Self::Maintenance,
            other => Self::Other(printable(other).into_owned()),
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
            Self::Other(name) => name,
        })
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client cannot be created.
    #[error("cannot set up the API client")]
    Setup(#[source] reqwest::Error),
    /// There was no complete answer. A change may have been made all the same.
    #[error("{call} got no answer")]
    Transport {
        /// Method and path.
        call: String,
        source: http::Error,
    },
    /// The API refused the call.
    #[error("{call} was refused: {message} ({code}, HTTP {status})")]
    Refused {
        /// Method and path.
        call: String,
        /// The HTTP status.
        status: u16,
        /// The API's code.
        code: Code,
        /// The API's message. It is for people only, because its text may change.
        message: String,
    },
    /// Something before the API refused the call: a proxy, a load balancer, a wrong endpoint.
    #[error("{call} was answered with HTTP {status} and no error of the API")]
    Foreign {
        /// Method and path.
        call: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that is not what the API documents.
    #[error("the answer to {call} cannot be read")]
    Unreadable {
        /// Method and path.
        call: String,
        /// The place and the kind of the difference.
        source: serde_json::Error,
    },
    /// The API accepted the change, which failed later.
    #[error("{command} (action {action}) failed: {message} ({code})")]
    ActionFailed {
        /// The action's ID.
        action: u64,
        /// `add_route`, `delete_route`.
        command: String,
        /// The action's own error code; often `action_failed`.
        code: String,
        /// The API's message.
        message: String,
    },
    /// The API accepted the change, which does not end.
    #[error("{command} (action {action}) did not end within {seconds} s")]
    ActionUnfinished {
        /// The action's ID.
        action: u64,
        /// `add_route`, `delete_route`.
        command: String,
        /// How long the daemon waited, in seconds.
        seconds: u64,
    },
}

impl Error {
    /// Whether the same call may succeed soon without a person's help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Setup(_) => false,
            // `Unreadable` is most likely a truncated answer.
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

    /// The API's error code, if there is one.
    pub fn code(&self) -> Option<&Code> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The code of the problem that it is in the daemon's report.
    pub fn problem_code(&self) -> &'static str {
        match self.code() {
            Some(Code::Unauthorized) => "token-refused",
            Some(Code::Forbidden | Code::TokenReadonly) => "token-read-only",
            Some(Code::RateLimitExceeded) => "api-rate-limit",
            _ if self.is_transient() => "api-unavailable",
            _ => "api-refused",
        }
    }

    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        if matches!(self, Self::Setup(_)) {
            return "install the certificate authorities: apt install ca-certificates";
        }
        match self.code() {
            Some(Code::Unauthorized) => "check the token, and that it belongs to this project",
            Some(Code::Forbidden | Code::TokenReadonly) => {
                "the token may only read: give one with read and write permission"
            }
            Some(Code::NotFound) => "check that the token belongs to the project of this network",
            Some(Code::RateLimitExceeded) => {
                "other clients of the project use up its calls; the daemon tries again by itself"
            }
            _ if self.is_transient() => "the daemon tries again by itself",
            _ => "see the message; the daemon tries again at the next poll",
        }
    }
}
