//! The userspace WireGuard data plane, compared with others.
//!
//! Both ends of a tunnel are the same program, in two namespaces that a veth pair connects. The pairs of all programs
//! exist at the same time, and each load is measured on all of them in turn.

mod config;
mod device;
mod handshakes;
mod pair;
mod peers;
mod program;
mod small;
mod tcp;

use std::path::Path;
use std::time::Duration;

use pair::{End, Pair};
use program::{Kind, Program};
use tcp::{Direction, Transfer, transfer};

use crate::case::{Better, Case, Promise, RatioPromise, Subject};
use crate::run::{Result, Selection, rounds};

/// The number of rounds.
const ROUNDS: usize = 5;
/// After so many failures in a row a subject is not measured again.
const MAX_FAILURES: u32 = 3;
/// The number of peers in the loads that are not about peers.
const PEERS: usize = 10;
/// How long to wait until a started process is idle.
const SETTLED: Duration = Duration::from_secs(1);

/// A value that a load measures.
struct Measure {
    case: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
    promise: Option<Promise>,
    ratio_promises: &'static [(Kind, RatioPromise)],
}

/// A measurement of a pair that has a session.
struct Load {
    measures: &'static [Measure],
    run: fn(&mut Pair<'_>, &mut [f64]) -> Result,
}

/// A measurement with interfaces of its own.
struct Trial {
    measures: &'static [Measure],
    run: fn(&Program, &mut [f64]) -> Result,
}

const fn gbits(case: &'static str, title: &'static str, ratio_promises: &'static [(Kind, RatioPromise)]) -> Measure {
    Measure { case, title, unit: "Gbit/s", better: Better::Higher, promise: None, ratio_promises }
}

const fn lower_is_better(
    case: &'static str,
    title: &'static str,
    unit: &'static str,
    promise: Option<Promise>,
    ratio_promises: &'static [(Kind, RatioPromise)],
) -> Measure {
    Measure { case, title, unit, better: Better::Lower, promise, ratio_promises }
}

const ONE_STREAM: &[(Kind, RatioPromise)] = &[
    (Kind::WireguardGo, RatioPromise::AtLeast(1.5)),
    (Kind::Boringtun, RatioPromise::AtLeast(4.0)),
    (Kind::Gotatun, RatioPromise::AtLeast(3.0)),
];
const FOUR_STREAMS: &[(Kind, RatioPromise)] = &[
    (Kind::WireguardGo, RatioPromise::AtLeast(1.6)),
    (Kind::Boringtun, RatioPromise::AtLeast(5.0)),
    (Kind::Gotatun, RatioPromise::AtLeast(3.3)),
];
const WIRE: &[(Kind, RatioPromise)] = &[
    (Kind::WireguardGo, RatioPromise::AtLeast(1.3)),
    (Kind::Boringtun, RatioPromise::AtLeast(2.0)),
    (Kind::Gotatun, RatioPromise::AtLeast(1.3)),
];
const CPU: &[(Kind, RatioPromise)] = &[(Kind::WireguardGo, RatioPromise::AtMost(0.6))];
const ROUND_TRIP: &[(Kind, RatioPromise)] = &[(Kind::Boringtun, RatioPromise::AtMost(1.0))];
const SMALL: &[(Kind, RatioPromise)] =
    &[(Kind::WireguardGo, RatioPromise::AtLeast(4.0)), (Kind::Boringtun, RatioPromise::AtLeast(1.8))];
const FASTER: &[(Kind, RatioPromise)] = &[
    (Kind::WireguardGo, RatioPromise::AtMost(1.0)),
    (Kind::Boringtun, RatioPromise::AtMost(1.0)),
    (Kind::Gotatun, RatioPromise::AtMost(1.0)),
];
const MORE: &[(Kind, RatioPromise)] = &[
    (Kind::WireguardGo, RatioPromise::AtLeast(1.0)),
    (Kind::Boringtun, RatioPromise::AtLeast(1.0)),
    (Kind::Gotatun, RatioPromise::AtLeast(1.0)),
];
const TEN: Option<Promise> = Some(Promise::AtMost(16.0));
const TEN_THOUSAND: Option<Promise> = Some(Promise::AtMost(100.0));

/// The loads in their order in each round. The first one starts new processes.
const LOADS: [Load; 8] = [
    Load {
        measures: &[lower_is_better("tunnel/rss-idle", "resident memory at rest, 10 peers", "MiB", TEN, &[])],
        run: |pair, values| {
            pair.restart()?;
            std::thread::sleep(SETTLED);
            values[0] = pair.device(End::Near)?.resident()?.max(pair.device(End::Far)?.resident()?);
            Ok(())
        },
    },
    Load {
        measures: &[
            lower_is_better("tunnel/ping", "idle round trip, median", "ms", None, ROUND_TRIP),
            lower_is_better("tunnel/ping-p99", "idle round trip, 99 %", "ms", None, ROUND_TRIP),
        ],
        run: |pair, values| {
            (values[0], values[1]) = small::round_trips(pair)?;
            Ok(())
        },
    },
    Load {
        measures: &[
            gbits("tunnel/tcp1", "TCP, one stream", ONE_STREAM),
            lower_is_better("tunnel/cpu", "of the sending end", "CPU s/GB", None, CPU),
            lower_is_better("tunnel/cpu-receive", "of the receiving end", "CPU s/GB", None, CPU),
        ],
        run: |pair, values| {
            let Transfer { rate, near_cpu, far_cpu, .. } = transfer(pair, 1, Direction::Upload)?;
            values.copy_from_slice(&[rate, near_cpu, far_cpu]);
            Ok(())
        },
    },
    Load {
        measures: &[gbits("tunnel/tcp1R", "the other direction", ONE_STREAM)],
        run: |pair, values| {
            values[0] = transfer(pair, 1, Direction::Download)?.rate;
            Ok(())
        },
    },
    Load {
        measures: &[
            gbits("tunnel/tcp4", "TCP, four streams", FOUR_STREAMS),
            lower_is_better("tunnel/rss", "resident memory under that load", "MiB", TEN, &[]),
        ],
        run: |pair, values| {
            let Transfer { rate, resident, .. } = transfer(pair, 4, Direction::Upload)?;
            values.copy_from_slice(&[rate, resident]);
            Ok(())
        },
    },
    Load {
        measures: &[gbits("tunnel/tcp4R", "the other direction", FOUR_STREAMS)],
        run: |pair, values| {
            values[0] = transfer(pair, 4, Direction::Download)?.rate;
            Ok(())
        },
    },
    Load {
        measures: &[
            gbits("tunnel/tcp1-wire", "one stream, NIC-like link", WIRE),
            gbits("tunnel/tcp4-wire", "four streams, NIC-like link", WIRE),
        ],
        run: |pair, values| {
            set_link(pair, ["tx-udp-segmentation", "off", "gro", "on"])?;
            let measured = [1, 4].map(|streams| transfer(pair, streams, Direction::Upload));
            set_link(pair, ["tx-udp-segmentation", "on", "gro", "off"])?;
            for (value, measured) in values.iter_mut().zip(measured) {
                *value = measured?.rate;
            }
            Ok(())
        },
    },
    Load {
        measures: &[Measure {
            case: "tunnel/udp64",
            title: "datagrams of 64 bytes, at most 1 % lost",
            unit: "packets/s",
            better: Better::Higher,
            promise: None,
            ratio_promises: SMALL,
        }],
        run: |pair, values| {
            values[0] = small::throughput(pair)?;
            Ok(())
        },
    },
];

const TRIALS: [Trial; 2] = [
    Trial {
        // In the order of `peers::Value`.
        measures: &[
            lower_is_better("tunnel/peers", "10 000 peers by wg setconf", "ms", None, FASTER),
            lower_is_better("tunnel/rss-10k-idle", "resident memory at rest, 10 000 peers", "MiB", TEN_THOUSAND, &[]),
            lower_is_better("tunnel/rss-10k", "the same under four TCP streams", "MiB", TEN_THOUSAND, &[]),
            lower_is_better("tunnel/peers-add", "one more by wg set", "ms", None, FASTER),
            lower_is_better("tunnel/peers-sync", "wg syncconf of the same", "ms", None, FASTER),
        ],
        run: peers::measure,
    },
    Trial {
        measures: &[Measure {
            case: "tunnel/handshakes",
            title: "initiations answered, on one core",
            unit: "a second",
            better: Better::Higher,
            promise: None,
            ratio_promises: MORE,
        }],
        run: |program, values| {
            values[0] = handshakes::answered(program)?;
            Ok(())
        },
    },
];

/// Measures the selected cases. `target` is the directory with `bench/peers`.
pub(crate) fn measure(selection: &Selection, programs: &Path, target: &Path) -> Result<Vec<Case>> {
    let is_wanted = |measures: &[Measure]| measures.iter().any(|measure| selection.has(measure.case));
    let loads: Vec<_> = LOADS.into_iter().filter(|load| is_wanted(load.measures)).collect();
    let trials: Vec<_> = TRIALS.into_iter().filter(|trial| is_wanted(trial.measures)).collect();
    if loads.is_empty() && trials.is_empty() {
        return Ok(Vec::new());
    }
    let rounds = rounds(ROUNDS)?;
    let subjects = Program::all(programs, &target.join("bench/peers"))?;
    let mut cases = Vec::new();
    cases.extend(measure_loads(&loads, &subjects, rounds)?);
    cases.extend(measure_trials(&trials, &subjects, rounds));
    cases.retain(|case| selection.has(case.name));
    Ok(cases)
}

fn measure_loads(loads: &[Load], subjects: &[Program], rounds: usize) -> Result<Vec<Case>> {
    let mut pairs: Vec<Pair<'_>> = subjects.iter().map(|subject| Pair::build(subject, PEERS)).collect::<Result<_>>()?;
    let mut results: Vec<Vec<Case>> = loads.iter().map(|load| cases(load.measures, subjects)).collect();
    let mut failures_left = vec![MAX_FAILURES; subjects.len()];
    for round in 0..rounds {
        for (load, cases) in loads.iter().zip(&mut results) {
            eprint!("\r\x1b[Ktunnel: round {} of {rounds}, {}", round + 1, load.measures[0].case);
            for turn in turns(subjects.len(), round) {
                let pair = &mut pairs[turn];
                let run = |values: &mut [f64]| {
                    pair.ensure_session()?;
                    (load.run)(pair, values)
                };
                if !record(cases, turn, &mut failures_left[turn], run) {
                    pair.stop();
                }
            }
        }
    }
    eprintln!();
    Ok(results.into_iter().flatten().collect())
}

fn measure_trials(trials: &[Trial], subjects: &[Program], rounds: usize) -> Vec<Case> {
    let mut results: Vec<Vec<Case>> = trials.iter().map(|trial| cases(trial.measures, subjects)).collect();
    for (trial, cases) in trials.iter().zip(&mut results) {
        let mut failures_left = vec![MAX_FAILURES; subjects.len()];
        for round in 0..rounds {
            eprint!("\r\x1b[Ktunnel: round {} of {rounds}, {}", round + 1, trial.measures[0].case);
            for turn in turns(subjects.len(), round) {
                record(cases, turn, &mut failures_left[turn], |values| (trial.run)(&subjects[turn], values));
            }
        }
    }
    eprintln!();
    results.into_iter().flatten().collect()
}

/// The order of the subjects in a round, in which every subject comes first equally often.
fn turns(subjects: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..subjects).cycle().skip(round % subjects).take(subjects)
}

