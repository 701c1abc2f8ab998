//! The addresses of the tunnel's interface, and the kernel's routes into it.
//!
//! Ours are the routes of the main table that carry our own protocol number ([`PROTOCOL`]), wherever they lead, and the
//! addresses of the tunnel's interface that carry the same number (kernels since 5.18 keep it). Every other route and address
//! stays: where somebody else's route has a destination of ours, or a hand has put a further address on the tunnel, it is told.
//! Whether the interface is there, is up and has its MTU is the tunnel room's business.

mod apply;
mod model;
mod observe;
mod plan;

pub use model::{Address, Desired, Link, Observed, PROTOCOL, Route, desired};
pub use observe::Error;
pub use plan::{Contest, Plan, plan};

use crate::error::chain;
use crate::inputs::Tunnel;
use crate::outcome::{Outcome, Problem, State};

/// How many ranges a line of the status names before it counts them.
const NAMED: usize = 3;
/// What helps when netlink fails.
const ADVICE: &str = "the daemon needs a route netlink socket and CAP_NET_ADMIN; tried again by itself";

/// What the room keeps between passes: what stood after the last one, and on which link.
#[derive(Debug, Default)]
pub struct Routes {
    stood: Option<(Desired, u32)>,
}

impl Routes {
    /// Makes addresses and routes as the tunnel wants them; without a tunnel, what is left of one goes.
    pub async fn reconcile(&mut self, tunnel: Option<&Tunnel>) -> Outcome {
        let desired = tunnel.map(desired);
        match self.converge(desired.as_ref()).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::failed(&error, ADVICE),
        }
    }

    async fn converge(&mut self, desired: Option<&Desired>) -> Result<Outcome, Error> {
        let netlink = observe::Netlink::open()?;
        let observed = netlink.observe(desired.map(|desired| &desired.interface)).await?;
        let plan = plan(desired, &observed);
        let (changes, mut problems) = apply::apply(&netlink, &observed, &plan).await;
        let failed = !problems.is_empty();
        problems.extend(obstacles(&plan, &observed));
        let hints = foreign_addresses(&plan, desired);
        let standing = desired.cloned().zip(observed.link.map(|link| link.index));
        let repaired = !changes.is_empty() && standing.is_some() && self.stood == standing;
        self.stood = standing.filter(|_| !failed);
        let unchanged = match (desired, observed.link) {
            (None, _) => Outcome::unchanged(State::Off, "no tunnel"),
            (Some(desired), None) => {
                Outcome::unchanged(State::HeldBack, format!("{} is not there yet", desired.interface))
            }
            (Some(desired), Some(_)) => Outcome::unchanged(state(failed, &plan), detail(desired)),
        };
        Ok(Outcome { changes, repaired, problems, hints, ..unchanged })
    }

    /// What the next pass would do, and what is in the way.
    pub async fn preview(&self, tunnel: Option<&Tunnel>) -> Result<(Vec<String>, Vec<Problem>), Error> {
        let desired = tunnel.map(desired);
        let observed = observe::Netlink::open()?.observe(desired.as_ref().map(|desired| &desired.interface)).await?;
        let plan = plan(desired.as_ref(), &observed);
        let mut told = obstacles(&plan, &observed);
        told.extend(foreign_addresses(&plan, desired.as_ref()));
        Ok((apply::steps(&plan, &observed), told))
    }

    /// Takes our routes away; the addresses go with the interface.
    pub async fn remove(&mut self) -> (Vec<String>, Vec<Problem>) {
        match self.converge(None).await {
            Ok(outcome) => (outcome.changes, outcome.problems),
            Err(error) => (Vec::new(), vec![Problem::new(chain(&error), "delete them: ip route flush proto 98")]),
        }
    }
}

fn state(failed: bool, plan: &Plan) -> State {
    match (failed, plan.contested.is_empty()) {
        (true, _) => State::Failed,
        (false, false) => State::Waiting,
        (false, true) => State::Ok,
    }
}

/// What is in the way, in an operator's words.
fn obstacles(plan: &Plan, observed: &Observed) -> Vec<Problem> {
    let contested = plan.contested.iter().map(|Contest { destination, by }| {
        let where_to = observed.name(by.interface).map_or_else(|| "nowhere".to_owned(), |name| format!("to {name}"));
        Problem::new(
            format!("{destination} is not routed into the tunnel: somebody else's route leads {where_to}"),
            format!(
                "it is left alone; delete it (ip route del {destination}), or take {destination} out of the allowed_ips"
            ),
        )
    });
    contested.collect()
}

/// What is left alone, and harms nobody.
fn foreign_addresses(plan: &Plan, desired: Option<&Desired>) -> Vec<Problem> {
    let interface = desired.map_or_else(String::new, |desired| desired.interface.to_string());
    let foreign = plan.foreign_addresses.iter().map(|address| {
        Problem::new(
            format!("{interface} has the address {address}, which the configuration does not name"),
            format!("it is left alone; ip address del {address} dev {interface}, or write it into wireguard.addresses"),
        )
    });
    foreign.collect()
}

fn detail(desired: &Desired) -> String {
    let addresses: Vec<String> = desired.addresses.iter().map(ToString::to_string).collect();
    let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") };
    let count = desired.destinations.len();
    let named: Vec<String> = desired.destinations.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
    let routes = if named.is_empty() { String::new() } else { format!("; routes to {}{more}", named.join(", ")) };
    format!("{} {addresses}{routes}", desired.interface)
}

#[cfg(test)]
mod tests;
