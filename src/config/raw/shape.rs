//! What a value may look like, and what is said of one that does not.

use toml::{Table, Value};

/// One key's value: not there, of the right shape, or why not.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::config) enum Entry<T> {
    #[default]
    Absent,
    Good(T),
    Bad(String),
}

impl<T: Shape> From<Value> for Entry<T> {
    fn from(value: Value) -> Self {
        match T::of(value) {
            Ok(good) => Self::Good(good),
            Err(other) => Self::Bad(format!("expected {}, found {}", T::EXPECTED, found(&other))),
        }
    }
}

/// What a value must look like. serde could tell it from the types, but would speak of sequences and Rust's structs.
pub(in crate::config) trait Shape: Sized {
    /// What the operator is told: `true or false`.
    const EXPECTED: &'static str;
    /// The value in its shape, or unchanged if it has another.
    fn of(value: Value) -> Result<Self, Value>;
}

/// A value of the wrong shape, as the operator wrote it where that is short.
fn found(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        Value::String(text) => format!("{text:?}"),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => value.to_string(),
    }
}

impl Shape for bool {
    const EXPECTED: &'static str = "true or false";

    fn of(value: Value) -> Result<Self, Value> {
        if let Value::Boolean(switch) = value { Ok(switch) } else { Err(value) }
    }
}

impl Shape for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn of(value: Value) -> Result<Self, Value> {
        if let Value::Integer(number) = value { Ok(number) } else { Err(value) }
    }
}

impl Shape for String {
    const EXPECTED: &'static str = "a string in quotes";

    fn of(value: Value) -> Result<Self, Value> {
        if let Value::String(text) = value { Ok(text) } else { Err(value) }
    }
}

impl<T: Shape> Shape for Vec<Entry<T>> {
    const EXPECTED: &'static str = "a list";

    fn of(value: Value) -> Result<Self, Value> {
        if let Value::Array(values) = value { Ok(values.into_iter().map(Entry::from).collect()) } else { Err(value) }
    }
}

/// A number that may be left to discovery with the word `auto`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum NumberOrAuto {
    Number(i64),
    Auto,
}

impl Shape for NumberOrAuto {
    const EXPECTED: &'static str = "a whole number or \"auto\"";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::Integer(number) => Ok(Self::Number(number)),
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            other => Err(other),
        }
    }
}

/// A list of ports that may be left to discovery with the word `auto`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum PortsOrAuto {
    Ports(Vec<Entry<i64>>),
    Auto,
}

impl Shape for PortsOrAuto {
    const EXPECTED: &'static str = "a list of ports or \"auto\"";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            other => Vec::of(other).map(Self::Ports),
        }
    }
}

/// A port, the tunnel's own with the word `auto`, or `false` for a closed one.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum PortAutoOrClosed {
    Port(i64),
    Auto,
    Closed,
}

impl Shape for PortAutoOrClosed {
    const EXPECTED: &'static str = "a port number, \"auto\", or false for a closed port";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::Integer(number) => Ok(Self::Port(number)),
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            Value::Boolean(false) => Ok(Self::Closed),
            other => Err(other),
        }
    }
}

/// A switch that may be left to the daemon with the word `auto`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum SwitchOrAuto {
    Switch(bool),
    Auto,
}

impl Shape for SwitchOrAuto {
    const EXPECTED: &'static str = "true, false or \"auto\"";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::Boolean(switch) => Ok(Self::Switch(switch)),
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            other => Err(other),
        }
    }
}

/// A list of texts that may be left to the daemon with the word `auto`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum TextsOrAuto {
    Texts(Vec<Entry<String>>),
    Auto,
}

impl Shape for TextsOrAuto {
    const EXPECTED: &'static str = "a list or \"auto\"";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            other => Vec::of(other).map(Self::Texts),
        }
    }
}

/// A port, or a range of ports as text.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum PortOrRange {
    Port(i64),
    Range(String),
}

impl Shape for PortOrRange {
    const EXPECTED: &'static str = "a port number or a range of ports in quotes (like \"30000-30100\")";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::Integer(number) => Ok(Self::Port(number)),
            Value::String(range) => Ok(Self::Range(range)),
            other => Err(other),
        }
    }
}

/// A limit, or `false` for none.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum LimitOrNone {
    Limit(i64),
    None,
}

impl Shape for LimitOrNone {
    const EXPECTED: &'static str = "a whole number, or false for no limit";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::Integer(number) => Ok(Self::Limit(number)),
            Value::Boolean(false) => Ok(Self::None),
            other => Err(other),
        }
    }
}

/// Where something is told: in the journal, to an nflog group, or nowhere with `false`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum JournalGroupOrOff {
    Journal,
    Group(i64),
    Off,
}

impl Shape for JournalGroupOrOff {
    const EXPECTED: &'static str = "\"journal\", the number of an nflog group, or false";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::String(word) if word == "journal" => Ok(Self::Journal),
            Value::Integer(number) => Ok(Self::Group(number)),
            Value::Boolean(false) => Ok(Self::Off),
            other => Err(other),
        }
    }
}

/// A table with keys of its own. Their values are [`Entry`]s, so reading it cannot fail once it is a table.
pub(in crate::config) trait Section: Sized {
    /// Takes the section's keys out of the table; what stays is unknown.
    fn of_table(table: Table) -> Self;
}

impl<T: Section> Shape for T {
    const EXPECTED: &'static str = "a table";

    fn of(value: Value) -> Result<Self, Value> {
        if let Value::Table(table) = value { Ok(T::of_table(table)) } else { Err(value) }
    }
}
