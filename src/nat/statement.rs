//! One function for each nft statement and expression that our rules use, so that the rules read as nft prints them.
//!
//! The types are the `nftables` crate's. Five of its habits are worked around here: a verdict inside a verdict map has
//! to be a statement (the crate's `Verdict` prints as a bare string, which nft refuses), `Operator::LT` prints as `>`
//! (so no comparison of order is used), `notrack` prints as a bare string, a counter object without values prints
//! `null` (so both are made by hand), and its statement that fills a set cannot hold the limit or counter of the new
//! element (so that one is made by hand too).

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use nftables::expr::{
    CT, CTDir, Expression, Fib, FibFlag, FibResult, JHash, Map, Meta, MetaKey, NamedExpression, NgMode, Numgen,
    Payload, PayloadBase, PayloadField, PayloadRaw, Prefix, RT, RTKey, Range, SetItem, TcpOption,
};
use nftables::stmt::{
    Counter, Flow, JumpTarget, Limit, Log, Mangle, Match, NAT, NATFamily, NATFlag, Operator, Reject, RejectType, SetOp,
    Statement, VerdictMap,
};
use serde::Serialize;
use serde_json::json;

use crate::net::InterfaceName;

/// The name of an object in the table.
pub(super) type Name = Cow<'static, str>;

/// A statement of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum RuleStatement {
    /// As the crate has it.
    Typed(Box<Statement<'static>>),
    /// In nft's JSON, where the crate does not have it.
    Json(serde_json::Value),
}

impl From<Statement<'static>> for RuleStatement {
    fn from(statement: Statement<'static>) -> Self {
        Self::Typed(Box::new(statement))
    }
}

/// An expression that owns its text.
pub(super) type Value = Expression<'static>;

/// `accept`
pub(super) fn accept() -> RuleStatement {
    Statement::Accept(None).into()
}

/// `drop`
pub(super) fn drop() -> RuleStatement {
    Statement::Drop(None).into()
}

/// `return`: back to the rule after the `jump`.
pub(super) fn return_() -> RuleStatement {
    Statement::Return(None).into()
}

/// `notrack`
pub(super) fn notrack() -> RuleStatement {
    RuleStatement::Json(json!({"notrack": null}))
}

/// `goto CHAIN`
pub(super) fn goto(chain: impl Into<Name>) -> RuleStatement {
    goto_statement(chain).into()
}

/// `jump CHAIN`
pub(super) fn jump(chain: impl Into<Name>) -> RuleStatement {
    Statement::Jump(JumpTarget { target: chain.into() }).into()
}

fn goto_statement(chain: impl Into<Name>) -> Statement<'static> {
    Statement::Goto(JumpTarget { target: chain.into() })
}

/// `reject with tcp reset`
pub(super) fn reset() -> RuleStatement {
    Statement::Reject(Some(Reject::new(Some(RejectType::TCPReset), None))).into()
}

/// `flow add @NAME`
pub(super) fn offload(flowtable: &'static str) -> RuleStatement {
    Statement::Flow(Flow { op: SetOp::Add, flowtable: Cow::Owned(format!("@{flowtable}")) }).into()
}

/// `log prefix "PREFIX" group GROUP snaplen LENGTH`
pub(super) fn log(prefix: String, group: u16, snaplen: u32) -> RuleStatement {
    let log = Log { prefix: Some(prefix.into()), snaplen: Some(snaplen), ..Log::new(Some(group.into())) };
    Statement::Log(Some(log)).into()
}

/// `limit rate RATE/PER burst BURST packets`: matches what is within the limit.
pub(super) fn limit(rate: u32, per: &'static str, burst: u32) -> RuleStatement {
    limit_statement(rate, per, burst, false).into()
}

/// `limit rate over …`: matches what is beyond the limit.
pub(super) fn limit_over(rate: u32, per: &'static str, burst: u32) -> RuleStatement {
    limit_statement(rate, per, burst, true).into()
}

