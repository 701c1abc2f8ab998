//! The words of the control socket.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::outcome::Problem;
use crate::report::Report;

/// Longest response that a client accepts, in bytes: ten thousand peers take 3 MB.
pub(crate) const MAX_LINE: usize = 64 * 1024 * 1024;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The account of the newest pass.
    Status {},
    /// What a reload would change.
    Plan {},
    /// A pass now, of all rooms; answered when it is over.
    Reconcile {},
    /// Remove everything that is ours, and end.
    Down {},
    /// Let a source log in again that tried too often.
    Unban {
        /// Its address; of IPv6 any of its /64.
        address: IpAddr,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case")]
pub(crate) enum Response {
    /// To `Status` and `Reconcile`.
    Report {
        /// The account.
        report: Box<Report>,
    },
    /// To `Plan` (what would be done), `Down` and `Unban` (what was done).
    Steps {
        /// A line each.
        steps: Vec<String>,
        /// What is wrong.
        problems: Vec<Problem>,
    },
    /// The request made no sense, or there was nothing to do.
    Refused {
        /// Why.
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
    fn requests_are_one_word_each_and_nothing_else() {
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
