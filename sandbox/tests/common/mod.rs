//! Shared code of the fake cloud's tests: the cloud on a loopback socket, a client, and checks against the official
//! OpenAPI document.

pub(crate) mod clock;
mod document;
pub(crate) mod served;

pub(crate) use document::document;
pub(crate) use served::Served;
