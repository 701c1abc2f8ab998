//! Chains of other programs that see every forwarded packet: they may count, limit, mark or change it, and packets that
//! take the fast path bypass them.
//!
//! Chains of the type `nat` see the first packet of a flow alone. What a chain's rules do is not judged: a person who
//! asks for the fast path can see in the report which chain is in its way.

use serde_json::Value;

use super::super::model::TABLE;
use super::super::nft::{Error, Nft};
use super::{legacy, objects};
use crate::error::chain;

/// The hooks that a forwarded packet passes.
const HOOKS: [&str; 5] = ["ingress", "prerouting", "forward", "postrouting", "egress"];

/// The chains, listed again when a rule has changed.
#[derive(Debug, Default)]
pub(in crate::nat) struct EveryPacket {
    /// The kernel's generation of all rules when nftables was listed.
    generation: Option<u32>,
    chains: Vec<String>,
}

impl EveryPacket {
    /// The chains in an operator's words. What cannot be listed counts as one.
    pub(in crate::nat) async fn observe(&mut self, generation: Option<u32>) -> Vec<String> {
        if generation.is_none() || generation != self.generation {
            match list().await {
                Ok(chains) => (self.generation, self.chains) = (generation, chains),
                Err(error) => {
                    self.generation = None;
                    return vec![format!("the rules of other programs cannot be listed ({})", chain(&error))];
                }
            }
        }
        self.chains.iter().cloned().chain(legacy::needs_every_packet().await).collect()
    }
}

async fn list() -> Result<Vec<String>, Error> {
    let nft = Nft::find()?;
    let listing = nft.run(&["-j", "list", "chains"], None).await?;
    let mut found = Vec::new();
    for Base { family, table, name, drops } in bases(&listing) {
        // A chain that cannot be listed, or that has gone meanwhile, counts as one with rules.
        let has_rules = drops
            || match nft.run(&["-j", "list", "chain", &family, &table, &name], None).await {
                Ok(listing) => !objects(&listing, "rule").is_empty(),
                Err(_) => true,
            };
        if has_rules {
            found.push(format!("chain {name} of table {family} {table} sees every packet"));
        }
    }
    Ok(found)
}

/// A base chain that every forwarded packet passes.
#[derive(Debug, PartialEq, Eq)]
struct Base {
    family: String,
    table: String,
    name: String,
    /// Whether it drops what no rule of its own accepts.
    drops: bool,
}

fn bases(listing: &str) -> Vec<Base> {
    objects(listing, "chain").iter().filter_map(base).collect()
}

fn base(chain: &Value) -> Option<Base> {
    let text = |key| chain.get(key).and_then(Value::as_str);
    let (family, table, name) = (text("family")?, text("table")?, text("name")?);
    let is_passed = HOOKS.contains(&text("hook")?) && text("type")? != "nat";
    let is_ours = (family, table) == ("inet", TABLE);
    if is_ours || !is_passed || !matches!(family, "ip" | "inet" | "netdev") {
        return None;
    }
    let drops = text("policy") == Some("drop");
    Some(Base { family: family.to_owned(), table: table.to_owned(), name: name.to_owned(), drops })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_forwarded_packets_pass_are_found_and_those_of_nat_and_ours_are_not() {
        let chain = |family, table, name, kind, hook, policy| {
            serde_json::json!({ "chain": {
                "family": family, "table": table, "name": name, "type": kind, "hook": hook, "policy": policy,
            } })
        };
        let listing = serde_json::json!({ "nftables": [
            chain("ip", "filter", "FORWARD", "filter", "forward", "drop"),
            chain("ip", "filter", "INPUT", "filter", "input", "drop"),
            chain("ip", "nat", "POSTROUTING", "nat", "postrouting", "accept"),
            chain("ip6", "filter", "FORWARD", "filter", "forward", "drop"),
            chain("netdev", "meter", "in", "filter", "ingress", "accept"),
            chain("inet", TABLE, "forward", "filter", "forward", "drop"),
            { "chain": { "family": "ip", "table": "filter", "name": "DOCKER-USER" } },
        ] });
        let found = bases(&listing.to_string());
        let found: Vec<(&str, bool)> = found.iter().map(|base| (base.name.as_str(), base.drops)).collect();
        assert_eq!(found, [("FORWARD", true), ("in", false)]);
    }
}
