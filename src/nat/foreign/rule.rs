//! Rules of others that let something pass, read just far enough to recognise those that we would advise.

use ipnet::Ipv4Net;

use super::Value;
use super::ways::{Door, Way, What};
use crate::config::{Ports, Transport};

/// A rule that accepts. What of it is not understood makes it narrower, so that it counts for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rule {
    /// The interfaces that packets come by; empty: any.
    pub(super) from: Vec<String>,
    /// The interfaces that they leave by; empty: any.
    pub(super) to: Vec<String>,
    /// Their sources; empty: any.
    pub(super) sources: Vec<Ipv4Net>,
    /// The states of their flows; empty: any.
    pub(super) states: Vec<String>,
    /// Whether it is for states that nft does not show: a match of iptables' own. It counts for what it may say.
    pub(super) hidden_states: bool,
    /// Whether it is for translated packets alone.
    pub(super) translated: bool,
    /// The ports that it is for; `None`: everything.
    pub(super) ports: Option<Destination>,
    /// Whether it asks for more that is not looked at.
    pub(super) narrower: bool,
}

/// Ports that a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    /// TCP or UDP; `None`: both.
    pub(super) transport: Option<Transport>,
    /// The ports.
    pub(super) ports: Vec<Ports>,
}

impl Rule {
    /// From nft's JSON; `None` if it lets nothing pass.
    pub(super) fn read(rule: &Value) -> Option<Self> {
        let mut read = Self::default();
        let mut accepts = false;
        for statement in rule.get("expr")?.as_array()? {
            let (kind, body) = statement.as_object()?.iter().next()?;
            match kind.as_str() {
                "accept" => accepts = true,
                "match" => read.narrow(body),
                "vmap" => accepts = read.map_of_states(body),
                // Shown without its arguments, whatever was translated on the way to the screen.
                "xt" => match body["name"].as_str() {
                    Some("conntrack" | "state") => read.hidden_states = true,
                    Some("comment") => {}
                    _ => read.narrower = true,
                },
                "counter" | "log" | "comment" => {}
                _ => read.narrower = true,
            }
        }
        accepts.then_some(read)
    }

    fn narrow(&mut self, body: &Value) {
        let (left, right) = (&body["left"], &body["right"]);
        let understood = match body["op"].as_str() {
            Some("==" | "in") => self.narrow_to(left, right),
            _ => None,
        };
        self.narrower |= understood.is_none();
    }

    /// `None` if this is not understood, or said twice.
    fn narrow_to(&mut self, left: &Value, right: &Value) -> Option<()> {
        let meta = left["meta"]["key"].as_str();
        let ct = left["ct"]["key"].as_str();
        let payload = &left["payload"];
        match (meta, ct, payload["protocol"].as_str(), payload["field"].as_str()) {
            (Some("iifname" | "iif"), ..) if self.from.is_empty() => self.from = words(right)?,
            (Some("oifname" | "oif"), ..) if self.to.is_empty() => self.to = words(right)?,
            (_, Some("state"), ..) if self.states.is_empty() => self.states = words(right)?,
            (_, Some("status"), ..) if words(right)? == ["dnat"] => self.translated = true,
            (_, _, Some("ip"), Some("saddr")) if self.sources.is_empty() => self.sources = networks(right)?,
            (_, _, Some(protocol), Some("dport")) if self.ports.is_none() => {
                let transport = match protocol {
                    "tcp" => Some(Transport::Tcp),
                    "udp" => Some(Transport::Udp),
                    "th" => None,
                    _ => return None,
                };
                self.ports = Some(Destination { transport, ports: ports(right)? });
            }
            _ => return None,
        }
        Some(())
    }

    /// `ct state vmap { established : accept, … }`; whether some state is accepted.
    fn map_of_states(&mut self, body: &Value) -> bool {
        if body["key"]["ct"]["key"] != "state" || !self.states.is_empty() {
            return false;
        }
        let entries = body["data"]["set"].as_array().map_or(&[][..], Vec::as_slice);
        let accepted = entries.iter().filter(|entry| entry[1].get("accept").is_some());
        self.states = accepted.filter_map(|entry| entry[0].as_str().map(str::to_owned)).collect();
        !self.states.is_empty()
    }

    /// Whether everything on that way passes by this rule.
    pub(super) fn lets_pass(&self, way: &Way) -> bool {
        let by = |named: &[String], interface: &str| {
            named.is_empty() || named.iter().any(|name| name == interface || is_wildcard_of(name, interface))
        };
        if self.narrower || self.ports.is_some() || !by(&self.from, way.from.as_str()) || !by(&self.to, way.to.as_str())
        {
            return false;
        }
        let in_state = |wanted: &str| self.states.is_empty() || self.states.iter().any(|state| state == wanted);
        let from_all = |sources: &[Ipv4Net]| {
            let covered = |source: &Ipv4Net| self.sources.iter().any(|range| range.contains(source));
            self.sources.is_empty() || sources.iter().all(covered)
        };
        match &way.what {
            What::New(sources) => !self.translated && !self.hidden_states && in_state("new") && from_all(sources),
            What::Answers => !self.translated && in_state("established") && self.sources.is_empty(),
            What::Published => (self.translated || in_state("new") || in_state("dnat")) && self.sources.is_empty(),
        }
    }

    /// Whether somebody may come in by that port: whoever wrote the rule knows whom.
    pub(super) fn opens(&self, door: &Door) -> bool {
        match &self.ports {
            Some(Destination { transport, ports }) => {
                transport.is_none_or(|transport| transport == door.transport)
                    && ports.iter().any(|ports| ports.overlaps(Ports::single(door.port)))
            }
            None => *self == Self::default(),
        }
    }
}

/// `eth*` stands for all that begin so.
fn is_wildcard_of(name: &str, interface: &str) -> bool {
    name.strip_suffix('*').is_some_and(|beginning| interface.starts_with(beginning))
}

/// One value, or a list or set of them.
fn each(right: &Value) -> &[Value] {
    let set = right.get("set").unwrap_or(right);
    set.as_array().map_or_else(|| std::slice::from_ref(set), Vec::as_slice)
}

/// Words, none of them the name of a set, whose elements are not looked at.
fn words(right: &Value) -> Option<Vec<String>> {
    let word = |value: &Value| value.as_str().filter(|word| !word.starts_with('@')).map(str::to_owned);
    each(right).iter().map(word).collect()
}

fn networks(right: &Value) -> Option<Vec<Ipv4Net>> {
    let network = |value: &Value| match value.get("prefix") {
        Some(prefix) => {
            let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
            Ipv4Net::new(prefix["addr"].as_str()?.parse().ok()?, length).ok()
        }
        None => value.as_str()?.parse().ok().map(|address: std::net::Ipv4Addr| address.into()),
    };
    each(right).iter().map(network).collect()
}

fn ports(right: &Value) -> Option<Vec<Ports>> {
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let span = |value: &Value| match value.get("range") {
        Some(range) => Some(Ports { first: port(&range[0])?, last: port(&range[1])? }),
        None => port(value).map(Ports::single),
    };
    each(right).iter().map(span).collect()
}
