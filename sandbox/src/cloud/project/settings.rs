//! What a test may choose about the cloud, where the real one is unknown or changes its mind.

use std::time::Duration;

/// The cloud's habits. Switch them at run time with [`Cloud::update_settings`](super::Cloud::update_settings).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The token that may do everything in the one project. Default: 64 characters, as real ones have.
    pub token: String,
    /// A token that may only read.
    pub read_only_token: String,
    /// How long an action runs. Default 20 ms; zero answers `success` at once, as the real API does for some commands.
    pub action_duration: Duration,
    /// When a change shows in GET.
    pub visible: Visible,
    /// What a network that is being changed answers to the next change.
    pub busy: Busy,
    /// What a read-only token meets when it writes.
    pub read_only_answer: ReadOnlyAnswer,
    /// The request budget of the project.
    pub rate_limit: RateLimit,
    /// Whether a floating IP may move without being unassigned first.
    pub floating_reassign: FloatingReassign,
    /// What `per_page` above 50 gets.
    pub over_long_page: OverLongPage,
    /// What the metadata's `private-networks` is when there are none.
    pub empty_list: EmptyList,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            token: "SandboxReadWriteTokenSandboxReadWriteTokenSandboxReadWriteToken0".into(),
            read_only_token: "SandboxReadOnlyTokenSandboxReadOnlyTokenSandboxReadOnlyToken0000".into(),
            action_duration: Duration::from_millis(20),
            visible: Visible::default(),
            busy: Busy::default(),
            read_only_answer: ReadOnlyAnswer::default(),
            rate_limit: RateLimit::default(),
            floating_reassign: FloatingReassign::default(),
            over_long_page: OverLongPage::default(),
            empty_list: EmptyList::default(),
        }
    }
}

/// When a change shows in GET. The data plane ([`watch_networks`](super::Cloud::watch_networks)) always follows at the
/// action's end, so `OnAccept` is the mean one: the API lists a route that carries nothing yet, and takes it back if
/// the action fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Visible {
    /// When its action succeeds.
    #[default]
    OnFinish,
    /// As soon as its action is accepted.
    OnAccept,
}

/// The error of a change to a network that is being changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Busy {
    /// 409 `conflict`, as the API documentation says.
    #[default]
    Conflict409,
    /// 423 `locked`, which the official clients are prepared for too.
    Locked423,
}

/// The error of a write with a read-only token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadOnlyAnswer {
    /// 401 `token_readonly`, of the documentation of July 2026.
    #[default]
    TokenReadonly401,
    /// 403 `forbidden`, of newer copies, where `token_readonly` is gone from the table of errors.
    Forbidden403,
}

/// A token bucket of requests. It starts full, and is full again after a change of these settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests that a full bucket allows at once; also the `RateLimit-Limit` header. Default 3600.
    pub burst: u32,
    /// Requests regained per second, up to the burst. Default 1; 0 never refills.
    pub refill_per_second: u32,
}

impl Default for RateLimit {
    /// Hetzner API documentation, "Rate Limiting".
    fn default() -> Self {
        Self { burst: 3600, refill_per_second: 1 }
    }
}

/// What assigning a floating IP that another server holds does. On the server that already has it, both answer
/// `floating_ip_assigned`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FloatingReassign {
    /// It moves.
    #[default]
    Direct,
    /// 422 `floating_ip_assigned`: it must be unassigned first.
    Refused,
}

/// What `per_page` above the maximum of 50 gets; the real answer is not documented.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OverLongPage {
    /// A page of 50.
    #[default]
    Clamp,
    /// 422 `invalid_input`.
    Refuse,
}

/// How the metadata service writes an empty `private-networks`; the real form is not documented, so a client must read
/// all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EmptyList {
    /// `[]`
    #[default]
    Brackets,
    /// An empty body.
    Nothing,
    /// `null`
    Null,
}
