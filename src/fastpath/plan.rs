//! What is wanted and what stands in, what is to be done out. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Filter, Generation, HANDLE, Hook, LinkIndex, Loaded, Observed, Qdisc};
use crate::component;
use crate::net::InterfaceName;
use crate::outcome::Problem;

/// What the configuration wants of the fast path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing of it on this server.
    Nothing,
    /// It carries packets between these links, unless one of these programs of others needs every packet.
    Links {
        links: BTreeSet<InterfaceName>,
        /// What needs every packet, in an operator's words.
        needs_every_packet: Vec<String>,
    },
}

/// A program to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) link: LinkIndex,
    pub(super) name: InterfaceName,
    pub(super) hook: Hook,
}

/// What becomes of the generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The entries stay.
    Keep,
    /// All entries end, and others are made.
    Raise,
    /// All entries end.
    Off,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Written first if it is [`Turn::Off`], otherwise last.
    pub(super) turn: Turn,
    /// Whether the programs of this version are missing, so that the package's root program has to load them.
    pub(super) request: bool,
    pub(super) detach: Vec<Filter>,
    /// Links whose clsact goes, with the notes.
    pub(super) remove_qdiscs: BTreeSet<LinkIndex>,
    /// Notes of links that are gone.
    pub(super) forget_qdiscs: BTreeSet<LinkIndex>,
    pub(super) add_qdiscs: BTreeSet<LinkIndex>,
    pub(super) attach: Vec<Attachment>,
    /// Directories of other versions.
    pub(super) remove_versions: BTreeSet<String>,
    /// Whether the files of this version go too.
    pub(super) remove_this_version: bool,
    /// Why packets are not carried although they should be.
    pub(super) aside: Vec<String>,
}

impl component::Plan for Plan {
    fn steps(&self) -> Vec<String> {
        let detached = self.detach.iter().map(|filter| format!("detach {} from link {}", filter.hook, filter.link.0));
        let attached = self.attach.iter().map(|Attachment { name, hook, .. }| format!("attach to {hook} of {name}"));
        let loaded = self.request.then(|| "have the programs loaded".to_owned());
        loaded.into_iter().chain(detached).chain(attached).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        if self.request { vec![not_loaded()] } else { Vec::new() }
    }
}

/// The problem of programs that are not loaded.
pub(super) fn not_loaded() -> Problem {
    Problem::new(
        "fastpath-not-loaded",
        "the programs of the fast path are not loaded; all packets take the kernel's path",
        "the daemon's unit needs the drop-in fastpath.conf (docs/gateway.md); then bastiond-fastpath.service loads them, \
         and `journalctl -u bastiond-fastpath` says why it cannot. Without systemd, run bastiond-fastpath as root",
    )
}

impl Plan {
    fn nothing() -> Self {
        Self {
            turn: Turn::Keep,
            request: false,
            detach: Vec::new(),
            remove_qdiscs: BTreeSet::new(),
            forget_qdiscs: BTreeSet::new(),
            add_qdiscs: BTreeSet::new(),
            attach: Vec::new(),
            remove_versions: BTreeSet::new(),
            remove_this_version: false,
            aside: Vec::new(),
        }
    }

    /// Whether anything but the generation changes.
    pub(super) fn changes_something(&self) -> bool {
        *self != Self { turn: self.turn, request: self.request, aside: self.aside.clone(), ..Self::nothing() }
    }
}

/// `has_changed`: whether anything else has been changed since the generation was raised last: rules, flows, links.
pub(super) fn plan(wanted: &Wanted, observed: &Observed, has_changed: bool) -> Plan {
    match wanted {
        Wanted::Nothing => Plan {
            remove_versions: observed.other_versions.clone(),
            remove_this_version: observed.loaded.is_some(),
            ..without_filters(observed, |_| false)
        },
        Wanted::Links { links, needs_every_packet } => {
            let links: BTreeMap<LinkIndex, &InterfaceName> =
                links.iter().filter_map(|name| Some((*observed.links.get(name)?, name))).collect();
            let mut aside = needs_every_packet.clone();
            aside.extend(obstacles(&links, observed));
            // The kernel loses a packet when clsact comes or goes, so it stays where programs are to stand later.
            let is_used = |link| links.contains_key(&link);
            match &observed.loaded {
                _ if !aside.is_empty() => Plan { aside, ..without_filters(observed, is_used) },
                // Filters of another version cannot be told that the rules have changed.
                None => Plan { request: true, ..without_filters(observed, is_used) },
                Some(loaded) => carrying(&links, observed, *loaded, has_changed),
            }
        }
    }
}

