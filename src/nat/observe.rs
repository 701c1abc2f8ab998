//! Our table as nft lists it, without what changes by itself (handles, values of counters, elements that the rules
//! add).
//!
//! The listing is kept as plain JSON values: nft rewrites what it is given, differently from version to version. So
//! drift is found by comparing two listings, never by reading rules back into types.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::command::ObjectKind;
use super::declarations;
use super::model::TABLE;
use super::netlink::{self, Standing};
use super::nft::{Error, Nft};

/// What stands in the listing of a table whose chains see no packets.
pub(super) const DORMANT: &str = "dormant";

/// The table's objects in nft's words and order. Equal listings mean equal tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Listing(pub Vec<Value>);

/// Lists the table; `None` if there is none.
pub(super) async fn list_table(nft: &Nft) -> Result<Option<Listing>, Error> {
    let listed = nft.run(&["-j", "list", "table", "inet", TABLE], None).await;
    match listed {
        Ok(output) => {
            let mut listing = normalise(&output)?;
            // Err: the next look shows it.
            if netlink::standing().is_ok_and(|standing| standing == Standing::Dormant) {
                listing.0.push(json!({ DORMANT: {} }));
            }
            Ok(Some(listing))
        }
        // nft says "no such file" in words only, so the list of tables decides whether it is a failure.
        Err(error @ Error::Refused { .. }) => {
            let tables = normalise(&nft.run(&["-j", "list", "tables"], None).await?)?;
            let ours = |object: &Value| object["table"]["family"] == "inet" && object["table"]["name"] == TABLE;
            if tables.0.iter().any(ours) { Err(error) } else { Ok(None) }
        }
        Err(error) => Err(error),
    }
}

/// nft's JSON without what changes by itself, and with a digest in the place of a set's elements: ten thousand of them
/// must take no memory between two passes, and little during one.
pub(super) fn normalise(output: &str) -> Result<Listing, Error> {
    let unreadable = |source| Error::Unreadable { source };
    let document: Document<'_> = serde_json::from_str(output).map_err(unreadable)?;
    let mut objects = Vec::with_capacity(document.nftables.len());
    for object in document.nftables {
        for (kind, body) in object {
            let body = match kind.as_ref() {
                "metainfo" => continue,
                "set" | "map" => summarise_set(&kind, body),
                _ => serde_json::from_str(body.get()),
            };
            let mut object = json!({ kind: body.map_err(unreadable)? });
            remove_volatile(&mut object);
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

/// A set with the number and a digest of its elements instead of the elements. A meter has neither: packets add its
/// elements.
fn summarise_set(kind: &str, body: &RawValue) -> Result<Value, serde_json::Error> {
    let mut body: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(body.get())?;
    let elements: Vec<&RawValue> =
        body.remove("elem").map_or(Ok(Vec::new()), |list| serde_json::from_str(list.get()))?;
    let mut set = serde_json::Map::new();
    for (key, value) in body.into_iter().filter(|(key, _)| key != "handle") {
        set.insert(key.into_owned(), serde_json::from_str(value.get())?);
    }
    let is_meter = |name| kind == "set" && declarations::declares(ObjectKind::Set, name);
    let is_ours_to_fill = !set.get("name").and_then(Value::as_str).is_some_and(is_meter);
    if is_ours_to_fill && !elements.is_empty() {
        // nft does not list them in a fixed order.
        let mut texts: Vec<&str> = elements.iter().map(|element| element.get()).collect();
        texts.sort_unstable();
        let mut hasher = DefaultHasher::new();
        texts.hash(&mut hasher);
        set.insert("elem".to_owned(), json!({"count": texts.len(), "digest": hasher.finish()}));
    }
    Ok(Value::Object(set))
}

/// Removes handles and values of counters, and sorts the elements of anonymous sets.
fn remove_volatile(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("handle");
            for (key, inner) in map.iter_mut() {
                remove_volatile(inner);
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
        Value::Array(values) => values.iter_mut().for_each(remove_volatile),
        _ => {}
    }
}

impl Listing {
    /// The objects of one kind (`chain`, `set`, `rule`, …).
    pub(super) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter_map(move |object| object.get(kind))
    }
}
