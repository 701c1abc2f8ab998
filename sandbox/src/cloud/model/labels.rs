//! Labels and the selector language over them, by the Hetzner API documentation, "Labels" and "Label Selector".

use super::resources::Labels;

/// Whether the text may be a label's key: `[prefix/]name`, the prefix a DNS name other than Hetzner's own.
pub(crate) fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        None => is_name(text),
        Some((prefix, name)) => is_name(name) && is_dns_name(prefix) && prefix != "hetzner.cloud",
    }
}

/// Whether the text may be a label's value: a name, or nothing.
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

/// What labels must be like; every term must hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Term>);

#[derive(Debug, PartialEq, Eq)]
enum Term {
    Present(String),
    Absent(String),
    In(String, Vec<String>),
    /// Holds without the key, too.
    NotIn(String, Vec<String>),
}

impl Selector {
    /// None: the text is no selector.
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
            return Some(Self::Absent(key_of(key)?));
        }
        if let Some((head, list)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            let values = list.split(',').map(value_of).collect::<Option<_>>()?;
            let (key, word) = head.trim_end().rsplit_once(char::is_whitespace)?;
            return match word {
                "in" => Some(Self::In(key_of(key)?, values)),
                "notin" => Some(Self::NotIn(key_of(key)?, values)),
                _ => None,
            };
        }
        if let Some((key, value)) = text.split_once("!=") {
            return Some(Self::NotIn(key_of(key)?, vec![value_of(value)?]));
        }
        match text.split_once("==").or_else(|| text.split_once('=')) {
            Some((key, value)) => Some(Self::In(key_of(key)?, vec![value_of(value)?])),
            None => Some(Self::Present(key_of(text)?)),
        }
    }
}

fn key_of(text: &str) -> Option<String> {
    let text = text.trim();
    is_key(text).then(|| text.into())
}

fn value_of(text: &str) -> Option<String> {
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
    fn a_selector_chooses_as_the_documentation_says() {
        let labels: Labels = [("env", "production"), ("type", "web"), ("flag", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let chosen = |text: &str| Selector::parse(text).map(|selector| selector.matches(&labels));
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
            assert_eq!(chosen(selector), Some(verdict), "{selector}");
        }
        for broken in ["", "=", "env=a=b", "env in", "env in (a", "env in a)", "env within (a)", "env,", "!"] {
            assert_eq!(chosen(broken), None, "{broken}");
        }
    }
}
