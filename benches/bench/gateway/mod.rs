//! The cost of a packet and of a connection through the bastion, and the time to load ten thousand entries.
//!
//! The test beds consist of client, bastion and server. They differ in the rules of the bastion, and are measured in
//! turn.

mod addresses;
mod apply;
mod config;
mod loads;
mod streams;
mod testbed;

use std::path::Path;

use config::{Denied, Limits, Policy};
use sandbox::daemon::{Daemon, Installation};
use testbed::{FastPath, Rules, Testbed};

use crate::case::{Better, Case, OURS, RatioPromise, Subject, TOLERANCE};
use crate::run::{Result, Selection, rounds};

/// The number of rounds. Many short rounds spread other load of the machine over all subjects.
const ROUNDS: usize = 15;

/// The compared subjects; one is [`OURS`].
type Subjects = &'static [(&'static str, Rules)];

/// The promise about our value in a load, compared with that of a subject.
type Promises = fn(&Load, &str) -> Option<RatioPromise>;

/// Different sizes of the configuration. There are no limits for sources, because one client is the source of all
/// flows.
const SIZES: Subjects = &[
    (PLAIN, Rules::None),
    (IPTABLES, Rules::IptablesNft),
    (OURS, Rules::Bastiond(Policy::with_entries(0))),
    ("bastiond-1k", Rules::Bastiond(Policy::with_entries(1000))),
    (MANY, Rules::Bastiond(Policy::with_entries(10_000))),
    ("bastiond-10k-ranges", Rules::Bastiond(Policy { denied: Denied::Networks, ..Policy::with_entries(10_000) })),
];
const IPTABLES: &str = "iptables-nft";
const MANY: &str = "bastiond-10k";

/// Both limits for a source, none, and each alone.
const LIMITS: Subjects = &[
    (OURS, Rules::Bastiond(Policy::limited(Limits::Both))),
    (UNLIMITED, Rules::Bastiond(Policy::limited(Limits::Off))),
    ("rate-alone", Rules::Bastiond(Policy::limited(Limits::Rate))),
    ("count-alone", Rules::Bastiond(Policy::limited(Limits::Count))),
];

const UNLIMITED: &str = "unlimited";

/// The flow cache in BPF beside the kernel's path, with an empty and a large configuration.
const FLOW_CACHE: Subjects = &[
    (PLAIN, Rules::None),
    (IPTABLES, Rules::IptablesNft),
    (OURS, Rules::BastiondBy(FastPath::Bpf, Policy::with_entries(0))),
    ("without-bpf", Rules::BastiondBy(FastPath::None, Policy::with_entries(0))),
    (MANY, Rules::BastiondBy(FastPath::Bpf, Policy::with_entries(10_000))),
];
/// The same on kernels that have flowtables.
const FLOW_CACHE_OR_FLOWTABLE: Subjects = &[
    (PLAIN, Rules::None),
    (IPTABLES, Rules::IptablesNft),
    (OURS, Rules::BastiondBy(FastPath::Bpf, Policy::with_entries(0))),
    ("without-bpf", Rules::BastiondBy(FastPath::None, Policy::with_entries(0))),
    ("flowtable", Rules::BastiondBy(FastPath::Flowtable, Policy::with_entries(0))),
];
const PLAIN: &str = "forwarding";

