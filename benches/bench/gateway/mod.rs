//! The cost of a packet and of a connection through the bastion, and the time to load ten thousand entries.
//!
//! The test beds consist of client, bastion and server. They differ in the rules of the bastion, and are measured in
//! turn.

mod addresses;
mod apply;
mod config;
mod loads;
mod testbed;

use std::path::Path;

use config::{Denied, Limits, Policy};
use sandbox::daemon::{Daemon, Installation};
use testbed::{Rules, Testbed};

use crate::case::{Better, Case, OURS, RatioPromise, Subject, TOLERANCE};
use crate::run::{Result, Selection, rounds};

/// The number of rounds. Many short rounds spread other load of the machine over all subjects.
const ROUNDS: usize = 15;

/// The compared subjects; one is [`OURS`].
type Subjects = &'static [(&'static str, Rules)];

/// Different sizes of the configuration. There are no limits for sources, because one client is the source of all
/// flows.
const SIZES: Subjects = &[
    ("forwarding", Rules::None),
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
    ("unlimited", Rules::Bastiond(Policy::limited(Limits::Off))),
    ("rate-alone", Rules::Bastiond(Policy::limited(Limits::Rate))),
    ("count-alone", Rules::Bastiond(Policy::limited(Limits::Count))),
];

/// The loads of each test bed.
const LOADS: [Load; 4] = [
    Load { case: "gateway/pps-1", title: "64-byte frames of one flow", unit: "packets/s", run: loads::one_flow },
    Load { case: "gateway/pps-256", title: "64-byte frames of 256 flows", unit: "packets/s", run: loads::many_flows },
    Load { case: "gateway/newflows", title: "every packet a new UDP flow", unit: "flows/s", run: loads::new_flows },
    Load {
        case: "gateway/cps",
        title: "TCP: connect, a byte each way, reset",
        unit: "connections/s",
        run: loads::connections,
    },
];

/// The loads for the limits, which apply to new flows only.
const LIMITED_LOADS: [Load; 4] = [
    Load {
        case: "gateway/limits-newflows",
        title: "40 000 new UDP flows of one source",
        unit: "flows/s",
        run: loads::new_flows,
    },
    Load {
        case: "gateway/limits-newflows-1k",
        title: "1 000, of a source that has no others",
        unit: "flows/s",
        run: loads::first_flows,
    },
    Load {
        case: "gateway/limits-newflows-8k",
        title: "1 000, of a source that has 7 000",
        unit: "flows/s",
        run: loads::further_flows,
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
    fn case(&self, subjects: Subjects) -> Case {
        let ratio_promise = |name| match name {
            // Not less than the four iptables lines, apart from the variation of the machine.
            IPTABLES => Some(RatioPromise::AtLeast(1.0 - TOLERANCE)),
            // Ten thousand entries may cost a twentieth.
            MANY => Some(RatioPromise::AtMost(1.05)),
            _ => None,
        };
        let subjects = subjects.iter().map(|(name, _)| Subject::new(*name, ratio_promise(name))).collect();
        Case { name: self.case, title: self.title, unit: self.unit, better: Better::Higher, subjects, promise: None }
    }
}

pub(crate) fn measure(selection: &Selection, programs: &Path) -> Result<Vec<Case>> {
    let rounds = rounds(ROUNDS)?;
    let mut cases = compare("size", SIZES, &LOADS, selection, programs, rounds)?;
    cases.extend(compare("limits", LIMITS, &LIMITED_LOADS, selection, programs, rounds)?);
    cases.extend(apply::measure(selection, programs)?);
    Ok(cases)
}

fn compare(
    group: &str,
    subjects: Subjects,
    loads: &[Load],
    selection: &Selection,
    programs: &Path,
    rounds: usize,
) -> Result<Vec<Case>> {
    let loads: Vec<_> = loads.iter().filter(|load| selection.has(load.case)).collect();
    if loads.is_empty() {
        return Ok(Vec::new());
    }
    let testbeds = subjects.iter().map(|(name, rules)| Testbed::build(&format!("{group}-{name}"), *rules));
    let testbeds: Vec<Testbed> = testbeds.collect::<Result<_>>()?;
    let installations: Vec<Installation<'_>> = testbeds
        .iter()
        .filter(|testbed| matches!(testbed.rules(), Rules::Bastiond(_)))
        .map(|testbed| testbed.installation(programs))
        .collect::<Result<_>>()?;
    // The daemons run during the measurement.
    let _daemons: Vec<Daemon> = installations.iter().map(testbed::start_daemon).collect::<Result<_>>()?;
    for testbed in &testbeds {
        testbed.check_reachability()?;
    }
    let mut cases: Vec<Case> = loads.iter().map(|load| load.case(subjects)).collect();
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
