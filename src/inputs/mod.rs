//! What every component is given: the configuration, the site, and plain values that follow from both.
//!
//! Components do not use each other. What one of them needs to know about the subject of another one (nat about the
//! tunnel's ranges, for example) is derived here, once, from the configuration and the site.

mod access;
mod drop_log;
mod flow_limits;
mod forwards;
mod link_probes;
mod overlap;
mod peer_names;
mod portless;
mod reachers;
mod return_routes;
mod tunnel;
mod tunnel_port;

use tokio::time::Instant;

pub(crate) use access::{Access, AccessPeer, Judgement, Lists, NewFlow, Reach, access};
pub use drop_log::JOURNAL_GROUP;
pub(crate) use drop_log::nflog_group;
pub(crate) use flow_limits::{
    FlowLimits, LIMITED_LINKS, LIMITED_RANGES, LIMITED4, LIMITED6, RULES_TABLE, Sample, counts_flows, limits_sites,
};
pub(crate) use forwards::is_reserved;
pub(crate) use link_probes::{DESTINATIONS, RETURN_PORT, RETURNED_GROUP, target_ports};
pub(crate) use link_probes::{LinkProbe, link_probes};
pub(crate) use peer_names::PeerNames;
pub(crate) use portless::PortlessSender;
pub use reachers::{Grant, PeerRights, Reacher, Target, rights_of, who_can_reach};
pub(crate) use return_routes::{WantedReturnRoutes, wanted_return_routes};
pub(crate) use tunnel::interface_taken;
pub use tunnel::{SeenReturnRoutes, Tunnel, tunnel};
pub(crate) use tunnel_port::{source_ports_beside, untracked_port};

use crate::config::Config;
use crate::site::Site;

/// The inputs of one pass.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What is wanted.
    pub config: &'a Config,
    /// What this server is.
    pub site: &'a Site,
    /// The tunnel that the configuration wants on this server, if any.
    pub tunnel: Option<&'a Tunnel>,
    /// When the pass began.
    pub now: Instant,
}
