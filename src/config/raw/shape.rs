//! The types that a value may have, and the error for a value of another type.

use std::time::{Duration, SystemTime};

use toml::de::{DeTable, DeValue};
use toml::value::{Datetime, Offset};

/// One key's value.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::config) enum Entry<T> {
    #[default]
    Absent,
    Good(T),
    /// The value has the wrong type; the text is the error.
    Bad(String),
}

impl<T: Shape> From<DeValue<'_>> for Entry<T> {
    fn from(value: DeValue<'_>) -> Self {
        match T::from_value(value) {
            Ok(good) => Self::Good(good),
            Err(other) => {
                let found = found(&other);
                let is_single = matches!(other, DeValue::String(_) | DeValue::Integer(_));
                let advice =
                    if T::EXPECTED == LIST && is_single { format!("; write [{found}]") } else { String::new() };
                Self::Bad(format!("expected {}, found {found}{advice}", T::EXPECTED))
            }
        }
    }
}

/// What a list is called in an error.
const LIST: &str = "a list";

/// A type of values. serde could derive it, but its errors would talk about sequences and structs.
pub(in crate::config) trait Shape: Sized {
    /// The type in an error: `true or false`.
    const EXPECTED: &'static str;
    /// The value in this type, or the value unchanged if it has another type.
    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>>;
}

/// A value of the wrong type for an error: as it is written, if that is short.
fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) if integer(value).is_none() => {
            format!("{number}, which is too large")
        }
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(switch) => switch.to_string(),
        DeValue::Datetime(time) => time.to_string(),
    }
}

/// A whole number of at most 64 bits; TOML guarantees no more (TOML 1.0, "Integer").
fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

impl Shape for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        if let DeValue::Boolean(switch) = value { Ok(switch) } else { Err(value) }
    }
}

impl Shape for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        integer(&value).ok_or(value)
    }
}

impl Shape for String {
    const EXPECTED: &'static str = "a string in quotes";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        if let DeValue::String(text) = value { Ok(text.into_owned()) } else { Err(value) }
    }
}

impl<T: Shape> Shape for Vec<Entry<T>> {
    const EXPECTED: &'static str = LIST;

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::Array(values) => Ok(values.into_iter().map(|value| Entry::from(value.into_inner())).collect()),
            other => Err(other),
        }
    }
}

/// A second, written as a date and time with its offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Timestamp(pub(in crate::config) SystemTime);

impl Shape for Timestamp {
    const EXPECTED: &'static str =
        "a date and a time with their offset from UTC, without quotes (like 2027-01-31T18:00:00Z)";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        let read = if let DeValue::Datetime(written) = &value { seconds_of(written) } else { None };
        read.map(Self).ok_or(value)
    }
}

/// The beginning of the second that this time is in; `None` if it has no date or offset, or is before 1970.
fn seconds_of(written: &Datetime) -> Option<SystemTime> {
    let (date, time) = written.date.zip(written.time)?;
    let (hour, minute, second) = (time.hour, time.minute, time.second.unwrap_or(0));
    let text = format!("{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", date.year, date.month, date.day);
    let local = humantime::parse_rfc3339(&text).ok()?;
    let offset = match written.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => minutes,
    };
    let distance = Duration::from_secs(u64::from(offset.unsigned_abs()) * 60);
    if offset < 0 { local.checked_add(distance) } else { local.checked_sub(distance) }
}

/// A number, or `auto` to discover it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum NumberOrAuto {
    Number(i64),
    Auto,
}

impl Shape for NumberOrAuto {
    const EXPECTED: &'static str = "a whole number or \"auto\"";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::String(word) if word == "auto" => Ok(Self::Auto),
            other => i64::from_value(other).map(Self::Number),
        }
    }
}

/// A list of ports, or `auto` to discover them.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum PortsOrAuto {
    Ports(Vec<Entry<i64>>),
    Auto,
}

impl Shape for PortsOrAuto {
    const EXPECTED: &'static str = "a list of ports or \"auto\"";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::String(word) if word == "auto" => Ok(Self::Auto),
            other => Vec::from_value(other).map(Self::Ports),
        }
    }
}

/// A list of numbers, or `false`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum NumbersOrOff {
    Numbers(Vec<Entry<i64>>),
    Off,
}

impl Shape for NumbersOrOff {
    const EXPECTED: &'static str = "a list of numbers, or false";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::Boolean(false) => Ok(Self::Off),
            other => Vec::from_value(other).map(Self::Numbers),
        }
    }
}

