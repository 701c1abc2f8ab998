//! Faults on demand: what goes wrong between a client and the real API, at the request that a test picks.

use std::time::Duration;

use axum::http::Method;

/// A fault, and the requests that meet it. Several may be in force: a request meets the first that matches, in the
/// order of their injection, so a script of `Times::Next(1)` plays itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Which requests.
    pub matching: Matching,
    /// What happens to them.
    pub fault: Fault,
    /// To how many of them.
    pub times: Times,
}

/// Which requests meet a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matching {
    /// The method; any when absent.
    pub method: Option<Method>,
    /// A part of the path, such as `add_route` or `/networks/4711`; the empty text is part of every path.
    pub path: String,
}

impl Matching {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests whose path contains the text.
    pub fn path(part: &str) -> Self {
        Self { method: None, path: part.into() }
    }

    /// Requests that read, whose path contains the text.
    pub fn get(part: &str) -> Self {
        Self { method: Some(Method::GET), path: part.into() }
    }

    /// Requests that start an action or create something, whose path contains the text.
    pub fn post(part: &str) -> Self {
        Self { method: Some(Method::POST), path: part.into() }
    }

    fn includes(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method) && path.contains(&self.path)
    }
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The next so many matching requests.
    Next(u32),
    /// Until [`Cloud::clear_faults`](super::Cloud::clear_faults).
    UntilCleared,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A status out of the blue; nothing is carried out.
    Status {
        /// The HTTP status.
        code: u16,
        /// With the API's error body for this status; else the page of a proxy that never reached the API (HTML), which
        /// no client can read a code from.
        json: bool,
    },
    /// An error of the API with a code of its own; nothing is carried out.
    Api {
        /// The HTTP status.
        status: u16,
        /// The error's `code`.
        code: String,
        /// The error's `message`.
        message: String,
    },
    /// No answer. The connection is cut when `hold` has passed.
    Timeout {
        /// Whether the change is carried out first: the lost reply.
        applied: bool,
        /// How long the connection stays open without a word.
        hold: Duration,
    },
    /// The connection is reset (TCP RST) without an answer. Needs [`Cloud::serve`](super::Cloud::serve); a router
    /// served otherwise answers 502 with an empty body.
    Reset {
        /// Whether the change is carried out first.
        applied: bool,
    },
    /// The answer is right, but trickles in.
    SlowBody {
        /// The pause before every byte.
        per_byte: Duration,
    },
    /// The request is carried out and half of its answer comes back, as a complete HTTP response.
    TruncatedJson,
    /// 429, as when other programs have used up the budget; the bucket itself is left alone.
    RateLimited,
    /// The request is accepted, and its action ends in status `error` with code `action_failed`. Requests that start no
    /// action pass it by, uncounted.
    ActionFailed,
    /// 403 `maintenance`.
    Maintenance,
}

impl Fault {
    /// Whether the request is carried out nevertheless.
    pub(crate) fn applies(&self) -> bool {
        match self {
            Self::Timeout { applied, .. } | Self::Reset { applied } => *applied,
            Self::SlowBody { .. } | Self::TruncatedJson | Self::ActionFailed => true,
            Self::Status { .. } | Self::Api { .. } | Self::RateLimited | Self::Maintenance => false,
        }
    }

    /// Whether the client gets no answer.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Reset { .. })
    }
}

/// The faults in force.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Injection>);

impl Faults {
    pub(crate) fn inject(&mut self, injection: Injection) {
        self.0.push(injection);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that this request meets, counted.
    pub(crate) fn take_matching(&mut self, method: &Method, path: &str) -> Option<Fault> {
        self.0.retain(|injection| injection.times != Times::Next(0));
        let starts_action = method == Method::POST && path.contains("/actions/");
        let strikes = |injection: &&mut Injection| {
            let idle = injection.fault == Fault::ActionFailed && !starts_action;
            injection.matching.includes(method, path) && !idle
        };
        let met = self.0.iter_mut().find(strikes)?;
        if let Times::Next(left) = &mut met.times {
            *left -= 1;
        }
        Some(met.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Fault {
        Fault::Status { code, json: true }
    }

    #[test]
    fn a_script_of_faults_plays_in_its_order_and_ends() {
        let mut faults = Faults::default();
        for (code, times) in [(409, 1), (423, 0), (502, 2)] {
            let injection = Injection { matching: Matching::any(), fault: status(code), times: Times::Next(times) };
            faults.inject(injection);
        }
        let met = [(); 5].map(|()| faults.take_matching(&Method::GET, "/v1/networks"));
        assert_eq!(met, [Some(status(409)), Some(status(502)), Some(status(502)), None, None]);
    }

    #[test]
    fn the_failure_of_an_action_waits_for_a_request_that_starts_one() {
        let mut faults = Faults::default();
        let matching = Matching::any();
        faults.inject(Injection { matching, fault: Fault::ActionFailed, times: Times::Next(1) });
        assert_eq!(faults.take_matching(&Method::GET, "/v1/networks/1/actions"), None);
        assert_eq!(faults.take_matching(&Method::POST, "/v1/networks"), None);
        let path = "/v1/networks/1/actions/add_route";
        assert_eq!(faults.take_matching(&Method::POST, path), Some(Fault::ActionFailed));
        assert_eq!(faults.take_matching(&Method::POST, path), None);
    }

    #[test]
    fn a_fault_strikes_only_the_requests_it_matches() {
        let mut faults = Faults::default();
        let matching = Matching::post("add_route");
        faults.inject(Injection { matching, fault: status(500), times: Times::UntilCleared });
        let path = "/v1/networks/1/actions/add_route";
        assert_eq!(faults.take_matching(&Method::GET, path), None);
        assert_eq!(faults.take_matching(&Method::POST, "/v1/networks/1/actions/delete_route"), None);
        assert_eq!(faults.take_matching(&Method::POST, path), Some(status(500)));
        assert_eq!(faults.take_matching(&Method::POST, path), Some(status(500)));
        faults.clear();
        assert_eq!(faults.take_matching(&Method::POST, path), None);
    }
}
