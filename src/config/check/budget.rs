//! How many entries a configuration may have the kernel hold.

use super::super::findings::Findings;

/// Ten thousand entries with ranges load in half a second and take 8 MiB of the kernel's memory; with so many a reload takes
/// as long as an operator waits. nft also lists all of them at every change by somebody else: with three times as many that took seven
/// seconds and 768 MB (measured with nft 1.0.6).
const MAX_ENTRIES: usize = 65_536;

/// How many entries all blocks or lists of one kind have together.
pub(super) struct Budget {
    /// Which they are, and how they are counted.
    of: &'static str,
    entries: usize,
    /// The key of the one that was too many.
    exceeded_by: Option<String>,
}

impl Budget {
    pub(super) fn of(of: &'static str) -> Self {
        Self { of, entries: 0, exceeded_by: None }
    }

    /// Counts each element of each side with each of the others; a side without any means "any", and is one.
    pub(super) fn take(&mut self, key: impl FnOnce() -> String, sides: impl IntoIterator<Item = usize>) {
        let entries = sides.into_iter().fold(1_usize, |product, side| product.saturating_mul(side.max(1)));
        self.entries = self.entries.saturating_add(entries);
        if self.entries > MAX_ENTRIES && self.exceeded_by.is_none() {
            self.exceeded_by = Some(key());
        }
    }

    pub(super) fn keep(self, found: &mut Findings) {
        if let Some(key) = self.exceeded_by {
            let Self { of, entries, .. } = self;
            found.report(key, format!("there are {entries} entries in {of}; at most {MAX_ENTRIES} are supported"));
        }
    }
}
