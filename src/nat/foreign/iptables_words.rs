//! The words of what `iptables -S` prints.

/// The words of a line of `iptables -S`. One that iptables puts into quotes, such as a comment, is one word.
pub(super) fn words_of(line: &str) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), line.trim_start());
    while !rest.is_empty() {
        let end = match rest.strip_prefix('"') {
            // A quotation mark in a comment has a backslash before it, and so has a backslash.
            Some(quoted) => {
                let mut escaped = false;
                let closes = |character: char| {
                    let is_end = character == '"' && !escaped;
                    escaped = character == '\\' && !escaped;
                    is_end
                };
                quoted.find(closes).map_or(rest.len(), |end| end + 2)
            }
            None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        let (word, more) = rest.split_at(end);
        words.push(word);
        rest = more.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_one_word_whatever_is_in_it() {
        let cases = [
            ("-A FORWARD -j DROP", vec!["-A", "FORWARD", "-j", "DROP"]),
            ("  -P  FORWARD DROP ", vec!["-P", "FORWARD", "DROP"]),
            (r#"--comment "no -j ACCEPT" -j"#, vec!["--comment", r#""no -j ACCEPT""#, "-j"]),
            (r#"--comment "a \" b \\" -j"#, vec!["--comment", r#""a \" b \\""#, "-j"]),
            (r#"--comment "cut off"#, vec!["--comment", r#""cut off"#]),
            ("", vec![]),
        ];
        for (line, words) in cases {
            assert_eq!(words_of(line), words, "{line}");
        }
    }
}
