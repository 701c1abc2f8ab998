//! One message about the configuration, and the place in the file that it is about.

use std::fmt;
use std::io::IsTerminal as _;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// One thing that is wrong with the configuration, or doubtful.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// The key, dotted as in the file: `firewall.ssh_from[1]`. A syntax error has its line and column here.
    pub key: String,
    /// What is wrong with the value and what would be right, on one line.
    pub reason: String,
    /// Where the key is, if it is in a file.
    pub place: Option<Place>,
}

/// A place in a file of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// `peers.d/alice.toml`; `None` for the configuration file itself.
    pub file: Option<String>,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// The line, shortened if it is long; empty if it holds a secret.
    text: String,
    /// The bytes of `text` that the message is about.
    span: (usize, usize),
}

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It is doubtful.
    Warning,
}

impl Diagnostic {
    /// Shortens `reason` and escapes control characters in it, because it may quote any part of the file.
    pub(super) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: one_line(&reason.into()), place: None }
    }

    /// A syntax error has its position in place of a key.
    fn is_syntax_error(&self, position: &str) -> bool {
        self.key.ends_with(position)
    }

    /// The message with the line of the file that it is about, several lines of text. `path` is the configuration file.
    pub fn excerpt(&self, path: &Path, severity: Severity) -> String {
        let name = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Some(place) = self.place.as_ref().filter(|place| !place.is_hidden()) else {
            return format!("{name}: {self}");
        };
        let position = format!("line {}, column {}", place.line, place.column);
        let is_syntax_error = self.is_syntax_error(&position);
        let title = if is_syntax_error { self.reason.clone() } else { format!("{}: {}", self.key, self.reason) };
        let file = path.display().to_string();
        let file = place.file.as_ref().unwrap_or(&file);
        let annotation = AnnotationKind::Primary.span(place.span.0..place.span.1);
        let snippet = Snippet::source(&place.text).line_start(place.line).path(file).annotation(annotation);
        let level = match severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let renderer = if std::io::stderr().is_terminal() { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[level.primary_title(title).element(snippet)])
    }
}

impl Place {
    /// Whether its line must not be quoted.
    pub(super) fn is_hidden(&self) -> bool {
        self.text.is_empty()
    }

    /// The text that the message is about.
    #[cfg(test)]
    pub(super) fn marked(&self) -> &str {
        &self.text[self.span.0..self.span.1]
    }

    /// The place of these bytes of a file's text. Only the first of several lines counts.
    pub(super) fn new(text: &str, span: Range<usize>, file: Option<&str>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        let (start, end) = (before.len() - line_start, span.end.saturating_sub(line_start));
        // As many bytes before the place as fit, so that the place itself is seen.
        let from = floor(line, start.saturating_sub(EXCERPT / 2));
        let to = floor(line, (from + EXCERPT).min(line.len()));
        let holds_secret = line.replace(NO_SECRET, "").contains(SECRET);
        let shown = if holds_secret { "" } else { &line[from..to] };
        let (start, end) = (start.clamp(from, to) - from, end.clamp(from, to) - from);
        Self {
            file: file.map(str::to_owned),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            text: shown.to_owned(),
            span: if holds_secret { (0, 0) } else { (start, end.max(start)) },
        }
    }
}

/// The largest position up to `at` that is between two characters.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// The longest excerpt of a line, in bytes: a hundred characters of most texts.
const EXCERPT: usize = 120;
/// The key whose value must not be seen. The key of a file's name, which begins alike, holds no secret.
const SECRET: &str = "preshared_key";
const NO_SECRET: &str = "preshared_key_file";

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, reason, place } = self;
        match place {
            None => write!(f, "{key}: {reason}"),
            Some(Place { file, line, column, .. }) => {
                let position = format!("line {line}, column {column}");
                if self.is_syntax_error(&position) {
                    return write!(f, "{key}: {reason}");
                }
                if let Some(file) = file {
                    write!(f, "{file}: ")?;
                }
                write!(f, "{position}: {key}: {reason}")
            }
        }
    }
}

/// The text on one line, at most about 320 characters long. Long texts lose their middle, so that the advice at the end
/// stays.
fn one_line(text: &str) -> String {
    const KEEP: usize = 160;
    let escape = |text: &str| {
        text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
            if c.is_control() {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
            line
        })
    };
    if text.len() <= 2 * KEEP {
        return escape(text);
    }
    let head = text.char_indices().nth(KEEP).map(|(at, _)| at);
    let tail = text.char_indices().nth_back(KEEP - 1).map(|(at, _)| at);
    match head.zip(tail) {
        Some((head, tail)) if head < tail => format!("{} … {}", escape(&text[..head]), escape(&text[tail..])),
        _ => escape(text),
    }
}
