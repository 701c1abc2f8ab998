//! Single rules of other programs that stop or spoil what our rules let pass: they drop it, write other addresses into
//! it, or hand it to a program on this server, which may not run.
//!
//! The chains that drop by their policy are [`super::drop_chain`]'s; here they count for what one of their rules drops
//! before another one accepts it. Only rules whose conditions are all understood count: a list of banned sources, a
//! rate, a mark may be what their author wants. Chains that Docker, ufw, firewalld and others keep for themselves are
//! not followed, only those that an operator fills.

mod conditions;
mod iptables;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::model::TABLE;
use super::super::nft::Nft;
use super::advice::chain_name;
use super::drop_chain::{Owner, RuleSystem, is_kept_by_a_program};
use super::paths::ForwardPath;
use super::rule::{Rule, hides_states};
use super::translation::Place;
use super::{legacy, objects};
use conditions::Conditions;
pub(super) use iptables::list_legacy;
pub(super) use report::{hidden_states, report};

/// How many chains are read for one base chain: firewalld has three for each zone and policy.
const MAX_CHAINS_READ: usize = 32;
/// How many rules are looked at for one base chain. Chains that lead to each other by many ways have no end.
const MAX_STEPS: usize = 20_000;
/// How many entries of a map of verdicts are looked at.
const MAX_ENTRIES: usize = 64;
/// What a rule does to the packets that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Drop,
    /// It writes another address, without connection tracking.
    Rewrite,
    /// It changes something else by which packets or their answers are lost: a port, the number of hops, the zone of
    /// connection tracking.
    Spoil,
    /// It hands them to a program on this server (`tproxy`).
    Intercept,
    /// It has a program on this server decide about them (`queue`), and drops them while there is none.
    Queue,
}

/// Where the kernel calls a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before the kernel knows by which interface a packet will leave.
    Arriving,
    Forwarding,
    Leaving,
}

/// A base chain of another program.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Base {
    place: Place,
    stage: Stage,
    /// The interfaces of a chain at `ingress` or `egress`; empty: all.
    devices: Vec<String>,
    end: End,
}

/// What happens to a packet that no rule of a base chain decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Accepted,
    /// It is dropped, and nothing else reports that.
    Dropped,
    /// It is dropped, and [`super::drop_chain`] reports the paths that none of its rules accepts.
    DroppedAsReported,
}

/// A rule, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReadRule {
    conditions: Conditions,
    verdict: Verdict,
    /// Whether nft does not show all that it says, such as which states it matches.
    is_hidden: bool,
    /// The command that removes it.
    removal: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Effect(Effect),
    /// The rule goes on in this chain, and comes back from it or not.
    To {
        chain: String,
        comes_back: bool,
    },
    Accept(Rule),
    Other,
}

/// A rule that may be in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    base: Base,
    effect: Effect,
    conditions: Conditions,
    /// The rules before it that accept something.
    accepted: Vec<Accepted>,
    /// All such rules of a chain that drops everything else; `None`: the chain accepts everything else. What no rule
    /// accepts is dropped anyway.
    accepted_at_all: Option<Vec<Accepted>>,
    removal: String,
}

/// A rule that accepts packets, or leads them past the next rules.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Accepted {
    /// Which packets reach it.
    reached: Conditions,
    rule: Rule,
    /// How deep the chain is that the packets leave for good; `None`: they leave all.
    leaves: Option<usize>,
}

impl Accepted {
    fn includes(&self, path: &ForwardPath) -> bool {
        self.rule.accepts_path(path) && self.reached.include_path(path)
    }
}

/// What is found in nftables.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) obstacles: Vec<Obstacle>,
    /// The chains with rules that drop by states of flows which neither nft nor iptables shows.
    pub(super) hidden: Vec<String>,
}

