//! The set `portless`, which the rules fill with senders of protocols without ports.

use std::net::Ipv4Addr;

use serde::Deserialize;

use super::counters::Count;
use super::listed_set;
use super::model::TABLE;
use super::nft::{Error, Nft};
use crate::error::chain;
use crate::inputs::PortlessSender;

/// The name of the set.
pub(super) const PORTLESS: &str = "portless";

/// Who has sent first packets of such protocols within the last five minutes; nobody if the set cannot be read.
pub(crate) async fn portless_senders() -> Vec<PortlessSender> {
    list().await.unwrap_or_else(|error| {
        tracing::debug!(component = "nat", set = PORTLESS, error = %chain(&error), "cannot be listed");
        Vec::new()
    })
}

async fn list() -> Result<Vec<PortlessSender>, Error> {
    // Protocols as numbers: their names are those of /etc/protocols.
    read(&Nft::find()?.run(&["-j", "-p", "list", "set", "inet", TABLE, PORTLESS], None).await?)
}

/// Reads nft's listing of the set. An element that is none of ours is left out.
fn read(listing: &str) -> Result<Vec<PortlessSender>, Error> {
    #[derive(Deserialize)]
    struct Element {
        elem: Full,
    }
    #[derive(Deserialize)]
    struct Full {
        val: Key,
        #[serde(default)]
        counter: Count,
    }
    #[derive(Deserialize)]
    struct Key {
        concat: (Ipv4Addr, u8, Ipv4Addr),
    }
    let elements = listed_set::read(listing)?.map(|set| set.elem).unwrap_or_default().into_iter();
    let sender = |element| {
        let Element { elem: Full { val: Key { concat: (host, protocol, destination) }, counter } } =
            serde_json::from_value(element).ok()?;
        Some(PortlessSender { host, protocol, destination, packets: counter.packets })
    };
    Ok(elements.filter_map(sender).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_read_with_the_numbers_of_their_protocols() {
        let listing = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet",
            "name": "portless", "type": ["ipv4_addr", "inet_proto", "ipv4_addr"], "size": 4096,
            "timeout": 300, "elem": [
            {"elem": {"val": {"concat": ["10.0.1.5", 47, "203.0.113.10"]}, "expires": 296,
                      "counter": {"packets": 6, "bytes": 264}}},
            {"elem": {"val": {"concat": ["10.0.0.4", "gre", "203.0.113.10"]}, "expires": 296}},
            {"elem": {"val": {"concat": ["10.0.0.4", 50, "203.0.113.10"]}, "expires": 2}}]}}]}"#;
        let sender = |host: &str, protocol, packets| PortlessSender {
            host: host.parse().unwrap(),
            protocol,
            destination: "203.0.113.10".parse().unwrap(),
            packets,
        };
        assert_eq!(read(listing).unwrap(), [sender("10.0.1.5", 47, 6), sender("10.0.0.4", 50, 0)]);
        assert_eq!(read(r#"{"nftables": [{"set": {"name": "portless"}}]}"#).unwrap(), []);
        read("").unwrap_err();
    }
}