fn limit_statement(rate: u32, per: &'static str, burst: u32, over: bool) -> Statement<'static> {
    let (burst, inv) = (Some(burst), over.then_some(true));
    Statement::Limit(Limit { rate, rate_unit: None, per: Some(per.into()), burst, burst_unit: None, inv })
}

/// `update @SET { KEY STATEMENT }`: makes an element for the key, with a limit or counter of its own. The rule
/// continues if that matches.
pub(super) fn update_with(set: &str, key: &Value, statement: &RuleStatement) -> RuleStatement {
    RuleStatement::Json(json!({"set": {"op": "update", "elem": key, "set": format!("@{set}"), "stmt": [statement]}}))
}

/// `add @SET { KEY timeout SECONDS }`
pub(super) fn add_with_timeout(set: &str, key: &Value, seconds: u64) -> RuleStatement {
    let element = json!({"elem": {"val": key, "timeout": seconds}});
    RuleStatement::Json(json!({"set": {"op": "add", "elem": element, "set": format!("@{set}")}}))
}

/// `update @SET { KEY }`: the rule continues if the set has room for the key.
pub(super) fn update(set: &str, key: &Value) -> RuleStatement {
    RuleStatement::Json(json!({"set": {"op": "update", "elem": key, "set": format!("@{set}")}}))
}

/// `counter`, without a name: for [`each`].
pub(super) fn new_counter() -> RuleStatement {
    RuleStatement::Json(json!({"counter": {"packets": 0, "bytes": 0}}))
}

/// `counter name "NAME"`
pub(super) fn counter(name: &'static str) -> RuleStatement {
    Statement::Counter(Counter::Named(name.into())).into()
}

/// `masquerade`, with `fully-random` source ports if wanted.
pub(super) fn masquerade(random_ports: bool) -> RuleStatement {
    let nat = nat_flags(random_ports).map(|flags| NAT { addr: None, family: None, port: None, flags: Some(flags) });
    Statement::Masquerade(nat).into()
}

fn nat_flags(random_ports: bool) -> Option<HashSet<NATFlag>> {
    random_ports.then(|| HashSet::from([NATFlag::FullyRandom]))
}

/// `snat ip to ADDRESS`, with `fully-random` source ports if wanted.
pub(super) fn snat(address: Value, random_ports: bool) -> RuleStatement {
    Statement::SNAT(Some(translation(address, nat_flags(random_ports)))).into()
}

/// `dnat ip to ADDRESS`
pub(super) fn dnat(address: Value) -> RuleStatement {
    Statement::DNAT(Some(translation(address, None))).into()
}

/// `dnat ip to ADDRESS:PORT`
pub(super) fn dnat_to(to: Ipv4Addr, port: u16) -> RuleStatement {
    Statement::DNAT(Some(NAT { port: Some(number(port)), ..translation(address(to), None) })).into()
}

/// The same source translation with source ports from this range only; `None` for other statements.
pub(super) fn with_source_ports(statement: &RuleStatement, ports: &RangeInclusive<u16>) -> Option<RuleStatement> {
    let RuleStatement::Typed(statement) = statement else { return None };
    let range = Range { range: [number(*ports.start()), number(*ports.end())] };
    let port = Some(Expression::Range(Box::new(range)));
    match (**statement).clone() {
        Statement::SNAT(Some(nat)) => Some(Statement::SNAT(Some(NAT { port, ..nat })).into()),
        Statement::Masquerade(nat) => {
            let nat = nat.unwrap_or(NAT { addr: None, family: None, port: None, flags: None });
            Some(Statement::Masquerade(Some(NAT { port, ..nat })).into())
        }
        _ => None,
    }
}

fn translation(address: Value, flags: Option<HashSet<NATFlag>>) -> NAT<'static> {
    NAT { addr: Some(address), family: Some(NATFamily::IP), port: None, flags }
}

/// `KEY map @NAME`
pub(super) fn lookup(key: Value, name: &str) -> Value {
    let data = set(Cow::Owned(name.to_owned()));
    Expression::Named(NamedExpression::Map(Box::new(Map { key, data })))
}

/// Left to itself the kernel takes another seed for each new rule, and every source would have another slot after a
/// reload.
pub(super) const SEED: u32 = 1;

/// `jhash ip saddr mod N seed SEED map { 0 : ADDRESS, … }`: each source has its own slot, always the same.
pub(super) fn address_by_source(slots: &[Ipv4Addr]) -> Value {
    let hash = JHash {
        hash_mod: u32::try_from(slots.len()).unwrap_or(u32::MAX),
        offset: None,
        expr: Box::new(field("ip", "saddr")),
        seed: Some(SEED),
    };
    let slot = |(slot, address): (u32, &Ipv4Addr)| SetItem::Mapping(Expression::Number(slot), self::address(*address));
    let data = Expression::Named(NamedExpression::Set((0..).zip(slots).map(slot).collect()));
    Expression::Named(NamedExpression::Map(Box::new(Map {
        key: Expression::Named(NamedExpression::JHash(hash)),
        data,
    })))
}

