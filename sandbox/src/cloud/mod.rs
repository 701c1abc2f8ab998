//! A fake Hetzner Cloud: the API and the servers' metadata service, with the behaviour of the real ones.
//!
//! A [`Cloud`] has one project. Tests create its resources ([`Cloud::create_network`], …), serve it
//! ([`Cloud::serve`], [`Cloud::serve_metadata`]) on listeners in the network namespace of their choice, inject faults
//! ([`Cloud::inject`]), and observe what the data plane has to do ([`Cloud::watch_networks`]). It never contacts the
//! real API.
//!
//! ```no_run
//! use sandbox::cloud::{Cloud, Fault, Injection, Matching, Settings, Times};
//!
//! # async fn example(listener: std::net::TcpListener) -> Result<(), Box<dyn std::error::Error>> {
//! let cloud = Cloud::new(Settings::default());
//! let network = cloud.create_network("private", "10.0.0.0/16".parse()?, &["10.0.0.0/24".parse()?]);
//! let bastion = cloud.create_server("bastion", Some("203.0.113.2".parse()?));
//! cloud.attach(bastion, network, "10.0.0.2".parse()?, "86:00:00:2a:7d:e0");
//!
//! let fault = Fault::Status { code: 503, json: false };
//! cloud.inject(Injection { matching: Matching::post("add_route"), fault, times: Times::Next(1) });
//! cloud.serve(listener).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! model/      resources, and the rules about their changes           pure
//! project/    actions, rate limit, faults, settings; the handle      pure but for the handle, which has the clock
//! api/        requests in, answers out                               HTTP
//! metadata, serve                          169.254.169.254; sockets  I/O
//! seed, route_controller                   immediate changes by tests and by other programs
//! ```
//!
//! Each line of this table imports only from the lines above it.

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
    Busy, EmptyList, FloatingReassign, MetadataAnswer, OverLongPage, RateLimit, ReadOnlyAnswer, Settings, Visible,
};
pub use route_controller::RouteController;
