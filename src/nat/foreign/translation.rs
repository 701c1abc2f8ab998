//! Rules of other programs that translate addresses, or keep packets out of connection tracking.
//!
//! They do not bypass ours: our nat chains come first, a flow that another program has translated passes only where the
//! configuration allows it by its real addresses, and what is not tracked does not leave with a private source. But
//! whoever wrote them wants something that they do not do, so they are named, with the commands that remove them.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::super::model::TABLE;
use super::Value;
use super::advice::chain_name;
use super::drop_chain::{Owner, RuleSystem, is_kept_by_a_program};
use super::iptables_words::words_of;
use super::rule::{includes_interface, networks, words};
use super::{objects, paths};
use crate::config::Config;
use crate::inputs::Tunnel;
use crate::net::{InterfaceName, is_private, overlap};
use crate::outcome::Problem;
use crate::site::{PrivateLink, Site};

/// How many chains of one table are read at most.
pub(super) const MAX_CHAINS_READ: usize = 32;
/// How many commands one message has at most.
const COMMANDS_SHOWN: usize = 3;
/// The priority of connection tracking: `notrack` has an effect before it only.
const CONNTRACK: i64 = -200;

/// What a rule does to the packets that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// It changes their source.
    Source,
    /// It changes their destination.
    Destination,
    /// It leads them to this server itself.
    Redirect,
    /// It keeps them out of connection tracking.
    NoTrack,
}

/// Such a rule, as far as it is understood: a condition that is not counts as one that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Translation {
    pub(super) place: Place,
    pub(super) effect: Effect,
    /// The interfaces by which packets come in; empty: any.
    pub(super) from: Vec<String>,
    /// The interfaces by which they leave; empty: any.
    pub(super) to: Vec<String>,
    /// Their sources; empty: any.
    pub(super) sources: Vec<Ipv4Net>,
    /// Their destinations; empty: any.
    pub(super) destinations: Vec<Ipv4Net>,
    /// Whether it is for packets to this server's own addresses only.
    pub(super) to_this_server: bool,
    /// The new destination, if it is known.
    pub(super) target: Option<Ipv4Net>,
    /// The command that removes the rule.
    pub(super) removal: String,
}

/// The chain of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) system: RuleSystem,
    pub(super) family: String,
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) owner: Owner,
}

/// A table of another program whose rules may translate, and its chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NatTable {
    pub(super) family: String,
    pub(super) name: String,
    pub(super) owner: Owner,
    pub(super) chains: Vec<String>,
}

/// The tables in a listing of all chains that have a nat chain, or a chain before connection tracking.
pub(super) fn nat_tables(listing: &str) -> Vec<NatTable> {
    let chains = objects(listing, "chain");
    let mut tables: Vec<NatTable> = Vec::new();
    for chain in &chains {
        let Some((family, table, _)) = foreign_name(chain) else { continue };
        let before_tracking = matches!(chain["hook"].as_str(), Some("prerouting" | "output"))
            && chain["prio"].as_i64().is_some_and(|priority| priority < CONNTRACK);
        let is_known = tables.iter().any(|known| (known.family.as_str(), known.name.as_str()) == (family, table));
        if is_known || !(chain["type"] == "nat" || before_tracking) {
            continue;
        }
        let names = chains.iter().filter(|other| other["family"] == family && other["table"] == table);
        let names = names.filter_map(|other| other["name"].as_str());
        let owner = Owner::from_chains(family, table, &names);
        let chains = names.take(MAX_CHAINS_READ).map(str::to_owned).collect();
        tables.push(NatTable { family: family.to_owned(), name: table.to_owned(), owner, chains });
    }
    tables
}

/// Family, table and name of a chain that translates IPv4 and is not ours.
fn foreign_name(chain: &Value) -> Option<(&str, &str, &str)> {
    let text = |key| chain.get(key).and_then(Value::as_str);
    let name = (text("family")?, text("table")?, text("name")?);
    (matches!(name.0, "ip" | "inet") && (name.0, name.1) != ("inet", TABLE)).then_some(name)
}

