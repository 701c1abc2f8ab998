//! To which forward or static address a flow belongs.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::super::forwards::Forwards;
use super::super::lookup::AccessList;
use super::super::model::Flow;
use super::super::policy::Policy;
use crate::config::{Acl, Ports};

/// A forward or a static address with no more ports than this is about services that are there. With more, a scan meets
/// ports that the host does not serve, and many hosts drop such packets.
const NAMED_PORTS: u32 = 16;

/// What leads flows to private hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) enum Redirect {
    /// The forward with this index in the configuration.
    Forward(usize),
    /// The static address.
    Static(Ipv4Addr),
}

/// The flows of one protocol that a forward or a static address leads to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct Target {
    pub redirect: Redirect,
    /// Number of the protocol in the IP header.
    pub protocol: u8,
    /// Whether the configuration names a few ports.
    pub is_named: bool,
}

/// The redirections of a policy, looked up by flows.
#[derive(Debug)]
pub(in super::super) struct Redirects<'p> {
    policy: &'p Policy,
    forwards: Forwards,
    /// By public address: the host, and what is open by single ports.
    statics: HashMap<Ipv4Addr, (Ipv4Addr, AccessList)>,
}

impl<'p> Redirects<'p> {
    pub(in super::super) fn new(policy: &'p Policy) -> Self {
        let is_named = |acl: &&Acl| !acl.ports.is_empty() && are_few(&acl.ports);
        let statics = policy.statics.iter().map(|entry| {
            let named: Vec<Acl> = entry.open.iter().filter(is_named).cloned().collect();
            (entry.public, (entry.private, AccessList::new(&named)))
        });
        Self { policy, forwards: Forwards::new(policy), statics: statics.collect() }
    }

    /// What led this flow to its host; `None` if that was none of the policy.
    pub(in super::super) fn target(&self, flow: &Flow) -> Option<Target> {
        if !flow.is_redirected() || flow.has_zone() {
            return None;
        }
        let (first, host) = (&flow.original, flow.reply.source);
        if let Some((index, to, port)) = self.forwards.find(first) {
            let is_its_host = to == host && port.is_none_or(|port| flow.reply.source_port() == Some(port));
            let is_named = are_few(&[self.policy.forwards[index].ports]);
            let target = Target { redirect: Redirect::Forward(index), protocol: first.protocol, is_named };
            return is_its_host.then_some(target);
        }
        let (private, named) = self.statics.get(&first.destination)?;
        let redirect = Redirect::Static(first.destination);
        (*private == host).then(|| Target { redirect, protocol: first.protocol, is_named: named.matches(first) })
    }

    /// Where the answers of a target's flows come from: the host, and the port if it is a single one.
    pub(in super::super) fn answers_from(&self, target: Target) -> Option<(Ipv4Addr, Option<u16>)> {
        match target.redirect {
            Redirect::Forward(index) => {
                let forward = self.policy.forwards.get(index)?;
                let port = forward.ports.is_single().then(|| forward.to_port.unwrap_or(forward.ports.first));
                Some((forward.to, port))
            }
            Redirect::Static(public) => self.statics.get(&public).map(|(private, _)| (*private, None)),
        }
    }
}

fn are_few(ports: &[Ports]) -> bool {
    ports.iter().map(|ports| u32::from(ports.last - ports.first) + 1).sum::<u32>() <= NAMED_PORTS
}