/// The obstacles in nftables. `listing`: a listing of all chains.
pub(super) async fn list(nft: &Nft, listing: &str) -> Found {
    let mut found = Found::default();
    for mut base in bases(listing) {
        let Place { system, family, table, chain, owner } = base.place.clone();
        let chains = read_chains(nft, &base.place).await;
        if family == "ip" && chains.values().flatten().any(|rule| rule.is_hidden) {
            if let Some(listing) = legacy::list_nft_table(&table).await {
                let read = iptables::read(system, &table, &listing);
                found.obstacles.extend(read.into_iter().filter(|obstacle| obstacle.base.place.chain == chain));
                continue;
            }
        }
        let drops_unseen = |rule: &ReadRule| rule.is_hidden && rule.verdict == Verdict::Effect(Effect::Drop);
        if chains.values().flatten().any(drops_unseen) {
            found.hidden.push(chain_name(system, &family, &table, &chain, owner));
        }
        if matches!(listing_hook(listing, &base.place).as_deref(), Some("ingress" | "egress")) {
            // Old versions of nft name the interfaces in the text only.
            let text = nft.run(&["list", "chain", &family, &table, &chain], None).await.unwrap_or_default();
            base.devices = devices(&text);
        }
        found.obstacles.extend(obstacles(&base, &chains));
    }
    found
}

/// The obstacles in a text that has all that nft lists, or all that iptables lists.
pub(super) fn read(text: &str) -> Vec<Obstacle> {
    let mut found = iptables::read(RuleSystem::LegacyIptables, "filter", text);
    let rules = objects(text, "rule");
    for base in bases(text) {
        let mut chains: BTreeMap<String, Vec<ReadRule>> = BTreeMap::new();
        for rule in &rules {
            let name = rule["chain"].as_str().unwrap_or_default().to_owned();
            chains.entry(name).or_default().extend(read_rules(&base.place, rule));
        }
        let devices = devices(text);
        found.extend(obstacles(&Base { devices, ..base }, &chains));
    }
    found
}

/// The rules of a base chain and of those that it leads to.
async fn read_chains(nft: &Nft, place: &Place) -> BTreeMap<String, Vec<ReadRule>> {
    let Place { family, table, chain, .. } = place;
    let mut chains: BTreeMap<String, Vec<ReadRule>> = BTreeMap::new();
    let mut unread = vec![chain.clone()];
    while let Some(name) = unread.pop().filter(|_| chains.len() < MAX_CHAINS_READ) {
        let listed = nft.run(&["-j", "list", "chain", family, table, &name], None).await.unwrap_or_default();
        let rules: Vec<ReadRule> = objects(&listed, "rule").iter().flat_map(|rule| read_rules(place, rule)).collect();
        let next = rules.iter().filter_map(|rule| match &rule.verdict {
            Verdict::To { chain: next, .. } if !is_kept_by_a_program(next) => Some(next.clone()),
            _ => None,
        });
        unread.extend(next.filter(|next| *next != name && !chains.contains_key(next)));
        chains.insert(name, rules);
    }
    chains
}

/// The base chains of others that see forwarded packets.
fn bases(listing: &str) -> Vec<Base> {
    let chains = objects(listing, "chain");
    let read = |chain: &Value| {
        let text = |key| chain.get(key).and_then(Value::as_str);
        let (family, table, name) = (text("family")?, text("table")?, text("name")?);
        let stage = match text("hook")? {
            "ingress" | "prerouting" => Stage::Arriving,
            "forward" => Stage::Forwarding,
            "postrouting" | "egress" => Stage::Leaving,
            _ => return None,
        };
        let drops_by_policy = text("policy") == Some("drop");
        let siblings = chains.iter().filter(|other| other["family"] == family && other["table"] == table);
        let siblings = siblings.filter_map(|other| other["name"].as_str());
        let owner = Owner::from_chains(family, table, &siblings);
        let is_ours = (family, table) == ("inet", TABLE) || !matches!(family, "ip" | "inet" | "netdev");
        if is_ours || text("type") == Some("nat") || owner == Owner::Firewalld && stage != Stage::Forwarding {
            return None;
        }
        let end = match stage {
            // firewalld rejects by its last rule, under a policy that accepts.
            Stage::Forwarding if drops_by_policy || owner == Owner::Firewalld => End::DroppedAsReported,
            _ if drops_by_policy => End::Dropped,
            _ => End::Accepted,
        };
        let [family, table, chain] = [family, table, name].map(str::to_owned);
        let place = Place { system: RuleSystem::Nftables, family, table, chain, owner };
        Some(Base { place, stage, devices: Vec::new(), end })
    };
    chains.iter().filter_map(read).collect()
}

