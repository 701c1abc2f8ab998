//! Values that several keys share: how each is parsed, and the error for a wrong one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::diagnostics::Diagnostics;
use crate::config::protocol::{self, Named, Ports, Transports};
use crate::config::raw::{LimitOrNone, NameOrNumber, PortOrRange};
use crate::net::{InterfaceName, InvalidInterfaceName};

/// `0.0.0.0/0`
pub(super) const EVERYWHERE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
/// `::/0`
pub(super) const EVERYWHERE_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);

/// IDs of the API are positive and below 2^53 (Hetzner API documentation: they fit into a JSON number).
const MAX_ID: i64 = (1 << 53) - 1;
/// The longest name, in characters: enough for a person and a device, short enough for a table.
const MAX_LABEL: usize = 64;
/// More than a gateway of this kind can forward or track.
const MAX_LIMIT: u32 = 1_000_000;
/// The shortest and the longest duration that a key takes.
const DURATION_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

impl Diagnostics {
    pub(super) fn parse_interface(&mut self, key: &str, text: &str) -> Option<InterfaceName> {
        text.parse().map_err(|error: InvalidInterfaceName| self.error(key, error.to_string())).ok()
    }

    pub(super) fn parse_address(&mut self, key: &str, text: &str) -> Option<Ipv4Addr> {
        text.parse().map_err(|_| self.error(key, format!("`{text}` is not an IPv4 address (like 10.0.0.2)"))).ok()
    }

    pub(super) fn parse_port(&mut self, key: &str, number: i64) -> Option<u16> {
        parse_port(number).map_err(|reason| self.error(key, reason)).ok()
    }

    pub(super) fn parse_id(&mut self, key: &str, number: i64) -> Option<u64> {
        let id = u64::try_from(number).ok().filter(|_| (1..=MAX_ID).contains(&number));
        if id.is_none() {
            self.error(key, format!("{number} is not an ID of the Hetzner API (1 to {MAX_ID})"));
        }
        id
    }

    /// A range without host bits: `10.0.0.1/16` is probably a mistake.
    pub(super) fn parse_network(&mut self, key: &str, text: &str) -> Option<Ipv4Net> {
        parse_range_v4(text).map_err(|reason| self.error(key, reason)).ok()
    }

    /// An `http(s)` base URL; the result has no trailing slash.
    pub(super) fn parse_base_url(&mut self, key: &str, text: &str) -> Option<String> {
        let url = match reqwest::Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                // Without the text, which may contain a password.
                self.error(key, format!("is not a URL: {error}"));
                return None;
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            // Without the text: a password must not appear on a screen or in the journal.
            self.error(key, "must not contain a user name or password; remove them");
        } else if !matches!(url.scheme(), "http" | "https") {
            self.error(key, format!("`{text}` is not an http or https URL"));
        } else if url.query().is_some() || url.fragment().is_some() {
            self.error(key, format!("`{text}` has a query or fragment; write only the base URL"));
        } else {
            // The parsed form: spaces around the text would end up in the middle of a path.
            return Some(url.as_str().trim_end_matches('/').to_owned());
        }
        None
    }

    /// The base URL from the environment variable if there is one, else from the file. Both are checked. Variables win,
    /// as in the official tools.
    pub(super) fn parse_endpoint(
        &mut self,
        key: &str,
        from_file: Option<String>,
        (variable, from_environment): (&str, Option<&str>),
    ) -> Option<String> {
        let from_file = from_file.and_then(|text| self.parse_base_url(key, &text));
        match from_environment {
            Some(text) => self.parse_base_url(variable, text),
            None => from_file,
        }
    }
}

/// A port from 1 to 65535.
pub(super) fn parse_port(number: i64) -> Result<u16, String> {
    let port = u16::try_from(number).ok().filter(|&port| port > 0);
    port.ok_or_else(|| format!("{number} is not a port (1 to 65535)"))
}

