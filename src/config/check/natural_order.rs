//! The order of messages: that of the file, which is not the order of their text, where `line 10` comes before `line
//! 5`.

use std::cmp::Ordering;

/// Compares two texts as people sort them: numbers in them by their value.
pub(super) fn natural_order(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        let (Some(a), Some(b)) = (one.chars().next(), other.chars().next()) else { return one.len().cmp(&other.len()) };
        if a.is_ascii_digit() && b.is_ascii_digit() {
            let ((first, rest), (second, other_rest)) = (split_number(one), split_number(other));
            // Of two numbers without leading zeroes, the longer one is larger.
            let order = first.len().cmp(&second.len()).then_with(|| first.cmp(second));
            if order.is_ne() {
                return order;
            }
            (one, other) = (rest, other_rest);
        } else {
            if a != b {
                return a.cmp(&b);
            }
            (one, other) = (&one[a.len_utf8()..], &other[b.len_utf8()..]);
        }
    }
}

/// The digits at the start, without leading zeroes, and the rest.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].trim_start_matches('0'), &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_their_value_and_the_rest_as_text() {
        let mut texts = vec![
            "line 10 of a: x",
            "line 5 of a: y",
            "line 05 of a: z",
            "nat.forward[2].to",
            "nat.forward[10].to",
            "nat.forward[2]",
            "é",
            "",
            "line 18446744073709551616",
        ];
        texts.sort_by(|a, b| natural_order(a, b));
        assert_eq!(
            texts,
            [
                "",
                "line 5 of a: y",
                "line 05 of a: z",
                "line 10 of a: x",
                "line 18446744073709551616",
                "nat.forward[2]",
                "nat.forward[2].to",
                "nat.forward[10].to",
                "é",
            ]
        );
    }
}
