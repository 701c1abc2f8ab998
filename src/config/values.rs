//! Values that several keys share: how each is written, and what is said of one that is not.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::findings::Findings;
use super::raw::{LimitOrNone, PortOrRange};
use super::{Ports, Transports};
use crate::net::{InterfaceName, InvalidInterfaceName};

/// Ids of the API are positive and below 2^53 (Hetzner API documentation: they fit a JSON number).
const MAX_ID: i64 = (1 << 53) - 1;
/// Enough for a person and a device, short enough for a table.
const MAX_LABEL: usize = 64;
/// More than a gateway of this kind can forward or track.
const MAX_LIMIT: u32 = 1_000_000;

impl Findings {
    pub(super) fn interface(&mut self, key: &str, text: &str) -> Option<InterfaceName> {
        text.parse().map_err(|error: InvalidInterfaceName| self.report(key, error.to_string())).ok()
    }

    pub(super) fn address(&mut self, key: &str, text: &str) -> Option<Ipv4Addr> {
        text.parse().map_err(|_| self.report(key, format!("`{text}` is no IPv4 address (like 10.0.0.2)"))).ok()
    }

    pub(super) fn port(&mut self, key: &str, number: i64) -> Option<u16> {
        port(number).map_err(|reason| self.report(key, reason)).ok()
    }

    pub(super) fn id(&mut self, key: &str, number: i64) -> Option<u64> {
        let id = u64::try_from(number).ok().filter(|_| (1..=MAX_ID).contains(&number));
        if id.is_none() {
            self.report(key, format!("{number} is no id of the Hetzner API (1 to {MAX_ID})"));
        }
        id
    }

    /// A range written by its first address: `10.0.0.1/16` is more likely a slip than meant.
    pub(super) fn network(&mut self, key: &str, text: &str) -> Option<Ipv4Net> {
        let Ok(network) = text.parse::<Ipv4Net>() else {
            self.report(key, format!("`{text}` is no IPv4 range (like 10.0.0.0/16)"));
            return None;
        };
        if network.trunc() != network {
            self.report(key, format!("`{text}` has host bits set; the range is {}", network.trunc()));
            return None;
        }
        Some(network)
    }

    /// An `http(s)` base URL without a trailing slash.
    pub(super) fn base_url(&mut self, key: &str, text: &str) -> Option<String> {
        let url = match reqwest::Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                // Without the text, for the reason below.
                self.report(key, format!("is no URL: {error}"));
                return None;
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            // Not shown: it may be a password that somebody reads over a shoulder, or in the journal.
            self.report(key, "must not hold a user or a password");
        } else if !matches!(url.scheme(), "http" | "https") {
            self.report(key, format!("`{text}` is neither an http nor an https URL"));
        } else if url.query().is_some() || url.fragment().is_some() {
            self.report(key, format!("`{text}` must be a plain base URL: no query or fragment"));
        } else {
            // The parsed form: the text may have spaces around it, which would end up in the middle of a path.
            return Some(url.as_str().trim_end_matches('/').to_owned());
        }
        None
    }
}

/// A port from 1 to 65535.
pub(super) fn port(number: i64) -> Result<u16, String> {
    let port = u16::try_from(number).ok().filter(|&port| port > 0);
    port.ok_or_else(|| format!("{number} is no port (1 to 65535)"))
}

/// A port, or a range of them with its lower end first.
pub(super) fn ports(written: &PortOrRange) -> Result<Ports, String> {
    let text = match written {
        PortOrRange::Port(number) => return port(*number).map(Ports::single),
        PortOrRange::Range(text) => text,
    };
    // Not what `parse` takes for a number, such as `+80`.
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    if number(text).is_some() {
        return Err(format!("`{text}` is in quotes, as ranges are; write a single port as a plain number"));
    }
    let ends = text.split_once('-').and_then(|(first, last)| number(first).zip(number(last)));
    let Some((first, last)) = ends else {
        return Err(format!("`{text}` is no range of ports (like \"30000-30100\")"));
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("`{text}` is upside down: write \"{last}-{first}\""));
    }
    Ok(Ports { first, last })
}

