//! Our table as nft lists it, less what changes by itself (handles, counters' values).
//!
//! The listing is kept as plain JSON values: nft rewrites what it is given, differently from version to version, so drift is
//! judged in its own words, by comparing two listings, never by reading rules back into types.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::apply::{Error, Nft};
use super::model::TABLE;

/// The table's objects in nft's words and order. Equal listings are equal tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Listing(pub Vec<Value>);

/// Lists the table; `None` when there is none.
pub(super) async fn observe(nft: &Nft) -> Result<Option<Listing>, Error> {
    let listed = nft.run(&["-j", "list", "table", "inet", TABLE], None).await;
    match listed {
        Ok(output) => normalised(&output).map(Some),
        // nft says "no such file" in words only, so ask for the tables' names before calling it a failure.
        Err(error @ Error::Refused { .. }) => {
            let tables = normalised(&nft.run(&["-j", "list", "tables"], None).await?)?;
            let ours = |object: &Value| object["table"]["family"] == "inet" && object["table"]["name"] == TABLE;
            if tables.0.iter().any(ours) { Err(error) } else { Ok(None) }
        }
        Err(error) => Err(error),
    }
}

/// nft's JSON without what changes by itself.
pub(super) fn normalised(output: &str) -> Result<Listing, Error> {
    let unreadable = |source| Error::Unreadable { source };
    let mut document: Value = serde_json::from_str(output).map_err(unreadable)?;
    let Some(Value::Array(mut objects)) = document.get_mut("nftables").map(Value::take) else {
        return Err(unreadable(serde::de::Error::missing_field("nftables")));
    };
    objects.retain(|object| object.get("metainfo").is_none());
    for object in &mut objects {
        settle(object);
    }
    Ok(Listing(objects))
}

/// Removes handles and the values of counters, and sorts the elements of sets, whose order nft does not promise.
fn settle(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("handle");
            for (key, inner) in map.iter_mut() {
                settle(inner);
                match inner {
                    Value::Object(counter) if key == "counter" => {
                        counter.remove("packets");
                        counter.remove("bytes");
                    }
                    Value::Array(elements) if key == "elem" || key == "set" => {
                        elements.sort_by_cached_key(Value::to_string);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(settle),
        _ => {}
    }
}

impl Listing {
    /// The objects of one kind (`chain`, `set`, `rule`, …).
    pub(super) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter_map(move |object| object.get(kind))
    }
}
