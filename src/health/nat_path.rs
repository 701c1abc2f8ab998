//! One round of the path from a private network to the internet: real packets, as from a private host, through the
//! rules, the translation and the public link, and real answers back.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

use super::engine::{Outcome, ROUND_TIMEOUT};
use super::interface::{Listener, ProbeInterface};
use super::packet::{Asked, Received, Target, describe_error};
use super::targets::tuple;
use crate::conntrack::{FlowDeleter, find_flow};
use crate::nat::ProbedPath;

/// How long a target has before the next one is asked as well.
pub(super) const STAGGER: Duration = Duration::from_millis(200);

/// Why a target does not count as reached.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// No answer came; perhaps an ICMP error did.
    NoAnswer(Option<String>),
    /// The answer came, but not by our translation.
    Translation(String),
    /// Only the first packet of the flow was answered.
    LaterPackets,
    /// Nothing could be sent or checked.
    Cannot(String),
}

/// What a round came to, and which targets did not answer.
#[derive(Debug)]
pub(super) struct Round {
    pub outcome: Outcome,
    pub answered: Option<Target>,
    pub silent: Vec<Target>,
}

impl From<Outcome> for Round {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, answered: None, silent: Vec::new() }
    }
}

/// Asks the targets in this order until one answers.
pub(super) async fn round(interface: &Arc<ProbeInterface>, path: &ProbedPath, targets: &[Target]) -> Round {
    let started = Instant::now();
    let deadline = started + ROUND_TIMEOUT;
    let mut asking: FuturesUnordered<_> = (0..)
        .zip(targets)
        .map(|(place, &target)| async move {
            sleep(STAGGER * place).await;
            (target, ask(interface, path, target, deadline).await)
        })
        .collect();
    let mut failures: Vec<(Target, Failure)> = Vec::new();
    while let Some((target, result)) = asking.next().await {
        match result {
            Ok(round_trip) => {
                let elapsed = started.elapsed();
                let had_their_time = (0..).zip(targets).take_while(|(place, _)| STAGGER * (place + 1) <= elapsed);
                let silent = had_their_time.map(|(_, other)| *other).filter(|other| *other != target).collect();
                let outcome = Outcome::Passed { round_trip, note: String::new() };
                return Round { outcome, answered: Some(target), silent };
            }
            Err(failure) => failures.push((target, failure)),
        }
    }
    Round { outcome: explain(&failures), answered: None, silent: targets.to_vec() }
}

/// What is known about a round in which no target counts as reached: the most telling reason.
fn explain(failures: &[(Target, Failure)]) -> Outcome {
    let reasons = failures.iter().map(|(_, failure)| failure);
    let cannot = reasons.clone().find_map(|failure| match failure {
        Failure::Cannot(reason) => Some(reason.clone()),
        _ => None,
    });
    if let Some(reason) = cannot.filter(|_| failures.iter().all(|(_, it)| matches!(it, Failure::Cannot(_)))) {
        return Outcome::Cannot { reason };
    }
    let told = reasons.clone().find_map(|failure| match failure {
        Failure::Translation(reason) => Some(reason.clone()),
        Failure::LaterPackets => Some("the first packet of a flow is answered, the next one is not".to_owned()),
        _ => None,
    });
    let hint = || {
        reasons.clone().find_map(|failure| match failure {
            Failure::NoAnswer(hint) => hint.clone(),
            _ => None,
        })
    };
    let silent = || {
        let targets: BTreeSet<Target> = failures.iter().map(|(target, _)| *target).collect();
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let hint = hint().map_or_else(String::new, |hint| format!("; {hint}"));
        format!("no answer from {}{hint}", targets.join(", "))
    };
    Outcome::Missed { reason: told.unwrap_or_else(silent) }
}

/// Two questions of one flow to a target: the second one takes the way of established flows. How long the first answer
/// took.
async fn ask(
    interface: &Arc<ProbeInterface>,
    path: &ProbedPath,
    target: Target,
    deadline: Instant,
) -> Result<Duration, Failure> {
    let mut listener = interface.listen();
    let source = SocketAddrV4::new(path.source, listener.port);
    let question = || Asked { source, target, token: fastrand::u64(..) };
    let first = question();
    let round_trip = exchange(interface, &mut listener, &first, deadline).await?;
    check_translation(source, target, path.egress)?;
    if let Some(farewell) = first.farewell() {
        // The flow is over; an error means that the interface went meanwhile.
        drop(interface.send(&farewell));
    } else {
        let later = exchange(interface, &mut listener, &question(), deadline).await;
        let is_silent = |failure: &Failure| matches!(failure, Failure::NoAnswer(_));
        later.map_err(|failure| if is_silent(&failure) { Failure::LaterPackets } else { failure })?;
    }
    forget(source, target);
    Ok(round_trip)
}

/// Sends a question and waits for its answer.
async fn exchange(
    interface: &ProbeInterface,
    listener: &mut Listener,
    asked: &Asked,
    deadline: Instant,
) -> Result<Duration, Failure> {
    let started = Instant::now();
    match interface.send(&asked.packet()) {
        Ok(()) => {}
        // The kernel has no room for it now, so it is lost like any other packet.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(Failure::Cannot(format!("the probe's interface takes no packet: {error}"))),
    }
    let mut hint = None;
    loop {
        tokio::select! {
            biased;
            received = listener.received.recv() => match received {
                Some(received) if asked.is_answered_by(&received) => return Ok(started.elapsed()),
                Some(Received::IcmpError { from, kind, code, .. }) => hint = Some(describe_error(from, kind, code)),
                Some(_) => {}
                None => return Err(Failure::NoAnswer(hint)),
            },
            () = sleep_until(deadline) => return Err(Failure::NoAnswer(hint)),
        }
    }
}

/// An answer alone does not prove the translation: a network upstream may route private addresses back to us.
fn check_translation(source: SocketAddrV4, target: Target, egress: Option<Ipv4Addr>) -> Result<(), Failure> {
    let flow = match find_flow(&tuple(source, target)) {
        Ok(Some(flow)) => flow,
        Ok(None) => return Err(Failure::Translation("answered, but the kernel does not track the flow".to_owned())),
        Err(error) => return Err(Failure::Cannot(format!("the translation cannot be checked: {error}"))),
    };
    let left_as = flow.reply.destination;
    match egress {
        _ if left_as == *source.ip() => Err(Failure::Translation("packets leave untranslated".to_owned())),
        Some(egress) if left_as != egress => {
            Err(Failure::Translation(format!("packets leave as {left_as} instead of {egress}")))
        }
        _ => Ok(()),
    }
}

/// Removes the flow of an answered probe: it would stay for half a minute. It is no harm if that fails.
pub(super) fn forget(source: SocketAddrV4, target: Target) {
    if let (Ok(Some(flow)), Ok(mut deleter)) = (find_flow(&tuple(source, target)), FlowDeleter::open()) {
        let _ = deleter.delete(&flow);
    }
}
