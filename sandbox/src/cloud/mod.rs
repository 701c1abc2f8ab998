//! ```text
//! model/      resources, and the rules about their changes           pure
//! project/    actions, rate limit, faults, settings; the handle      pure but for the handle, which has the clock
//! api/        requests in, answers out                               HTTP
//! metadata, serve                          169.254.169.254; sockets  I/O
//! seed, route_controller                   what tests and other programs change at once
//! ```
//!
//! Imports go upwards in this picture only.

mod api;
mod metadata;
mod model;
mod project;
mod route_controller;
mod seed;
mod serve;

pub use api::endpoints;
pub use model::ids::{ActionId, FirewallId, FloatingIpId, LocationId, NetworkId, PrimaryIpId, ServerId};
pub use model::resources::{AttachedServer, FirewallRule, NetworkView, Route};
pub use project::RequestRecord;
pub use project::cloud::Cloud;
pub use project::faults::{Fault, Injection, Matching, Times};
pub use project::settings::{
    Busy, EmptyList, FloatingReassign, OverLongPage, RateLimit, ReadOnlyAnswer, Settings, Visible,
};
pub use route_controller::RouteController;