fn listing_hook(listing: &str, place: &Place) -> Option<String> {
    let is_it = |chain: &&Value| {
        chain["family"] == *place.family && chain["table"] == *place.table && chain["name"] == *place.chain
    };
    objects(listing, "chain").iter().find(is_it)?["hook"].as_str().map(str::to_owned)
}

/// The interfaces in nft's text of a chain: `device "eth1"` or `devices = { "eth1", "eth2" }`.
fn devices(text: &str) -> Vec<String> {
    let Some(line) = text.lines().find(|line| line.trim_start().starts_with("type ")) else { return Vec::new() };
    let after = line.split_once(" device").map(|(_, after)| after).unwrap_or_default();
    let names = after.split(" priority ").next().unwrap_or_default();
    let is_part = |part: &&str| !part.is_empty() && *part != "s" && *part != "=";
    names.split(|character: char| " ={},\"".contains(character)).filter(is_part).map(str::to_owned).collect()
}

/// With so few hops left packets reach little of the internet.
const FEW_HOPS: u64 = 16;

/// Whether packets, or their answers, are lost by what a rule writes.
fn spoils(key: &Value, value: &Value) -> bool {
    let payload = &key["payload"];
    let has_few_hops = || payload["field"] == "ttl" && value.as_u64().is_some_and(|hops| hops <= FEW_HOPS);
    matches!(payload["field"].as_str(), Some("sport" | "dport" | "protocol" | "length")) || has_few_hops()
        // `ct zone set`, `ct original zone set`.
        || key["ct"]["key"] == "zone"
}

/// Whether what a rule writes may be an address. nft names no field for bytes that are written by their position.
fn writes_address(payload: &Value) -> bool {
    matches!(payload["field"].as_str(), Some("saddr" | "daddr")) || payload["base"] == "nh"
}

/// A rule, or one for each entry of its map of verdicts.
fn read_rules(place: &Place, rule: &Value) -> Vec<ReadRule> {
    let statements = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
    let map = statements.iter().position(|statement| statement["vmap"]["data"]["set"].is_array());
    let Some(position) = map else { return vec![read_rule(place, rule)] };
    let (key, entries) = (&statements[position]["vmap"]["key"], &statements[position]["vmap"]["data"]["set"]);
    let of_entry = |entry: &Value| {
        let matched = json!({ "match": { "op": "==", "left": key, "right": entry[0] } });
        let statements = [&statements[..position], &[matched, entry[1].clone()], &statements[position + 1..]].concat();
        let mut rule = rule.clone();
        rule["expr"] = Value::Array(statements);
        read_rule(place, &rule)
    };
    entries.as_array().into_iter().flatten().take(MAX_ENTRIES).map(of_entry).collect()
}

fn read_rule(place: &Place, rule: &Value) -> ReadRule {
    let Place { family, table, chain: base, .. } = place;
    let chain = rule["chain"].as_str().unwrap_or(base);
    let mut conditions = Conditions::default();
    let mut verdict = Verdict::Other;
    let mut hides = false;
    for statement in rule["expr"].as_array().into_iter().flatten() {
        let Some((kind, body)) = statement.as_object().and_then(|statement| statement.iter().next()) else { continue };
        match (kind.as_str(), body["type"].as_str(), body["name"].as_str()) {
            ("match", ..) => conditions.add_match(body),
            ("drop" | "reject", ..) | ("xt", Some("target"), Some("DROP" | "REJECT")) => {
                verdict = Verdict::Effect(Effect::Drop);
            }
            ("accept", ..) if verdict == Verdict::Other => {
                verdict = Rule::from_json(rule).map_or(Verdict::Other, Verdict::Accept);
            }
            ("jump" | "goto", ..) => {
                let to = |target: &str| Verdict::To { chain: target.to_owned(), comes_back: kind == "jump" };
                verdict = body["target"].as_str().map_or(Verdict::Other, to);
            }
            ("mangle", ..) if writes_address(&body["key"]["payload"]) => {
                verdict = Verdict::Effect(Effect::Rewrite);
            }
            ("mangle", ..) if spoils(&body["key"], &body["value"]) => verdict = Verdict::Effect(Effect::Spoil),
            ("tproxy", ..) => verdict = Verdict::Effect(Effect::Intercept),
            ("queue", ..) if !body["flags"].to_string().contains("bypass") => {
                verdict = Verdict::Effect(Effect::Queue);
            }
            ("xt", Some("target"), Some("NFQUEUE")) => {
                verdict = Verdict::Effect(Effect::Queue);
                hides = true;
            }
            ("xt", Some("match"), Some("iprange")) | ("xt", Some("target"), Some("TTL" | "CT")) => {
                conditions.add_unknown();
                hides = true;
            }
            ("counter" | "log" | "comment" | "accept" | "mangle" | "queue", ..) | ("xt", _, Some("comment")) => {}
            _ => conditions.add_unknown(),
        }
    }
    let removal = format!("nft delete rule {family} {table} {chain} handle {}", rule["handle"]);
    ReadRule { conditions, verdict, is_hidden: hides || hides_states(rule), removal }
}

