//! What a packet and a connection cost on their way through the bastion.
//!
//! Three lines of client – bastion – server, alike but for what the bastion does to packets, measured in turn.

mod line;
mod load;

use std::path::Path;

use line::{Line, Rules};
use sandbox::daemon::{Daemon, Station};

use crate::case::{Bar, Better, Case, OURS, Subject, TOLERANCE};
use crate::{Result, Selection};

/// Many short ones: what else the machine does then meets all subjects alike.
const ROUNDS: usize = 15;

/// What is compared, in turn.
const SUBJECTS: [(&str, Rules); 3] =
    [("forwarding", Rules::None), (IPTABLES, Rules::IptablesNft), (OURS, Rules::Bastiond)];
const IPTABLES: &str = "iptables-nft";

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

/// Traffic through a line, and how much of it passed in a second.
struct Load {
    case: &'static str,
    title: &'static str,
    unit: &'static str,
    run: fn(&Line) -> Result<f64>,
}

impl Load {
    fn case(&self) -> Case {
        // Not below the four lines, give or take what the machine itself wavers.
        let bar = |name| (name == IPTABLES).then_some(Bar::AtLeast(1.0 - TOLERANCE));
        let subjects = SUBJECTS.map(|(name, _)| Subject::new(name, bar(name))).to_vec();
        Case { name: self.case, title: self.title, unit: self.unit, better: Better::Higher, subjects, promise: None }
    }
}

pub(crate) fn measure(selection: &Selection, programs: &Path) -> Result<Vec<Case>> {
    let loads: Vec<_> = LOADS.into_iter().filter(|load| selection.has(load.case)).collect();
    if loads.is_empty() {
        return Ok(Vec::new());
    }
    let lines = SUBJECTS.map(|(name, rules)| Line::lay(name, rules));
    let lines: Vec<Line> = lines.into_iter().collect::<Result<_>>()?;
    let stations: Vec<Station<'_>> = lines
        .iter()
        .filter(|line| line.rules() == Rules::Bastiond)
        .map(|line| line.station(programs))
        .collect::<Result<_>>()?;
    // The daemon runs all the while, as it does in life.
    let _daemons: Vec<Daemon> = stations.iter().map(line::ready).collect::<Result<_>>()?;
    for line in &lines {
        line.prove()?;
    }
    let mut cases: Vec<Case> = loads.iter().map(Load::case).collect();
    for round in 0..ROUNDS {
        eprint!("\rgateway: round {} of {ROUNDS}", round + 1);
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
