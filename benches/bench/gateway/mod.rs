//! What a packet and a connection cost on their way through the bastion, and how long ten thousand entries take to
//! load.
//!
//! Lines of client – bastion – server, alike but for what the bastion does to packets, measured in turn.

mod addresses;
mod apply;
mod config;
mod line;
mod load;

use std::path::Path;

use config::{Denied, Limits, Policy};
use line::{Line, Rules};
use sandbox::daemon::{Daemon, Installation};

use crate::case::{Bar, Better, Case, OURS, Subject, TOLERANCE};
use crate::{Result, Selection, rounds};

/// Many short ones: what else the machine does then meets all subjects alike.
const ROUNDS: usize = 15;

/// Who is compared with whom, in turn. One of them is [`OURS`].
type Subjects = &'static [(&'static str, Rules)];

/// The size of the configuration. Nobody has a limit: one client is the source of all flows here.
const SIZES: Subjects = &[
    ("forwarding", Rules::None),
    (IPTABLES, Rules::IptablesNft),
    (OURS, Rules::Bastiond(Policy::of(0))),
    ("bastiond-1k", Rules::Bastiond(Policy::of(1000))),
    (MANY, Rules::Bastiond(Policy::of(10_000))),
    ("bastiond-10k-ranges", Rules::Bastiond(Policy { denied: Denied::Networks, ..Policy::of(10_000) })),
];
const IPTABLES: &str = "iptables-nft";
const MANY: &str = "bastiond-10k";

/// The limits of a source, and each alone.
const LIMITS: Subjects = &[
    (OURS, Rules::Bastiond(Policy::limited(Limits::Both))),
    ("unlimited", Rules::Bastiond(Policy::limited(Limits::Off))),
    ("rate-alone", Rules::Bastiond(Policy::limited(Limits::Rate))),
    ("count-alone", Rules::Bastiond(Policy::limited(Limits::Count))),
];

/// What is measured of each line.
const LOADS: [Load; 4] = [
    Load { case: "gateway/pps-1", title: "64-byte frames of one flow", unit: "packets/s", run: load::one_flow },
    Load { case: "gateway/pps-256", title: "64-byte frames of 256 flows", unit: "packets/s", run: load::many_flows },
    Load { case: "gateway/newflows", title: "every packet a new UDP flow", unit: "flows/s", run: load::new_flows },
    Load {
        case: "gateway/cps",
        title: "TCP: connect, a byte each way, reset",
        unit: "connections/s",
        run: load::connections,
    },
];

/// What the limits are measured by: established flows do not meet them.
const LIMITED_LOADS: [Load; 4] = [
    Load {
        case: "gateway/limits-newflows",
        title: "40 000 new UDP flows of one source",
        unit: "flows/s",
        run: load::new_flows,
    },
    Load {
        case: "gateway/limits-newflows-1k",
        title: "1 000, of a source that has no others",
        unit: "flows/s",
        run: load::first_flows,
    },
    Load {
        case: "gateway/limits-newflows-8k",
        title: "1 000, of a source that has 7 000",
        unit: "flows/s",
        run: load::further_flows,
    },
    Load { case: "gateway/limits-cps", title: "TCP, with limits", unit: "connections/s", run: load::connections },
];

/// Traffic through a line, and how much of it passed in a second.
struct Load {
    case: &'static str,
    title: &'static str,
    unit: &'static str,
    run: fn(&Line) -> Result<f64>,
}

impl Load {
    fn case(&self, subjects: Subjects) -> Case {
        let bar = |name| match name {
            // Not below the four lines, give or take what the machine itself wavers.
            IPTABLES => Some(Bar::AtLeast(1.0 - TOLERANCE)),
            // Ten thousand entries cost a twentieth at most.
            MANY => Some(Bar::AtMost(1.05)),
            _ => None,
        };
        let subjects = subjects.iter().map(|(name, _)| Subject::new(*name, bar(name))).collect();
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
    let lines = subjects.iter().map(|(name, rules)| Line::lay(&format!("{group}-{name}"), *rules));
    let lines: Vec<Line> = lines.collect::<Result<_>>()?;
    let installations: Vec<Installation<'_>> = lines
        .iter()
        .filter(|line| matches!(line.rules(), Rules::Bastiond(_)))
        .map(|line| line.installation(programs))
        .collect::<Result<_>>()?;
    // The daemon runs all the while, as it does in life.
    let _daemons: Vec<Daemon> = installations.iter().map(line::ready).collect::<Result<_>>()?;
    for line in &lines {
        line.prove()?;
    }
    let mut cases: Vec<Case> = loads.iter().map(|load| load.case(subjects)).collect();
    for round in 0..rounds {
        eprint!("\rgateway: {group}, round {} of {rounds}", round + 1);
        for (case, load) in cases.iter_mut().zip(&loads) {
            // Each is the first as often as the others: who comes later meets warmer, or fuller, caches.
            for turn in (0..lines.len()).cycle().skip(round % lines.len()).take(lines.len()) {
                case.subjects[turn].values.push((load.run)(&lines[turn])?);
            }
        }
    }
    eprintln!();
    Ok(cases)
}
