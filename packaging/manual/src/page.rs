//! Builds a manual page: sections, paragraphs, lists.

use roff::{Inline, Roff, bold, italic, roman};

/// A manual page under construction.
pub(crate) struct Page(Roff);

impl Page {
    /// Starts a page with its header and the section NAME, which `apropos` and `whatis` read.
    pub(crate) fn new(name: &str, section: &str, purpose: &str) -> Self {
        let mut page = Self(Roff::new());
        let version = concat!("bastiond ", env!("CARGO_PKG_VERSION"));
        // No date: the version says how old a page is. The quotes keep the crate from dropping the empty argument.
        page.0.control("TH", [name, section, "\"\"", version, "bastiond"]);
        // Left-aligned and without hyphenation, so that commands and keys can be copied.
        page.0.control("ad", ["l"]);
        page.0.control("nh", []);
        page.section("NAME");
        page.0.text([roman(format!("{name} - {purpose}"))]);
        page
    }

    pub(crate) fn section(&mut self, title: &str) {
        self.0.control("SH", [title]);
    }

    pub(crate) fn subsection(&mut self, title: &str) {
        self.0.control("SS", [title]);
    }

    /// Adds paragraphs, separated by empty lines. Words in backticks are bold.
    pub(crate) fn text(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            self.0.control("PP", []);
            self.0.text(inline(paragraph));
        }
    }

    /// Adds a line of its own.
    pub(crate) fn line(&mut self, words: Vec<Inline>) {
        self.0.control("PP", []);
        self.0.text(words);
    }

    /// Adds an entry of a list: a tag and its explanation.
    pub(crate) fn entry(&mut self, tag: Vec<Inline>, text: &str) {
        self.0.control("TP", []);
        self.0.text(tag);
        for (number, paragraph) in text.split("\n\n").enumerate() {
            if number > 0 {
                self.0.control("IP", []);
            }
            self.0.text(inline(paragraph));
        }
    }

    /// Indents what follows below the last entry.
    pub(crate) fn indent(&mut self) {
        self.0.control("RS", []);
    }

    /// Ends [`Page::indent`].
    pub(crate) fn outdent(&mut self) {
        self.0.control("RE", []);
    }

    /// Adds references to other pages, like `wg(8)`.
    pub(crate) fn see_also(&mut self, pages: &[&str]) {
        self.section("SEE ALSO");
        let mut words = Vec::new();
        for page in pages {
            let (name, section) = page.split_once('(').unwrap_or((page, ""));
            let comma = if words.is_empty() { "" } else { ", " };
            words.extend([roman(comma), bold(name), roman(format!("({section}"))]);
        }
        self.0.text(words);
    }

    /// The page in man(1)'s format.
    pub(crate) fn finish(self) -> String {
        self.0.render()
    }
}

/// Parses text in which words in backticks are bold.
fn inline(text: &str) -> Vec<Inline> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let odd_is_code = |(number, part): (usize, &str)| if number % 2 == 1 { bold(part) } else { roman(part) };
    text.split('`').enumerate().filter(|(_, part)| !part.is_empty()).map(odd_is_code).collect()
}

/// A literal word in bold, and a placeholder in italics.
pub(crate) fn typed(word: &str, place: Option<&str>) -> Vec<Inline> {
    let mut words = vec![bold(word)];
    if let Some(place) = place {
        words.extend([roman(" "), italic(place)]);
    }
    words
}
