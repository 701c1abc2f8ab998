//! What the gateway and the component of the cloud, which the daemon runs beside the passes, tell each other.

use std::collections::BTreeMap;
use std::path::Path;

use super::Gateway;
use crate::config::Config;
use crate::error::chain;
use crate::hcloud::SeenRoutes;
use crate::inputs::SeenReturnRoutes;
use crate::net::InterfaceName;
use crate::outcome::{ComponentName, Outcome, State};
use crate::site::SeenOtherRoutes;
use crate::state;

/// The file of what the cloud's networks were last seen to send here.
const RETURN_ROUTES_FILE: &str = "ways-back.json";
/// The file of the routes to other servers that the cloud's networks were last seen to have.
const OTHER_ROUTES_FILE: &str = "other-routes.json";

/// What has to stand before the cloud's networks send traffic here.
const BEFORE_CLOUD: [ComponentName; 3] = [ComponentName::Nat, ComponentName::Sysctl, ComponentName::Forwarding];

/// What the cloud's networks were last seen to have, before a daemon that was killed.
pub(super) fn remembered(runtime_directory: &Path) -> (SeenReturnRoutes, SeenOtherRoutes) {
    let returns = state::read_json(&runtime_directory.join(RETURN_ROUTES_FILE)).unwrap_or_default();
    (returns, state::read_json(&runtime_directory.join(OTHER_ROUTES_FILE)).unwrap_or_default())
}

impl Gateway {
    /// Records an outcome of the cloud's component.
    pub(crate) fn record_cloud(&mut self, outcome: Outcome) {
        self.record(ComponentName::Hcloud, outcome);
    }

    /// Takes over the routes that the cloud's networks have now; whether they differ from before. A network that could
    /// not be read keeps its routes.
    pub(crate) fn learn_routes(&mut self, config: &Config, seen: &SeenRoutes) -> bool {
        let is_asked = |interface: &InterfaceName| {
            config.hcloud.enabled && self.site.private.iter().any(|link| link.interface == *interface)
        };
        let returns = merged(&self.seen_return_routes, &seen.here, is_asked);
        let others = merged(&self.seen_other_routes, &seen.elsewhere, is_asked);
        let is_news = (&returns, &others) != (&self.seen_return_routes, &self.seen_other_routes);
        if self.seen_return_routes != returns {
            self.seen_return_routes = returns;
            self.remember(RETURN_ROUTES_FILE, &self.seen_return_routes, "peers are masqueraded after the next restart");
        }
        if self.seen_other_routes != others {
            self.seen_other_routes = others;
            let effect = "ranges behind networks are not served after the next restart, until the API has answered";
            self.remember(OTHER_ROUTES_FILE, &self.seen_other_routes, effect);
        }
        is_news
    }

    fn remember(&self, file: &str, routes: &impl serde::Serialize, effect: &str) {
        if let Err(error) = state::write_json(&self.runtime_directory.join(file), routes) {
            tracing::warn!(component = "hcloud", error = %chain(&error), "{effect}");
        }
    }

    /// Why the cloud's networks must not send traffic here now; `None` if they may.
    pub(crate) fn holds_back_cloud(&self) -> Option<Outcome> {
        let not_ok = BEFORE_CLOUD.into_iter().find(|&component| self.report.state(component) != Some(State::Ok));
        let reason = match (not_ok, &self.site.public) {
            (Some(component), _) => format!("waits for {component}"),
            (None, Some(public)) if public.addresses.is_empty() && !self.site.needs_no_nat => {
                format!("waits for an address of {}", public.interface)
            }
            _ => return None,
        };
        Some(Outcome::unchanged(State::HeldBack, reason))
    }
}

/// What is known of each network's routes: what was read now, or else what was known before.
fn merged<T: Clone>(
    known: &BTreeMap<InterfaceName, Vec<T>>,
    read: &BTreeMap<InterfaceName, Vec<T>>,
    is_asked: impl Fn(&InterfaceName) -> bool,
) -> BTreeMap<InterfaceName, Vec<T>> {
    let mut merged = known.clone();
    merged.extend(read.clone());
    merged.retain(|interface, _| is_asked(interface));
    merged
}