/// A port, or a range of ports with the lower end first.
pub(super) fn parse_ports(written: &PortOrRange) -> Result<Ports, String> {
    let text = match written {
        PortOrRange::Port(number) => return parse_port(*number).map(Ports::single),
        PortOrRange::Range(text) => text,
    };
    // `parse` also accepts `+80`, which is not allowed here.
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    if number(text).is_some() {
        return Err(format!("`{text}` is a single port in quotes; write it without quotes"));
    }
    let ends = text.split_once('-').and_then(|(first, last)| number(first).zip(number(last)));
    let Some((first, last)) = ends else {
        if text.contains(',') {
            return Err(format!(
                "`{text}` names several ports; write one block for each, or a list where the key is `ports`"
            ));
        }
        return Err(format!("`{text}` is not a range of ports (like \"30000-30100\")"));
    };
    let (first, last) = (parse_port(first)?, parse_port(last)?);
    if first > last {
        return Err(format!("`{text}` has its ends in the wrong order; write \"{last}-{first}\""));
    }
    Ok(Ports { first, last })
}

/// A protocol, or `both` for TCP and UDP.
pub(super) fn parse_transports(written: &NameOrNumber) -> Result<Transports, String> {
    parse_protocol(written, ("both", Transports::Both))
}

/// A protocol by its name or number, or the word for several of them.
pub(super) fn parse_protocol<P: From<Named>>(
    written: &NameOrNumber,
    (several, all_of_them): (&str, P),
) -> Result<P, String> {
    let text = match written {
        NameOrNumber::Number(number) => {
            let number = u8::try_from(*number).map_err(|_| format!("{number} is not a protocol (0 to 255)"))?;
            return Ok(Named::with_number(number).into());
        }
        NameOrNumber::Name(text) if text == several => return Ok(all_of_them),
        NameOrNumber::Name(text) => text,
    };
    if text.parse::<u8>().is_ok() {
        return Err(format!("`{text}` is a number in quotes; write it without quotes"));
    }
    let lower = text.to_ascii_lowercase();
    if lower != *text && (lower == several || Named::with_name(&lower).is_some()) {
        return Err(format!("`{text}` has to be in lower case; write \"{lower}\""));
    }
    let names = || format!("`{text}` is not one of {several}, {}, and not a number from 0 to 255", protocol::names());
    Named::with_name(text).map(P::from).ok_or_else(names)
}

/// A name that the operator gives to a block.
pub(super) fn parse_label(name: &str) -> Result<String, String> {
    if name.trim().is_empty() || name.chars().count() > MAX_LABEL || name.chars().any(char::is_control) {
        return Err(format!("`{name}` is not a valid name (1 to {MAX_LABEL} characters on one line)"));
    }
    Ok(name.to_owned())
}

/// An IPv4 range without host bits. A single address must have its `/32`.
pub(super) fn parse_range_v4(text: &str) -> Result<Ipv4Net, String> {
    let range: Ipv4Net = text.parse().map_err(|_| {
        wrong_prefix(text).unwrap_or_else(|| format!("`{text}` is not an IPv4 range (like 10.0.0.0/16)"))
    })?;
    if range.trunc() == range { Ok(range) } else { Err(has_host_bits(text, range.into())) }
}

/// An IPv4 or IPv6 address, or a range without host bits.
pub(super) fn parse_net(text: &str) -> Result<IpNet, String> {
    let Ok(net) = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) else {
        return Err(everybody(text, "0.0.0.0/0 and ::/0").or_else(|| wrong_prefix(text)).unwrap_or_else(|| {
            format!("`{text}` is neither an address nor a range (like 203.0.113.7 or 2001:db8::/32)")
        }));
    };
    check_net(net, text, "0.0.0.0/0 and ::/0")
}

