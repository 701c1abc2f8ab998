//! Carries a plan out: tries every step, keeps each error.

use super::api::Error;
use super::observe::RouteTables;
use super::plan::RoutePlan;
use crate::net::NetworkId;

/// Withdraws, then claims, and returns what failed. Changes of one network are made one after the other: the API locks
/// the network while one runs.
///
/// Only reading the network again shows what really changed: a lost answer does not prove that nothing was done.
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