/// The obstacles of a base chain and the chains that it leads to.
fn obstacles(base: &Base, chains: &BTreeMap<String, Vec<ReadRule>>) -> Vec<Obstacle> {
    let mut walk = Walk { base, chains, accepted: Vec::new(), found: Vec::new(), steps: 0 };
    walk.through(&base.place.chain, &Conditions::default(), &BTreeSet::new());
    let Walk { accepted, mut found, .. } = walk;
    match base.end {
        End::Accepted => {}
        End::Dropped => {
            let Place { system, family, table, chain, .. } = &base.place;
            let removal = match system {
                RuleSystem::Nftables => format!("nft chain {family} {table} {chain} '{{ policy accept; }}'"),
                RuleSystem::LegacyIptables => format!("iptables-legacy -t {table} -P {chain} ACCEPT"),
            };
            let (base, conditions) = (base.clone(), Conditions::default());
            found.push(Obstacle { base, effect: Effect::Drop, conditions, accepted, accepted_at_all: None, removal });
        }
        End::DroppedAsReported => {
            for obstacle in &mut found {
                obstacle.accepted_at_all = Some(accepted.clone());
            }
        }
    }
    found
}

/// The way of a packet through a base chain and the chains that it leads to.
struct Walk<'a> {
    base: &'a Base,
    chains: &'a BTreeMap<String, Vec<ReadRule>>,
    /// What the rules so far accept.
    accepted: Vec<Accepted>,
    found: Vec<Obstacle>,
    /// How many rules were met.
    steps: usize,
}

impl Walk<'_> {
    /// Goes through one chain. `visited`: the chains on the way to it.
    fn through(&mut self, chain: &str, reached: &Conditions, visited: &BTreeSet<&str>) {
        let chains = self.chains;
        let depth = visited.len();
        for rule in chains.get(chain).into_iter().flatten() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return;
            }
            let conditions = reached.and(&rule.conditions);
            match &rule.verdict {
                Verdict::Effect(effect) => {
                    if *effect != Effect::Drop || self.is_of_operator(chain) {
                        self.found.push(Obstacle {
                            base: self.base.clone(),
                            effect: *effect,
                            conditions,
                            accepted: self.accepted.clone(),
                            accepted_at_all: None,
                            removal: rule.removal.clone(),
                        });
                    }
                }
                Verdict::Accept(rule) => {
                    self.accepted.push(Accepted { reached: reached.clone(), rule: rule.clone(), leaves: None });
                }
                Verdict::To { chain: next, comes_back } => {
                    if !visited.contains(next.as_str()) {
                        let visited = visited.iter().copied().chain([chain]).collect();
                        self.through(next, &conditions, &visited);
                    }
                    if !comes_back {
                        let leaving = Accepted { reached: conditions, rule: Rule::default(), leaves: Some(depth) };
                        self.accepted.push(leaving);
                    }
                }
                Verdict::Other => {}
            }
        }
        self.accepted.retain(|accepted| accepted.leaves != Some(depth));
    }

    /// Whether what is dropped in this chain is what an operator wrote there. firewalld ends each zone by a rule that
    /// rejects what nothing accepted.
    fn is_of_operator(&self, chain: &str) -> bool {
        self.base.place.owner != Owner::Firewalld || chain.ends_with("_deny")
    }
}

/// Whether one of these rules writes addresses into packets.
pub(super) fn rewrites_addresses(obstacles: &[Obstacle]) -> bool {
    obstacles.iter().any(|obstacle| obstacle.effect == Effect::Rewrite)
}

#[cfg(test)]
mod tests;