/// The nat chains of other programs in a listing of all chains that the kernel asks before ours or among them, each
/// with the number that tells it from one that replaces it. `tables`: a listing of all tables.
pub(super) fn rivals(chains: &str, tables: &str, ours: i32) -> Vec<String> {
    let tables = objects(tables, "table");
    let table_handle = |family: &str, name: &str| {
        tables.iter().find(|table| table["family"] == family && table["name"] == name).map(|table| &table["handle"])
    };
    let describe = |chain: &Value| {
        let (family, table, name) = foreign_name(chain)?;
        let is_first = chain["type"] == "nat" && chain["prio"].as_i64()? <= i64::from(ours);
        let table_handle = table_handle(family, table).cloned().unwrap_or_default();
        is_first.then(|| format!("chain {name} of table {family} {table} ({table_handle}/{})", chain["handle"]))
    };
    objects(chains, "chain").iter().filter_map(describe).collect()
}

/// The rules in the listing of a chain. `None` if one is iptables' own: nft does not show what it does.
pub(super) fn read_rules(place: &Place, listing: &str) -> Option<Vec<Translation>> {
    let rules = objects(listing, "rule");
    let statements = |rule: &Value| rule["expr"].as_array().cloned().unwrap_or_default();
    let is_of_iptables =
        |rule: &Value| statements(rule).iter().any(|statement| statement["xt"]["type"].as_str() == Some("target"));
    if rules.iter().any(is_of_iptables) {
        return None;
    }
    Some(rules.iter().filter_map(|rule| read_rule(place, rule, &statements(rule))).collect())
}

fn read_rule(place: &Place, rule: &Value, statements: &[Value]) -> Option<Translation> {
    let Place { family, table, chain, .. } = place;
    let (mut effect, mut target) = (None, None);
    let (mut from, mut to, mut sources, mut destinations) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut to_this_server = false;
    for statement in statements {
        let (kind, body) = statement.as_object()?.iter().next()?;
        match kind.as_str() {
            "snat" | "masquerade" => effect = Some(Effect::Source),
            "dnat" => {
                effect = Some(Effect::Destination);
                target = networks(&body["addr"]).and_then(|targets| targets.first().copied());
            }
            "redirect" => effect = Some(Effect::Redirect),
            "notrack" => effect = Some(Effect::NoTrack),
            "match" if matches!(body["op"].as_str(), Some("==" | "in")) => {
                let (left, right) = (&body["left"], &body["right"]);
                match (left["meta"]["key"].as_str(), left["payload"]["field"].as_str()) {
                    (Some("iifname" | "iif"), _) => from = words(right).unwrap_or_default(),
                    (Some("oifname" | "oif"), _) => to = words(right).unwrap_or_default(),
                    (_, Some("saddr")) => sources = networks(right).unwrap_or_default(),
                    (_, Some("daddr")) => destinations = networks(right).unwrap_or_default(),
                    _ => to_this_server |= left.get("fib").is_some(),
                }
            }
            _ => {}
        }
    }
    let removal = format!("nft delete rule {family} {table} {chain} handle {}", rule["handle"]);
    let place = place.clone();
    Some(Translation { place, effect: effect?, from, to, sources, destinations, to_this_server, target, removal })
}

/// The rules in the output of `iptables -t TABLE -S`.
pub(super) fn read_iptables(listing: &str, system: RuleSystem, table: &str) -> Vec<Translation> {
    let lines: Vec<Vec<&str>> = listing.lines().map(words_of).collect();
    let chains = lines.iter().filter_map(|line| match line[..] {
        ["-N" | "-P", chain, ..] => Some(chain),
        _ => None,
    });
    let owner = Owner::from_chains("ip", table, &chains);
    let place = |chain: &str| Place {
        system,
        family: "ip".to_owned(),
        table: table.to_owned(),
        chain: chain.to_owned(),
        owner,
    };
    let rules = lines.iter().zip(listing.lines()).filter_map(|(line, text)| match line[..] {
        ["-A", chain, ref rest @ ..] => read_iptables_rule(place(chain), text, rest),
        _ => None,
    });
    rules.collect()
}

