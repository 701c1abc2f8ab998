//! Faults for requests that a test selects, as they happen between clients and the real API.

use std::time::Duration;

use axum::http::Method;

/// A fault, and the requests that it applies to. If several match a request, the one that was injected first applies,
/// so several faults with `Times::Next(1)` apply one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Which requests the fault applies to.
    pub matching: Matching,
    /// What goes wrong.
    pub fault: Fault,
    /// How many requests it applies to.
    pub times: Times,
}

/// Which requests a fault applies to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matching {
    /// The method; `None` matches all methods.
    pub method: Option<Method>,
    /// A part of the path, such as `add_route` or `/networks/4711`. The empty text matches every path.
    pub path: String,
}

impl Matching {
    /// Matches every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Matches requests whose path contains the text.
    pub fn path(part: &str) -> Self {
        Self { method: None, path: part.into() }
    }

    /// Matches GET requests whose path contains the text.
    pub fn get(part: &str) -> Self {
        Self { method: Some(Method::GET), path: part.into() }
    }

    /// Matches POST requests whose path contains the text.
    pub fn post(part: &str) -> Self {
        Self { method: Some(Method::POST), path: part.into() }
    }

    fn includes(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method) && path.contains(&self.path)
    }
}

/// How many requests a fault applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The next so many matching requests.
    Next(u32),
    /// Until `Cloud::clear_faults` is called.
    UntilCleared,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An unexpected status. The request has no effect.
    Status {
        /// The HTTP status.
        code: u16,
        /// Whether the body is the API's error for this status. Otherwise it is the HTML page of a proxy, without an
        /// error code.
        json: bool,
    },
    /// An error of the API with any code. The request has no effect.
    Api {
        /// The HTTP status.
        status: u16,
        /// The error's `code`.
        code: String,
        /// The error's `message`.
        message: String,
    },
    /// No answer. The connection is reset after `hold`.
    Timeout {
        /// Whether the request takes effect nevertheless, as when only the answer is lost.
        applied: bool,
        /// How long the connection stays open.
        hold: Duration,
    },
    /// The connection is reset (TCP RST) without an answer. Needs `Cloud::serve`; a router
    /// served otherwise answers 502 with an empty body.
    Reset {
        /// Whether the request takes effect nevertheless.
        applied: bool,
    },
    /// The answer is complete but slow.
    SlowBody {
        /// The pause before every byte.
        per_byte: Duration,
    },
    /// The request takes effect, and the answer is a complete HTTP response with half of the JSON body.
    TruncatedJson,
    /// The answer is 429, as if other programs had used up the rate limit. The request counts are unchanged.
    RateLimited,
    /// The request is accepted, and its action ends with status `error` and code `action_failed`. The fault does not
    /// apply to requests that start no action.
    ActionFailed,
    /// The answer is 403 `maintenance`.
    Maintenance,
}

impl Fault {
    /// Whether the request takes effect.
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

/// The injected faults.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Injection>);

impl Faults {
    pub(crate) fn inject(&mut self, injection: Injection) {
        self.0.push(injection);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that applies to this request; it counts as applied.
    pub(crate) fn take_matching(&mut self, method: &Method, path: &str) -> Option<Fault> {
        self.0.retain(|injection| injection.times != Times::Next(0));
        let starts_action = method == Method::POST && path.contains("/actions/");
        let applies = |injection: &&mut Injection| {
            let lacks_action = injection.fault == Fault::ActionFailed && !starts_action;
            injection.matching.includes(method, path) && !lacks_action
        };
        let met = self.0.iter_mut().find(applies)?;
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
    fn faults_apply_in_the_order_of_their_injection() {
        let mut faults = Faults::default();
        for (code, times) in [(409, 1), (423, 0), (502, 2)] {
            let injection = Injection { matching: Matching::any(), fault: status(code), times: Times::Next(times) };
            faults.inject(injection);
        }
        let met = [(); 5].map(|()| faults.take_matching(&Method::GET, "/v1/networks"));
        assert_eq!(met, [Some(status(409)), Some(status(502)), Some(status(502)), None, None]);
    }

    #[test]
    fn a_failed_action_applies_to_the_next_request_that_starts_one() {
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
    fn a_fault_applies_only_to_matching_requests() {
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