/// `oifname map { NAME : ADDRESS, … }`
pub(super) fn address_by_link<'a>(addresses: impl IntoIterator<Item = (&'a InterfaceName, Ipv4Addr)>) -> Value {
    let entry = |(link, own)| SetItem::Mapping(interface(link), address(own));
    let data = Expression::Named(NamedExpression::Set(addresses.into_iter().map(entry).collect()));
    Expression::Named(NamedExpression::Map(Box::new(Map { key: oifname(), data })))
}

/// An IPv4 address.
pub(super) fn address(address: Ipv4Addr) -> Value {
    Expression::String(Cow::Owned(address.to_string()))
}

/// `tcp option maxseg size set rt mtu`: never raises the value, and looks at the routes of both directions.
pub(super) fn clamp_mss_to_route() -> RuleStatement {
    let key = NamedExpression::TcpOption(TcpOption { name: "maxseg".into(), field: Some("size".into()) });
    let value = NamedExpression::RT(RT { key: RTKey::MTU, family: None });
    Statement::Mangle(Mangle { key: Expression::Named(key), value: Expression::Named(value) }).into()
}

/// `tcp option maxseg size set SIZE`. The kernel only ever lowers the size (`nft_exthdr_tcp_set_eval`).
pub(super) fn clamp_mss_to(size: u32) -> RuleStatement {
    let key = NamedExpression::TcpOption(TcpOption { name: "maxseg".into(), field: Some("size".into()) });
    Statement::Mangle(Mangle { key: Expression::Named(key), value: Expression::Number(size) }).into()
}

/// `LEFT == RIGHT`; a set on the right means "in".
pub(super) fn eq(left: Value, right: Value) -> RuleStatement {
    matching(left, right, Operator::EQ)
}

/// `LEFT != RIGHT`; a set on the right means "not in".
pub(super) fn ne(left: Value, right: Value) -> RuleStatement {
    matching(left, right, Operator::NEQ)
}

/// `LEFT RIGHT` for bits and lists of bits: any of them.
pub(super) fn any_of(left: Value, right: Value) -> RuleStatement {
    matching(left, right, Operator::IN)
}

fn matching(left: Value, right: Value, op: Operator) -> RuleStatement {
    Statement::Match(Match { left, right, op }).into()
}

/// `KEY vmap { KEY : goto CHAIN, … }`
pub(super) fn vmap(key: Value, entries: impl IntoIterator<Item = (Value, Name)>) -> RuleStatement {
    let items = entries.into_iter().map(|(key, chain)| SetItem::MappingStatement(key, goto_statement(chain))).collect();
    Statement::VerdictMap(VerdictMap { key, data: Expression::Named(NamedExpression::Set(items)) }).into()
}