/// A port, `auto` for the tunnel's port, or `false` for no open port.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum PortAutoOrClosed {
    Port(i64),
    Auto,
    Closed,
}

impl Shape for PortAutoOrClosed {
    const EXPECTED: &'static str = "a port number, \"auto\", or false for a closed port";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::String(word) if word == "auto" => Ok(Self::Auto),
            DeValue::Boolean(false) => Ok(Self::Closed),
            other => i64::from_value(other).map(Self::Port),
        }
    }
}

/// A switch, or `auto` to let the daemon decide.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum SwitchOrAuto {
    Switch(bool),
    Auto,
}

impl Shape for SwitchOrAuto {
    const EXPECTED: &'static str = "true, false or \"auto\"";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::Boolean(switch) => Ok(Self::Switch(switch)),
            DeValue::String(word) if word == "auto" => Ok(Self::Auto),
            other => Err(other),
        }
    }
}

/// Which shorter path established flows take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) enum FastpathChoice {
    Auto,
    Bpf,
    Flowtable,
    Xdp,
    Off,
}

impl Shape for FastpathChoice {
    const EXPECTED: &'static str = "\"auto\", \"bpf\", \"flowtable\", true or false";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        let choice = match &value {
            DeValue::Boolean(true) => Some(Self::Auto),
            DeValue::Boolean(false) => Some(Self::Off),
            DeValue::String(word) => match word.as_ref() {
                "auto" => Some(Self::Auto),
                "bpf" => Some(Self::Bpf),
                "flowtable" => Some(Self::Flowtable),
                "xdp" => Some(Self::Xdp),
                _ => None,
            },
            _ => None,
        };
        choice.ok_or(value)
    }
}

/// A list of texts, or `auto` to let the daemon decide.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum TextsOrAuto {
    Texts(Vec<Entry<String>>),
    Auto,
}

impl Shape for TextsOrAuto {
    const EXPECTED: &'static str = "a list or \"auto\"";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::String(word) if word == "auto" => Ok(Self::Auto),
            other => Vec::from_value(other).map(Self::Texts),
        }
    }
}

/// A text, or a list of texts.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum TextOrTexts {
    Text(String),
    Texts(Vec<Entry<String>>),
}

impl Shape for TextOrTexts {
    const EXPECTED: &'static str = "a string in quotes, or a list of them";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::String(text) => Ok(Self::Text(text.into_owned())),
            other => Vec::from_value(other).map(Self::Texts),
        }
    }
}

/// A port as a number, or a range of ports as text.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum PortOrRange {
    Port(i64),
    Range(String),
}

impl Shape for PortOrRange {
    const EXPECTED: &'static str = "a port number or a range of ports in quotes (like \"30000-30100\")";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::String(range) => Ok(Self::Range(range.into_owned())),
            other => i64::from_value(other).map(Self::Port),
        }
    }
}

/// A protocol, by its name or by its number.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum NameOrNumber {
    Name(String),
    Number(i64),
}

impl Shape for NameOrNumber {
    const EXPECTED: &'static str = "the name of a protocol in quotes, or its number";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::String(name) => Ok(Self::Name(name.into_owned())),
            other => i64::from_value(other).map(Self::Number),
        }
    }
}

/// A limit, or `false` for no limit.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum LimitOrNone {
    Limit(i64),
    None,
}

impl Shape for LimitOrNone {
    const EXPECTED: &'static str = "a whole number, or false for no limit";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::Boolean(false) => Ok(Self::None),
            other => i64::from_value(other).map(Self::Limit),
        }
    }
}

/// Where dropped packets are logged: in the journal, to an nflog group, or nowhere (`false`).
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum JournalGroupOrOff {
    Journal,
    Group(i64),
    Off,
}

impl Shape for JournalGroupOrOff {
    const EXPECTED: &'static str = "\"journal\", the number of an nflog group, or false";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        match value {
            DeValue::String(word) if word == "journal" => Ok(Self::Journal),
            DeValue::Boolean(false) => Ok(Self::Off),
            other => i64::from_value(other).map(Self::Group),
        }
    }
}

/// A table with known keys. Their values are [`Entry`]s, so every table can be read.
pub(in crate::config) trait Section: Sized {
    /// Reads the section's keys and collects the names of unknown keys.
    fn from_table(table: DeTable<'_>) -> Self;
}

impl<T: Section> Shape for T {
    const EXPECTED: &'static str = "a table";

    fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
        if let DeValue::Table(table) = value { Ok(T::from_table(table)) } else { Err(value) }
    }
}
