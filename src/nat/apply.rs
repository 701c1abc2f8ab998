//! Carries a change of the table out.

use std::sync::Arc;

use super::model::{Ruleset, TABLE};
use super::nft::{Error, Nft};
use super::plan::{self, Change, LastApplied};
use super::{declarations, drift, netlink, observe};

/// Makes the change. `table_exists`: the table was there when the change was planned.
///
/// An object in the table that is not known may be in the way of the change. Then the table is made from nothing, which
/// keeps the flows and loses the counters. Rules that would be refused there as well must not cost those that stand, so
/// that is checked first.
pub(super) async fn apply(nft: &Nft, desired: &Ruleset, change: &Change, table_exists: bool) -> Result<(), Error> {
    match nft.load(&change.declarations, &change.commands).await {
        Err(Error::Refused { complaint, .. }) if table_exists => {
            nft.check(&plan::commands(desired, None, None, None)).await?;
            tracing::warn!(
                component = "nat",
                complaint,
                "the table cannot be changed in place; it is deleted and made from nothing"
            );
            recreate(nft, desired).await
        }
        applied => applied,
    }
}

/// Deletes the table with all that it counted, and makes it from nothing. In between, nothing is forwarded.
pub(super) async fn recreate(nft: &Nft, desired: &Ruleset) -> Result<(), Error> {
    let declared = declarations::text(&declarations::all(), TABLE).unwrap_or_default();
    // Added first, so that the deletion has something to delete whatever happened meanwhile.
    nft.run_text(format!(
        "add table inet {TABLE}\ndelete table inet {TABLE}\n{declared}\
         add chain inet {TABLE} forward {{ type filter hook forward priority filter - 5; policy drop; }}\n"
    ))
    .await?;
    nft.apply(&plan::commands(desired, None, None, None)).await
}

/// Lists what was just loaded. From now on this listing counts as the desired rules, so it is checked against them:
/// another program may have changed the table in between.
pub(super) async fn read_back(nft: &Nft, desired: &Arc<Ruleset>, outranked: Vec<String>) -> Result<LastApplied, Error> {
    // Asked before the table is listed: a change after that has another generation.
    let generation = netlink::generation().ok();
    let listing = observe::list_table(nft).await?.filter(|listing| drift::is_listing_of(desired, listing));
    Ok(LastApplied {
        fingerprint: plan::fingerprint(desired),
        listing: listing.ok_or(Error::Disturbed)?,
        meters: desired.meters.iter().map(|meter| (meter.name.to_owned(), meter.limit)).collect(),
        outranked,
        generation,
        ruleset: Some(Arc::clone(desired)),
    })
}
