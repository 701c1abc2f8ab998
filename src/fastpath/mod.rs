//! The fast path: a flow cache in BPF that carries packets of established flows past most of the kernel's path.
//!
//! Owns the programs and maps below its directory of a BPF file system, its own filters of clsact, and the clsact that
//! it made itself. Never touches other filters and programs.
//!
//! Connection tracking stays the truth: the cache learns from packets that took the kernel's whole path, and forgets
//! after a second (`bpf/fastpath.c`). After every change of the rules, flows, links, addresses and routes by the
//! components before this one, the generation is raised, which ends all that was learnt before. A packet that was
//! judged before the change is not learnt after it: it carries the generation that it arrived under.
//!
//! The daemon cannot load programs. It asks for them by a file in the runtime directory, which a path unit watches, and
//! the program `bastiond-fastpath` loads them and gives the daemon the files that stand for them.

mod apply;
mod btf;
mod error;
mod filters;
mod load;
mod model;
mod object;
mod observe;
mod offsets;
mod pins;
mod plan;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use error::Error;
pub use load::{Error as LoadError, Owner, load};
pub(crate) use model::Observed;
pub(crate) use plan::Plan;

use crate::component::{Component, Steps};
use crate::config::Fastpath as Choice;
use crate::error::chain;
use crate::inputs::Inputs;
use crate::net::InterfaceName;
use crate::outcome::{ComponentName, Outcome, Problem, State};
use crate::site::Site;
use crate::{own_file, state};
use apply::Applied;
use model::Counters;
use pins::Pins;
use plan::{Turn, Wanted};

/// The file in the runtime directory whose change makes systemd start `bastiond-fastpath.service`.
const REQUEST_FILE: &str = "fastpath";
/// How often the programs are asked for while they do not come, and how often that is looked at.
const ASK_AGAIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// `/proc/sys`
const SYSCTLS: &str = "/proc/sys";

/// The component.
#[derive(Debug)]
pub(crate) struct Fastpath {
    pins: Pins,
    request: PathBuf,
    /// What of others needs every packet, beside what stands at links: chains of nftables and of the old iptables.
    needs_every_packet: Vec<String>,
    /// Whether something has changed since the generation was raised last.
    has_changed: bool,
    /// The site for which the generation was raised last.
    site: Option<Site>,
    /// The links at which programs stood after the last pass: one that is missing later was detached by others.
    stood: Option<BTreeSet<InterfaceName>>,
    /// When the programs were asked for.
    asked: Option<Instant>,
    /// Whether the links have been looked at since the start, although nothing of ours is wanted.
    has_looked: bool,
}

impl Fastpath {
    /// A component that has not observed anything yet. `directory`: of a BPF file system.
    pub(crate) fn new(directory: PathBuf, runtime_directory: &Path) -> Self {
        Self {
            pins: Pins::new(directory),
            request: runtime_directory.join(REQUEST_FILE),
            needs_every_packet: Vec::new(),
            has_changed: false,
            site: None,
            stood: None,
            asked: None,
            has_looked: false,
        }
    }

    /// Notes that a component has changed something: what was learnt before counts no more.
    pub(crate) fn note_change(&mut self) {
        self.has_changed = true;
    }

    /// Notes which chains of others need every packet.
    pub(crate) fn note_strangers(&mut self, needs_every_packet: Vec<String>) {
        self.needs_every_packet = needs_every_packet;
    }

    fn wanted(&self, inputs: &Inputs<'_>) -> Wanted {
        if inputs.config.nat.fastpath != Choice::Bpf || inputs.site.public.is_none() {
            return Wanted::Nothing;
        }
        Wanted::Links {
            links: inputs.site.network_links().cloned().collect(),
            needs_every_packet: self.needs_every_packet.clone(),
        }
    }

    /// Carries the plan out, and keeps in mind that a generation is to be raised until that has worked.
    async fn carry_out(&mut self, plan: &Plan) -> Applied {
        let applied = apply::apply(&self.pins, plan).await;
        if applied.is_turned {
            self.has_changed = false;
        }
        applied
    }

    /// Asks for the programs, or ends that. An error here shows in the status too: they do not come.
    fn request(&mut self, is_wanted: bool, now: Instant) {
        if is_wanted && self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < ASK_AGAIN) {
            return;
        }
        self.asked = is_wanted.then_some(now);
        let done = if is_wanted {
            own_file::replace(&self.request, b"load\n").map_err(|error| chain(&error))
        } else {
            state::remove(&self.request).map_err(|error| chain(&error))
        };
        if let Err(error) = done {
            tracing::warn!(component = "fastpath", error, "the file that asks for the programs stays as it is");
        }
    }
}

impl Component for Fastpath {
    const NAME: ComponentName = ComponentName::Fastpath;
    type Observed = Observed;
    type Plan = Plan;
    type Error = Error;