fn read_iptables_rule(place: Place, text: &str, mut rest: &[&str]) -> Option<Translation> {
    let (mut effect, mut target) = (None, None);
    let (mut from, mut to, mut sources, mut destinations) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut to_this_server = false;
    while let [option, more @ ..] = rest {
        let value = more.first().copied().unwrap_or_default();
        match *option {
            // What it excludes may be anything else.
            "!" => rest = &more[more.len().min(1)..],
            "-s" => sources = value.parse().into_iter().collect(),
            "-d" => destinations = value.parse().into_iter().collect(),
            "--dst-type" => to_this_server = true,
            "-i" => from = vec![value.replace('+', "*")],
            "-o" => to = vec![value.replace('+', "*")],
            "-j" => match value {
                "MASQUERADE" | "SNAT" => effect = Some(Effect::Source),
                "NETMAP" if place.chain == "POSTROUTING" => effect = Some(Effect::Source),
                "DNAT" | "NETMAP" => effect = Some(Effect::Destination),
                "REDIRECT" => effect = Some(Effect::Redirect),
                "NOTRACK" => effect = Some(Effect::NoTrack),
                _ => {}
            },
            "--notrack" => effect = Some(Effect::NoTrack),
            "--to-destination" | "--to" => target = first_address(value),
            _ => {}
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    let program = match place.system {
        RuleSystem::Nftables => "iptables",
        RuleSystem::LegacyIptables => "iptables-legacy",
    };
    let removal = format!("{program} -t {} {}", place.table, text.trim().replacen("-A ", "-D ", 1));
    Some(Translation { place, effect: effect?, from, to, sources, destinations, to_this_server, target, removal })
}

/// The first address of `ADDRESS[-ADDRESS][:PORT]`, or the range `NETWORK`.
fn first_address(value: &str) -> Option<Ipv4Net> {
    let address = value.split([':', '-']).next().unwrap_or_default();
    address.parse().ok().or_else(|| address.parse().ok().map(|address: std::net::Ipv4Addr| address.into()))
}

/// What these rules want of our networks, a message for each chain and effect: problems, and hints.
pub(super) fn report(
    rules: &[Translation],
    config: &Config,
    site: &Site,
    tunnel: Option<&Tunnel>,
) -> (Vec<Problem>, Vec<Problem>) {
    let ours = Ours::new(config, site, tunnel);
    let mut chains: BTreeMap<(&Place, Effect), Vec<&Translation>> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| ours.are_touched_by(rule)) {
        chains.entry((&rule.place, rule.effect)).or_default().push(rule);
    }
    let (mut problems, mut hints) = (Vec::new(), Vec::new());
    for ((place, effect), rules) in chains {
        let stops = effect == Effect::NoTrack || rules.iter().any(|rule| ours.lose_flows_by(rule, config));
        let list = if stops { &mut problems } else { &mut hints };
        list.push(message(place, effect, &rules));
    }
    (problems, hints)
}

/// What belongs to us.
struct Ours {
    links: Vec<InterfaceName>,
    private_links: Vec<InterfaceName>,
    ranges: Vec<Ipv4Net>,
    /// This server's public addresses.
    public: Vec<Ipv4Net>,
}

impl Ours {
    fn new(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Self {
        let paths = paths::forward_paths(config, site, tunnel);
        let links = paths.iter().flat_map(|path| [path.from.clone(), path.to.clone()]).collect();
        let tunnel = tunnel.map(Tunnel::routed).unwrap_or_default();
        let private_links = site.private.iter().filter(|link| !link.is_local).map(|link| link.interface.clone());
        let public = site.public.iter().flat_map(|public| public.addresses.iter().copied().map(Ipv4Net::from));
        let (private_links, public) = (private_links.collect(), public.collect());
        Self {
            links,
            private_links,
            public,
            ranges: site.private.iter().flat_map(PrivateLink::ranges).chain(tunnel).collect(),
        }
    }

    fn are_touched_by(&self, rule: &Translation) -> bool {
        let is_link = |names: &[String]| {
            names.is_empty() || self.links.iter().any(|link| includes_interface(names, link.as_str()))
        };
        let is_ours = |range: &Ipv4Net| self.ranges.iter().any(|ours| overlap(*ours, *range));
        let has_sources = rule.sources.is_empty() || rule.sources.iter().any(is_ours);
        is_link(&rule.from)
            && is_link(&rule.to)
            && match rule.effect {
                // Without an interface and a source it may be limited by a mark: it is named all the same.
                Effect::Source | Effect::NoTrack => has_sources,
                Effect::Destination => match &rule.target {
                    Some(target) => is_ours(target) || self.catch(rule),
                    None => true,
                },
                Effect::Redirect => true,
            }
    }

    /// Whether a rule changes the destination of flows from private hosts to the internet.
    fn catch(&self, rule: &Translation) -> bool {
        let from_inside =
            rule.from.is_empty() || self.private_links.iter().any(|link| includes_interface(&rule.from, link.as_str()));
        let is_ours = |range: &Ipv4Net| self.ranges.iter().any(|ours| overlap(*ours, *range));
        let on_internet = |range: &Ipv4Net| !is_private(*range) && !self.public.contains(range);
        let is_of_a_program = is_kept_by_a_program(&rule.place.chain)
            || matches!(rule.place.owner, Owner::DockerBridges | Owner::Firewalld | Owner::Libvirt);
        matches!(rule.effect, Effect::Destination | Effect::Redirect)
            && from_inside
            && !rule.to_this_server
            && !is_of_a_program
            && rule.place.chain != "OUTPUT"
            && (rule.sources.is_empty() || rule.sources.iter().any(is_ours))
            && (rule.destinations.is_empty() || rule.destinations.iter().any(on_internet))
    }

    /// Whether private hosts lose flows to the internet by a rule: our rules let them pass to where they were meant to
    /// go, and not to where it leads them.
    fn lose_flows_by(&self, rule: &Translation, config: &Config) -> bool {
        let allowed = |target: Ipv4Net| {
            config.tenants.iter().any(|line| line.to.is_empty() || line.to.iter().any(|to| overlap(*to, target)))
        };
        self.catch(rule)
            && match (rule.effect, rule.target) {
                (Effect::Redirect, _) => config.firewall.services.is_empty(),
                (_, Some(target)) => is_private(target) && !allowed(target),
                (_, None) => false,
            }
    }
}

fn message(place: &Place, effect: Effect, rules: &[&Translation]) -> Problem {
    let Place { system, family, table, chain, owner } = place;
    let name = chain_name(*system, family, table, chain, *owner);
    let mut commands: Vec<&str> = rules.iter().take(COMMANDS_SHOWN).map(|rule| rule.removal.as_str()).collect();
    let more = format!("and {} more of its rules", rules.len().saturating_sub(COMMANDS_SHOWN));
    if rules.len() > COMMANDS_SHOWN {
        commands.push(&more);
    }
    let commands = commands.join("; ");
    match effect {
        Effect::Source => Problem::new(
            "foreign-source-nat",
            format!(
                "{name} translates sources of our networks too; our rules come first, so it changes no flow that \
                 bastiond forwards"
            ),
            format!("remove its rule, so that nobody relies on it: {commands}"),
        ),
        Effect::Destination => {
            let mut targets: Vec<String> = rules.iter().filter_map(|rule| rule.target).map(shown).collect();
            targets.dedup();
            targets.truncate(COMMANDS_SHOWN);
            let targets = if targets.is_empty() { String::new() } else { format!(", to {}", targets.join(", ")) };
            Problem::new(
                "foreign-destination-nat",
                format!(
                    "{name} changes destinations of flows on our links{targets}; such a flow passes only where \
                     bastiond's own configuration allows it by its real addresses"
                ),
                format!("write it as a [[nat.forward]], and remove its rule: {commands}"),
            )
        }
        Effect::Redirect => Problem::new(
            "foreign-redirect",
            format!(
                "{name} redirects flows on our links to this server itself; they pass only where bastiond's own \
                 configuration opens that port"
            ),
            format!("open the port with [[firewall.service]] if it is wanted, or remove its rule: {commands}"),
        ),
        Effect::NoTrack => Problem::new(
            "foreign-notrack",
            format!(
                "{name} keeps packets on our links out of connection tracking; what is not tracked cannot be \
                 translated, so what private hosts send to the internet and this matches is dropped"
            ),
            format!("remove its rule, or limit it to other packets: {commands}"),
        ),
    }
}

/// A single address without its length.
fn shown(range: Ipv4Net) -> String {
    if range.prefix_len() == 32 { range.addr().to_string() } else { range.to_string() }
}

#[cfg(test)]
mod tests;