/// The loads for the flow cache.
const FLOW_CACHE_LOADS: [Load; 14] = [
    Load {
        case: "gateway/bpf-pps-1",
        title: "64-byte frames of one flow",
        unit: "packets/CPU s",
        run: loads::one_flow,
    },
    Load {
        case: "gateway/bpf-pps-256",
        title: "64-byte frames of 256 flows",
        unit: "packets/CPU s",
        run: loads::many_flows,
    },
    Load {
        case: "gateway/bpf-pps-4096",
        title: "64-byte frames of 4096 flows",
        unit: "packets/CPU s",
        run: loads::very_many_flows,
    },
    Load {
        case: "gateway/bpf-newflows",
        title: "every packet a new UDP flow",
        unit: "flows/CPU s",
        run: loads::new_flows,
    },
    Load {
        case: "gateway/bpf-cps",
        title: "TCP: connect, a byte each way, reset",
        unit: "connections/s",
        run: loads::connections,
    },
    Load {
        case: "gateway/bpf-round-trip",
        title: "a datagram there and back",
        unit: "round trips/s",
        run: streams::round_trips,
    },
    Load {
        case: "gateway/bpf-tcp-1-out",
        title: "one TCP stream out, large segments",
        unit: "GB/CPU s",
        run: streams::one_out,
    },
    Load {
        case: "gateway/bpf-tcp-1-back",
        title: "one TCP stream back, large segments",
        unit: "GB/CPU s",
        run: streams::one_back,
    },
    Load {
        case: "gateway/bpf-tcp-1-1500-out",
        title: "one TCP stream out, without offloads",
        unit: "GB/CPU s",
        run: streams::one_out_small,
    },
    Load {
        case: "gateway/bpf-tcp-1-1500-back",
        title: "one TCP stream back, without offloads",
        unit: "GB/CPU s",
        run: streams::one_back_small,
    },
    Load {
        case: "gateway/bpf-tcp-8-out",
        title: "eight TCP streams out, large segments",
        unit: "GB/CPU s",
        run: streams::eight_out,
    },
    Load {
        case: "gateway/bpf-tcp-8-back",
        title: "eight TCP streams back, large segments",
        unit: "GB/CPU s",
        run: streams::eight_back,
    },
    Load {
        case: "gateway/bpf-tcp-8-1500-out",
        title: "eight TCP streams out, without offloads",
        unit: "GB/CPU s",
        run: streams::eight_out_small,
    },
    Load {
        case: "gateway/bpf-tcp-8-1500-back",
        title: "eight TCP streams back, without offloads",
        unit: "GB/CPU s",
        run: streams::eight_back_small,
    },
];

/// What the flow cache promises.
fn promise_of_flow_cache(load: &Load, name: &str) -> Option<RatioPromise> {
    let is_established = load.case.starts_with("gateway/bpf-pps");
    match name {
        IPTABLES if is_established => Some(RatioPromise::AtLeast(1.6)),
        PLAIN if is_established => Some(RatioPromise::AtLeast(1.1)),
        IPTABLES => Some(RatioPromise::AtLeast(1.0 - TOLERANCE)),
        MANY => Some(RatioPromise::AtMost(1.02)),
        _ => None,
    }
}

/// What the kernel's path promises.
fn promise(_: &Load, name: &str) -> Option<RatioPromise> {
    match name {
        // Not less than the four iptables lines, apart from the variation of the machine.
        IPTABLES => Some(RatioPromise::AtLeast(1.0 - TOLERANCE)),
        // Ten thousand entries may cost a twentieth.
        MANY => Some(RatioPromise::AtMost(1.05)),
        // The limits may cost a tenth of a new flow.
        UNLIMITED => Some(RatioPromise::AtLeast(0.9)),
        _ => None,
    }
}

/// The loads of each test bed.
const LOADS: [Load; 4] = [
    Load { case: "gateway/pps-1", title: "64-byte frames of one flow", unit: "packets/CPU s", run: loads::one_flow },
    Load {
        case: "gateway/pps-256",
        title: "64-byte frames of 256 flows",
        unit: "packets/CPU s",
        run: loads::many_flows,
    },
    Load { case: "gateway/newflows", title: "every packet a new UDP flow", unit: "flows/CPU s", run: loads::new_flows },
    Load {
        case: "gateway/cps",
        title: "TCP: connect, a byte each way, reset",
        unit: "connections/s",
        run: loads::connections,
    },
];

