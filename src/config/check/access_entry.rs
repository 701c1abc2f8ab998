//! An entry of a peer's list as text: `10.0.1.0/24:tcp/5432`.

use super::places::{Places, looks_like_address, parse_range};
use super::suggestion::similar;
use super::values;
use crate::config::access::{AccessEntry, Place};
use crate::config::protocol::{IpProtocol, Ports, Protocol};
use crate::config::raw::{NameOrNumber, PortOrRange};

/// What an entry looks like, for messages.
const FORM: &str = "`destination`, `destination:protocol` or `destination:protocol/ports`, like 10.0.1.0/24:tcp/5432";
/// What of this server peers may reach by a list.
const BASTION: [&str; 1] = ["ssh"];
/// More ports than this are a range.
const MAX_PORTS: usize = 16;

/// An entry, or what is wrong with it.
pub(super) fn parse_entry(text: &str, places: &Places) -> Result<AccessEntry, String> {
    if text.len() > 256 || text.chars().any(char::is_control) {
        return Err(format!("`{}` is not an entry: write {FORM}", text.escape_debug().take(80).collect::<String>()));
    }
    if text.starts_with('[') || text.matches(':').count() > 1 && !text.starts_with("bastion") {
        return Err(about_v6(text));
    }
    let (place, rest) = match text.split_once(':') {
        Some((place, rest)) => (place, Some(rest)),
        None => (text, None),
    };
    if place == "bastion" {
        return parse_bastion(rest).map(AccessEntry::all_of);
    }
    let place = match place {
        "private" => Place::Private,
        "peers" => Place::Peers,
        "internet" => Place::Internet,
        "" => return Err(format!("`{text}` names no destination: write {FORM}")),
        address if looks_like_address(address) => Place::Range(parse_range(address)?),
        name => places.find(name)?,
    };
    let Some(rest) = rest else { return Ok(AccessEntry::all_of(place)) };
    let (protocol, ports) = match rest.split_once('/') {
        Some((protocol, ports)) => (protocol, Some(ports)),
        None => (rest, None),
    };
    let protocol = parse_protocol(text, protocol)?;
    let ports = match (protocol, ports) {
        (_, None) => Vec::new(),
        (Protocol::Tcp | Protocol::Udp | Protocol::Sctp, Some(ports)) => parse_ports(ports)?,
        (Protocol::Any, Some(_)) => {
            return Err(format!("`{text}`: not every protocol has ports; write tcp or udp instead of any"));
        }
        (Protocol::Icmp, Some(_)) => return Err(refused_ports(text, IpProtocol::ICMP)),
        (Protocol::Other(protocol), Some(_)) => return Err(refused_ports(text, protocol)),
    };
    Ok(AccessEntry { place, protocol, ports })
}

fn refused_ports(text: &str, protocol: IpProtocol) -> String {
    format!("`{text}`: {protocol} has no ports that are looked at; leave out what follows the protocol")
}

fn about_v6(text: &str) -> String {
    let address = text.strip_prefix('[').map_or(text, |rest| rest.split(']').next().unwrap_or(rest));
    match parse_range(address) {
        Err(reason) if reason.contains("IPv6") => reason,
        _ => format!("`{text}` is not an entry: write {FORM}"),
    }
}

fn parse_bastion(service: Option<&str>) -> Result<Place, String> {
    match service {
        Some("ssh") => Ok(Place::BastionSsh),
        Some("metrics") => {
            Err("bastion:metrics is not supported: bastiond serves no metrics on the network".to_owned())
        }
        Some(other) => Err(match similar(other, BASTION) {
            Some(meant) => format!("`bastion:{other}` is not known; did you mean `bastion:{meant}`?"),
            None => format!(
                "`bastion:{other}` is not known: peers reach bastion:ssh by a list, and other services as \
                 [[firewall.service]] says"
            ),
        }),
        None => Err("`bastion` alone is too much: write bastion:ssh".to_owned()),
    }
}

