//! Parses `config.example.toml` with its comments.
//!
//! The file's format: `# text` and `## text` are comments that describe the next header or key; `#key = value` and
//! `#[header]` are examples that are commented out; an empty line ends a comment.

/// The file.
pub(crate) const TEXT: &str = include_str!("../../../config.example.toml");

/// The parsed file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Example {
    /// The comment at its beginning; paragraphs are separated by empty lines.
    pub preface: String,
    pub tables: Vec<Table>,
}

/// A table with its comment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// `[nat]` or `[[nat.forward]]`.
    pub header: String,
    pub text: String,
    pub keys: Vec<Key>,
}

/// A key of a table with its comment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub name: String,
    pub value: String,
    /// Whether the value is an example rather than the default.
    pub is_example: bool,
    pub text: String,
}

/// Where the file violates its format. Lines count from 1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("line {0} is not a comment, a header or a key")]
    Line(usize),
    #[error("line {0}: there is no comment above '{1}'")]
    Unexplained(usize, String),
    #[error("line {0}: '{1}' is not below a header")]
    Homeless(usize, String),
    #[error("line {0}: the comment above it describes nothing")]
    Stray(usize),
}

/// Parses the file.
pub(crate) fn parse(text: &str) -> Result<Example, Error> {
    let mut example = Example { preface: String::new(), tables: Vec::new() };
    let mut comment = String::new();
    for (line, number) in text.lines().zip(1..) {
        if let Some(words) = words(line) {
            // An empty comment separates paragraphs.
            let gap = if comment.is_empty() || comment.ends_with("\n\n") { "" } else { " " };
            comment.push_str(if words.is_empty() { "\n\n" } else { gap });
            comment.push_str(words);
            continue;
        }
        let said = std::mem::take(&mut comment);
        if line.is_empty() {
            match (said.is_empty(), example.preface.is_empty() && example.tables.is_empty()) {
                (true, _) => {}
                (false, true) => example.preface = said,
                (false, false) => return Err(Error::Stray(number)),
            }
            continue;
        }
        let entry = line.strip_prefix('#').unwrap_or(line);
        if entry.starts_with('[') && entry.ends_with(']') {
            example.tables.push(Table { header: entry.to_owned(), text: said, keys: Vec::new() });
            continue;
        }
        let (name, value) = entry.split_once(" = ").ok_or(Error::Line(number))?;
        if said.is_empty() {
            return Err(Error::Unexplained(number, name.to_owned()));
        }
        let is_example = line.starts_with('#');
        let key = Key { name: name.to_owned(), value: value.to_owned(), is_example, text: said };
        let table = example.tables.last_mut().ok_or_else(|| Error::Homeless(number, name.to_owned()))?;
        table.keys.push(key);
    }
    if comment.is_empty() { Ok(example) } else { Err(Error::Stray(text.lines().count())) }
}

/// The text of a comment; `None` if the line is not a comment.
fn words(line: &str) -> Option<&str> {
    let marks = line
        .strip_prefix("##")
        .or_else(|| line.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with(' ')));
    marks.map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_describes_the_next_header_or_key() {
        let text = "# Head.\n#\n# More.\n\n[log]\n# How\n# much.\nlevel = \"info\"\n\n\
                    # Links.\n#[[site.private]]\n## Which.\n#interface = \"x = y\"\n";
        let key = |name: &str, value: &str, is_example, text: &str| Key {
            name: name.to_owned(),
            value: value.to_owned(),
            is_example,
            text: text.to_owned(),
        };
        let table = |header: &str, text: &str, keys| Table { header: header.to_owned(), text: text.to_owned(), keys };
        let wanted = Example {
            preface: "Head.\n\nMore.".to_owned(),
            tables: vec![
                table("[log]", "", vec![key("level", "\"info\"", false, "How much.")]),
                table("[[site.private]]", "Links.", vec![key("interface", "\"x = y\"", true, "Which.")]),
            ],
        };
        assert_eq!(parse(text), Ok(wanted));
    }

    #[test]
    fn a_violation_of_the_format_is_reported_with_its_line() {
        assert_eq!(parse("[a]\nb\n"), Err(Error::Line(2)));
        assert_eq!(parse("[a]\nb = 1\n"), Err(Error::Unexplained(2, "b".to_owned())));
        assert_eq!(parse("# B.\nb = 1\n"), Err(Error::Homeless(2, "b".to_owned())));
        assert_eq!(parse("# A.\n\n[a]\n# B.\n\nb = 1\n"), Err(Error::Stray(5)));
        assert_eq!(parse("# A.\n\n[a]\n# B.\n"), Err(Error::Stray(4)));
    }
}
