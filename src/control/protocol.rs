//! The requests and responses of the control socket.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Bundle, Change};
use crate::inputs::Reacher;
use crate::outcome::Problem;
use crate::reconcile::WayIn;
use crate::report::Report;
use crate::wireguard::status::TunnelReport;

/// Longest response that a client accepts, in bytes: ten thousand peers take 3 MB.
pub(crate) const MAX_LINE: usize = 64 * 1024 * 1024;

/// Longest request, in bytes: one with a configuration to plan. The largest supported access lists take 5 MB, ten
/// thousand peers 2 MB.
pub(crate) const MAX_REQUEST: usize = 32 * 1024 * 1024;

/// A request of `bastionctl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The report of the newest pass.
    Status {},
    /// What a reload would change and do.
    Plan {
        /// The configuration to plan; `None`: the file that the daemon was started with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        candidate: Option<Box<Bundle>>,
    },
    /// The peers of the tunnel, and what clients have to know.
    Peers {},
    /// The peers that may open flows to a destination.
    WhoCanReach {
        /// An IPv4 address or a name of `[hosts]`.
        place: String,
        /// The protocol's number in the IP header.
        protocol: u8,
        /// The port, if the protocol has ports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// Load the configuration file again and apply it. The answer comes when the pass has ended.
    Reload {
        /// The configuration file that the caller has changed. A daemon that was started with another one refuses.
        path: PathBuf,
    },
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
    /// The answer to `Peers`.
    Peers {
        /// The tunnel and its peers, if it runs.
        tunnel: Option<Box<TunnelReport>>,
        /// What clients have to know; `None` if no tunnel is wanted.
        way_in: Option<WayIn>,
    },
    /// The answer to `WhoCanReach`.
    Reachers {
        /// The peers, in the order of the configuration.
        reachers: Vec<Reacher>,
    },
    /// The answer to `Reload`: the configuration is in use.
    Reloaded {
        /// What clients have to know; `None` if no tunnel is wanted.
        way_in: Option<WayIn>,
        /// What keeps peers from what the configuration gives them, a line each.
        obstacles: Vec<String>,
    },
    /// The answer to `Plan`.
    Plan(Plan),
    /// The configuration to plan or to load is wrong.
    WrongConfiguration {
        /// What is wrong as a whole, with the file's path.
        reason: String,
        /// Each problem in it.
        problems: Vec<String>,
    },
    /// The answer to `Down` and `Unban`: what was done.
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

/// What a pass with a configuration would change and do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The file that was planned.
    pub(crate) path: PathBuf,
    /// What differs from the configuration that runs; `None` where none is known.
    pub(crate) changes: Option<Vec<Change>>,
    /// The steps in their order, a line each.
    pub(crate) steps: Vec<String>,
    /// What is going to be wrong, with advice.
    pub(crate) problems: Vec<Problem>,
    /// What is allowed in the configuration but probably a mistake.
    pub(crate) warnings: Vec<String>,
    /// Whether every part of the gateway could be observed. If not, there may be more steps.
    pub(crate) is_complete: bool,
}

impl Plan {
    /// Whether nothing would be changed and nothing done.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.changes.as_ref().is_none_or(Vec::is_empty)
    }
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
        assert_eq!(parse_request(br#"{"request":"plan"}"#).unwrap(), Request::Plan { candidate: None });
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
