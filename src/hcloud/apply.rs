//! Carries a plan out: tries every step and keeps each error.

use super::api::Error;
use super::observe::RouteTables;
use super::plan::RoutePlan;
use crate::net::NetworkId;

/// Deletes routes, then adds routes, and returns the errors. The changes run one after the other, because the API locks
/// the network during each one.
///
/// The caller reads the network again to see what has changed: a call without an answer may have had its effect.
pub(super) async fn apply(tables: &impl RouteTables, network: NetworkId, plan: &RoutePlan) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut still_held = Vec::new();
    for &route in &plan.withdraw {
        if let Err(error) = tables.withdraw(network, route).await {
            still_held.push(route.destination);
            errors.push(error);
        }
    }
    for &route in plan.claim.iter().filter(|route| !still_held.contains(&route.destination)) {
        if let Err(error) = tables.claim(network, route).await {
            errors.push(error);
        }
    }
    errors
}
