//! The differential test: the rules in the kernel against the policy that decides about live flows.
//!
//! What may pass is evaluated twice: nftables decides about the first packet of a flow by the rules of the nat
//! component, and conntrack's `PolicyEvaluator` decides about the flow's entry when the configuration changes. If they
//! differ, a change of the configuration cuts a flow that the rules allow, or spares one that they do not. A third
//! evaluation, nat's forward paths, says which packets the chains of other programs must not drop. So random
//! configurations are loaded into a network namespace, real packets arrive on its links, and what becomes of each one
//! is compared with what the evaluator and the forward paths say of the flow.
//!
//! It can fail: without the rule that drops TCP port 25 in `src/nat/desired/egress.rs`, it finds within 2 000 pairs
//! flows that the rules forward and the policy blocks (`Blocked(Smtp)`). Each difference that it has found has a test
//! of its own in `src/conntrack/tests/permissions.rs`.
//!
//! By hand: `BASTIOND_DIFFERENTIAL_SEED=N` repeats the run that a failure names, from the configuration that failed on;
//! `BASTIOND_DIFFERENTIAL_PAIRS=N` compares N pairs of configuration and flow.

mod probes;
mod testbed;

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use bastiond::internals::config::{Config, Fastpath};
use bastiond::internals::conntrack::{BlockReason, Flow, Permission, Policy, PolicyEvaluator};
use bastiond::internals::hetzner::unroutable;
use bastiond::internals::inputs::{SeenReturnRoutes, Tunnel, tunnel};
use bastiond::internals::nat::{ForwardPath, Nat, Packets, forward_paths};
use bastiond::internals::outcome::State;
use bastiond::internals::site::{OtherRoute, PrivateLink, SeenOtherRoutes, Site, add_ranges_behind};
use fastrand::Rng;
use libtest_mimic::Trial;

use super::random::configuration;
use crate::gateway::{Result, ensure, trial};
use crate::table::{reconcile, site};
use probes::{Material, Source};
use testbed::{Fate, Probe, Testbed, redirected, untranslated};

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("the_rules_and_the_policy_of_live_flows_agree_on_random_configurations_and_flows", agree)]
}

/// How many pairs of configuration and flow are compared.
const PAIRS: usize = 6000;
/// How many flows there are for each configuration.
const FLOWS: u16 = 150;
/// How many configurations with a mismatch are shown.
const SHOWN: usize = 3;
/// A limit that no test reaches: limits are about numbers of flows, which the policy leaves out.
const UNREACHED: u32 = 1_000_000;

fn from_environment<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn agree() -> Result {
    let pairs = from_environment("BASTIOND_DIFFERENTIAL_PAIRS").unwrap_or(PAIRS);
    let seed = from_environment("BASTIOND_DIFFERENTIAL_SEED").unwrap_or_else(|| fastrand::u64(..));
    let testbed = Testbed::create()?;
    let memory = tempfile::tempdir()?;
    let mut nat = Nat::load(memory.path(), memory.path());
    let mut tally = Tally::default();
    let mut mismatches = Vec::new();
    for seed in (0..).map(|round| seed.wrapping_add(round)) {
        if tally.total() >= pairs || mismatches.len() >= SHOWN {
            break;
        }
        let named = |what: &str| format!("BASTIOND_DIFFERENTIAL_SEED={seed}\n{what}");
        let found = compare(&testbed, &mut nat, seed, &mut tally);
        let found = found.map_err(|failed| named(failed.message().unwrap_or_default()))?;
        mismatches.extend(found.map(|found| named(&found)));
    }
    println!("{tally}");
    ensure(mismatches.is_empty(), mismatches.join("\n\n"))?;
    // A test that compares nothing passes too.
    let is_wide = tally.allowed > tally.total() / 20 && tally.blocked > tally.total() / 20;
    ensure(is_wide && tally.other_protocols > 0, tally.to_string())
}

/// How many pairs there were of each kind.
#[derive(Default)]
struct Tally {
    /// Both allow it.
    allowed: usize,
    /// Both refuse it.
    blocked: usize,
    /// The policy does not cover it.
    unknown: usize,
    /// A source that its link does not have: the policy knows no links.
    spoofed: usize,
    /// Those allowed ones that are neither TCP, UDP nor ICMP.
    other_protocols: usize,
}

impl Tally {
    fn total(&self) -> usize {
        self.allowed + self.blocked + self.unknown + self.spoofed
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allowed, blocked, unknown, spoofed, other_protocols } = self;
        write!(
            f,
            "{allowed} flows pass, {other_protocols} of them of other protocols, {blocked} are blocked, {unknown} are \
             not covered, {spoofed} are spoofed"
        )
    }
}

/// What is compared for one configuration.
struct Case<'a> {
    text: String,
    site: &'a Site,
    tunnel: Option<&'a Tunnel>,
    evaluator: PolicyEvaluator<'a>,
    /// What other programs' chains have to let pass.
    paths: Vec<ForwardPath>,
}

