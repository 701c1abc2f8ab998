//! Our table as nft lists it, less what changes by itself (handles, counters' values, what the rules themselves remember).
//!
//! The listing is kept as plain JSON values: nft rewrites what it is given, differently from version to version, so drift is
//! judged in its own words, by comparing two listings, never by reading rules back into types.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
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

/// nft's JSON without what changes by itself, and with a sum in the place of a set's elements: ten thousand of them shall
/// take no memory between two looks, and as little as can be during one.
pub(super) fn normalised(output: &str) -> Result<Listing, Error> {
    let unreadable = |source| Error::Unreadable { source };
    let document: Document<'_> = serde_json::from_str(output).map_err(unreadable)?;
    let mut objects = Vec::with_capacity(document.nftables.len());
    for object in document.nftables {
        for (kind, body) in object {
            let body = match kind.as_ref() {
                "metainfo" => continue,
                "set" | "map" => condensed(&kind, body),
                _ => serde_json::from_str(body.get()),
            };
            let mut object = json!({ kind: body.map_err(unreadable)? });
            settle(&mut object);
            objects.push(object);
        }
    }
    Ok(Listing(objects))
}

/// What `nft -j` prints, with each object's body still as text.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    nftables: Vec<BTreeMap<Cow<'a, str>, &'a RawValue>>,
}

/// A set without its elements, but for their number and what they come to. A meter's are left away: packets make them.
fn condensed(kind: &str, body: &RawValue) -> Result<Value, serde_json::Error> {
    let mut body: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(body.get())?;
    let elements: Vec<&RawValue> =
        body.remove("elem").map_or(Ok(Vec::new()), |list| serde_json::from_str(list.get()))?;
    let mut set = serde_json::Map::new();
    for (key, value) in body.into_iter().filter(|(key, _)| key != "handle") {
        set.insert(key.into_owned(), serde_json::from_str(value.get())?);
    }
    let is_meter = |name| kind == "set" && skeleton::declares(kind, name);
    let is_ours_to_fill = !set.get("name").and_then(Value::as_str).is_some_and(is_meter);
    if is_ours_to_fill && !elements.is_empty() {
        // nft does not promise an order.
        let mut texts: Vec<&str> = elements.iter().map(|element| element.get()).collect();
        texts.sort_unstable();
        let mut hasher = DefaultHasher::new();
        texts.hash(&mut hasher);
        set.insert("elem".to_owned(), json!({"count": texts.len(), "digest": hasher.finish()}));
    }
    Ok(Value::Object(set))
}

/// Removes handles and the values of counters, and sorts the elements of anonymous sets.
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
                    Value::Array(elements) if key == "set" => elements.sort_by_cached_key(Value::to_string),
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
