//! Request bodies, field by field.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::cloud::model::labels::{is_key, is_value};
use crate::cloud::model::resources::Labels;

/// A request's JSON object.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// A body of these fields and no others (`additionalProperties: false` in the OpenAPI document).
    pub(super) fn closed(body: &[u8], known: &[&str]) -> Result<Self, ApiError> {
        Self::open(body)?.only(known)
    }

    /// Refuses fields other than these.
    pub(super) fn only(self, known: &[&str]) -> Result<Self, ApiError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(ApiError::invalid_field(unknown, "unknown field")),
            None => Ok(self),
        }
    }

    /// A body whose other fields are ignored.
    pub(super) fn open(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) | Err(_) => Err(ApiError::json()),
        }
    }

    /// The value of a required field.
    pub(super) fn required<T>(&self, name: &str, kind: &Kind<T>) -> Result<T, ApiError> {
        self.optional(name, kind)?.ok_or_else(|| ApiError::invalid_field(name, "is required"))
    }

    /// The value of an optional field; `None` if it is missing or null.
    pub(super) fn optional<T>(&self, name: &str, kind: &Kind<T>) -> Result<Option<T>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match (kind.read)(value) {
                Some(value) => Ok(Some(value)),
                None => Err(ApiError::invalid_field(name, kind.problem)),
            },
        }
    }
}

/// A kind of value, and the problem to report for other values.
pub(super) struct Kind<T> {
    read: fn(&Value) -> Option<T>,
    problem: &'static str,
}

pub(super) const CIDR: Kind<Ipv4Net> =
    Kind { read: |value| value.as_str()?.parse().ok(), problem: "must be an IPv4 network in CIDR notation" };

pub(super) const ADDRESS: Kind<Ipv4Addr> =
    Kind { read: |value| value.as_str()?.parse().ok(), problem: "must be an IPv4 address" };

pub(super) const ADDRESSES: Kind<Vec<Ipv4Addr>> = Kind {
    read: |value| value.as_array()?.iter().map(|item| item.as_str()?.parse().ok()).collect(),
    problem: "must be a list of IPv4 addresses",
};

pub(super) const ID: Kind<u64> =
    Kind { read: |value| value.as_u64().filter(|id| (1..1 << 53).contains(id)), problem: "must be an ID" };

pub(super) const BOOL: Kind<bool> = Kind { read: Value::as_bool, problem: "must be true or false" };

pub(super) const TEXT: Kind<String> =
    Kind { read: |value| value.as_str().map(Into::into), problem: "must be a string" };

pub(super) const NAME: Kind<String> = Kind {
    read: |value| value.as_str().filter(|name| (1..=128).contains(&name.chars().count())).map(Into::into),
    problem: "must have 1 to 128 characters",
};

/// RFC 1123, as the documentation of servers says.
pub(super) const HOSTNAME: Kind<String> = Kind {
    read: |value| {
        let is_label = |label: &str| {
            let ends = !label.starts_with('-') && !label.ends_with('-');
            (1..=63).contains(&label.len()) && ends && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        value.as_str().filter(|name| name.len() <= 253 && name.split('.').all(is_label)).map(Into::into)
    },
    problem: "must be a valid hostname as per RFC 1123",
};

pub(super) const LABELS: Kind<Labels> = Kind {
    read: |value| {
        let label = |(key, value): (&String, &Value)| {
            let value = value.as_str().filter(|value| is_key(key) && is_value(value))?;
            Some((key.clone(), value.to_owned()))
        };
        value.as_object()?.iter().map(label).collect()
    },
    problem: "must be valid labels",
};

/// A list of objects, which the caller checks one by one.
pub(super) const OBJECTS: Kind<Vec<Fields>> = Kind {
    read: |value| value.as_array()?.iter().map(|item| item.as_object().cloned().map(Fields)).collect(),
    problem: "must be a list of objects",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_json_is_a_400_and_an_unknown_field_a_422() {
        let closed = |body: &str| Fields::closed(body.as_bytes(), &["gateway"]).map(|_| ());
        for broken in ["", "{", "[]", "null", "{\"gateway\":}"] {
            assert_eq!(closed(broken), Err(ApiError::json()), "{broken}");
        }
        assert_eq!(closed(r#"{"gateway":"10.0.0.2","via":1}"#), Err(ApiError::invalid_field("via", "unknown field")));
        assert_eq!(closed(r#"{"gateway":"10.0.0.2"}"#), Ok(()));
    }

    #[test]
    fn a_field_of_the_wrong_kind_is_a_422() {
        let fields = Fields::open(br#"{"gateway":"10.0.0.2","destination":"10.0.0.0","network":0,"ip":null}"#).unwrap();
        assert_eq!(fields.required("gateway", &ADDRESS), Ok(Ipv4Addr::new(10, 0, 0, 2)));
        let problem = |name: &str, problem: &str| ApiError::invalid_field(name, problem);
        assert_eq!(fields.required("destination", &CIDR), Err(problem("destination", CIDR.problem)));
        assert_eq!(fields.required("network", &ID), Err(problem("network", ID.problem)));
        assert_eq!(fields.optional("ip", &ADDRESS), Ok(None));
        assert_eq!(fields.required("ip", &ADDRESS), Err(problem("ip", "is required")));
    }
}
