//! A thin HTTP client for the endpoints of the Hetzner Cloud API that the daemon uses.
//!
//! It is our own because the published clients contain the whole API, drop the rate-limit headers and refuse values
//! that they do not know. It never retries a change: the next pass does, after it has read the network again, so a
//! change whose answer was lost is not sent twice.

mod action;
mod client;
mod error;
mod schema;

pub(crate) use client::{Api, RateLimit};
pub(crate) use error::{Code, Error};
pub(crate) use schema::Route;
pub use schema::{parse_error_body, parse_network};
