//! Names of peers that the commands make, and the files for them.

use std::fmt;
use std::str::FromStr;

/// The longest name, in characters. That is the configuration's own limit.
const MAX_NAME: usize = 64;
/// The longest name of a file, in bytes, less what a file has while it is written (`NAME_MAX` in linux/limits.h: 255).
const MAX_FILE_NAME: usize = 225;
/// What a name may have besides letters and digits.
const MARKS: [char; 5] = ['-', '_', '.', '@', '+'];

/// A name without characters that a shell, a file system, a terminal or a table gives a meaning to: `alice`,
/// `alice/phone`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerName(String);

/// The text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name for a peer: it has 1 to {MAX_NAME} letters, digits and `-`, `_`, `.`, `@`, `+`, begins with a \
     letter or digit, and may have several such parts with `/` between them (alice, alice/phone)"
)]
pub(super) struct InvalidName(String);

impl FromStr for PeerName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_part = |part: &str| {
            part.starts_with(char::is_alphanumeric) && part.chars().all(|c| c.is_alphanumeric() || MARKS.contains(&c))
        };
        let name = Self(text.to_owned());
        let is_short = text.chars().count() <= MAX_NAME && name.file_name().len() <= MAX_FILE_NAME;
        if is_short && text.split('/').all(is_part) { Ok(name) } else { Err(InvalidName(text.to_owned())) }
    }
}

impl PeerName {
    /// The name of the file in `peers.d`: `alice.phone.toml` for `alice/phone`.
    pub(super) fn file_name(&self) -> String {
        format!("{}.toml", self.stem())
    }

    /// The name that the file would give the peer.
    fn stem(&self) -> String {
        self.0.replace('/', ".")
    }

    /// Whether the file has to say the name, because its own is another one.
    pub(super) fn has_to_be_written(&self) -> bool {
        self.stem() != self.0
    }

    /// The name for a text of somebody else's, such as a comment: what a name cannot have becomes `-`. `None` if nothing
    /// is left.
    pub(super) fn resembling(text: &str) -> Option<Self> {
        let replaced = |c: char| if c.is_alphanumeric() || MARKS.contains(&c) { c } else { '-' };
        let name: String = text.chars().map(replaced).collect();
        let mut short = String::new();
        for part in name.split('-').filter(|part| !part.is_empty()) {
            if !short.is_empty() {
                short.push('-');
            }
            short.push_str(part);
        }
        let short = short.trim_start_matches(MARKS);
        // Room for a number.
        let short: String = short.chars().take(MAX_NAME - 6).collect();
        short.trim_end_matches(MARKS).parse().ok()
    }

    /// The same with a number.
    pub(super) fn numbered(&self, number: usize) -> Self {
        Self(format!("{}-{number}", self.0))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_person_or_a_device_has_a_file() {
        for (name, file, is_written) in [
            ("alice", "alice.toml", false),
            ("alice/phone", "alice.phone.toml", true),
            ("alice@example.org", "alice@example.org.toml", false),
            ("Zoë-2", "Zoë-2.toml", false),
            ("a/b/c", "a.b.c.toml", true),
        ] {
            let parsed: PeerName = name.parse().unwrap();
            assert_eq!((parsed.file_name().as_str(), parsed.has_to_be_written()), (file, is_written), "{name}");
        }
    }

    #[test]
    fn hostile_names_are_refused_and_quoted_in_the_message() {
        let long = "a".repeat(65);
        let wide = "\u{1d400}".repeat(64);
        for bad in [
            "",
            " ",
            "..",
            "../x",
            "a/../b",
            "/etc/passwd",
            "a//b",
            "a/",
            ".hidden",
            "-rf",
            "a b",
            "a\"b",
            "a'b",
            "a\nb",
            "a\u{1b}[31m",
            "a\u{202e}b",
            "a\u{0}",
            "a;b",
            "a$(b)",
            "a`b`",
            "a\\b",
            "a,b",
            "=1+1",
            "a=b",
            "a%b",
            &long,
            &wide,
        ] {
            let error = bad.parse::<PeerName>().unwrap_err().to_string();
            assert!(error.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{bad:?}: {error}");
        }
        let error = "a\u{1b}[31m\"".parse::<PeerName>().unwrap_err().to_string();
        assert!(error.starts_with("\"a\\u{1b}[31m\\\"\" is not a name for a peer"), "{error}");
    }

    #[test]
    fn a_text_of_somebody_else_gives_a_name_that_resembles_it() {
        for (text, name) in [
            ("Alice's laptop", Some("Alice-s-laptop")),
            ("  office: 2nd floor ", Some("office-2nd-floor")),
            ("../../etc/passwd", Some("etc-passwd")),
            ("\u{1b}[31mred", Some("31mred")),
            ("***", None),
            ("...", None),
        ] {
            assert_eq!(PeerName::resembling(text).as_ref().map(PeerName::as_str), name, "{text:?}");
        }
        let long = PeerName::resembling(&"x".repeat(500)).unwrap();
        assert!(long.numbered(10_000).as_str().parse::<PeerName>().is_ok());
    }
}
