//! The resources of a project and the rules about them. Pure: no clock, no sockets, no settings.

pub(crate) mod attachments;
pub(crate) mod change;
pub(crate) mod ids;
pub(crate) mod labels;
pub(crate) mod locations;
pub(crate) mod refusal;
pub(crate) mod resources;
pub(crate) mod routes;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod subnets;
