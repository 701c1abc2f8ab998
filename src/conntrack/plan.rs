//! Two policies and a flow in, its end out. Pure.

use std::fmt;

use super::judge::Judge;
use super::model::{Flow, Way};

/// Why a live flow ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Its forward is gone, leads elsewhere, or is no more for its source.
    Forward,
    /// Its static address is gone, another host's, or closed for it.
    Static,
    /// Its destination on the internet is no more allowed.
    Egress,
    /// Its way from one private network to another is no more allowed.
    Tenant,
    /// Its peer is gone, or another one has its address.
    Tunnel,
    /// The service of the bastion is gone, or no more for its source.
    Service,
    /// It would go on past a forward or a static address that came after it.
    Bypass,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "of port forwards",
            Self::Static => "of static addresses",
            Self::Egress => "to the internet",
            Self::Tenant => "between networks",
            Self::Tunnel => "of the tunnel",
            Self::Service => "to services of the bastion",
            Self::Bypass => "past a new forward or static address",
        })
    }
}

/// Whether a flow that began under the old policy ends under the new one, and why.
///
/// Only what the old policy allowed can be taken back: a flow that it does not know is somebody else's. SSH to the
/// bastion and the tunnel's own packets never end, so that no change locks the operator out.
pub fn end(old: &Judge<'_>, new: &Judge<'_>, flow: &Flow) -> Option<Reason> {
    if old.is_operators(flow) || new.is_operators(flow) {
        return None;
    }
    if !flow.is_redirected() && new.redirects(flow) && !old.redirects(flow) {
        return Some(Reason::Bypass);
    }
    let before = old.way(flow);
    let reason = match before {
        Way::Forward(..) => Reason::Forward,
        Way::Static(_) => Reason::Static,
        Way::Egress => Reason::Egress,
        Way::Tenant => Reason::Tenant,
        Way::Tunnel(_) => Reason::Tunnel,
        Way::Service => Reason::Service,
        Way::Blocked(_) | Way::Unknown => return None,
    };
    if old.peer_of(flow) != new.peer_of(flow) {
        // By a forward, or to a service: that stands, but its peer does not.
        return Some(Reason::Tunnel);
    }
    (new.way(flow) != before).then_some(reason)
}