fn compare(testbed: &Testbed, nat: &mut Nat, seed: u64, tally: &mut Tally) -> Result<Option<String>> {
    let mut rng = Rng::with_seed(seed);
    let (text, mut config) = configuration(&mut rng)?;
    simplify(&mut config, &mut rng);
    let mut site = site("everything")?;
    if rng.u8(0..4) == 0 {
        site.private.truncate(rng.usize(1..3));
    }
    if rng.u8(0..4) == 0 {
        site.public.iter_mut().for_each(|public| public.addresses.truncate(rng.usize(1..4)));
    }
    add_ranges_behind(&mut site, &config, &random_routes(&mut rng));
    let tunnel = tunnel(&config, &site, &SeenReturnRoutes::new());
    let outcome = reconcile(&testbed.bastion, nat, &config, &site);
    ensure(matches!(outcome.state, State::Ok | State::Waiting), format!("{outcome:?}\n{text}"))?;
    testbed.configure(&site, tunnel.as_ref())?;

    let policy = Policy::new(&config, &site, tunnel.as_ref(), None).ok_or("the site has a public address")?;
    let evaluator = PolicyEvaluator::new(&policy);
    let paths = forward_paths(&config, &site, tunnel.as_ref());
    let case = Case { text, paths, site: &site, tunnel: tunnel.as_ref(), evaluator };
    let material = Material::new(&config, &site, tunnel.as_ref());
    let probes: Vec<(Probe, Source)> =
        (20_000..20_000 + FLOWS).filter_map(|number| material.probe(&mut rng, number)).collect();
    let sent: Vec<Probe> = probes.iter().map(|(probe, _)| *probe).collect();
    let fates = testbed.send(&sent)?;
    let mut mismatches = Vec::new();
    for ((probe, source), fate) in probes.iter().zip(fates) {
        if case.verdict(probe, *source, &fate).is_err() {
            // Once more, alone: on a busy machine an answer may have been late.
            let again = testbed.send(&[*probe])?;
            if let Err(why) = case.verdict(probe, *source, &again[0]) {
                mismatches.push(format!("{probe}\n  the rules: {}\n  the policy: {why}", again[0]));
            }
        }
        match case.verdict(probe, *source, &fate) {
            Ok(Verdict::Allowed) => {
                tally.allowed += 1;
                tally.other_protocols += usize::from(![1, 6, 17].contains(&probe.tuple.protocol));
            }
            Ok(Verdict::Blocked) => tally.blocked += 1,
            Ok(Verdict::Unknown) => tally.unknown += 1,
            Ok(Verdict::Spoofed) | Err(_) => tally.spoofed += 1,
        }
    }
    Ok((!mismatches.is_empty()).then(|| case.describe(&mismatches)))
}

/// Routes of the cloud to other servers, some of them to what is the tunnel's, another network's, or nobody's.
fn random_routes(rng: &mut Rng) -> SeenOtherRoutes {
    let mut seen = SeenOtherRoutes::new();
    for (interface, gateway, destinations) in [
        ("eth1", [10, 0, 0, 4], ["10.9.0.0/16", "172.20.0.0/16", "10.3.128.0/17"]),
        ("eth2", [10, 2, 0, 4], ["10.244.0.0/16", "10.9.128.0/17", "0.0.0.0/0"]),
    ] {
        let chosen = destinations.into_iter().filter(|_| rng.bool());
        let route =
            |text: &str| OtherRoute { destination: text.parse().expect("a range"), gateway: Ipv4Addr::from(gateway) };
        seen.insert(interface.parse().expect("a name"), chosen.map(route).collect());
    }
    seen
}

/// Takes out what the policy leaves out: limits, and the flowtable, whose flows skip the rules.
fn simplify(config: &mut Config, rng: &mut Rng) {
    config.nat.fastpath = Fastpath::Off;
    let mut limit = || rng.bool().then_some(UNREACHED);
    (config.egress.new_flows_per_second, config.egress.max_flows) = (limit(), limit());
    (config.firewall.ssh_attempts, config.firewall.syns_per_second) = (limit(), limit());
    config.firewall.pings_per_second = limit();
}

/// What both say.
enum Verdict {
    Allowed,
    Blocked,
    Unknown,
    Spoofed,
}