/// `tcp`, `udp` or `both`.
pub(super) fn transports(text: &str) -> Result<Transports, String> {
    match text {
        "tcp" => Ok(Transports::Tcp),
        "udp" => Ok(Transports::Udp),
        "both" => Ok(Transports::Both),
        _ => Err(format!("`{text}` is none of tcp, udp, both")),
    }
}

/// What the operator calls something.
pub(super) fn label(name: &str) -> Result<String, String> {
    if name.trim().is_empty() || name.chars().count() > MAX_LABEL || name.chars().any(char::is_control) {
        return Err(format!("`{name}` is no label (1 to {MAX_LABEL} characters on one line)"));
    }
    Ok(name.to_owned())
}

/// An address, or a range by its first address.
pub(super) fn net(text: &str) -> Result<IpNet, String> {
    let Ok(net) = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) else {
        return Err(format!("`{text}` is neither an address nor a range (like 203.0.113.7 or 2001:db8::/32)"));
    };
    without_host_bits(net, text, "0.0.0.0/0 and ::/0")
}

/// The same of IPv4 alone, where nothing else is routed.
pub(super) fn net_v4(text: &str) -> Result<Ipv4Net, String> {
    let Ok(net) = text.parse::<Ipv4Net>().or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from)) else {
        return Err(format!("`{text}` is neither an IPv4 address nor an IPv4 range (like 203.0.113.7 or 10.0.0.0/16)"));
    };
    without_host_bits(net.into(), text, "0.0.0.0/0").map(|_| net)
}

fn without_host_bits(net: IpNet, text: &str, everybody: &str) -> Result<IpNet, String> {
    if net.trunc() != net {
        return Err(format!("`{text}` has host bits set; the range is {}", net.trunc()));
    }
    // One address to the parser, everybody to most who write it: taken literally it would match nobody.
    if net.addr().is_unspecified() && net.prefix_len() == net.max_prefix_len() {
        return Err(format!("`{text}` is nobody's address; everybody is {everybody}"));
    }
    Ok(net)
}

/// A time span of a second to a day.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if (Duration::from_secs(1)..=Duration::from_secs(24 * 3600)).contains(&span) => Ok(span),
        Ok(_) => Err(format!("`{text}` is not between 1s and 24h")),
        Err(error) => Err(format!("`{text}` is no time span (like \"20s\" or \"5m\"): {error}")),
    }
}

/// A limit from 1 on, or none.
pub(super) fn limit(written: &LimitOrNone) -> Result<Option<u32>, String> {
    let &LimitOrNone::Limit(number) = written else { return Ok(None) };
    let limit = u32::try_from(number).ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.map(Some).ok_or_else(|| format!("{number} is not between 1 and {MAX_LIMIT}; false is no limit"))
}

#[cfg(test)]
mod tests {
    use super::super::Problem;
    use super::*;

    #[test]
    fn a_base_url_is_kept_in_its_parsed_form() {
        let mut found = Findings::default();
        for (text, kept) in [
            ("https://api.hetzner.cloud/v1", "https://api.hetzner.cloud/v1"),
            ("https://api.hetzner.cloud/v1/", "https://api.hetzner.cloud/v1"),
            ("http://169.254.169.254", "http://169.254.169.254"),
            ("http://169.254.169.254//", "http://169.254.169.254"),
            (" HTTP://LocalHost:8080/v1 \n", "http://localhost:8080/v1"),
            ("http://[fe80::1]:80", "http://[fe80::1]"),
        ] {
            assert_eq!(found.base_url("key", text).as_deref(), Some(kept), "{text}");
        }
        assert_eq!(found.problems, []);
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let mut found = Findings::default();
        for text in
            ["https://user:secret@host/v1", "https://:secret@host/v1", "https://secret@host/v1", "ftp://x:secret@y"]
        {
            assert_eq!(found.base_url("hcloud.endpoint", text), None, "{text}");
        }
        assert_eq!(found.problems, vec![Problem::new("hcloud.endpoint", "must not hold a user or a password"); 4]);
    }
}
