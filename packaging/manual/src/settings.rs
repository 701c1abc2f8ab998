//! bastiond.toml(5): every table and key of `config.example.toml`, with its comments.

use roff::{bold, roman};

use crate::example::{Example, Key};
use crate::page::{Page, typed};

/// Builds the page.
pub(crate) fn page(example: &Example) -> String {
    let mut page = Page::new("bastiond.toml", "5", "configuration of bastiond");
    page.section("SYNOPSIS");
    page.line(typed("/etc/bastiond/config.toml", None));
    page.line(typed("/etc/bastiond/peers.d/*.toml", None));
    page.section("DESCRIPTION");
    page.text(&example.preface);
    page.text("This page lists each key with its default. Values marked \"for example\" are not defaults.");
    page.section("TABLES");
    for table in &example.tables {
        page.subsection(&table.header);
        if !table.text.is_empty() {
            page.text(&table.text);
        }
        for key in &table.keys {
            page.entry(tag(key), &key.text);
        }
    }
    page.section("FILES");
    page.entry(
        typed("/usr/share/doc/bastiond/examples/config.example.toml", None),
        "This page's keys and comments as a configuration file.",
    );
    page.see_also(&["bastiond(8)", "bastionctl(1)", "wg(8)"]);
    page.finish()
}

fn tag(key: &Key) -> Vec<roff::Inline> {
    let value = roman(format!(" = {}", key.value));
    let mut words = vec![bold(&key.name), value];
    if key.is_example {
        words.push(roman("   (for example)"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::{TEXT, parse};

    /// The file with its examples active, parsed as TOML.
    fn everything() -> (toml::Table, Vec<String>) {
        let is_comment = |line: &&str| !(line.starts_with("# ") || line.starts_with("##") || *line == "#");
        let lines: Vec<&str> =
            TEXT.lines().filter(is_comment).map(|line| line.strip_prefix('#').unwrap_or(line)).collect();
        let headers = lines.iter().filter(|line| line.starts_with('[')).map(ToString::to_string).collect();
        (toml::from_str(&lines.join("\n")).unwrap(), headers)
    }

    /// Every key that is not a table, with its header.
    fn keys(table: &toml::Table, path: &str, headers: &[String], found: &mut Vec<(String, String)>) {
        for (name, value) in table {
            let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let repeated = value.as_array().and_then(|blocks| blocks.first()).and_then(toml::Value::as_table);
            match (value, repeated) {
                (toml::Value::Table(table), _) => keys(table, &inner, headers, found),
                (_, Some(table)) if headers.contains(&format!("[[{inner}]]")) => keys(table, &inner, headers, found),
                _ => {
                    let once = format!("[{path}]");
                    let header = if headers.contains(&once) { once } else { format!("[[{path}]]") };
                    found.push((header, name.clone()));
                }
            }
        }
    }

    #[test]
    fn every_key_of_the_example_is_in_the_page_under_its_table() {
        let page = page(&parse(TEXT).unwrap());
        let (example, headers) = everything();
        let mut wanted = Vec::new();
        keys(&example, "", &headers, &mut wanted);
        assert!(wanted.len() > 60, "{wanted:?}");
        for (header, name) in wanted {
            let quoted = format!(".SS {header}\n");
            let (_, rest) = page.split_once(&quoted).unwrap_or_else(|| panic!("{header} is missing"));
            let part = rest.split(".SS ").next().unwrap();
            assert!(part.contains(&format!(".TP\n\\fB{name}\\fR = ")), "{header} {name}");
        }
    }

    #[test]
    fn every_word_of_the_example_is_in_the_page() {
        let page = page(&parse(TEXT).unwrap());
        let page = page.replace("\\fB", "").replace("\\fR", "").replace("\\*(Aq", "'").replace('\\', "");
        for line in TEXT.lines().filter(|line| line.starts_with("# ") || line.starts_with("## ")) {
            for word in line.trim_start_matches('#').split_whitespace() {
                let word = word.replace('`', "");
                assert!(page.contains(&word), "{word}");
            }
        }
    }
}