    /// Where nothing is wanted and nothing is left, the kernel is asked once.
    async fn observe(&mut self, inputs: &Inputs<'_>) -> Result<Observed, Error> {
        let wanted = self.wanted(inputs);
        if wanted == Wanted::Nothing && self.has_looked && !observe::has_files(&self.pins)? {
            return Ok(Observed::default());
        }
        let links = inputs.site.network_links();
        match observe::observe(&self.pins, links, Path::new(SYSCTLS)).await {
            Ok(observed) => {
                self.has_looked = true;
                Ok(observed)
            }
            // A kernel without filters has none of ours.
            Err(Error::List { .. }) if wanted == Wanted::Nothing => {
                self.has_looked = true;
                Ok(Observed::default())
            }
            Err(error) => Err(error),
        }
    }

    fn plan(&self, inputs: &Inputs<'_>, observed: &Observed) -> Plan {
        let has_changed = self.has_changed || self.site.as_ref() != Some(inputs.site);
        plan::plan(&self.wanted(inputs), observed, has_changed)
    }

    async fn apply(&mut self, inputs: &Inputs<'_>, observed: Observed, plan: Plan) -> Outcome {
        let wanted = self.wanted(inputs);
        self.request(plan.request, inputs.now);
        let Applied { changes, problems, is_turned } = self.carry_out(&plan).await;
        if is_turned {
            self.site = Some(inputs.site.clone());
        }
        let links = match wanted {
            Wanted::Links { links, .. } if plan.aside.is_empty() && !plan.request => Some(links),
            _ => None,
        };
        let repaired = !plan.attach.is_empty() && links.is_some() && self.stood == links;
        self.stood = links.filter(|_| problems.is_empty());
        let mut outcome = match (&wanted_state(inputs, &plan), problems.is_empty()) {
            (_, false) => {
                Outcome::unchanged(State::Failed, "packets take the kernel's path where a program is missing")
            }
            (state, true) => {
                let counters = observed.loaded.map(|loaded| loaded.counters).unwrap_or_default();
                Outcome::unchanged(*state, detail(*state, &plan, counters))
            }
        };
        outcome.problems = problems;
        if plan.request {
            outcome.problems.push(plan::not_loaded());
        }
        outcome.next = plan.request.then_some(LOOK_AGAIN);
        outcome.hints = plan.aside.iter().map(|reason| aside(reason)).collect();
        Outcome { changes, repaired, ..outcome }
    }

    /// Rules that do not stand as they should judge nothing: what was learnt does not count either.
    async fn hold_back(&mut self, _: &Inputs<'_>, waits_for: ComponentName) -> Outcome {
        self.has_changed = true;
        let held_back = Outcome::unchanged(State::HeldBack, format!("waits for {waits_for}"));
        match self.pins.loaded() {
            Ok(None) => Outcome::unchanged(State::Off, "no fast path"),
            Ok(Some(_)) => match self.pins.switch_off() {
                Ok(()) => held_back,
                Err(error) => Outcome { problems: vec![Problem::from_error(&error)], ..held_back },
            },
            Err(error) => Outcome { problems: vec![Problem::from_error(&error)], ..held_back },
        }
    }

    async fn down(&mut self, inputs: &Inputs<'_>) -> Steps {
        self.has_looked = false;
        self.request(false, inputs.now);
        let links = inputs.site.network_links();
        let observed = match observe::observe(&self.pins, links, Path::new(SYSCTLS)).await {
            Ok(observed) => observed,
            Err(Error::List { .. }) => return (Vec::new(), Vec::new()),
            Err(error) => return (Vec::new(), vec![Problem::from_error(&error)]),
        };
        let plan = plan::plan(&Wanted::Nothing, &observed, false);
        let Applied { changes, problems, .. } = self.carry_out(&plan).await;
        self.stood = None;
        (changes, problems)
    }
}

fn wanted_state(inputs: &Inputs<'_>, plan: &Plan) -> State {
    match inputs.config.nat.fastpath {
        Choice::Bpf if inputs.site.public.is_none() => State::Waiting,
        Choice::Bpf if plan.request => State::Waiting,
        Choice::Bpf => State::Ok,
        _ => State::Off,
    }
}

fn detail(state: State, plan: &Plan, counters: Counters) -> String {
    if !plan.aside.is_empty() {
        return "bpf stands aside: every packet takes the kernel's path".to_owned();
    }
    match state {
        State::Ok if plan.turn == Turn::Off => "bpf is off".to_owned(),
        State::Ok => {
            let share = counters.share().map_or_else(String::new, |share| format!(": {share} % of forwarded packets"));
            format!(
                "bpf carries established flows{share} ({} packets, {} bytes)",
                counters.carried, counters.carried_bytes
            )
        }
        State::Waiting if plan.request => "waits for the programs".to_owned(),
        State::Waiting => "waits for the public interface".to_owned(),
        _ => "no fast path of this kind".to_owned(),
    }
}

fn aside(reason: &str) -> Problem {
    Problem::new(
        "fastpath-aside",
        format!("the fast path stands aside: {reason}"),
        "remove it, or choose another nat.fastpath",
    )
}
