//! Accepting rules of other programs, read just far enough to recognise those that we would advise.

use ipnet::Ipv4Net;

use super::Value;
use super::paths::{ForwardPath, OpenPort, Packets};
use crate::config::{Ports, Transport};

/// A rule that accepts. A part that is not understood makes it [`Rule::narrower`], so that it counts for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rule {
    /// The interfaces by which packets come in; empty: any.
    pub(super) from: Vec<String>,
    /// The interfaces by which they leave; empty: any.
    pub(super) to: Vec<String>,
    /// Their sources; empty: any.
    pub(super) sources: Vec<Ipv4Net>,
    /// The states of their flows; empty: any.
    pub(super) states: Vec<String>,
    /// Whether it matches states that nft does not show, by an extension of iptables. It counts for all that it may
    /// match.
    pub(super) hidden_states: bool,
    /// Whether it matches translated packets only.
    pub(super) translated: bool,
    /// The ports that it matches; `None`: everything.
    pub(super) ports: Option<Destination>,
    /// Whether it has another condition, which is not understood.
    pub(super) narrower: bool,
}

/// The chain of ufw to which `ufw limit` leads packets: it accepts them, as long as a source sends few.
pub(super) const UFW_LIMIT: &str = "ufw-user-limit-accept";

/// Ports that a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    /// `None`: TCP and UDP.
    pub(super) transport: Option<Transport>,
    pub(super) ports: Vec<Ports>,
}

impl Rule {
    /// Reads nft's JSON; `None` if the rule accepts nothing.
    pub(super) fn from_json(rule: &Value) -> Option<Self> {
        let mut read = Self::default();
        let mut accepts = false;
        for statement in rule.get("expr")?.as_array()? {
            let (kind, body) = statement.as_object()?.iter().next()?;
            match kind.as_str() {
                "accept" => accepts = true,
                "jump" if body["target"] == UFW_LIMIT => accepts = true,
                "match" => read.add_condition(body),
                "vmap" => accepts = read.add_state_map(body),
                // nft shows an extension of iptables without its arguments.
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

    fn add_condition(&mut self, body: &Value) {
        let (left, right) = (&body["left"], &body["right"]);
        let understood = match body["op"].as_str() {
            Some("==" | "in") => self.add_match(left, right),
            _ => None,
        };
        self.narrower |= understood.is_none();
    }

    /// `None` if the condition is not understood, or is the second one of its kind.
    fn add_match(&mut self, left: &Value, right: &Value) -> Option<()> {
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

    /// Reads `ct state vmap { established : accept, … }`. Returns whether it accepts some state.
    fn add_state_map(&mut self, body: &Value) -> bool {
        if body["key"]["ct"]["key"] != "state" || !self.states.is_empty() {
            return false;
        }
        let entries = body["data"]["set"].as_array().map_or(&[][..], Vec::as_slice);
        let accepted = entries.iter().filter(|entry| entry[1].get("accept").is_some());
        self.states = accepted.filter_map(|entry| entry[0].as_str().map(str::to_owned)).collect();
        !self.states.is_empty()
    }

    /// Whether this rule accepts all packets of a path.
    pub(super) fn accepts_path(&self, path: &ForwardPath) -> bool {
        let includes = |named: &[String], interface: &str| named.is_empty() || includes_interface(named, interface);
        let has_interfaces = includes(&self.from, path.from.as_str()) && includes(&self.to, path.to.as_str());
        if self.narrower || self.ports.is_some() || !has_interfaces {
            return false;
        }
        let in_state = |wanted: &str| self.states.is_empty() || self.states.iter().any(|state| state == wanted);
        let from_all = |sources: &[Ipv4Net]| {
            let covered = |source: &Ipv4Net| self.sources.iter().any(|range| range.contains(source));
            self.sources.is_empty() || sources.iter().all(covered)
        };
        match &path.packets {
            Packets::New(sources) => !self.translated && !self.hidden_states && in_state("new") && from_all(sources),
            Packets::Answers => !self.translated && in_state("established") && self.sources.is_empty(),
            Packets::Published => (self.translated || in_state("new") || in_state("dnat")) && self.sources.is_empty(),
        }
    }

    /// Whether this rule opens a port, for whatever sources its author wants.
    pub(super) fn accepts_port(&self, port: &OpenPort) -> bool {
        match &self.ports {
            Some(Destination { transport, ports }) => {
                transport.is_none_or(|transport| transport == port.transport)
                    && ports.iter().any(|ports| ports.overlaps(Ports::single(port.port)))
            }
            None => *self == Self::default(),
        }
    }
}

/// Whether nft's JSON hides which states a rule matches: it shows an extension of iptables without its arguments.
pub(super) fn hides_states(rule: &Value) -> bool {
    let is_of_states = |statement: &Value| {
        let xt = &statement["xt"];
        xt["type"] == "match" && matches!(xt["name"].as_str(), Some("conntrack" | "state"))
    };
    rule["expr"].as_array().is_some_and(|statements| statements.iter().any(is_of_states))
}

/// Whether these names, or wildcards, contain an interface.
pub(super) fn includes_interface(names: &[String], interface: &str) -> bool {
    names.iter().any(|name| name == interface || is_wildcard_of(name, interface))
}

/// `eth*` matches all names that begin with `eth`.
fn is_wildcard_of(name: &str, interface: &str) -> bool {
    name.strip_suffix('*').is_some_and(|beginning| interface.starts_with(beginning))
}

/// The items of a list or set; a single value is its own item.
pub(super) fn items(right: &Value) -> &[Value] {
    let set = right.get("set").unwrap_or(right);
    set.as_array().map_or_else(|| std::slice::from_ref(set), Vec::as_slice)
}

/// `None` if one of them is the name of a set: its elements are not read.
pub(super) fn words(right: &Value) -> Option<Vec<String>> {
    let word = |value: &Value| value.as_str().filter(|word| !word.starts_with('@')).map(str::to_owned);
    items(right).iter().map(word).collect()
}

pub(super) fn networks(right: &Value) -> Option<Vec<Ipv4Net>> {
    let network = |value: &Value| match value.get("prefix") {
        Some(prefix) => {
            let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
            Ipv4Net::new(prefix["addr"].as_str()?.parse().ok()?, length).ok()
        }
        None => value.as_str()?.parse().ok().map(|address: std::net::Ipv4Addr| address.into()),
    };
    items(right).iter().map(network).collect()
}

fn ports(right: &Value) -> Option<Vec<Ports>> {
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let range = |value: &Value| match value.get("range") {
        Some(range) => Some(Ports { first: port(&range[0])?, last: port(&range[1])? }),
        None => port(value).map(Ports::single),
    };
    items(right).iter().map(range).collect()
}