/// An IPv4 address, or a range without host bits, for keys whose traffic is IPv4 only.
pub(super) fn parse_net_v4(text: &str) -> Result<Ipv4Net, String> {
    let Ok(net) = text.parse::<Ipv4Net>().or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from)) else {
        return Err(everybody(text, "0.0.0.0/0").or_else(|| wrong_prefix(text)).unwrap_or_else(|| {
            format!("`{text}` is neither an IPv4 address nor an IPv4 range (like 203.0.113.7 or 10.0.0.0/16)")
        }));
    };
    check_net(net.into(), text, "0.0.0.0/0").map(|_| net)
}

/// The error for a word that means every address in other programs. `everywhere` is how all addresses are written here.
fn everybody(text: &str, everywhere: &str) -> Option<String> {
    let is_word = ["any", "all", "*", "everyone", "anywhere"].iter().any(|word| text.eq_ignore_ascii_case(word));
    is_word.then(|| format!("`{text}` is not an address; write {everywhere} for every address"))
}

/// Rejects host bits and the unspecified address. `everywhere` is how all addresses are written.
fn check_net(net: IpNet, text: &str, everywhere: &str) -> Result<IpNet, String> {
    if net.trunc() != net {
        return Err(has_host_bits(text, net));
    }
    // Most people who write 0.0.0.0 mean everyone. Taken literally it matches no host.
    if net.addr().is_unspecified() && net.prefix_len() == net.max_prefix_len() {
        return Err(format!("`{text}` matches no host; write {everywhere} for every address"));
    }
    Ok(net)
}

/// The error for an address with a prefix length that it cannot have.
fn wrong_prefix(text: &str) -> Option<String> {
    let (address, length) = text.split_once('/')?;
    let longest = match address.parse().ok()? {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    let is_too_long = length.parse::<u32>().is_ok_and(|length| length > longest);
    is_too_long.then(|| format!("`{text}`: a prefix length is a number from 0 to {longest}"))
}

/// The error for a range whose address is not the first of the range.
fn has_host_bits(text: &str, net: IpNet) -> String {
    format!("`{text}` has host bits set; write {} for the whole range", net.trunc())
}

/// A duration of 1 s to 24 h.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if DURATION_RANGE.contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("`{text}` is not between 1s and 24h")),
        Err(error) => Err(format!("`{text}` is not a duration (like \"20s\" or \"5m\"): {error}")),
    }
}

/// A limit from 1 to 1 000 000, or `None` for no limit.
pub(super) fn parse_limit(written: &LimitOrNone) -> Result<Option<u32>, String> {
    let &LimitOrNone::Limit(number) = written else { return Ok(None) };
    let limit = u32::try_from(number).ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.map(Some).ok_or_else(|| format!("{number} is not between 1 and {MAX_LIMIT}; write false for no limit"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::Diagnostic;

    #[test]
    fn a_base_url_is_kept_in_its_parsed_form() {
        let mut diagnostics = Diagnostics::default();
        for (text, kept) in [
            ("https://api.hetzner.cloud/v1", "https://api.hetzner.cloud/v1"),
            ("https://api.hetzner.cloud/v1/", "https://api.hetzner.cloud/v1"),
            ("http://169.254.169.254", "http://169.254.169.254"),
            ("http://169.254.169.254//", "http://169.254.169.254"),
            (" HTTP://LocalHost:8080/v1 \n", "http://localhost:8080/v1"),
            ("http://[fe80::1]:80", "http://[fe80::1]"),
        ] {
            assert_eq!(diagnostics.parse_base_url("key", text).as_deref(), Some(kept), "{text}");
        }
        assert_eq!(diagnostics.errors, []);
    }

    #[test]
    fn a_url_with_a_password_is_rejected_and_not_printed() {
        let mut diagnostics = Diagnostics::default();
        for text in
            ["https://user:secret@host/v1", "https://:secret@host/v1", "https://secret@host/v1", "ftp://x:secret@y"]
        {
            assert_eq!(diagnostics.parse_base_url("hcloud.endpoint", text), None, "{text}");
        }
        let expected = Diagnostic::new("hcloud.endpoint", "must not contain a user name or password; remove them");
        assert_eq!(diagnostics.errors, vec![expected; 4]);
    }
}
