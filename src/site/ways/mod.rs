//! Whether packets take the links that they should: those for a private network its own link, those for the internet
//! the public link.
//!
//! Another program's route or rule may send them elsewhere, and everything else still looks right. So the kernel's own
//! route lookup is asked, for a few addresses of each network and of the internet, as the bastion's own packets and as
//! forwarded ones. Pure but for [`lookup`].

mod describe;
mod here;
mod lookup;
mod selected;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rtnetlink::Handle;

use super::metadata::MetadataView;
use super::model::{PrivateLink, Site};
use super::observe::Kernel;
use super::route::{Route, RouteKind};
use crate::config::Config;
use crate::net::InterfaceName;
use selected::Selected;

/// Addresses of the internet, half of them below 128.0.0.0: programs that take over the default route often add two
/// routes, `0.0.0.0/1` and `128.0.0.0/1`. Several in each half, since single destinations may have routes of their own.
const INTERNET: [Ipv4Addr; 6] = [
    Ipv4Addr::new(5, 75, 128, 1),
    Ipv4Addr::new(49, 12, 0, 1),
    Ipv4Addr::new(95, 216, 0, 1),
    Ipv4Addr::new(138, 201, 0, 1),
    Ipv4Addr::new(168, 119, 0, 1),
    Ipv4Addr::new(213, 133, 96, 1),
];
/// Narrower routes than this number are not asked about, for each network.
const MAX_NARROWER: usize = 64;

/// A question to the kernel's route lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Question {
    subject: Subject,
    /// The destination.
    to: Ipv4Addr,
    /// Where the packet comes from; `None`: from this server itself.
    forwarded: Option<Forwarded>,
    /// The index of the interface that is expected in the answer.
    interface: u32,
    /// What a routing rule selects it by, besides addresses.
    selected: Selected,
}

/// Where a forwarded packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forwarded {
    from: Ipv4Addr,
    /// The index of the interface that it arrives by.
    by: u32,
}

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Packets to the network of the private link with this position.
    Network(usize),
    /// Packets to the internet, from hosts of the private link with this position, or from this server.
    Internet(Option<usize>),
}

/// The kernel's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The packet leaves by the interface with this index.
    Leaves(u32),
    /// There is no route, or one that leads nowhere.
    Nowhere,
    /// The kernel does not say.
    Unknown,
}

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    question: Question,
    answer: Answer,
    /// The route that the answer comes from, if the answer is not the expected one.
    route: Option<Route>,
}

impl Way {
    /// Whether the packet takes another way than it should. This daemon's own routes are intended.
    fn is_wrong(&self) -> bool {
        match self.answer {
            Answer::Unknown => false,
            Answer::Nowhere => true,
            Answer::Leaves(interface) => {
                let is_ours = |route: &Route| route.protocol == crate::net::ROUTE_PROTOCOL;
                interface != self.question.interface && !self.route.as_ref().is_some_and(is_ours)
            }
        }
    }
}

/// Asks the kernel and completes the site with what is wrong. `forwards` says whether an interface forwards: where it
/// does not, the kernel's answer for a forwarded packet says nothing about routes.
pub(super) async fn check(
    handle: &Handle,
    config: &Config,
    kernel: &Kernel,
    metadata: &MetadataView,
    site: &mut Site,
    forwards: impl Fn(&InterfaceName) -> bool,
) {
    let (problems, hints) = here::foreign_addresses(kernel, site);
    site.problems.extend(problems);
    site.hints.extend(hints);
    let ways = lookup::look_up(handle, questions(config, kernel, site, &forwards)).await;
    let known = site.problems.len();
    judge(&ways, kernel, metadata, site);
    if site.problems.len() > known {
        return;
    }
    // What concerns a part of the packets only.
    let rules = selected::rules(handle).await;
    let (numbers, questions): (Vec<usize>, Vec<Question>) =
        selected::questions(&rules, kernel, site, &forwards).into_iter().unzip();
    let ways = numbers.into_iter().zip(lookup::look_up(handle, questions).await).collect::<Vec<_>>();
    for (problems, hints) in [selected::judge(&rules, &ways, kernel), selected::further_routes(kernel, site)] {
        site.problems.extend(problems);
        site.hints.extend(hints);
    }
}

fn index_of(kernel: &Kernel, name: &InterfaceName) -> Option<u32> {
    kernel.links.iter().find(|link| link.name == *name).map(|link| link.index)
}

fn questions(
    config: &Config,
    kernel: &Kernel,
    site: &Site,
    forwards: impl Fn(&InterfaceName) -> bool,
) -> Vec<Question> {
    let index = |name: &InterfaceName| index_of(kernel, name);
    let selected = Selected::default();
    let public = site.public.as_ref().filter(|public| !public.addresses.is_empty());
    let public = public.and_then(|public| Some((index(&public.interface)?, forwards(&public.interface))));
    let mut questions = Vec::new();
    // Without any default route that is what is reported.
    let asks_internet = config.site.public_interface.is_some() || !kernel.default_routes.is_empty();
    if let Some((interface, _)) = public.filter(|_| asks_internet) {
        let subject = Subject::Internet(None);
        questions.extend(INTERNET.map(|to| Question { subject, to, forwarded: None, interface, selected }));
    }
    for (position, link) in site.private.iter().enumerate() {
        // A link that is not ready has no routes, and is reported.
        let Some(interface) = index(&link.interface).filter(|_| link.address_present) else { continue };
        let samples = samples(config, kernel, link, interface);
        let subject = Subject::Network(position);
        let network = |to, forwarded| Question { subject, to, forwarded, interface, selected };
        questions.extend(samples.iter().map(|&to| network(to, None)));
        let Some((public, true)) = public.filter(|_| forwards(&link.interface)) else { continue };
        let answer = Forwarded { from: INTERNET[0], by: public };
        questions.extend(samples.iter().map(|&to| network(to, Some(answer))));
        if let Some(from) = a_host(link).filter(|_| asks_internet) {
            let (subject, forwarded) = (Subject::Internet(Some(position)), Some(Forwarded { from, by: interface }));
            questions.extend(INTERNET.map(|to| Question { subject, to, forwarded, interface: public, selected }));
        }
    }
    questions
}

