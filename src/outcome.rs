//! The result of one pass of one component, in terms that every component shares.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::chain;
use crate::printable::printable;

/// How soon a failed component is retried, unless it says otherwise.
const RETRY: Duration = Duration::from_secs(2);

/// Something that keeps a component from its aim, and what the operator can do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem it is, for programs that read the report: lower-case words with hyphens. It stays the same
    /// when the texts change. `docs/operations/problem-codes.md` lists all codes. Empty in a report of 0.1.0.
    #[serde(default)]
    pub code: Cow<'static, str>,
    /// What is wrong, and where.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl Problem {
    /// Names what is wrong and what to do. Both are made printable on one line: they may quote other people's text.
    pub fn new(code: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        let text = |text: String| match printable(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(escaped) => escaped,
        };
        Self { code: Cow::Borrowed(code), what: text(what.into()), advice: text(advice.into()) }
    }

    /// The error with its causes, and the advice that belongs to it.
    pub fn from_error<E: ComponentError>(error: &E) -> Self {
        Self::new(error.code(), chain(error), error.advice())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.advice)
    }
}

/// The error enum of a component.
pub trait ComponentError: std::error::Error + 'static {
    /// The code of the problem that it is ([`Problem::code`]).
    fn code(&self) -> &'static str;
    /// What the operator can do.
    fn advice(&self) -> String;
}

impl ComponentError for Infallible {
    fn code(&self) -> &'static str {
        match *self {}
    }

    fn advice(&self) -> String {
        match *self {}
    }
}

/// The components, in the order of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentName {
    /// What this server is.
    Site,
    /// Kernel settings.
    Sysctl,
    /// `table inet bastiond`.
    Nat,
    /// The tunnel's interface and its peers.
    Wireguard,
    /// Addresses of the tunnel, and routes into it.
    Routes,
    /// Live flows, which follow the rules.
    #[serde(rename = "flows")]
    Conntrack,
    /// Forwarding, and the settings that wait for the rules.
    Forwarding,
    /// The flow cache in BPF.
    Fastpath,
    /// Cloud routes.
    Hcloud,
}

impl fmt::Display for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Site => "site",
            Self::Sysctl => "sysctl",
            Self::Nat => "nat",
            Self::Wireguard => "wireguard",
            Self::Routes => "routes",
            Self::Conntrack => "flows",
            Self::Forwarding => "forwarding",
            Self::Fastpath => "fastpath",
            Self::Hcloud => "hcloud",
        })
    }
}

/// The state of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The world is as the configuration wants it.
    Ok,
    /// Something outside has to come first: an address, a network, a token, an operator's decision.
    Waiting,
    /// The last attempt failed; the daemon tries again.
    Failed,
    /// A component that this one depends on is not ok yet.
    HeldBack,
    /// The configuration switches it off.
    Off,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::HeldBack => "held back",
            Self::Off => "off",
        })
    }
}

/// The result of one pass of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The component's state after the pass.
    pub state: State,
    /// One line for the status table.
    pub detail: String,
    /// What was changed, a line each.
    pub changes: Vec<String>,
    /// Whether the changes undid another program's: the world was as wanted before.
    pub repaired: bool,
    /// What is wrong. A component may be ok and still have problems, if the rest of the server defeats its purpose.
    pub problems: Vec<Problem>,
    /// What is unusual and may be intended. The gateway is healthy with it.
    pub hints: Vec<Problem>,
    /// How soon the component wants its next pass; `None`: with the next regular one.
    pub next: Option<Duration>,
}

impl Outcome {
    /// A component that changed nothing.
    pub fn unchanged(state: State, detail: impl Into<String>) -> Self {
        Self {
            state,
            detail: detail.into(),
            changes: Vec::new(),
            repaired: false,
            problems: Vec::new(),
            hints: Vec::new(),
            next: None,
        }
    }

    /// How soon the component wants its next pass, if sooner than with the next regular one.
    pub fn next_pass(&self) -> Option<Duration> {
        self.next.or((self.state == State::Failed).then_some(RETRY))
    }

    /// A component that failed: the error with its causes becomes its problem.
    pub fn failed<E: ComponentError>(error: &E) -> Self {
        Self::stopped(Problem::from_error(error))
    }

    /// A component that failed because of this problem.
    pub fn stopped(problem: Problem) -> Self {
        let what = problem.what.clone();
        Self { problems: vec![problem], ..Self::unchanged(State::Failed, what) }
    }
}
