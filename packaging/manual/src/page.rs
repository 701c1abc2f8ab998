//! A manual page in the making: sections, paragraphs, lists.

use roff::{Inline, Roff, bold, italic, roman};

/// The lines of a page so far.
pub(crate) struct Page(Roff);

impl Page {
    /// The head, and the section NAME that `apropos` and `whatis` read.
    pub(crate) fn new(name: &str, section: &str, purpose: &str) -> Self {
        let mut page = Self(Roff::new());
        let version = concat!("bastiond ", env!("CARGO_PKG_VERSION"));
        // No date: a page is as old as its version. The crate leaves an empty argument away, hence the quotes.
        page.0.control("TH", [name, section, "\"\"", version, "bastiond"]);
        // No space stretched to fill lines, and no word broken: commands and keys are copied from here.
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

    /// Paragraphs, apart by empty lines; words in back-ticks are bold.
    pub(crate) fn text(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            self.0.control("PP", []);
            self.0.text(inline(paragraph));
        }
    }

    /// Words that are typed as they stand.
    pub(crate) fn line(&mut self, words: Vec<Inline>) {
        self.0.control("PP", []);
        self.0.text(words);
    }

    /// An entry of a list.
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

    /// What follows belongs to the entry before.
    pub(crate) fn indent(&mut self) {
        self.0.control("RS", []);
    }

    /// No more.
    pub(crate) fn outdent(&mut self) {
        self.0.control("RE", []);
    }

    /// References to other pages, like `wg(8)`.
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

    /// The page as man(1) reads it.
    pub(crate) fn finish(self) -> String {
        self.0.render()
    }
}

/// Words in back-ticks are bold.
fn inline(text: &str) -> Vec<Inline> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let odd_is_code = |(number, part): (usize, &str)| if number % 2 == 1 { bold(part) } else { roman(part) };
    text.split('`').enumerate().filter(|(_, part)| !part.is_empty()).map(odd_is_code).collect()
}

/// A word to be typed, and what to put in its place.
pub(crate) fn typed(word: &str, place: Option<&str>) -> Vec<Inline> {
    let mut words = vec![bold(word)];
    if let Some(place) = place {
        words.extend([roman(" "), italic(place)]);
    }
    words
}
