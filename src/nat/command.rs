//! The commands of an nft transaction as values, and the one place that writes them as nft's JSON.
//!
//! A command does not name the table: that is chosen when the commands are written, so that the same commands can be
//! checked in another table.

use std::fmt::Write as _;
use std::sync::Arc;

use nftables::schema::{FlowTable, FlushObject, NfCmd, NfListObject, NfObject, Table};
use nftables::types::{NfFamily, NfHook};
use serde::Serialize;
use serde_json::{Value, json};

use super::element::Element;
use super::model::{BaseChain, FLOWTABLE, Name, Rule, SetKind, fields};
use crate::net::InterfaceName;

/// One command.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    AddTable,
    /// Removes all rules. Chains, sets and counters stay.
    FlushTable,
    DeleteTable,
    AddChain {
        name: Name,
        base: Option<BaseChain>,
    },
    AddRule {
        chain: Name,
        rule: Rule,
    },
    AddCounter(&'static str),
    /// Of ranges or of single values, or a map to addresses; [`super::declarations`] declares the other maps.
    AddSet {
        name: Name,
        kind: SetKind,
    },
    AddElements {
        set: Name,
        elements: Arc<[Element]>,
    },
    DeleteElements {
        set: Name,
        elements: Arc<[Element]>,
    },
    AddFlowtable(Vec<InterfaceName>),
    /// Removes the rules of a chain, or the elements of a set or map.
    Flush(ObjectKind, Name),
    Delete(ObjectKind, Name),
}

/// The kinds of objects in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectKind {
    Chain,
    Set,
    Map,
    Counter,
    Flowtable,
    Quota,
    Limit,
    CtHelper,
    CtTimeout,
    CtExpectation,
    Synproxy,
    Secmark,
}

impl ObjectKind {
    /// The kinds that bastiond never makes, beside maps of other names: another program put them into the table.
    pub(super) const FOREIGN: [Self; 7] =
        [Self::Quota, Self::Limit, Self::CtHelper, Self::CtTimeout, Self::CtExpectation, Self::Synproxy, Self::Secmark];

    /// nft's word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Set => "set",
            Self::Map => "map",
            Self::Counter => "counter",
            Self::Flowtable => "flowtable",
            Self::Quota => "quota",
            Self::Limit => "limit",
            Self::CtHelper => "ct helper",
            Self::CtTimeout => "ct timeout",
            Self::CtExpectation => "ct expectation",
            Self::Synproxy => "synproxy",
            Self::Secmark => "secmark",
        }
    }
}

/// The document that nft reads: one transaction.
pub(super) fn document(commands: &[Command], table: &str) -> String {
    let mut document = String::from("{\"nftables\":[");
    for (index, command) in commands.iter().enumerate() {
        if index > 0 {
            document.push(',');
        }
        command.write(table, &mut document);
    }
    document.push_str("]}");
    document
}

impl Command {
    /// Writes it as nft's JSON has it.
    pub(super) fn write(&self, table: &str, out: &mut String) {
        let named = |name: &str| json!({"family": "inet", "table": table, "name": name});
        let command = match self {
            Self::AddElements { set, elements } => {
                return write_elements("add", table, set, elements, Element::write, out);
            }
            Self::DeleteElements { set, elements } => {
                return write_elements("delete", table, set, elements, Element::write_key, out);
            }
            Self::AddTable => to_value(&NfObject::CmdObject(NfCmd::Add(NfListObject::Table(table_object(table))))),
            Self::FlushTable => to_value(&NfObject::CmdObject(NfCmd::Flush(FlushObject::Table(table_object(table))))),
            Self::DeleteTable => {
                to_value(&NfObject::CmdObject(NfCmd::Delete(NfListObject::Table(table_object(table)))))
            }
            Self::AddChain { name, base } => json!({"add": {"chain": chain_object(table, name, *base)}}),
            // The crate's rule cannot hold the statements that the crate does not have.
            Self::AddRule { chain, rule } => {
                json!({"add": {"rule": {"family": "inet", "table": table, "chain": chain, "expr": rule}}})
            }
            // The crate writes a counter without values as `"bytes": null`.
            Self::AddCounter(name) => json!({"add": {"counter": named(name)}}),
            Self::AddSet { name, kind } => json!({"add": {kind.object().word(): set_object(table, name, kind)}}),
            Self::AddFlowtable(devices) => {
                let flowtable = NfListObject::FlowTable(flowtable_object(table, devices));
                to_value(&NfObject::CmdObject(NfCmd::Add(flowtable)))
            }
            Self::Flush(kind, name) => json!({"flush": {kind.word(): named(name)}}),
            Self::Delete(kind, name) => json!({"delete": {kind.word(): named(name)}}),
        };
        write!(out, "{command}").expect("writing to a string does not fail");
    }
}

