//! The API's errors: status, code, message, and the details that some codes have.

use serde::Serialize;
use serde_json::{Value, json};

use crate::cloud::model::refusal::Refusal;

/// An error answer. Codes and statuses are those of the Hetzner API documentation, "Error Codes".
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) details: Value,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), details: Value::Null }
    }

    fn with_details(self, details: Value) -> Self {
        Self { details, ..self }
    }

    /// 401, no `Authorization` header.
    pub(crate) fn token_required() -> Self {
        Self::new(401, "unauthorized", "token is required")
    }

    /// 401, an unknown token.
    pub(crate) fn token_invalid() -> Self {
        Self::new(401, "unauthorized", "the token you have provided is invalid")
    }

    /// 401, a read-only token.
    pub(crate) fn token_readonly() -> Self {
        Self::new(401, "token_readonly", "the token is only allowed to perform GET requests")
    }

    /// 403, a read-only token.
    pub(crate) fn forbidden() -> Self {
        Self::new(403, "forbidden", "insufficient permissions for this request")
    }

    /// 403, maintenance: nothing can be changed.
    pub(crate) fn maintenance() -> Self {
        Self::new(403, "maintenance", "cannot perform operation due to maintenance")
    }

    /// 404, an unknown path.
    pub(crate) fn no_route() -> Self {
        Self::new(404, "not_found", "api route not found")
    }

    /// 404, an unknown id.
    pub(crate) fn not_found(kind: &str, id: &str) -> Self {
        Self::new(404, "not_found", format!("{kind} with ID '{id}' not found"))
    }

    /// 405.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(405, "method_not_allowed", "the request method is not allowed")
    }

    /// 410, a removed function, with the link of the announcement.
    pub(crate) fn removed(announcement: &str) -> Self {
        Self::new(410, "deprecated_api_endpoint", "API functionality was removed")
            .with_details(json!({ "announcement": announcement }))
    }

    /// 400, the body is not a JSON object.
    pub(crate) fn json() -> Self {
        Self::new(400, "json_error", "invalid JSON input in your request")
    }

    /// 422, a field or a query parameter with a wrong value.
    pub(crate) fn invalid_field(name: &str, problem: &str) -> Self {
        Self::new(422, "invalid_input", format!("invalid input in field '{name}': {problem}"))
            .with_details(json!({ "fields": [{ "name": name, "messages": [problem] }] }))
    }

    /// 429 (body reported in Cyclenerd/hcloud-github-runner#5).
    pub(crate) fn rate_limit_exceeded(limit: u32) -> Self {
        Self::new(429, "rate_limit_exceeded", format!("limit of {limit} requests per hour reached"))
    }

    /// The API's error for a status, for faults.
    pub(crate) fn from_status(status: u16) -> Self {
        let (code, message) = match status {
            400 => return Self::json(),
            401 => return Self::token_invalid(),
            403 => return Self::forbidden(),
            404 => ("not_found", "entity not found"),
            405 => return Self::method_not_allowed(),
            409 => ("conflict", "the resource has changed during the request, please retry"),
            412 => ("resource_unavailable", "the requested resource is currently unavailable"),
            422 => ("invalid_input", "invalid input"),
            423 => ("locked", "the item you are trying to access is locked"),
            429 => ("rate_limit_exceeded", "limit of 3600 requests per hour reached"),
            500 => ("server_error", "error within the API backend"),
            502 => ("bad_gateway", "the request could not be answered by the API backend, please retry"),
            503 => ("unavailable", "a service or product is currently not available"),
            504 => ("timeout", "the request could not be answered in time, please retry"),
            _ => ("unknown_error", "unknown error"),
        };
        Self::new(status, code, message)
    }

    /// The body as the API's backend writes it: compact, with sorted keys (observed on real 401 answers).
    pub(crate) fn compact(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Error<'a> {
            code: &'a str,
            details: &'a Value,
            message: &'a str,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            error: Error<'a>,
        }
        let error = Error { code: &self.code, details: &self.details, message: &self.message };
        serde_json::to_vec(&Body { error }).expect("strings and plain JSON always serialize")
    }

    /// The body as the proxy in front of the backend writes it: indented, with another order of keys (observed on real
    /// answers for unknown paths and with 429).
    pub(crate) fn pretty(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Error<'a> {
            message: &'a str,
            code: &'a str,
            details: &'a Value,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            error: Error<'a>,
        }
        let error = Error { message: &self.message, code: &self.code, details: &self.details };
        serde_json::to_vec_pretty(&Body { error }).expect("strings and plain JSON always serialize")
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let error = |status, code| Self::new(status, code, message.clone());
        // The documented form of this code has fields. The message is the one observed on the real API.
        let invalid = |field: &str| {
            error(422, "invalid_input").with_details(json!({ "fields": [{ "name": field, "messages": [message] }] }))
        };
        let limit =
            |name: &str| error(403, "resource_limit_exceeded").with_details(json!({ "limits": [{ "name": name }] }));
        match refusal {
            Refusal::Absent { .. } | Refusal::RouteAbsent | Refusal::SubnetAbsent => error(404, "not_found"),
            Refusal::NameTaken => {
                error(409, "uniqueness_error").with_details(json!({ "fields": [{ "name": "name" }] }))
            }
            Refusal::NetworkBusy(_) => error(409, "conflict"),
            Refusal::ServerLocked(_) | Refusal::FloatingIpLocked(_) => error(423, "locked"),
            Refusal::Protected(_) => error(423, "protected"),
            Refusal::DestinationHostBits(_)
            | Refusal::DestinationNotPrivate(_)
            | Refusal::DestinationCoversPublicGateway(_)
            | Refusal::DestinationOverlaps(_) => invalid("destination"),
            Refusal::GatewayOutside { .. } | Refusal::GatewayReserved(_) => invalid("gateway"),
            // Not documented for these limits; the code means a limit of quantity.
            Refusal::TooManyRoutes => limit("network_route_limit"),
            Refusal::TooManySubnets => limit("network_subnet_limit"),
            Refusal::TooManyNetworks => limit("server_network_limit"),
            Refusal::TooManyMembers => limit("network_resource_limit"),
            Refusal::RangeHostBits(_)
            | Refusal::RangeNotPrivate(_)
            | Refusal::RangeTooSmall { .. }
            | Refusal::RangeNotExtended(_)
            | Refusal::SubnetOutside { .. }
            | Refusal::SubnetOverlaps(_) => invalid("ip_range"),
            Refusal::SubnetZone => invalid("network_zone"),
            Refusal::VswitchMissing => invalid("vswitch_id"),
            // There is no documented code for an unassigned floating IP; terraform-provider-hcloud reports some error.
            Refusal::SubnetInUse(_) | Refusal::FloatingIpUnassigned => error(422, "service_error"),
            Refusal::AlreadyAttached => error(422, "server_already_attached"),
            Refusal::NotAttached => invalid("network"),
            Refusal::IpUnavailable(_) => error(422, "ip_not_available"),
            Refusal::IpOutside { .. } => invalid("ip"),
            Refusal::NoSubnetAvailable => error(422, "no_subnet_available"),
            Refusal::NetworksOverlap => error(422, "networks_overlap"),
            Refusal::AliasTwice(_) => invalid("alias_ips"),
            Refusal::FloatingIpAssigned => error(422, "floating_ip_assigned"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_401_is_written_byte_for_byte_as_by_the_real_api() {
        let written = |error: &ApiError| String::from_utf8(error.compact()).unwrap();
        assert_eq!(
            written(&ApiError::token_required()),
            r#"{"error":{"code":"unauthorized","details":null,"message":"token is required"}}"#
        );
        assert_eq!(
            written(&ApiError::token_invalid()),
            r#"{"error":{"code":"unauthorized","details":null,"message":"the token you have provided is invalid"}}"#
        );
    }

    #[test]
    fn a_429_is_written_byte_for_byte_as_by_the_real_api() {
        let written = String::from_utf8(ApiError::rate_limit_exceeded(3600).pretty()).unwrap();
        let expected = r#"{
  "error": {
    "message": "limit of 3600 requests per hour reached",
    "code": "rate_limit_exceeded",
    "details": null
  }
}"#;
        assert_eq!(written, expected);
    }
}
