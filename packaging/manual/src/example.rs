//! `config.example.toml`, read for its comments.
//!
//! Its form is plain: `# text` and `## text` are comments, which belong to the header or key that follows; `#key = value` and
//! `#[header]` are examples, switched off; an empty line ends the comments that belong together.

/// The file.
pub(crate) const TEXT: &str = include_str!("../../../config.example.toml");

/// What the file explains.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Example {
    /// Its head, paragraphs apart by empty lines.
    pub preface: String,
    pub tables: Vec<Table>,
}

/// A table, and what is said of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// `[nat]` or `[[nat.forward]]`.
    pub header: String,
    pub text: String,
    pub keys: Vec<Key>,
}

/// A key of a table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub name: String,
    pub value: String,
    /// The value is no default, but what it might be.
    pub is_example: bool,
    pub text: String,
}

/// Where the file has not its form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("line {0} is neither comment, header nor key")]
    Line(usize),
    #[error("line {0}: no comment explains '{1}'")]
    Unexplained(usize, String),
    #[error("line {0}: '{1}' stands before any header")]
    Homeless(usize, String),
    #[error("line {0}: the comment before it belongs to nothing")]
    Stray(usize),
}

/// Reads the file.
pub(crate) fn parse(text: &str) -> Result<Example, Error> {
    let mut example = Example { preface: String::new(), tables: Vec::new() };
    let mut comment = String::new();
    for (line, number) in text.lines().zip(1..) {
        if let Some(words) = words(line) {
            // An empty comment parts paragraphs.
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

/// The words of a comment; none if the line is no comment.
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
    fn comments_belong_to_what_follows() {
        let text = "# Head.\n#\n# More.\n\n[log]\n# How\n# much.\nlevel = \"info\"\n\n# Links.\n#[[site.private]]\n## Which.\n#interface = \"x = y\"\n";
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
    fn what_is_not_in_the_form_is_told_with_its_line() {
        assert_eq!(parse("[a]\nb\n"), Err(Error::Line(2)));
        assert_eq!(parse("[a]\nb = 1\n"), Err(Error::Unexplained(2, "b".to_owned())));
        assert_eq!(parse("# B.\nb = 1\n"), Err(Error::Homeless(2, "b".to_owned())));
        assert_eq!(parse("# A.\n\n[a]\n# B.\n\nb = 1\n"), Err(Error::Stray(5)));
        assert_eq!(parse("# A.\n\n[a]\n# B.\n"), Err(Error::Stray(4)));
    }
}