/// As text at once: trees of JSON values for ten thousand elements would take most of a reload's time.
fn write_elements(
    verb: &str,
    table: &str,
    set: &str,
    elements: &[Element],
    write_element: impl Fn(&Element, &mut String),
    out: &mut String,
) {
    write!(out, "{{\"{verb}\":{{\"element\":{{\"family\":\"inet\",\"table\":\"{table}\",\"name\":\"{set}\",\"elem\":[")
        .expect("writing to a string does not fail");
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_element(element, out);
    }
    out.push_str("]}}}");
}

fn table_object(table: &str) -> Table<'_> {
    Table { family: NfFamily::INet, name: table.into(), handle: None }
}

/// A chain without its rules.
pub(super) fn chain_object(table: &str, name: &str, base: Option<BaseChain>) -> Value {
    to_value(&nftables::schema::Chain {
        family: NfFamily::INet,
        table: table.into(),
        name: name.into(),
        _type: base.map(|base| base.kind),
        hook: base.map(|base| base.hook),
        prio: base.map(|base| base.priority),
        policy: base.map(|base| base.policy),
        ..nftables::schema::Chain::default()
    })
}

/// A set or map without its elements. The crate's set would have to hold an empty list of its expressions.
pub(super) fn set_object(table: &str, name: &str, kind: &SetKind) -> Value {
    let flags = match kind {
        SetKind::Ranges(_) | SetKind::AddressMap(_) | SetKind::ChainRangeMap => Some(["interval"]),
        SetKind::Exact(_) | SetKind::ChainMap => None,
        SetKind::Map => return Value::Null,
    };
    let fields = kind.fields();
    let key = if let [single] = fields { json!(single) } else { json!(fields) };
    let mut set = json!({"family": "inet", "table": table, "name": name, "type": key});
    if let Some(flags) = flags {
        set["flags"] = json!(flags);
    }
    match kind {
        SetKind::AddressMap(_) => set["map"] = json!(fields::V4),
        SetKind::ChainMap | SetKind::ChainRangeMap => set["map"] = json!("verdict"),
        SetKind::Ranges(_) | SetKind::Exact(_) | SetKind::Map => {}
    }
    set
}

fn flowtable_object<'a>(table: &'a str, devices: &'a [InterfaceName]) -> FlowTable<'a> {
    let devices: Vec<_> = devices.iter().map(|name| name.as_str().into()).collect();
    FlowTable {
        family: NfFamily::INet,
        table: table.into(),
        name: FLOWTABLE.into(),
        handle: None,
        hook: Some(NfHook::Ingress),
        prio: Some(0),
        dev: Some(devices.into()),
    }
}

fn to_value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("the nftables crate's types have string keys only, which JSON can hold")
}

impl SetKind {
    /// Whether its elements name chains.
    pub(super) fn leads_to_chains(&self) -> bool {
        matches!(self, Self::ChainMap | Self::ChainRangeMap)
    }

    /// nft has maps apart from sets.
    pub(super) fn object(&self) -> ObjectKind {
        match self {
            Self::Ranges(_) | Self::Exact(_) => ObjectKind::Set,
            Self::Map | Self::AddressMap(_) | Self::ChainMap | Self::ChainRangeMap => ObjectKind::Map,
        }
    }
}
