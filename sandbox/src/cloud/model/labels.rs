//! Labels and label selectors, by the Hetzner API documentation, "Labels" and "Label Selector".

use super::resources::Labels;

/// Whether the text may be a label's key: `[prefix/]name`, the prefix a DNS name other than Hetzner's own.
pub(crate) fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        None => is_name(text),
        Some((prefix, name)) => is_name(name) && is_dns_name(prefix) && prefix != "hetzner.cloud",
    }
}

/// Whether the text may be a label's value: a name or the empty text.
pub(crate) fn is_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

fn is_name(text: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= 63
        && alphanumeric(text.chars().next())
        && alphanumeric(text.chars().last())
        && text.chars().all(allowed)
}

fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| is_name(label) && !label.contains('_'))
}

/// A label selector. All terms must match.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Term>);

#[derive(Debug, PartialEq, Eq)]
enum Term {
    Present(String),
    Absent(String),
    In(String, Vec<String>),
    /// Also matches if the key is missing.
    NotIn(String, Vec<String>),
}

impl Selector {
    /// Parses a selector; `None` if the text is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        split_outside_parentheses(text)?.into_iter().map(Term::parse).collect::<Option<_>>().map(Self)
    }

    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| match term {
            Term::Present(key) => labels.contains_key(key),
            Term::Absent(key) => !labels.contains_key(key),
            Term::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Term::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
        })
    }
}

impl Term {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(key) = text.strip_prefix('!') {
            return Some(Self::Absent(parse_key(key)?));
        }
        if let Some((head, list)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            let values = list.split(',').map(parse_value).collect::<Option<_>>()?;
            let (key, word) = head.trim_end().rsplit_once(char::is_whitespace)?;
            return match word {
                "in" => Some(Self::In(parse_key(key)?, values)),
                "notin" => Some(Self::NotIn(parse_key(key)?, values)),
                _ => None,
            };
        }
        if let Some((key, value)) = text.split_once("!=") {
            return Some(Self::NotIn(parse_key(key)?, vec![parse_value(value)?]));
        }
        match text.split_once("==").or_else(|| text.split_once('=')) {
            Some((key, value)) => Some(Self::In(parse_key(key)?, vec![parse_value(value)?])),
            None => Some(Self::Present(parse_key(text)?)),
        }
    }
}

fn parse_key(text: &str) -> Option<String> {
    let text = text.trim();
    is_key(text).then(|| text.into())
}

fn parse_value(text: &str) -> Option<String> {
    let text = text.trim();
    is_value(text).then(|| text.into())
}

fn split_outside_parentheses(text: &str) -> Option<Vec<&str>> {
    let (mut terms, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match (c, inside) {
            ('(', false) => inside = true,
            (')', true) => inside = false,
            ('(', true) | (')', false) => return None,
            (',', false) => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    (!inside).then_some(terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_follow_the_documentation() {
        let longest = "a".repeat(63);
        for key in ["env", "example.com/my", "just-a-key", "a", "A.b_c-9", longest.as_str()] {
            assert!(is_key(key), "{key}");
        }
        let too_long = "a".repeat(64);
        for key in ["", "-a", "a-", "a b", "/a", "a/", "hetzner.cloud/a", "a/b/c", "über", too_long.as_str()] {
            assert!(!is_key(key), "{key}");
        }
        assert!(is_value("") && is_value("v1.2") && !is_value("a b") && !is_value(&too_long));
    }

    #[test]
    fn a_selector_matches_as_the_documentation_says() {
        let labels: Labels = [("env", "production"), ("type", "web"), ("flag", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let matches = |text: &str| Selector::parse(text).map(|selector| selector.matches(&labels));
        for (selector, verdict) in [
            ("env=production", true),
            ("env==production", true),
            ("env=testing", false),
            ("env!=testing", true),
            ("env!=production", false),
            ("missing!=x", true),
            ("flag", true),
            ("flag=", true),
            ("missing", false),
            ("!missing", true),
            ("!env", false),
            ("env in (testing,production)", true),
            ("env in (testing, staging)", false),
            ("env notin (testing,staging)", true),
            ("missing notin (x)", true),
            ("env=production,type!=database", true),
            ("env=production,!type", false),
            ("env in (production,testing),type in (web)", true),
        ] {
            assert_eq!(matches(selector), Some(verdict), "{selector}");
        }
        for broken in ["", "=", "env=a=b", "env in", "env in (a", "env in a)", "env within (a)", "env,", "!"] {
            assert_eq!(matches(broken), None, "{broken}");
        }
    }
}
