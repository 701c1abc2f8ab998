//! Values that WireGuard's file and its control socket write alike.
//!
//! Stricter than `str::parse`, which takes a `+` before a number, and as strict as wg(8), which wants a digit first.

use std::net::IpAddr;

use ipnet::IpNet;

/// A number of decimal digits and nothing else.
pub(crate) fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// A mark of 32 bits, decimal or with `0x` before hexadecimal digits.
pub(crate) fn mark(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // from_str_radix takes a sign as well.
        Some(digits) if digits.starts_with('+') => None,
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => decimal(text),
    }
}

/// An address and the length of its prefix, such as `10.0.0.1/24`, host bits kept.
pub(crate) fn interface_address(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    IpNet::new(address.parse::<IpAddr>().ok()?, decimal(length)?).ok()
}

/// A prefix such as `10.0.0.0/24`. Host bits are cut off, as the kernel does.
pub(crate) fn prefix(text: &str) -> Option<IpNet> {
    interface_address(text).map(|net| net.trunc())
}

/// A value for a message: quoted, on one line. A text that is long enough to be a key, or most of one, is not repeated.
pub(crate) fn quoted(value: &str) -> String {
    // 20 characters of base64 are 120 bits; no number, address or port has as many in a row.
    let is_secretive =
        value.split(|c: char| !c.is_ascii_alphanumeric() && c != '+' && c != '/').any(|run| run.len() > 20);
    match value.len() {
        0 => "an empty value".to_owned(),
        _ if is_secretive => "the value".to_owned(),
        1..=80 => format!("`{}`", value.escape_debug()),
        _ => format!("`{}…`", value.chars().take(80).collect::<String>().escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_repeats_a_value_but_no_secret() {
        for (value, expected) in [
            ("2001:db8:1111:2222:3333:4444:5555:6666/128", "`2001:db8:1111:2222:3333:4444:5555:6666/128`"),
            ("", "an empty value"),
            ("\x1b[2J", "`\\u{1b}[2J`"),
            ("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", "the value"),
            ("= yAnz5TF+lXXJte14tji3z", "the value"),
            ("5ecbe75ecbe75ecbe75ecbe7", "the value"),
        ] {
            assert_eq!(quoted(value), expected);
        }
        assert_eq!(quoted(&"é ".repeat(50)), format!("`{}…`", "é ".repeat(40)));
    }

    #[test]
    fn a_number_has_digits_only() {
        for (text, number) in [("0", Some(0)), ("65535", Some(65535)), ("007", Some(7))] {
            assert_eq!(decimal::<u16>(text), number, "{text}");
        }
        for text in ["", "+1", "-1", "65536", "1 ", "0x10", "١", "99999999999999999999999"] {
            assert_eq!(decimal::<u16>(text), None, "{text}");
        }
    }

    #[test]
    fn a_mark_is_decimal_or_hexadecimal() {
        for (text, number) in [("0", 0), ("51820", 51820), ("0xca6c", 51820), ("0XFFFFFFFF", u32::MAX)] {
            assert_eq!(mark(text), Some(number), "{text}");
        }
        for text in ["", "0x", "0x+1", "-1", "4294967296", "0x100000000", "ca6c", "off"] {
            assert_eq!(mark(text), None, "{text}");
        }
    }

    #[test]
    fn a_prefix_loses_its_host_bits_and_an_address_keeps_them() {
        for (text, net) in [
            ("10.192.124.1/24", "10.192.124.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(prefix(text), Some(net.parse().unwrap()), "{text}");
            assert_eq!(interface_address(text), Some(text.parse().unwrap()), "{text}");
        }
        for text in
            ["", "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/+8", "::/129", "10.0.0/8", "/8", "fe80::1%2/64"]
        {
            assert_eq!(prefix(text), None, "{text}");
        }
    }
}