/// Nothing of ours stands at any link, but clsact where it is used.
fn without_filters(observed: &Observed, is_used: impl Fn(LinkIndex) -> bool) -> Plan {
    let is_on = observed.loaded.is_some_and(|loaded| loaded.generation != Generation::OFF);
    let (remove_qdiscs, forget_qdiscs) = unused_qdiscs(observed, is_used);
    Plan {
        turn: if is_on { Turn::Off } else { Turn::Keep },
        detach: observed.filters.iter().filter(|filter| filter.is_ours()).cloned().collect(),
        remove_qdiscs,
        forget_qdiscs,
        ..Plan::nothing()
    }
}

/// The links whose clsact we made and that is of no more use, and those of which only the note is left. One with
/// filters of others stays: they have come to rely on it.
fn unused_qdiscs(
    observed: &Observed,
    is_used: impl Fn(LinkIndex) -> bool,
) -> (BTreeSet<LinkIndex>, BTreeSet<LinkIndex>) {
    let has_strangers = |link| observed.filters.iter().any(|filter| filter.link == link && !filter.is_ours());
    let unused = observed.made_qdiscs.iter().copied().filter(|link| !is_used(*link));
    let (stand, gone): (BTreeSet<_>, _) =
        unused.partition(|link| observed.qdiscs.get(link) == Some(&Qdisc::Clsact) && !has_strangers(*link));
    (stand, gone)
}

fn carrying(
    links: &BTreeMap<LinkIndex, &InterfaceName>,
    observed: &Observed,
    loaded: Loaded,
    has_changed: bool,
) -> Plan {
    let places: Vec<Attachment> = Hook::ALL
        .into_iter()
        .flat_map(|hook| links.iter().map(move |(link, name)| Attachment { link: *link, name: (*name).clone(), hook }))
        .collect();
    let is_place_of = |filter: &Filter, place: &Attachment| {
        (filter.link, filter.hook) == (place.link, place.hook)
            && (filter.priority, filter.handle) == (place.hook.priority(), HANDLE)
    };
    let stands = |place: &Attachment| {
        let program = Some(loaded.program(place.hook));
        observed.filters.iter().any(|filter| is_place_of(filter, place) && filter.program == program)
    };
    // Where an earlier one stands in our place, it is replaced without a moment between the two.
    let is_kept = |filter: &Filter| places.iter().any(|place| is_place_of(filter, place));
    let detach = observed.filters.iter().filter(|filter| filter.is_ours() && !is_kept(filter)).cloned().collect();
    let attach: Vec<Attachment> = places.iter().filter(|place| !stands(place)).cloned().collect();
    let (remove_qdiscs, forget_qdiscs) = unused_qdiscs(observed, |link| links.contains_key(&link));
    let is_off = loaded.generation == Generation::OFF;
    Plan {
        turn: if has_changed || is_off || !attach.is_empty() { Turn::Raise } else { Turn::Keep },
        detach,
        remove_qdiscs,
        forget_qdiscs,
        add_qdiscs: links.keys().copied().filter(|link| !observed.qdiscs.contains_key(link)).collect(),
        attach,
        remove_versions: observed.other_versions.clone(),
        ..Plan::nothing()
    }
}

/// What at the links themselves, and in the kernel's settings, needs every packet.
fn obstacles(links: &BTreeMap<LinkIndex, &InterfaceName>, observed: &Observed) -> Vec<String> {
    let mut found = Vec::new();
    if !observed.is_tracking_liberal {
        found.push("net.netfilter.nf_conntrack_tcp_be_liberal is not 1, so connections would be cut".to_owned());
    }
    for (link, name) in links {
        if observed.tcx.contains(link) {
            found.push(format!("another program stands at tcx of {name}"));
        }
        if observed.qdiscs.get(link) == Some(&Qdisc::Ingress) {
            found.push(format!("{name} has an ingress qdisc, which has no egress; clsact would have one"));
        }
        let strangers = observed.filters.iter().filter(|filter| filter.link == *link && !filter.is_ours());
        // They would see other packets than those that are learnt and carried, or stand in our place.
        let in_our_place = strangers.filter(|filter| match filter.hook {
            Hook::Ingress => filter.priority >= Hook::Ingress.priority(),
            Hook::Egress => filter.priority <= Hook::Egress.priority(),
        });
        found.extend(
            in_our_place.map(|filter| {
                format!("a tc filter of priority {} stands at {} of {name}", filter.priority, filter.hook)
            }),
        );
    }
    found
}

#[cfg(test)]
mod tests;
