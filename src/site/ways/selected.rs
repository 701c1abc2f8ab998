//! Packets that only a part of the kernel's routing concerns: those that a routing rule (`ip rule`) selects, those to a
//! part of the internet, and those that take the second link of a route with several.
//!
//! The questions of [`super::questions`] are about a few addresses, so such packets have questions of their own.

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange};
use rtnetlink::{Handle, IpVersion};

use super::super::model::{PrivateLink, Site};
use super::super::observe::Kernel;
use super::super::route::{Route, RouteKind};
use super::{Forwarded, INTERNET, Question, Subject, Way, a_host, describe, index_of};
use crate::net::{InterfaceName, is_private};
use crate::outcome::Problem;

/// How many rules are asked about, and how many routes are named.
const MAX_RULES: usize = 32;
const SHOWN: usize = 3;

/// What else than addresses a packet has that rules ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Selected {
    pub(super) mark: Option<u32>,
    pub(super) protocol: Option<u8>,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
    pub(super) tos: u8,
}

/// A rule of another program that selects packets by more than the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoutingRule {
    priority: u32,
    source: Option<Ipv4Net>,
    destination: Option<Ipv4Net>,
    /// The interface by which packets come in.
    from: Option<String>,
    selected: Selected,
    /// What it does, in the words of `ip rule`.
    action: String,
}

/// The rules that select a part of the packets; none if the kernel does not list them.
pub(super) async fn rules(handle: &Handle) -> Vec<RoutingRule> {
    let listed = handle.rule().get(IpVersion::V4).execute().try_collect::<Vec<_>>().await.unwrap_or_default();
    listed.iter().filter_map(RoutingRule::from_message).take(MAX_RULES).collect()
}

impl RoutingRule {
    /// `None` if it selects all packets of an interface, none of ours, or in a way that is not understood.
    fn from_message(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        if header.flags.contains(RuleFlags::Invert) {
            return None;
        }
        let mut table = u32::from(header.table);
        let mut rule = Self {
            priority: 0,
            source: None,
            destination: None,
            from: None,
            selected: Selected { tos: header.tos, ..Selected::default() },
            action: String::new(),
        };
        let net = |address: &std::net::IpAddr, length: u8| match address {
            std::net::IpAddr::V4(address) => Ipv4Net::new(*address, length).ok(),
            std::net::IpAddr::V6(_) => None,
        };
        let first = |range: &RulePortRange| range.start;
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Source(address) => rule.source = net(address, header.src_len),
                RuleAttribute::Destination(address) => rule.destination = net(address, header.dst_len),
                RuleAttribute::Iifname(name) => rule.from = Some(name.clone()),
                RuleAttribute::FwMark(mark) if *mark != 0 => rule.selected.mark = Some(*mark),
                RuleAttribute::IpProtocol(protocol) => rule.selected.protocol = Some((*protocol).into()),
                RuleAttribute::SourcePortRange(range) => rule.selected.source_port = Some(first(range)),
                RuleAttribute::DestinationPortRange(range) => rule.selected.destination_port = Some(first(range)),
                RuleAttribute::Table(number) => table = *number,
                // The packets of a user of this server, or those for a link: nothing that is forwarded.
                RuleAttribute::UidRange(_) | RuleAttribute::Oifname(_) | RuleAttribute::TunId(_) => return None,
                _ => {}
            }
        }
        let selects = rule.source.is_some() || rule.destination.is_some() || rule.selected != Selected::default();
        rule.action = match header.action {
            RuleAction::ToTable => format!("lookup {table}"),
            RuleAction::Blackhole => "blackhole".to_owned(),
            RuleAction::Unreachable => "unreachable".to_owned(),
            RuleAction::Prohibit => "prohibit".to_owned(),
            _ => "another action".to_owned(),
        };
        selects.then_some(rule)
    }

    /// `ip rule 100 (from 10.0.1.0/24 lookup 99)`
    fn text(&self) -> String {
        let mut parts = vec![format!("from {}", self.source.map_or_else(|| "all".to_owned(), |net| net.to_string()))];
        parts.extend(self.destination.map(|net| format!("to {net}")));
        parts.extend(self.from.as_ref().map(|name| format!("iif {name}")));
        let Selected { mark, protocol, source_port, destination_port, tos } = self.selected;
        parts.extend((tos != 0).then(|| format!("tos {tos:#x}")));
        parts.extend(mark.map(|mark| format!("fwmark {mark:#x}")));
        parts.extend(protocol.map(|number| format!("ipproto {number}")));
        parts.extend(source_port.map(|port| format!("sport {port}")));
        parts.extend(destination_port.map(|port| format!("dport {port}")));
        format!("ip rule {} ({} {})", self.priority, parts.join(" "), self.action)
    }

    /// A packet of a private link that it selects: from a host to the internet (`out`), or to a host from there.
    fn question(&self, link: &PrivateLink, position: usize, links: (u32, u32), out: bool) -> Option<Question> {
        let (private, public) = links;
        let host = |range: Option<Ipv4Net>| match range {
            None => a_host(link),
            Some(range) => link.ranges().find_map(|own| match (range.contains(&own), own.contains(&range)) {
                (true, _) if own == link.network => a_host(link),
                (true, _) => own.hosts().next(),
                (_, true) => range.hosts().take(8).find(|host| !link.holds(*host) && own.hosts().next() != Some(*host)),
                _ => None,
            }),
        };
        let elsewhere = |range: Option<Ipv4Net>| match range {
            None => Some(INTERNET[0]),
            Some(range) if range.prefix_len() <= 1 => INTERNET.into_iter().find(|address| range.contains(address)),
            Some(range) if is_private(range) => None,
            Some(range) => range.hosts().next(),
        };
        let (inside, outside, by, expected) = if out {
            (host(self.source)?, elsewhere(self.destination)?, private, public)
        } else {
            (host(self.destination)?, elsewhere(self.source)?, public, private)
        };
        let comes_by = if out { Some(&link.interface) } else { None };
        if self.from.as_ref().is_some_and(|name| comes_by.is_some_and(|link| link.as_str() != name)) {
            return None;
        }
        let (from, to) = if out { (inside, outside) } else { (outside, inside) };
        let subject = if out { Subject::Internet(Some(position)) } else { Subject::Network(position) };
        let forwarded = Some(Forwarded { from, by });
        Some(Question { subject, to, forwarded, interface: expected, selected: self.selected })
    }
}

