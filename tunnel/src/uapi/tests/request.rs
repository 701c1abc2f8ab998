//! Requests, and what is no request.

use std::net::{SocketAddr, SocketAddrV6};

use nix::errno::Errno;
use proptest::prelude::*;

use super::*;
use crate::uapi::request::{Parser, Reason, Refused, Request, parse_set};

/// Interfaces for scopes: `eth2` has the number 2.
fn scope_of(name: &str) -> Option<u32> {
    (name == "eth2").then_some(2)
}

/// What a conversation comes to.
fn conversation(text: &[u8]) -> Vec<Result<Request, (Errno, String)>> {
    let describe = |refused: Refused| (refused.errno(), refused.to_string());
    let mut parser = Parser::new(scope_of);
    let mut requests = Vec::new();
    let mut lines: Vec<_> = text.split(|&byte| byte == b'\n').collect();
    assert_eq!(lines.pop(), Some(&b""[..]), "a test's text ends with a line's end");
    for line in lines {
        requests.extend(parser.line(line).map(|request| request.map_err(describe)));
    }
    requests.extend(parser.end().map(|refused| Err(describe(refused))));
    requests
}

fn set(lines: &str) -> Result<Update, String> {
    parse_set(lines.lines()).map_err(|refused| refused.to_string())
}

#[test]
fn every_key_of_the_protocol_is_parsed() {
    let update = set(&format!(
        "private_key={}\nlisten_port=12912\nfwmark=0xca6c\nreplace_peers=true\n\
         public_key={}\nupdate_only=true\npreshared_key={}\nendpoint=[2001:db8::33]:51820\n\
         persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=192.168.4.4/32\n\
         allowed_ip=-192.168.4.5/32\nallowed_ip=2001:db8:1::1/48\nprotocol_version=1\n\
         public_key={}\nremove=true\n",
        "11".repeat(32),
        "2A".repeat(32),
        "33".repeat(32),
        "44".repeat(32),
    ));
    let first = PeerUpdate {
        update_only: true,
        preshared_key: Some(PresharedKey([0x33; LENGTH])),
        endpoint: Some("[2001:db8::33]:51820".parse().unwrap()),
        persistent_keepalive: Some(25),
        replace_allowed_ips: true,
        allowed_ips: vec![
            AllowedIp { net: net("192.168.4.4/32"), remove: false },
            AllowedIp { net: net("192.168.4.5/32"), remove: true },
            AllowedIp { net: net("2001:db8:1::/48"), remove: false },
        ],
        ..PeerUpdate::new(public_key(0x2a))
    };
    let second = PeerUpdate { remove: true, ..PeerUpdate::new(public_key(0x44)) };
    let expected = Update {
        private_key: Some(Some(PrivateKey::from_bytes([0x11; LENGTH]))),
        listen_port: Some(12912),
        fwmark: Some(51820),
        replace_peers: true,
        peers: vec![first, second],
    };
    assert_eq!(update, Ok(expected));
}

#[test]
fn a_private_key_of_zeroes_removes_the_key() {
    let update = set(&format!("private_key={}\n", "0".repeat(64)));
    assert_eq!(update, Ok(Update { private_key: Some(None), ..Update::default() }));
}

#[test]
fn an_empty_change_changes_nothing() {
    assert_eq!(set(""), Ok(Update::default()));
}

#[test]
fn the_scope_of_an_endpoint_may_be_a_number_or_a_name() {
    let endpoint = |text: &str| {
        let request = format!("set=1\npublic_key={}\nendpoint={text}\n\n", "2a".repeat(32));
        match conversation(request.as_bytes()).remove(0) {
            Ok(Request::Set(update)) => update.peers[0].endpoint,
            _ => None,
        }
    };
    let scoped = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 51820, 0, 2));
    assert_eq!(endpoint("[fe80::1%2]:51820"), Some(scoped));
    assert_eq!(endpoint("[fe80::1%eth2]:51820"), Some(scoped));
    assert_eq!(endpoint("[fe80::1]:51820"), Some("[fe80::1]:51820".parse().unwrap()));
    assert_eq!(endpoint("192.0.2.1:51820"), Some("192.0.2.1:51820".parse().unwrap()));
    assert_eq!(endpoint("[fe80::1%eth3]:51820"), None);
}

