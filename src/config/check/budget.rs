//! How many entries a configuration may load into the kernel.

use super::diagnostics::Diagnostics;

/// Ten thousand entries with ranges load in half a second and take 8 MiB of kernel memory; with this many, a reload
/// takes as long as an operator will wait. After every change by another program nft lists all of them: three times as
/// many took seven seconds and 768 MB (measured with nft 1.0.6).
const MAX_ENTRIES: usize = 65_536;

/// Counts the entries of all blocks or lists of one kind.
pub(super) struct Budget {
    /// Which blocks or lists they are and how they are counted, for the error.
    subject: &'static str,
    entries: usize,
    /// The key of the block or list that exceeded [`MAX_ENTRIES`].
    exceeded_by: Option<String>,
}

impl Budget {
    pub(super) fn new(subject: &'static str) -> Self {
        Self { subject, entries: 0, exceeded_by: None }
    }

    /// Adds the product of the sides' lengths. An empty side means "any" and counts as one.
    pub(super) fn add(&mut self, key: impl FnOnce() -> String, sides: impl IntoIterator<Item = usize>) {
        let entries = sides.into_iter().fold(1_usize, |product, side| product.saturating_mul(side.max(1)));
        self.entries = self.entries.saturating_add(entries);
        if self.entries > MAX_ENTRIES && self.exceeded_by.is_none() {
            self.exceeded_by = Some(key());
        }
    }

    /// Reports a budget that was exceeded.
    pub(super) fn check(self, diagnostics: &mut Diagnostics) {
        if let Some(key) = self.exceeded_by {
            let Self { subject, entries, .. } = self;
            let reason =
                format!("there are {entries} entries in {subject}; at most {MAX_ENTRIES} are supported, so use fewer");
            diagnostics.error(key, reason);
        }
    }
}
