//! What the tests of the fake cloud share: the cloud served on a loopback socket, a client for it, and the official OpenAPI
//! document to hold every answer against.

pub(crate) mod clock;
mod document;
pub(crate) mod served;

pub(crate) use document::document;
pub(crate) use served::Served;
