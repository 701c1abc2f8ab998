//! What others on this server would drop of our traffic: named in the report, never touched.
//!
//! A packet passes only if the base chains of all tables let it, so an `accept` of ours does not help against the `drop` of
//! somebody else. Seen are base chains that drop whatever no rule of theirs decides, in nftables and in the iptables of old.
//! Their rules are not judged as a whole: whoever has rules that look like those that we would advise is left in peace, and what
//! is told says "unless other rules accept it".
//!
//! Other tables' sets are never listed: nft crashes on sets that a newer nft wrote, and they may be large.

mod advice;
mod legacy;
mod rule;
mod wall;
mod ways;

use std::time::Duration;

use serde_json::Value;

use super::apply::{Error, Nft};
use super::netlink;
use crate::config::Config;
use crate::error::chain;
use crate::inputs::Tunnel;
use crate::outcome::Problem;
use crate::site::Site;
use wall::{Hook, Wall};
use ways::{Door, Way};

/// How long the iptables of old may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What was seen of others, as long as the kernel's rules are the same.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    generation: Option<u32>,
    walls: Vec<Wall>,
}

/// What is in our packets' way, and what may be in others'.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Chains that drop what we forward.
    pub(super) problems: Vec<Problem>,
    /// Chains that may close the bastion's own ports.
    pub(super) hints: Vec<Problem>,
}

impl Foreign {
    /// Looks if anybody has changed a rule since the last look. What cannot be looked at is not told: it may well be nothing.
    pub(super) async fn look(&mut self, config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Account {
        // Asked before the look: what is changed after it has another generation.
        let generation = netlink::generation().ok();
        if generation.is_none() || generation != self.generation {
            match look().await {
                Ok(walls) => *self = Self { generation, walls },
                Err(error) => {
                    tracing::debug!(component = "nat", error = %chain(&error), "other tables cannot be looked at")
                }
            }
        }
        // No generation counts the rules of these.
        let (old, unseen) = legacy::walls().await;
        let (ways, doors) = (ways::ways(config, site, tunnel), ways::doors(config, site));
        let mut account = account(self.walls.iter().chain(&old), &ways, &doors);
        account.hints.extend(unseen);
        account
    }
}

async fn look() -> Result<Vec<Wall>, Error> {
    let nft = Nft::find()?;
    let mut walls = wall::walls(&nft.run(&["-j", "list", "chains"], None).await?)?;
    for wall in &mut walls {
        for chain in std::mem::take(&mut wall.looked_into) {
            let listed = nft.run(&["-j", "list", "chain", &wall.family, &wall.table, &chain], None).await;
            // A chain that cannot be listed has no rules that we know of.
            let rules = listed.as_deref().map(rules).unwrap_or_default();
            wall.rules.extend(rules);
        }
    }
    Ok(walls)
}

/// The rules of a listing that let something pass.
fn rules(listing: &str) -> Vec<rule::Rule> {
    objects(listing, "rule").iter().filter_map(rule::Rule::read).collect()
}

/// The objects of one kind in nft's listing; none where it is something else.
fn objects(listing: &str, kind: &str) -> Vec<Value> {
    let mut document: Value = serde_json::from_str(listing).unwrap_or_default();
    let objects = document.get_mut("nftables").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    objects.into_iter().filter_map(|mut object| object.get_mut(kind).map(Value::take)).collect()
}

/// What has to be told of these.
fn account<'a>(walls: impl Iterator<Item = &'a Wall>, ways: &[Way], doors: &[Door]) -> Account {
    let mut account = Account::default();
    for wall in walls {
        match wall.hook {
            Hook::Forward => {
                let shut: Vec<&Way> =
                    ways.iter().filter(|way| !wall.rules.iter().any(|rule| rule.lets_pass(way))).collect();
                account.problems.extend(advice::of_ways(wall, &shut));
            }
            Hook::Input => {
                let shut: Vec<&Door> =
                    doors.iter().filter(|door| !wall.rules.iter().any(|rule| rule.opens(door))).collect();
                account.hints.extend(advice::of_doors(wall, &shut));
            }
        }
    }
    account
}

#[cfg(test)]
mod tests;