fn parse_protocol(text: &str, written: &str) -> Result<Protocol, String> {
    if written.starts_with(|c: char| c.is_ascii_digit()) && written.contains('-')
        || written.parse::<u16>().is_ok_and(|number| number > 255)
    {
        return Err(format!("`{text}` has ports without a protocol; write tcp/{written} or udp/{written}"));
    }
    let written = match written.parse::<u8>() {
        Ok(number) => NameOrNumber::Number(number.into()),
        Err(_) => NameOrNumber::Name(written.to_owned()),
    };
    values::parse_protocol(&written, ("any", Protocol::Any))
}

/// Ports and ranges of ports, separated by commas.
fn parse_ports(text: &str) -> Result<Vec<Ports>, String> {
    let mut ports: Vec<Ports> = Vec::new();
    for part in text.split(',') {
        let written = match part.parse() {
            Ok(number) if part.bytes().all(|byte| byte.is_ascii_digit()) => PortOrRange::Port(number),
            _ => PortOrRange::Range(part.to_owned()),
        };
        let part = values::parse_ports(&written)?;
        if ports.contains(&part) {
            return Err(format!("port {part} is listed twice; remove one of them"));
        }
        ports.push(part);
    }
    if ports.len() > MAX_PORTS {
        return Err(format!("{} ports in one entry; at most {MAX_PORTS} are supported, so write a range", ports.len()));
    }
    ports.sort_unstable();
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::super::diagnostics::Diagnostics;
    use super::*;

    fn places() -> Places {
        let hosts = [("db".to_owned(), vec!["10.0.1.5/32".parse().unwrap()])].into();
        Places::new(hosts, [], &mut Diagnostics::default())
    }

    #[test]
    fn an_entry_is_printed_as_it_is_written() {
        for text in [
            "10.0.1.0/24:tcp/5432",
            "db:tcp/5432-5440",
            "db:tcp/80,443,8000-8100",
            "10.0.1.0/24",
            "10.0.1.5:icmp",
            "0.0.0.0/0",
            "private",
            "peers:udp",
            "internet:tcp/443",
            "bastion:ssh",
            "db:gre",
            "db:253",
        ] {
            assert_eq!(parse_entry(text, &places()).unwrap().to_string(), text);
        }
        assert_eq!(parse_entry("db:any", &places()).unwrap().to_string(), "db");
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_said() {
        for (text, expected) in [
            ("10.0.1.1/24", "`10.0.1.1/24` has host bits set; write 10.0.1.0/24 for the whole range"),
            ("dbb:tcp/1", "`dbb` is no name of [hosts] or of a [[network]]; did you mean `db`?"),
            ("db:5432", "`db:5432` has ports without a protocol; write tcp/5432 or udp/5432"),
            ("db:icmp/8", "`db:icmp/8`: icmp has no ports that are looked at; leave out what follows the protocol"),
            ("db:any/8", "`db:any/8`: not every protocol has ports; write tcp or udp instead of any"),
            ("db:tcp/0", "0 is not a port (1 to 65535)"),
            ("db:tcp/9-1", "`9-1` has its ends in the wrong order; write \"1-9\""),
            ("db:tcp/80,80", "port 80 is listed twice; remove one of them"),
            ("fd00::5", "`fd00::5` is IPv6, which is not forwarded between peers and networks; remove it"),
            ("[fd00::5]:tcp/22", "`fd00::5` is IPv6, which is not forwarded between peers and networks; remove it"),
            ("bastion", "`bastion` alone is too much: write bastion:ssh"),
            ("bastion:sshd", "`bastion:sshd` is not known; did you mean `bastion:ssh`?"),
            ("bastion:metrics", "bastion:metrics is not supported: bastiond serves no metrics on the network"),
            ("any", "`any` is not an address; write 0.0.0.0/0 for every address"),
        ] {
            assert_eq!(parse_entry(text, &places()).unwrap_err(), expected, "{text}");
        }
        let long = format!("\u{1b}[31m{}", "x".repeat(300));
        assert!(!parse_entry(&long, &places()).unwrap_err().contains('\u{1b}'));
    }
}