impl Case<'_> {
    /// What the rules and the policy agree on, or why they do not.
    fn verdict(&self, probe: &Probe, source: Source, fate: &Fate) -> std::result::Result<Verdict, String> {
        if source == Source::Spoofed {
            let is_dropped = matches!(fate, Fate::Dropped);
            return if is_dropped {
                Ok(Verdict::Spoofed)
            } else {
                Err("its link does not have that source".to_owned())
            };
        }
        match *fate {
            Fate::Dropped => {
                let flow = self.expected_flow(probe);
                match self.evaluator.permission(&flow) {
                    Permission::Blocked(_) => Ok(Verdict::Blocked),
                    Permission::Unknown => Ok(Verdict::Unknown),
                    allowed => Err(format!("the policy allows it: {allowed:?}")),
                }
            }
            Fate::Untracked(_) => Err("every packet that leaves has a flow".to_owned()),
            Fate::Local(flow) => match self.evaluator.permission(&flow) {
                Permission::Service => Ok(Verdict::Allowed),
                Permission::Unknown if self.is_bastions(probe) => Ok(Verdict::Unknown),
                other => Err(format!("the policy says {other:?}")),
            },
            Fate::Forwarded { flow, link, answered } => {
                let (permission, to) = (self.evaluator.permission(&flow), probe.tuple.destination);
                let expected = match permission {
                    Permission::Forward(host, _) | Permission::Static(host) => self.link_of(host),
                    Permission::Egress => "eth0",
                    Permission::Tenant | Permission::Tunnel(_) => self.link_of(to),
                    // The first packet leaves, and `early` drops the answer.
                    Permission::Blocked(BlockReason::Blocklist) if !answered => return Ok(Verdict::Blocked),
                    other => return Err(format!("the policy says {other:?}")),
                };
                if let Some(why) = self.wrong_source(probe, &flow, permission, link) {
                    return Err(why);
                }
                if !self.has_path(probe, &flow, link) {
                    return Err(format!("it says {permission:?}, but there is no forward path to {link} and back"));
                }
                match (link == expected, answered) {
                    (true, true) => Ok(Verdict::Allowed),
                    (false, _) => Err(format!("the policy says {permission:?}, by {expected}")),
                    // Without the guard they leave, but `early` drops what comes from there.
                    (true, false) if unroutable(&self.public()).iter().any(|net| net.contains(&to)) => {
                        Ok(Verdict::Allowed)
                    }
                    (true, false) => Err(format!("the policy says {permission:?}, but no answer comes back")),
                }
            }
        }
    }

    /// What is wrong with the source that a private host sees of a forwarded flow from outside, or of any with `snat`.
    fn wrong_source(&self, probe: &Probe, flow: &Flow, permission: Permission, link: &str) -> Option<String> {
        if !matches!(permission, Permission::Forward(..)) {
            return None;
        }
        let own = self.site.private.iter().find(|private| private.interface.as_str() == link)?.address;
        let expected = match self.evaluator.hides_source(flow) {
            true => own,
            false if probe.link == "eth0" => probe.tuple.source,
            // Answers to private hosts come back here in any case.
            false => return None,
        };
        let seen = flow.reply.destination;
        (seen != expected).then(|| format!("the host sees {seen} instead of {expected}"))
    }

    /// The flow that the kernel would have for a dropped packet if the rules had accepted it.
    fn expected_flow(&self, probe: &Probe) -> Flow {
        let plain = untranslated(&probe.tuple);
        match self.evaluator.redirect_target(&plain) {
            Some((host, port)) => redirected(&probe.tuple, host, port),
            None => plain,
        }
    }

    /// Whether the forward paths, which nat compares with the chains of other programs, cover the flow and its answers.
    fn has_path(&self, probe: &Probe, flow: &Flow, link: &str) -> bool {
        let covers = |path: &&ForwardPath| match &path.packets {
            Packets::New(sources) => sources.iter().any(|range| range.contains(&probe.tuple.source)),
            Packets::Published => flow.is_redirected(),
            Packets::Answers => false,
        };
        let between = |from: &str, to: &str| {
            let (from, to) = (from.to_owned(), to.to_owned());
            self.paths.iter().filter(move |path| path.from.as_str() == from && path.to.as_str() == to)
        };
        between(probe.link, link).any(|path| covers(&path)) && between(link, probe.link).next().is_some()
    }

    fn public(&self) -> Vec<Ipv4Addr> {
        self.site.public.iter().flat_map(|link| link.addresses.iter().copied()).collect()
    }

    /// Whether the packet is for the bastion itself.
    fn is_bastions(&self, probe: &Probe) -> bool {
        let to = probe.tuple.destination;
        let private = self.site.private.iter().any(|link| link.address == to);
        private
            || self.public().contains(&to)
            || self.tunnel.iter().any(|tunnel| tunnel.addresses.iter().any(|net| net.addr() == to))
    }

    /// The link behind which a host is.
    fn link_of(&self, host: Ipv4Addr) -> &str {
        let routes = self.tunnel.iter().flat_map(|tunnel| tunnel.routed()).map(|range| (range, "wg0"));
        let private = self.site.private.iter();
        let private = private.flat_map(|link| link.ranges().map(|range| (range, link.interface.as_str())));
        let behind = routes.chain(private).filter(|(range, _)| range.contains(&host));
        behind.max_by_key(|(range, _)| range.prefix_len()).map_or("eth0", |(_, link)| link)
    }

    fn describe(&self, mismatches: &[String]) -> String {
        let link = |link: &PrivateLink| {
            let behind: Vec<String> = link.behind.iter().map(|range| format!(" with {range}")).collect();
            let behind = behind.concat();
            format!("{}{behind}", link.interface)
        };
        let links: Vec<String> = self.site.private.iter().map(link).collect();
        let (links, mismatches) = (links.join(", "), mismatches.join("\n"));
        format!("{mismatches}\nwith the private links {links} and the configuration\n{}", self.text)
    }
}
