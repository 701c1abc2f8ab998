//! One function for each nft phrase that our rules use, so that the rules read as nft prints them.
//!
//! The types are the `nftables` crate's. Three of its habits are worked around here: a verdict inside a verdict map has to be
//! a statement (the crate's `Verdict` prints as a bare string, which nft refuses), `Operator::LT` prints as `>` (so no
//! comparison of order is used), and a counter object without values prints `null` (so counters are made by hand).

use std::borrow::Cow;
use std::collections::HashSet;

use ipnet::{Ipv4Net, Ipv6Net};
use nftables::expr::{
    CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, RT, RTKey, SetItem, TcpOption,
};
use nftables::stmt::{Counter, JumpTarget, Mangle, Match, NAT, NATFlag, Operator, Statement, VerdictMap};

use crate::net::InterfaceName;

/// A statement that owns its text.
pub(super) type Phrase = Statement<'static>;
/// An expression that owns its text.
pub(super) type Value = Expression<'static>;

/// `accept`
pub(super) fn accept() -> Phrase {
    Statement::Accept(None)
}

/// `drop`
pub(super) fn drop() -> Phrase {
    Statement::Drop(None)
}

/// `goto CHAIN`
pub(super) fn goto(chain: &'static str) -> Phrase {
    Statement::Goto(JumpTarget { target: chain.into() })
}

/// `counter name "NAME"`
pub(super) fn counter(name: &'static str) -> Phrase {
    Statement::Counter(Counter::Named(name.into()))
}

/// `masquerade`, with `fully-random` source ports if wanted.
pub(super) fn masquerade(random_ports: bool) -> Phrase {
    let flags = random_ports.then(|| HashSet::from([NATFlag::FullyRandom]));
    Statement::Masquerade(flags.map(|flags| NAT { addr: None, family: None, port: None, flags: Some(flags) }))
}

/// `tcp option maxseg size set rt mtu`: never raises the value, and looks at the routes of both directions.
pub(super) fn clamp_mss_to_route() -> Phrase {
    let key = NamedExpression::TcpOption(TcpOption { name: "maxseg".into(), field: Some("size".into()) });
    let value = NamedExpression::RT(RT { key: RTKey::MTU, family: None });
    Statement::Mangle(Mangle { key: Expression::Named(key), value: Expression::Named(value) })
}

/// `LEFT == RIGHT`; a set on the right means "in".
pub(super) fn is(left: Value, right: Value) -> Phrase {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

/// `LEFT != RIGHT`; a set on the right means "not in".
pub(super) fn is_not(left: Value, right: Value) -> Phrase {
    Statement::Match(Match { left, right, op: Operator::NEQ })
}

/// `KEY vmap { KEY : VERDICT, … }`
pub(super) fn vmap(key: Value, entries: impl IntoIterator<Item = (Value, Phrase)>) -> Phrase {
    let items = entries.into_iter().map(|(key, verdict)| SetItem::MappingStatement(key, verdict)).collect();
    Statement::VerdictMap(VerdictMap { key, data: Expression::Named(NamedExpression::Set(items)) })
}

/// `iifname`
pub(super) fn iifname() -> Value {
    meta(MetaKey::Iifname)
}

/// `oifname`
pub(super) fn oifname() -> Value {
    meta(MetaKey::Oifname)
}

/// `meta nfproto`
pub(super) fn nfproto() -> Value {
    meta(MetaKey::Nfproto)
}

fn meta(key: MetaKey) -> Value {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

/// `ct state`
pub(super) fn ct_state() -> Value {
    Expression::Named(NamedExpression::CT(CT { key: "state".into(), family: None, dir: None }))
}

/// `PROTOCOL FIELD`: `ip saddr`, `tcp dport`, `icmp type` …
pub(super) fn field(protocol: &'static str, field: &'static str) -> Value {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

/// `A . B`
pub(super) fn concat<const N: usize>(parts: [Value; N]) -> Value {
    Expression::Named(NamedExpression::Concat(parts.into()))
}

/// `LEFT & RIGHT`
pub(super) fn and(left: Value, right: Value) -> Value {
    Expression::BinaryOperation(Box::new(nftables::expr::BinaryOperation::AND(left, right)))
}

/// `A | B | …`
pub(super) fn flags<const N: usize>(names: [&'static str; N]) -> Value {
    Expression::List(names.into_iter().map(text).collect())
}

/// `{ A, B, … }`
pub(super) fn anonymous_set(items: impl IntoIterator<Item = Value>) -> Value {
    Expression::Named(NamedExpression::Set(items.into_iter().map(SetItem::Element).collect()))
}

/// `@NAME`
pub(super) fn set(name: &'static str) -> Value {
    Expression::String(Cow::Owned(format!("@{name}")))
}

/// A word of nft's: a state, a type, a flag.
pub(super) fn text(word: &'static str) -> Value {
    Expression::String(word.into())
}

/// An interface's name.
pub(super) fn interface(name: &InterfaceName) -> Value {
    Expression::String(Cow::Owned(name.as_str().to_owned()))
}

/// A port or another number.
pub(super) fn number(number: u16) -> Value {
    Expression::Number(number.into())
}

/// `ADDRESS/LENGTH`, of either family. nft prints a whole-length prefix as the address alone; so do we.
pub(super) fn prefix(network: ipnet::IpNet) -> Value {
    let address = Expression::String(Cow::Owned(network.addr().to_string()));
    if network.prefix_len() == network.max_prefix_len() {
        return address;
    }
    let prefix = Prefix { addr: Box::new(address), len: network.prefix_len().into() };
    Expression::Named(NamedExpression::Prefix(prefix))
}

/// The ranges as elements of an interval set: it takes no overlapping ones.
pub(super) fn ranges(networks: impl IntoIterator<Item = Ipv4Net>) -> Vec<Value> {
    let networks: Vec<Ipv4Net> = networks.into_iter().collect();
    Ipv4Net::aggregate(&networks).into_iter().map(|network| prefix(network.into())).collect()
}

/// The same for IPv6.
pub(super) fn ranges6(networks: impl IntoIterator<Item = Ipv6Net>) -> Vec<Value> {
    let networks: Vec<Ipv6Net> = networks.into_iter().collect();
    Ipv6Net::aggregate(&networks).into_iter().map(|network| prefix(network.into())).collect()
}
