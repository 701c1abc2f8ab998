//! Values that several keys share: how each is written, and what is said of one that is not.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::findings::Findings;
use crate::net::{InterfaceName, InvalidInterfaceName};

/// Ids of the API are positive and below 2^53 (Hetzner API documentation: they fit a JSON number).
const MAX_ID: i64 = (1 << 53) - 1;

impl Findings {
    pub(super) fn interface(&mut self, key: &str, text: &str) -> Option<InterfaceName> {
        text.parse().map_err(|error: InvalidInterfaceName| self.report(key, error.to_string())).ok()
    }

    pub(super) fn address(&mut self, key: &str, text: &str) -> Option<Ipv4Addr> {
        text.parse().map_err(|_| self.report(key, format!("`{text}` is no IPv4 address (like 10.0.0.2)"))).ok()
    }

    /// A port from 1 to 65535.
    pub(super) fn port(&mut self, key: &str, number: i64) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|&port| port > 0);
        if port.is_none() {
            self.report(key, format!("{number} is no port (1 to 65535)"));
        }
        port
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