/// A question for each rule and direction.
pub(super) fn questions(
    rules: &[RoutingRule],
    kernel: &Kernel,
    site: &Site,
    forwards: impl Fn(&InterfaceName) -> bool,
) -> Vec<(usize, Question)> {
    let public = site.public.as_ref().filter(|public| !public.addresses.is_empty() && forwards(&public.interface));
    let Some(public) = public.and_then(|public| index_of(kernel, &public.interface)) else { return Vec::new() };
    let mut questions = Vec::new();
    for (position, link) in site.private.iter().enumerate() {
        let ready = link.address_present && forwards(&link.interface);
        let Some(private) = index_of(kernel, &link.interface).filter(|_| ready) else { continue };
        for (rule, routing_rule) in rules.iter().enumerate() {
            let both = [true, false].map(|out| routing_rule.question(link, position, (private, public), out));
            questions.extend(both.into_iter().flatten().map(|question| (rule, question)));
        }
    }
    questions
}

/// What the rules lead elsewhere: problems, and hints where it is not known whether our packets are meant.
pub(super) fn judge(rules: &[RoutingRule], ways: &[(usize, Way)], kernel: &Kernel) -> (Vec<Problem>, Vec<Problem>) {
    let (mut problems, mut hints) = (Vec::new(), Vec::new());
    for (number, rule) in rules.iter().enumerate() {
        let mut wrong = ways.iter().filter(|(of, way)| *of == number && way.is_wrong()).map(|(_, way)| way);
        let Some(way) = wrong.next() else { continue };
        let Some(Forwarded { from, .. }) = way.question.forwarded else { continue };
        let (leads, to) = (describe::leaves(way, way.route.as_ref(), kernel), way.question.to);
        let what = format!("{} leads packets of this gateway elsewhere: from {from} to {to} they {leads}", rule.text());
        let advice = format!("remove it: ip rule del priority {}; or let it select other packets only", rule.priority);
        let marked = rule.selected.mark.is_some();
        let to_some = rule.destination.is_some_and(|net| net.prefix_len() > 1 && !is_private(net));
        let problem = Problem::new("rule-misroutes", what, advice);
        if marked || to_some { &mut hints } else { &mut problems }.push(problem);
    }
    (problems, hints)
}

/// Routes of the main table that lead a part of the internet elsewhere (hints), and a default route that has a link
/// beside the public one (a problem). Single addresses are left out: programs ban them, or reach their servers so.
pub(super) fn further_routes(kernel: &Kernel, site: &Site) -> (Vec<Problem>, Vec<Problem>) {
    let Some(public) = &site.public else { return Default::default() };
    let Some(index) = index_of(kernel, &public.interface) else { return Default::default() };
    let text = |route: &Route| route.text(|index| kernel.name(index));
    let is_part = |route: &&Route| {
        let net = route.destination;
        let own = route.interface == Some(index) && route.kind == RouteKind::Unicast;
        route.is_in_main() && (2..=31).contains(&net.prefix_len()) && !own && is_routable(net)
    };
    let parts: Vec<&Route> = kernel.routes.iter().filter(is_part).collect();
    let hint = |route: &&Route| {
        let by = route.interface.filter(|_| route.kind == RouteKind::Unicast);
        let leads = by.map_or_else(|| "lead nowhere".to_owned(), |by| format!("leave by {}", kernel.name(by)));
        let (net, text, public) = (route.destination, text(route), &public.interface);
        let what = format!(
            "packets to {net} {leads} instead of {public} ({text}): private hosts do not reach that part of the \
             internet"
        );
        Problem::new("part-of-internet-misrouted", what, format!("if that is not wanted: ip route del {text}"))
    };
    let hints = parts.iter().take(SHOWN).map(hint).collect();
    let shares = |route: &&Route| {
        let all = route.further.iter().chain(&route.interface);
        let (ours, others): (Vec<u32>, Vec<u32>) = all.partition(|hop| **hop == index);
        route.is_in_main() && route.destination.prefix_len() <= 1 && !ours.is_empty() && !others.is_empty()
    };
    let problem = |route: &Route| {
        let hops = route.further.iter().chain(&route.interface).filter(|hop| **hop != index);
        let others: Vec<String> = hops.map(|hop| kernel.name(*hop)).collect();
        let (others, public) = (others.join(", "), &public.interface);
        let what =
            format!("the default route has several links: a part of the packets to the internet leaves by {others}");
        Problem::new(
            "internet-misrouted",
            what,
            format!("replace it by one with {public} alone: ip route show default"),
        )
    };
    (kernel.routes.iter().find(shares).map(problem).into_iter().collect(), hints)
}

/// Whether hosts on the internet may have such addresses.
fn is_routable(net: Ipv4Net) -> bool {
    !crate::hetzner::unroutable([]).iter().any(|block| block.contains(&net))
}