/// Addresses of the network that stand for all of it: its ends, hosts that the configuration names, and the ends of
/// each narrower route that does not lead out of the link. Not the network's gateway, which has a route of its own.
fn samples(config: &Config, kernel: &Kernel, link: &PrivateLink, interface: u32) -> BTreeSet<Ipv4Addr> {
    let ends = |net: Ipv4Net| net.hosts().take(4).chain([last_host(net)]);
    let forwards = config.nat.forwards.iter().map(|forward| forward.to);
    let named = forwards.chain(config.nat.statics.iter().map(|entry| entry.private));
    let named = named.filter(|host| link.network.contains(host)).take(MAX_NARROWER);
    let elsewhere = |route: &&Route| link.network.contains(&route.destination) && route.interface != Some(interface);
    let narrower = kernel.routes.iter().filter(elsewhere).take(MAX_NARROWER).flat_map(|route| ends(route.destination));
    let gateway = link.network.hosts().next();
    let is_host = |address: &Ipv4Addr| !link.holds(*address) && Some(*address) != gateway;
    ends(link.network).chain(named).chain(narrower).filter(is_host).collect()
}

/// The last address of a network that a host may have.
fn last_host(network: Ipv4Net) -> Ipv4Addr {
    let last = u32::from(network.broadcast());
    Ipv4Addr::from(if network.prefix_len() < 31 { last - 1 } else { last })
}

/// An address of the network that is not this server's.
fn a_host(link: &PrivateLink) -> Option<Ipv4Addr> {
    let from_the_end = (2..=9).filter_map(|back| u32::from(link.network.broadcast()).checked_sub(back));
    let mut hosts = from_the_end.map(Ipv4Addr::from).chain(link.network.hosts());
    hosts.find(|host| link.network.contains(host) && !link.holds(*host))
}

/// Adds what is wrong to the site.
fn judge(ways: &[Way], kernel: &Kernel, metadata: &MetadataView, site: &mut Site) {
    let of = |subject: Subject, is_forwarded: bool| {
        let about =
            move |way: &&Way| way.question.subject == subject && way.question.forwarded.is_some() == is_forwarded;
        ways.iter().filter(about).collect::<Vec<&Way>>()
    };
    let own = of(Subject::Internet(None), false);
    let own_lost = lost_half(&own);
    let mut lost = own_lost.map(|way| (way, None));
    let mut problems = Vec::new();
    for (position, link) in site.private.iter().enumerate() {
        let plain = of(Subject::Network(position), false);
        let wrong: Vec<&Way> = plain.iter().copied().filter(|way| way.is_wrong()).collect();
        // Only while the answers of this server's own packets are right: a source from where there is no route counts
        // as a packet that leads nowhere.
        let forwarded = of(Subject::Network(position), true);
        let wrong = if wrong.is_empty() && own_lost.is_none() {
            forwarded.iter().copied().filter(|way| way.is_wrong()).collect()
        } else {
            wrong
        };
        let is_whole = |way: &&Way| {
            let blamed = blamed(way, kernel);
            !blamed.is_some_and(|route| route.destination != link.network && link.network.contains(&route.destination))
        };
        if wrong.iter().any(is_whole) || (!wrong.is_empty() && wrong.len() >= plain.len()) {
            site.misrouted.insert(link.interface.clone());
        }
        problems.extend(describe::misrouted(link, &wrong, kernel, metadata));
        let outgoing = of(Subject::Internet(Some(position)), true);
        let is_known = wrong.is_empty() && outgoing.iter().any(|way| way.answer != Answer::Unknown);
        let outgoing_lost = if is_known { lost_half(&outgoing) } else { own_lost };
        if let Some(way) = outgoing_lost {
            site.misrouted.insert(link.interface.clone());
            lost = lost.or(Some((way, Some(link))));
        }
    }
    if let Some((way, link)) = lost {
        problems.push(describe::lost(way, link, kernel, site));
    }
    site.problems.extend(problems);
}

/// A way of a half of the internet that is lost: none of its packets takes the right way.
fn lost_half<'a>(ways: &[&'a Way]) -> Option<&'a Way> {
    let (low, high): (Vec<&Way>, Vec<&Way>) = ways.iter().partition(|way| way.question.to.octets()[0] < 128);
    let lost = |half: Vec<&'a Way>| half.iter().all(|way| way.is_wrong()).then(|| half.first().copied()).flatten();
    lost(low).or_else(|| lost(high))
}

/// The route that leads a packet elsewhere: what the kernel names, or else the narrowest one that leads nowhere. A
/// `throw` of another table than the main one leads on to that.
fn blamed<'a>(way: &'a Way, kernel: &'a Kernel) -> Option<&'a Route> {
    let covers = |route: &&Route| {
        let drops = match route.kind {
            RouteKind::Unicast => false,
            RouteKind::Throw => route.is_in_main(),
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => true,
        };
        drops && route.destination.contains(&way.question.to)
    };
    let nowhere = || kernel.routes.iter().filter(covers).max_by_key(|route| route.destination.prefix_len());
    match way.answer {
        Answer::Nowhere => nowhere(),
        _ => way.route.as_ref(),
    }
}

#[cfg(test)]
mod tests;
