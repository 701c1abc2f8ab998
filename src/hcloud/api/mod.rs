//! The HTTP boundary to the Hetzner Cloud API: a dozen endpoints of it, leniently read, strictly spoken.
//!
//! Our own and thin, because the published clients generate the whole API into the daemon, drop the rate-limit headers
//! and refuse values they do not know. Nothing here tries again: the pass that called does, after it has looked anew,
//! so that a change whose answer was lost is never sent twice blindly.

mod action;
mod client;
mod error;
mod schema;

pub(crate) use client::{Api, RateLimit};
pub(crate) use error::{Code, Error};
pub(crate) use schema::Route;
pub use schema::{parse_error_body, parse_network};
