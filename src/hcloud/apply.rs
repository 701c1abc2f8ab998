//! Carries a plan out: tries every step, keeps each error.

use super::api::Error;
use super::observe::RouteTables;
use super::plan::Plan;
use crate::net::NetworkId;

/// Withdraws, then claims; what failed. Changes of one network go one after the other: it is locked while one runs.
///
/// What really changed only a fresh look can tell: an answer that was lost is no proof that nothing was done.
pub async fn apply(tables: &impl RouteTables, network: NetworkId, plan: &Plan) -> Vec<Error> {
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
