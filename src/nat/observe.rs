//! Our table as nft lists it, less what changes by itself (handles, counters' values, what the rules themselves remember).
//!
//! The listing is kept as plain JSON values: nft rewrites what it is given, differently from version to version, so drift is
//! judged in its own words, by comparing two listings, never by reading rules back into types.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::apply::{Error, Nft};
use super::model::TABLE;
use super::skeleton;

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
        condense(object);
    }
    Ok(Listing(objects))
}

/// Leaves of a set's elements how many they are and what they come to, so that ten thousand take no memory between two looks.
/// A meter's are left away: packets make them.
fn condense(object: &mut Value) {
    for kind in ["set", "map"] {
        let Some(Value::Object(set)) = object.get_mut(kind) else { continue };
        let is_meter = set.get("name").and_then(Value::as_str).is_some_and(|name| skeleton::declares("set", name));
        let Some(Value::Array(elements)) = set.remove("elem") else { continue };
        if !is_meter && !elements.is_empty() {
            let mut hasher = DefaultHasher::new();
            for element in &elements {
                element.to_string().hash(&mut hasher);
            }
            set.insert("elem".to_owned(), json!({"count": elements.len(), "digest": hasher.finish()}));
        }
    }
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