/// Measures a subject and records the values, which are NaN where it failed. Returns whether it succeeded.
fn record(cases: &mut [Case], subject: usize, failures_left: &mut u32, run: impl FnOnce(&mut [f64]) -> Result) -> bool {
    let mut values = vec![f64::NAN; cases.len()];
    let ran = *failures_left > 0 && {
        let outcome = run(&mut values);
        if let Err(error) = &outcome {
            let first = cases[0].name;
            eprintln!("\r\x1b[Ktunnel: {} failed in {first}: {error}", cases[0].subjects[subject].name);
        }
        *failures_left = if outcome.is_ok() { MAX_FAILURES } else { *failures_left - 1 };
        outcome.is_ok()
    };
    for (case, value) in cases.iter_mut().zip(values) {
        case.subjects[subject].values.push(value);
    }
    ran
}

fn cases(measures: &[Measure], subjects: &[Program]) -> Vec<Case> {
    let case = |measure: &Measure| {
        let ratio_promise = |kind| {
            measure.ratio_promises.iter().find_map(|&(other, ratio_promise)| (other == kind).then_some(ratio_promise))
        };
        let subjects =
            subjects.iter().map(|subject| Subject::new(&subject.name, ratio_promise(subject.kind))).collect();
        let Measure { case: name, title, unit, better, promise, .. } = *measure;
        Case { name, title, unit, better, subjects, promise }
    };
    measures.iter().map(case).collect()
}

/// Sets features of both ends of the link (ethtool(8)). Most network cards do not segment UDP for the sender, but
/// coalesce received packets.
fn set_link(pair: &Pair<'_>, features: [&str; 4]) -> Result {
    for end in [End::Near, End::Far] {
        let output = pair.namespace(end).command("ethtool").args(["-K", "eth0"]).args(features).output()?;
        if !output.status.success() {
            return Err(format!("ethtool: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
    }
    Ok(())
}
