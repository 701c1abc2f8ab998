//! The requests and responses of the control socket.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::outcome::Problem;
use crate::report::Report;

/// Longest response that a client accepts, in bytes: ten thousand peers take 3 MB.
pub(crate) const MAX_LINE: usize = 64 * 1024 * 1024;

/// A request of `bastionctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The report of the newest pass.
    Status {},
    /// The steps that a reload would carry out.
    Plan {},
    /// Reconcile all components now. The answer comes when the pass has ended.
    Reconcile {},
    /// Remove everything that the daemon made, and end.
    Down {},
    /// Remove the ban of a source with too many SSH attempts.
    Unban {
        /// The source's address; for IPv6 any address of its /64 network.
        address: IpAddr,
    },
}

/// An answer of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case")]
pub(crate) enum Response {
    /// The answer to `Status` and `Reconcile`.
    Report {
        /// The report, with the newest counters.
        report: Box<Report>,
    },
    /// The answer to `Plan` (what would be done), `Down` and `Unban` (what was done).
    Steps {
        /// The steps in their order, a line each.
        steps: Vec<String>,
        /// What is wrong, with advice.
        problems: Vec<Problem>,
    },
    /// The request was not valid, or there was nothing to do.
    Refused {
        /// The reason, for the operator.
        reason: String,
    },
}

/// Reads one request.
pub fn parse_request(line: &[u8]) -> Result<Request, serde_json::Error> {
    serde_json::from_slice(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_an_unknown_name_or_key_is_refused() {
        assert_eq!(parse_request(br#"{"request":"status"}"#).unwrap(), Request::Status {});
        assert_eq!(parse_request(b"{\"request\":\"down\"}\n").unwrap(), Request::Down {});
        let unban = parse_request(br#"{"request":"unban","address":"2001:db8::7"}"#).unwrap();
        assert_eq!(unban, Request::Unban { address: "2001:db8::7".parse().unwrap() });
        parse_request(br#"{"request":"unban","address":"192.0.2.0/24"}"#).unwrap_err();
        parse_request(br#"{"request":"unban"}"#).unwrap_err();
        for bad in
            [&b""[..], b"status", br#"{"request":"explode"}"#, br#"{"request":"down","force":1}"#, b"[]", b"\xff"]
        {
            parse_request(bad).unwrap_err();
        }
    }
}