#[test]
fn an_invalid_line_is_refused_with_its_number_and_reason() {
    let peer = format!("public_key={}\n", "2a".repeat(32));
    let cases = [
        ("listen_port\n", "line 1: not a line of the form `key=value`"),
        ("colour=1\n", "line 1: `colour` is no key of an interface, and no peer was named yet"),
        ("endpoint=192.0.2.1:1\n", "line 1: `endpoint` is no key of an interface, and no peer was named yet"),
        ("PRIVATE_KEY=1\n", "line 1: `PRIVATE_KEY` is no key of an interface, and no peer was named yet"),
        ("listen_port=65536\n", "line 1: listen_port: `65536` is not a port"),
        ("listen_port=\n", "line 1: listen_port: an empty value is not a port"),
        ("listen_port=+1\n", "line 1: listen_port: `+1` is not a port"),
        ("listen_port=1\nfwmark=4294967296\n", "line 2: fwmark: `4294967296` is not a number of 32 bits"),
        ("fwmark=1\x1b[2J\n", "line 1: fwmark: `1\\u{1b}[2J` is not a number of 32 bits"),
        ("replace_peers=false\n", "line 1: replace_peers: `false` is not `true`"),
        ("private_key=00\n", "line 1: private_key: the value is not a key of 64 hexadecimal digits"),
        ("public_key=\n", "line 1: public_key: the value is not a key of 64 hexadecimal digits"),
        ("P\nlisten_port=1\n", "line 2: `listen_port` is no key of a peer"),
        ("P\nprivate_key=1\n", "line 2: `private_key` is no key of a peer"),
        ("P\nremove=1\n", "line 2: remove: `1` is not `true`"),
        ("P\nupdate_only=yes\n", "line 2: update_only: `yes` is not `true`"),
        ("P\nreplace_allowed_ips=\n", "line 2: replace_allowed_ips: an empty value is not `true`"),
        ("P\npreshared_key=zz\n", "line 2: preshared_key: the value is not a key of 64 hexadecimal digits"),
        (
            "P\nendpoint=example.org:51820\n",
            "line 2: endpoint: `example.org:51820` is not an address and a port, as in 192.0.2.1:51820 or \
             [2001:db8::1]:51820",
        ),
        (
            "P\npersistent_keepalive_interval=65536\n",
            "line 2: persistent_keepalive_interval: `65536` is not a number of seconds below 65536",
        ),
        ("P\nallowed_ip=10.0.0.1\n", "line 2: allowed_ip: `10.0.0.1` is not a prefix, as in 192.0.2.0/24"),
        ("P\nallowed_ip=10.0.0.0/33\n", "line 2: allowed_ip: `10.0.0.0/33` is not a prefix, as in 192.0.2.0/24"),
        ("P\nallowed_ip=--10.0.0.0/8\n", "line 2: allowed_ip: `--10.0.0.0/8` is not a prefix, as in 192.0.2.0/24"),
        ("P\nprotocol_version=2\n", "line 2: protocol_version: `2` is not version 1"),
    ];
    for (lines, reason) in cases {
        assert_eq!(set(&lines.replace("P\n", &peer)), Err(reason.to_owned()), "{lines}");
    }
}

#[test]
fn clients_get_the_error_numbers_of_wireguard_go() {
    let cases: [(&[u8], Errno); 9] = [
        (b"set=2\n\n", Errno::EINVAL),
        (b"hello\n\n", Errno::EINVAL),
        (b"get=1\nlisten_port=1\n\n", Errno::EINVAL),
        (b"set=1\ncolour=1\n\n", Errno::EINVAL),
        (b"set=1\nlisten_port=x\n\n", Errno::EINVAL),
        (b"set=1\nlisten_port\n\n", Errno::EPROTO),
        (b"set=1\n\xff=1\n\n", Errno::EPROTO),
        (b"set=1\nlisten_port=1\n", Errno::EPROTO),
        (b"get=1\n", Errno::EPROTO),
    ];
    for (text, errno) in cases {
        let answers: Vec<_> = conversation(text).into_iter().map(|answer| answer.map_err(|(errno, _)| errno)).collect();
        assert_eq!(answers, vec![Err(errno)], "{}", text.escape_ascii());
    }
}

#[test]
fn a_refused_request_is_read_to_its_end_and_the_next_one_is_served() {
    let answers = conversation(b"set=1\nlisten_port=x\nget=1\nset=1\n\nget=1\n\n\n\nset=1\nlisten_port=5\n\n");
    let refused = (Errno::EINVAL, "line 2: listen_port: `x` is not a port".to_owned());
    let update = Update { listen_port: Some(5), ..Update::default() };
    assert_eq!(answers, vec![Err(refused), Ok(Request::Get), Ok(Request::Set(update))]);
}

#[test]
fn a_line_that_is_too_long_refuses_its_request() {
    let mut parser = Parser::new(scope_of);
    assert_eq!(parser.line(b"set=1"), None);
    parser.too_long();
    assert_eq!(parser.line(b"listen_port=1"), None);
    let refused = Refused { line: 2, reason: Reason::TooLong };
    assert_eq!(refused.errno(), Errno::EPROTO);
    assert_eq!(parser.line(b""), Some(Err(refused)));
    assert_eq!((parser.is_inside(), parser.end()), (false, None));
}

#[test]
fn a_secret_in_the_wrong_place_is_never_repeated() {
    let hexadecimal = "5ecbe7".repeat(11);
    let base64 = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    for line in [
        format!("private_key={hexadecimal}"),
        format!("preshared_key={hexadecimal}"),
        format!("private_key={base64}"),
        format!("PrivateKey = {base64}"),
        base64.to_owned(),
        hexadecimal.clone(),
        format!("{hexadecimal}=1"),
    ] {
        let request = format!("set=1\nlisten_port=1\n{line}\n\n");
        let answer = format!("{:?}", conversation(request.as_bytes()));
        assert!(answer.contains("line 3"), "{answer}");
        assert!(!answer.contains("5ecbe7") && !answer.contains("yAnz5TF"), "{answer}");
    }
}

proptest! {
    #[test]
    fn a_change_as_wg_writes_it_is_read_back_the_same(update in any_update()) {
        let text = as_wg_writes(&update);
        prop_assert_eq!(parse_set(text.lines()), Ok(update.clone()));
        let whole = format!("set=1\n{text}\n");
        prop_assert_eq!(conversation(whole.as_bytes()), vec![Ok(Request::Set(update))]);
    }
}
