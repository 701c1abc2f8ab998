//! The behaviour of the cloud where that of the real one is unknown or has changed.

use std::time::Duration;

/// The behaviour of the cloud. Change it at run time with
/// [`Cloud::update_settings`](super::cloud::Cloud::update_settings).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The read and write token of the project. The default has 64 characters, as real tokens do.
    pub token: String,
    /// The read-only token of the project.
    pub read_only_token: String,
    /// How long an action runs. The default is 20 ms. With zero the answer is `success` at once, as in the real API
    /// for some commands.
    pub action_duration: Duration,
    /// When a change shows in GET.
    pub visible: Visible,
    /// The error of a change to a network that is being changed.
    pub busy: Busy,
    /// The error of a write with the read-only token.
    pub read_only_answer: ReadOnlyAnswer,
    /// The rate limit of the project.
    pub rate_limit: RateLimit,
    /// Whether a floating IP can be moved without unassigning it first.
    pub floating_reassign: FloatingReassign,
    /// The answer to `per_page` above 50.
    pub over_long_page: OverLongPage,
    /// The form of the metadata's `private-networks` without a network.
    pub empty_list: EmptyList,
    /// How the metadata services answer.
    pub metadata: MetadataAnswer,
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
            metadata: MetadataAnswer::default(),
        }
    }
}

/// When a change shows in GET. The data plane ([`watch_networks`](super::cloud::Cloud::watch_networks)) always follows
/// at the end of the action. With `OnAccept` the API therefore lists a route that carries no packets yet, and removes
/// it if the action fails.
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
    /// 423 `locked`, which the official clients also handle.
    Locked423,
}

/// The error of a write with a read-only token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadOnlyAnswer {
    /// 401 `token_readonly`, by the documentation of July 2026.
    #[default]
    TokenReadonly401,
    /// 403 `forbidden`, by newer documentation, whose table of errors has no `token_readonly`.
    Forbidden403,
}

/// A token bucket of requests. It is full at the start and after every change of these settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The number of requests in a full bucket, also the `RateLimit-Limit` header. The default is 3600.
    pub burst: u32,
    /// Requests added per second, up to the burst. The default is 1; with 0 the bucket never refills.
    pub refill_per_second: u32,
}

impl Default for RateLimit {
    /// The limits of the Hetzner API documentation, "Rate Limiting".
    fn default() -> Self {
        Self { burst: 3600, refill_per_second: 1 }
    }
}

/// The effect of assigning a floating IP that another server has. If the same server has it, the answer is always
/// `floating_ip_assigned`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FloatingReassign {
    /// The floating IP moves.
    #[default]
    Direct,
    /// The answer is 422 `floating_ip_assigned`; the floating IP must be unassigned first.
    Refused,
}

/// The answer to `per_page` above the maximum of 50; that of the real API is not documented.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OverLongPage {
    /// A page of 50.
    #[default]
    Clamp,
    /// 422 `invalid_input`.
    Refuse,
}

/// The form of an empty `private-networks` in the metadata. The real form is not documented, so a client must accept
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

/// How the metadata services answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetadataAnswer {
    /// At once, with what the project has.
    #[default]
    Prompt,
    /// As if the server were attached to no network.
    NoNetworks,
    /// 503 without a body that a client could use.
    Unavailable,
    /// The connection is accepted, and no answer comes as long as this setting stays.
    Silent,
}
