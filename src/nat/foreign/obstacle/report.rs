//! Which traffic that the configuration allows is stopped by other programs' rules, in an operator's words.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use super::super::advice::chain_name;
use super::super::drop_chain::Owner;
use super::super::paths::{self, ForwardPath, Packets};
use super::super::translation::Place;
use super::conditions::{Extent, Passing, Side};
use super::{Accepted, Effect, Obstacle, Stage};
use crate::config::Config;
use crate::inputs::Tunnel;
use crate::net::InterfaceName;
use crate::outcome::Problem;
use crate::site::{PrivateLink, Site};

/// How many rules one message names.
const SHOWN: usize = 3;

/// An obstacle in the way of these paths.
struct Hit<'a> {
    obstacle: &'a Obstacle,
    extent: Extent,
    paths: Vec<&'a ForwardPath>,
}

/// Says that a chain drops by states that are not shown.
pub(in super::super) fn hidden_states(chain: &str) -> Problem {
    Problem::new(
        "iptables-hidden",
        format!(
            "{chain} has rules that drop by the state of a flow, and nft does not show by which: this report does not \
             say what they drop"
        ),
        "install iptables, which shows them (iptables-nft -S), or look with it where it is installed",
    )
}

/// What these rules stop of the traffic that the configuration allows: problems, and hints where it is a part only.
pub(in super::super) fn report(
    obstacles: &[Obstacle],
    config: &Config,
    site: &Site,
    tunnel: Option<&Tunnel>,
) -> (Vec<Problem>, Vec<Problem>) {
    let paths = paths::forward_paths(config, site, tunnel);
    let mut groups: BTreeMap<(&Place, Effect), Vec<Hit<'_>>> = BTreeMap::new();
    for obstacle in obstacles {
        let hit = |path| Some((path, obstacle.extent(path, site, tunnel)?));
        let hit: Vec<(&ForwardPath, Extent)> = paths.iter().filter_map(hit).collect();
        let Some(extent) = hit.iter().map(|(_, extent)| *extent).max() else { continue };
        let paths = hit.iter().map(|(path, _)| *path).collect();
        groups.entry((&obstacle.base.place, obstacle.effect)).or_default().push(Hit { obstacle, extent, paths });
    }
    let (mut problems, mut hints) = (Vec::new(), Vec::new());
    for ((place, effect), hits) in groups {
        let is_whole = hits.iter().any(|hit| hit.extent == Extent::Whole);
        let is_problem = match effect {
            Effect::Drop | Effect::Spoil => is_whole,
            Effect::Rewrite => true,
            // Without a program that listens there, the packets pass; or usually it runs.
            Effect::Intercept | Effect::Queue => false,
        };
        let list = if is_problem { &mut problems } else { &mut hints };
        list.push(message(place, effect, &hits));
    }
    (problems, hints)
}

impl Obstacle {
    /// How much of a path it concerns.
    fn extent(&self, path: &ForwardPath, site: &Site, tunnel: Option<&Tunnel>) -> Option<Extent> {
        let at_device = |name: &InterfaceName| {
            self.base.devices.is_empty() || self.base.devices.iter().any(|device| device == name.as_str())
        };
        let sees = match self.base.stage {
            Stage::Arriving => at_device(&path.from),
            Stage::Forwarding => true,
            Stage::Leaving => at_device(&path.to),
        };
        let is_accepted = |rules: &[Accepted]| rules.iter().any(|rule| rule.includes(path));
        let is_dropped_anyway = self.accepted_at_all.as_deref().is_some_and(|rules| !is_accepted(rules));
        if !sees || is_dropped_anyway || is_accepted(&self.accepted) {
            return None;
        }
        let public = site.public.as_ref()?;
        let own = || public.addresses.iter().copied().map(Ipv4Net::from);
        let addresses_at = |name: &InterfaceName| {
            if *name == public.interface {
                return Side::Internet;
            }
            let link = site.private.iter().find(|link| link.interface == *name);
            let peers = tunnel.filter(|tunnel| tunnel.interface == *name).map(Tunnel::routed);
            Side::Inside(link.into_iter().flat_map(PrivateLink::ranges).chain(peers.into_iter().flatten()).collect())
        };
        let (mut source, mut destination) = (addresses_at(&path.from), addresses_at(&path.to));
        if let (Packets::New(sources), Side::Inside(ranges)) = (&path.packets, &mut source) {
            ranges.clone_from(sources);
        }
        // Before or after the translation: which of the two, a chain's priority says.
        match (self.base.stage, &mut source, &mut destination) {
            (Stage::Leaving, Side::Inside(ranges), Side::Internet)
            | (Stage::Arriving, Side::Internet, Side::Inside(ranges)) => ranges.extend(own()),
            _ => {}
        }
        let knows_exit = self.base.stage != Stage::Arriving;
        self.conditions.extent(&Passing { path, source, destination, knows_exit })
    }
}

