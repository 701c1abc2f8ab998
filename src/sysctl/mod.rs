//! The few kernel settings a gateway needs, and no other.
//!
//! Forwarding is the one that opens the gateway, so it has a switch of its own: a pass sets the others first, then the
//! rules, and forwarding only when the rules stand.

mod apply;
mod flows;
mod model;
mod observe;
mod originals;
mod plan;

use std::path::{Path, PathBuf};

pub use model::{Machine, Need, Setting, desired};
pub use originals::{Doubt, forwards, restore, stop_forwarding};
pub use plan::{Write, plan};

use crate::net::InterfaceName;
use crate::outcome::{Outcome, Problem, State};
use crate::site::Site;

/// Where the settings are, and where their former values are remembered.
#[derive(Debug, Clone)]
pub struct Place {
    /// `/proc/sys`.
    pub root: PathBuf,
    /// The former values, as JSON.
    pub memory: PathBuf,
}

impl Place {
    /// The kernel's own, with the memory in `state_directory`.
    pub fn of_kernel(state_directory: &Path) -> Self {
        Self { root: PathBuf::from("/proc/sys"), memory: state_directory.join("sysctl.json") }
    }
}

/// Whether forwarding may be switched on in this pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// The rules stand: on.
    On,
    /// Not known yet, or the rules do not stand: left as it is.
    Leave,
}

/// Makes the settings true. `stood_before`: they were true after the last pass, so a change now undoes somebody else's.
pub fn reconcile(
    place: &Place,
    site: &Site,
    tunnel: Option<&InterfaceName>,
    forwarding: Forwarding,
    stood_before: bool,
) -> Outcome {
    let (desired, observed) = look(place, site, tunnel, forwarding);
    let steps = plan(&desired, &observed.values);
    originals::note(place, &desired, &observed.values, stood_before);
    let applied = apply::apply(&place.root, &steps);
    let (mut problems, failed) = (applied.problems, applied.failed || !observed.problems.is_empty());
    problems.extend(
        observed
            .problems
            .into_iter()
            .map(|error| Problem::new(crate::error::chain(&error), "the daemon needs to read below /proc/sys/net")),
    );
    let denied = observed.fixed.len() + applied.denied;
    let is_held = |setting: &&Setting| setting.need == Need::Must || observed.values.contains_key(&setting.path);
    let held = desired.iter().filter(is_held).count() - applied.denied;
    let denied = if denied > 0 { format!(", {denied} not ours to set here") } else { String::new() };
    let detail = format!("{held} settings held{denied}");
    let state = if failed { State::Failed } else { State::Ok };
    let changes = applied.changes;
    let repaired = stood_before && !changes.is_empty();
    Outcome { changes, repaired, problems, ..Outcome::unchanged(state, detail) }
}

/// What is wanted, and what is there.
fn look(
    place: &Place,
    site: &Site,
    tunnel: Option<&InterfaceName>,
    forwarding: Forwarding,
) -> (Vec<Setting>, observe::Observed) {
    let desired = desired(site, tunnel, forwarding, observe::machine(&place.root));
    let observed = observe::observe(&place.root, &desired);
    (plan::without_lowering(desired, &observed.values), observed)
}

/// Whether the kernel has settings for the interface: whether it is there.
pub fn has_interface(place: &Place, interface: &InterfaceName) -> bool {
    place.root.join("net/ipv4/conf").join(interface.as_str()).exists()
}

/// What the next pass would write.
pub fn preview(place: &Place, site: &Site, tunnel: Option<&InterfaceName>, forwarding: Forwarding) -> Vec<Write> {
    let (desired, observed) = look(place, site, tunnel, forwarding);
    plan(&desired, &observed.values)
}

#[cfg(test)]
mod tests;
