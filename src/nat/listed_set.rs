//! nft's listing of one set that rules fill.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::nft::Error;

/// The set, with elements that are read as `E`. What `E` does not need is skipped.
#[derive(Debug, Deserialize)]
#[serde(bound = "E: DeserializeOwned")]
pub(super) struct ListedSet<E> {
    /// For how many seconds an element stays after its last update.
    pub(super) timeout: Option<u64>,
    #[serde(default)]
    pub(super) elem: Vec<E>,
}

/// Reads a listing; `None` if there is no set in it.
pub(super) fn read<E: DeserializeOwned>(listing: &str) -> Result<Option<ListedSet<E>>, Error> {
    #[derive(Deserialize)]
    #[serde(bound = "E: DeserializeOwned")]
    struct Document<E> {
        nftables: Vec<Object<E>>,
    }
    #[derive(Deserialize)]
    #[serde(bound = "E: DeserializeOwned")]
    struct Object<E> {
        set: Option<ListedSet<E>>,
    }
    let document: Document<E> = serde_json::from_str(listing).map_err(|source| Error::Unreadable { source })?;
    Ok(document.nftables.into_iter().find_map(|object| object.set))
}