fn message(place: &Place, effect: Effect, hits: &[Hit<'_>]) -> Problem {
    let Place { system, family, table, chain, owner } = place;
    let name = chain_name(*system, family, table, chain, *owner);
    let pairs: BTreeSet<String> =
        hits.iter().flat_map(|hit| &hit.paths).map(|path| format!("from {} to {}", path.from, path.to)).collect();
    let pairs = pairs.into_iter().collect::<Vec<_>>().join(", ");
    let mut packets: Vec<String> = hits.iter().map(|hit| hit.obstacle.conditions.text()).collect();
    let mut commands: Vec<&str> = hits.iter().map(|hit| hit.obstacle.removal.as_str()).collect();
    packets.dedup();
    commands.dedup();
    let more = commands.len().saturating_sub(SHOWN);
    packets.truncate(SHOWN);
    commands.truncate(SHOWN);
    let more = if more > 0 { format!(", and {more} more of its rules") } else { String::new() };
    let (packets, commands) = (packets.join("; "), commands.join("; "));
    match effect {
        Effect::Drop => Problem::new(
            "foreign-rule-drops",
            format!("{name} drops what our rules let pass: {packets}, {pairs}"),
            format!(
                "remove its rule{}, or write what it is for into the configuration (egress.deny, firewall.blocklist): \
                 {commands}{more}",
                for_good(*owner)
            ),
        ),
        Effect::Rewrite => Problem::new(
            "foreign-rewrite",
            format!(
                "{name} writes other addresses into packets between our links, past connection tracking: {packets}, \
                 {pairs}; their answers do not come back, and what would leave with a private source is dropped"
            ),
            format!("remove its rule: {commands}{more}"),
        ),
        Effect::Spoil => Problem::new(
            "foreign-rewrite",
            format!(
                "{name} changes a port, the hops that are left or the zone of connection tracking in packets between our \
                 links: {packets}, {pairs}; they or their answers are lost"
            ),
            format!("remove its rule: {commands}{more}"),
        ),
        Effect::Intercept => Problem::new(
            "foreign-redirect",
            format!("{name} hands packets between our links to a program on this server (tproxy): {packets}, {pairs}"),
            format!("remove its rule, if that is not wanted: {commands}{more}"),
        ),
        Effect::Queue => Problem::new(
            "foreign-queue",
            format!(
                "{name} has a program on this server decide about packets between our links (queue): {packets}, \
                 {pairs}; while that program does not run, they are dropped"
            ),
            format!(
                "let them pass without it (queue flags bypass, --queue-bypass), or remove the rule: {commands}{more}"
            ),
        ),
    }
}

/// How the rule is removed so that its program does not bring it back.
fn for_good(owner: Owner) -> &'static str {
    match owner {
        Owner::Ufw => ", for good by `ufw status numbered` and `ufw delete NUMBER`, or in /etc/ufw/before.rules",
        Owner::Firewalld => ", for good by `firewall-cmd --permanent` and --remove-rich-rule of its zone or policy",
        _ => "",
    }
}