/// The loads for the limits, which apply to new flows only.
const LIMITED_LOADS: [Load; 6] = [
    Load {
        case: "gateway/limits-newflows",
        title: "40 000 new UDP flows of one source",
        unit: "flows/CPU s",
        run: loads::new_flows,
    },
    Load {
        case: "gateway/limits-newflows-1k",
        title: "1 000, of a source that has no others",
        unit: "flows/CPU s",
        run: loads::first_flows,
    },
    Load {
        case: "gateway/limits-newflows-8k",
        title: "1 000, of a source that has 7 000",
        unit: "flows/CPU s",
        run: loads::further_flows,
    },
    Load {
        case: "gateway/limits-newflows-10x2k",
        title: "1 000, of ten sources that have 2 000 each",
        unit: "flows/CPU s",
        run: loads::flows_of_ten,
    },
    Load {
        case: "gateway/limits-newflows-full",
        title: "1 000, with the sets of sources full",
        unit: "flows/CPU s",
        run: loads::flows_with_full_sets,
    },
    Load { case: "gateway/limits-cps", title: "TCP, with limits", unit: "connections/s", run: loads::connections },
];

/// Traffic through a test bed, measured per second.
struct Load {
    case: &'static str,
    title: &'static str,
    unit: &'static str,
    run: fn(&Testbed) -> Result<f64>,
}

impl Load {
    fn case(&self, subjects: Subjects, promise: Promises) -> Case {
        let subjects = subjects.iter().map(|(name, _)| Subject::new(*name, promise(self, name))).collect();
        Case { name: self.case, title: self.title, unit: self.unit, better: Better::Higher, subjects, promise: None }
    }
}

pub(crate) fn measure(selection: &Selection, programs: &Path) -> Result<Vec<Case>> {
    let rounds = rounds(ROUNDS)?;
    let run = Run { selection, programs, rounds };
    let mut cases = compare("size", SIZES, &LOADS, promise, run)?;
    cases.extend(compare("limits", LIMITS, &LIMITED_LOADS, promise, run)?);
    let flow_cache = if testbed::has_flowtables()? { FLOW_CACHE_OR_FLOWTABLE } else { FLOW_CACHE };
    cases.extend(compare("bpf", flow_cache, &FLOW_CACHE_LOADS, promise_of_flow_cache, run)?);
    cases.extend(apply::measure(selection, programs)?);
    Ok(cases)
}

/// What is measured, with which programs, and how often.
#[derive(Clone, Copy)]
struct Run<'a> {
    selection: &'a Selection,
    programs: &'a Path,
    rounds: usize,
}

fn compare(group: &str, subjects: Subjects, loads: &[Load], promise: Promises, run: Run<'_>) -> Result<Vec<Case>> {
    let Run { selection, programs, rounds } = run;
    let loads: Vec<_> = loads.iter().filter(|load| selection.has(load.case)).collect();
    if loads.is_empty() {
        return Ok(Vec::new());
    }
    let testbeds = subjects.iter().map(|(name, rules)| Testbed::build(&format!("{group}-{name}"), *rules));
    let testbeds: Vec<Testbed> = testbeds.collect::<Result<_>>()?;
    let installations: Vec<Installation<'_>> = testbeds
        .iter()
        .filter(|testbed| testbed.rules().policy().is_some())
        .map(|testbed| testbed.installation(programs))
        .collect::<Result<_>>()?;
    // The daemons run during the measurement.
    let _daemons: Vec<Daemon> = installations.iter().map(testbed::start_daemon).collect::<Result<_>>()?;
    for testbed in &testbeds {
        testbed.check_reachability()?;
    }
    let mut cases: Vec<Case> = loads.iter().map(|load| load.case(subjects, promise)).collect();
    for round in 0..rounds {
        eprint!("\rgateway: {group}, round {} of {rounds}", round + 1);
        for (case, load) in cases.iter_mut().zip(&loads) {
            // Every subject comes first equally often, because later ones find warmer or fuller caches.
            for turn in (0..testbeds.len()).cycle().skip(round % testbeds.len()).take(testbeds.len()) {
                case.subjects[turn].values.push((load.run)(&testbeds[turn])?);
            }
        }
    }
    eprintln!();
    Ok(cases)
}
