//! One message about the configuration.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong with the configuration, or doubtful.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// The key, dotted as in the file: `firewall.ssh_from[1]`. A syntax error has its line and column here.
    pub key: String,
    /// What is wrong with the value and what would be right, on one line.
    pub reason: String,
}

impl Diagnostic {
    /// Shortens `reason` and escapes control characters in it, because it may quote any part of the file.
    pub(super) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: one_line(&reason.into()) }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
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