/// `KEY vmap @NAME`
pub(super) fn vmap_of(key: Value, name: impl Into<Name>) -> RuleStatement {
    Statement::VerdictMap(VerdictMap { key, data: set(name) }).into()
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

/// `meta skuid`: the user who made the socket of a packet of this host. A packet without a socket matches nothing.
pub(super) fn skuid() -> Value {
    meta(MetaKey::Skuid)
}

fn meta(key: MetaKey) -> Value {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

/// `ct state`
pub(super) fn ct_state() -> Value {
    ct("state")
}

/// `ct mark & BITS == BITS`: the flow carries these bits.
pub(super) fn ct_mark_has(bits: u32) -> RuleStatement {
    eq(and(ct("mark"), Expression::Number(bits)), Expression::Number(bits))
}

/// `ct mark set ct mark | BITS`: every other bit stays.
pub(super) fn set_ct_mark(bits: u32) -> RuleStatement {
    let value = nftables::expr::BinaryOperation::OR(vec![ct("mark"), Expression::Number(bits)]);
    Statement::Mangle(Mangle { key: ct("mark"), value: Expression::BinaryOperation(Box::new(value)) }).into()
}

/// `ct event set WORD, …`: what the flow reports of itself, to those who listen.
pub(super) fn set_ct_events(words: &[&'static str]) -> RuleStatement {
    let value = match words {
        [single] => text(single),
        several => Expression::List(several.iter().map(|word| text(word)).collect()),
    };
    Statement::Mangle(Mangle { key: ct("event"), value }).into()
}

/// `numgen random mod N`: another number from 0 on for each packet.
pub(super) fn random(below: u32) -> Value {
    Expression::Named(NamedExpression::Numgen(Numgen { mode: NgMode::Random, ng_mod: below, offset: None }))
}

/// `ct mark set ct mark & ~BITS`: every other bit stays.
pub(super) fn clear_ct_mark(bits: u32) -> RuleStatement {
    Statement::Mangle(Mangle { key: ct("mark"), value: and(ct("mark"), Expression::Number(!bits)) }).into()
}

/// `ct status`
pub(super) fn ct_status() -> Value {
    ct("status")
}

/// `ct original ip daddr`: the destination of a flow's first packet before any translation.
pub(super) fn original_destination() -> Value {
    ct_original("ip daddr")
}

/// `ct original proto-dst`: its destination port, likewise. Only after a match of the transport protocol.
pub(super) fn original_port() -> Value {
    ct_original("proto-dst")
}

fn ct_original(key: &'static str) -> Value {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: Some(CTDir::Original) }))
}

fn ct(key: &'static str) -> Value {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

/// `meta l4proto`
pub(super) fn l4proto() -> Value {
    meta(MetaKey::L4proto)
}

/// `fib daddr type`: what the destination is by this host's routes, for example one of its own addresses.
pub(super) fn destination_type() -> Value {
    let flags = HashSet::from([FibFlag::Daddr]);
    Expression::Named(NamedExpression::Fib(Fib { result: FibResult::Type, flags }))
}

/// `PROTOCOL FIELD`: `ip saddr`, `tcp dport`, `icmp type` …
pub(super) fn field(protocol: &'static str, field: &'static str) -> Value {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

/// `@nh,128,8`: the first byte of an IPv4 packet's destination (RFC 791 section 3.1). In IPv6 it is another byte.
pub(super) fn destination_first_byte() -> Value {
    network_byte(128)
}

/// `@nh,96,8`: the first byte of an IPv4 packet's source.
pub(super) fn source_first_byte() -> Value {
    network_byte(96)
}

fn network_byte(offset: u32) -> Value {
    raw_payload(PayloadBase::NH, offset, 8)
}

/// `@th,224,16` and `@th,384,16`: the source port of the packet that an error of `icmp` or `icmpv6` is about, which
/// follows 8 bytes of the error's own header and 20 or 40 of the packet's (RFC 792, RFC 4443 section 3.1). Options of
/// an IPv4 packet would be in the way; WireGuard's packets have none.
pub(super) fn icmp_error_port(protocol: &'static str) -> Value {
    raw_payload(PayloadBase::TH, if protocol == "icmp" { 224 } else { 384 }, 16)
}

fn raw_payload(base: PayloadBase, offset: u32, len: u32) -> Value {
    Expression::Named(NamedExpression::Payload(Payload::PayloadRaw(PayloadRaw { base, offset, len })))
}

/// `A . B . …`; a single part is itself.
pub(super) fn concat(parts: impl IntoIterator<Item = Value>) -> Value {
    let mut parts: Vec<Value> = parts.into_iter().collect();
    match parts.pop() {
        Some(single) if parts.is_empty() => single,
        last => Expression::Named(NamedExpression::Concat(parts.into_iter().chain(last).collect())),
    }
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
pub(super) fn set(name: impl Into<Name>) -> Value {
    Expression::String(Cow::Owned(format!("@{}", name.into())))
}

/// A word of nft: a state, a type, a flag.
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

/// A user's number.
pub(super) fn user_id(id: u32) -> Value {
    Expression::Number(id)
}

/// `ADDRESS/LENGTH` of either family; a whole-length prefix is the address alone, as nft prints it.
pub(super) fn prefix(network: ipnet::IpNet) -> Value {
    let address = Expression::String(Cow::Owned(network.addr().to_string()));
    if network.prefix_len() == network.max_prefix_len() {
        return address;
    }
    let prefix = Prefix { addr: Box::new(address), len: network.prefix_len().into() };
    Expression::Named(NamedExpression::Prefix(prefix))
}
