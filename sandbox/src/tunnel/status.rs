//! What `wg show INTERFACE dump` prints (wg(8)): a line for the interface, then one for each peer, with tabs between.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::error::Error;

/// The status of an interface, without its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// The UDP port that it listens on.
    pub listen_port: u16,
    /// The firewall mark of its outgoing packets; 0 means none.
    pub fwmark: u32,
    /// The peers by public key in base64.
    pub peers: BTreeMap<String, Peer>,
}

/// The status of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Whether it has a preshared key.
    pub preshared: bool,
    /// Its UDP endpoint, if known.
    pub endpoint: Option<SocketAddr>,
    /// The allowed IPs of the peer.
    pub allowed_ips: Vec<IpNet>,
    /// The time of the latest handshake in seconds since 1970; `None` before the first.
    pub latest_handshake: Option<u64>,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// The persistent keepalive interval in seconds; `None` if off.
    pub keepalive: Option<u16>,
}

impl FromStr for InterfaceStatus {
    type Err = Error;

    fn from_str(dump: &str) -> Result<Self, Error> {
        let mut lines = dump.lines();
        let first = lines.next().unwrap_or_default();
        let mut status =
            parse_interface(first).ok_or_else(|| Error::UnreadableDump { line: without_first_field(first) })?;
        for line in lines {
            let (key, peer) =
                parse_peer(line).ok_or_else(|| Error::UnreadableDump { line: without_first_field(line) })?;
            status.peers.insert(key, peer);
        }
        Ok(status)
    }
}

/// A line without its first field, which may be a private key.
fn without_first_field(line: &str) -> String {
    line.split_once('\t').map_or_else(|| format!("{} bytes", line.len()), |(_, rest)| rest.to_owned())
}

fn parse_interface(line: &str) -> Option<InterfaceStatus> {
    let fields: Vec<&str> = line.split('\t').collect();
    let &[_, _, port, fwmark] = fields.as_slice() else { return None };
    let fwmark = match fwmark.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok()?,
        None if fwmark == "off" => 0,
        None => return None,
    };
    Some(InterfaceStatus { listen_port: port.parse().ok()?, fwmark, peers: BTreeMap::new() })
}

fn parse_peer(line: &str) -> Option<(String, Peer)> {
    let fields: Vec<&str> = line.split('\t').collect();
    let &[key, preshared, endpoint, allowed_ips, handshake, received, sent, keepalive] = fields.as_slice() else {
        return None;
    };
    let allowed_ips = unless("(none)", allowed_ips).unwrap_or_default().split(',').filter(|net| !net.is_empty());
    let peer = Peer {
        preshared: preshared != "(none)",
        endpoint: unless("(none)", endpoint).map(str::parse).transpose().ok()?,
        allowed_ips: allowed_ips.map(str::parse).collect::<Result<_, _>>().ok()?,
        latest_handshake: unless("0", handshake).map(str::parse).transpose().ok()?,
        received: received.parse().ok()?,
        sent: sent.parse().ok()?,
        keepalive: unless("off", keepalive).map(str::parse).transpose().ok()?,
    };
    Some((key.to_owned(), peer))
}

/// The field, or `None` if it has the value `placeholder` that stands for a missing one.
fn unless<'f>(placeholder: &str, field: &'f str) -> Option<&'f str> {
    Some(field).filter(|field| *field != placeholder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_parsed() {
        let dump = "private\tpublic\t51820\t0xca6c\n\
                    one\t(none)\t[2001:db8::2]:51820\t10.0.0.1/32,fd00::/64\t1700000000\t18446744073709551615\t7\t25\n\
                    two\tsecret\t(none)\t(none)\t0\t0\t0\toff\n";
        let one = Peer {
            preshared: false,
            endpoint: Some("[2001:db8::2]:51820".parse().unwrap()),
            allowed_ips: vec!["10.0.0.1/32".parse().unwrap(), "fd00::/64".parse().unwrap()],
            latest_handshake: Some(1_700_000_000),
            received: u64::MAX,
            sent: 7,
            keepalive: Some(25),
        };
        let two = Peer {
            preshared: true,
            endpoint: None,
            allowed_ips: vec![],
            latest_handshake: None,
            received: 0,
            sent: 0,
            keepalive: None,
        };
        let peers = BTreeMap::from([("one".to_owned(), one), ("two".to_owned(), two)]);
        assert_eq!(
            dump.parse::<InterfaceStatus>().unwrap(),
            InterfaceStatus { listen_port: 51820, fwmark: 0xca6c, peers }
        );
    }

    #[test]
    fn an_error_does_not_contain_the_private_key() {
        let refused = "private\tpublic\tmany\toff\n".parse::<InterfaceStatus>().unwrap_err();
        assert_eq!(refused.to_string(), "cannot parse the output of wg: public\tmany\toff");
        let refused = "private".parse::<InterfaceStatus>().unwrap_err();
        assert_eq!(refused.to_string(), "cannot parse the output of wg: 7 bytes");
    }
}
