//! Files, good and bad.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::key::LENGTH;

/// Keys of the manual pages.
const OURS: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const FIRST: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const SECOND: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const THIRD: &str = "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=";
const SHARED: &str = "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak=";
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn parsed(text: &str) -> Result<File, Vec<String>> {
    parse(text.as_bytes()).map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

/// The file when it holds one peer and these lines for it.
fn peer(lines: &str) -> Result<FilePeer, Vec<String>> {
    parsed(&format!("[Peer]\nPublicKey = {FIRST}\n{lines}\n")).map(|mut file| file.peers.remove(0))
}

fn first() -> FilePeer {
    FilePeer::new(FIRST.parse().unwrap())
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_example_of_wg_loads_unchanged() {
    let text = include_bytes!("../../../tests/data/wireguard/wg-example.conf");
    let peer = |key: &str, endpoint: &str, allowed_ips: &[&str]| FilePeer {
        endpoint: Some(endpoint.parse().unwrap()),
        allowed_ips: nets(allowed_ips),
        ..FilePeer::new(key.parse().unwrap())
    };
    let expected = File {
        private_key: Some(OURS.parse().unwrap()),
        listen_port: Some(51820),
        peers: vec![
            peer(FIRST, "192.95.5.67:1234", &["10.192.122.3/32", "10.192.124.0/24"]),
            peer(SECOND, "[2607:5300:60:6b0::c05f:543]:2468", &["10.192.122.4/32", "192.168.0.0/16"]),
            peer(THIRD, "test.wireguard.com:18981", &["10.10.10.230/32"]),
        ],
        warnings: vec![Problem {
            line: 8,
            reason: "AllowedIPs: 10.192.124.1/24 is the whole range 10.192.124.0/24; did you mean 10.192.124.1/32?"
                .to_owned(),
        }],
        ..File::default()
    };
    assert_eq!(parse(text), Ok(expected));
}

#[test]
fn every_key_of_wg_and_wg_quick_is_known() {
    let text = format!(
        "\u{feff}# A laptop\r\n[interface]\r\nprivatekey={OURS} # secret\r\nLISTENPORT = 0\r\nFwMark = 0xca6c\r\n\
         Address = 10.200.100.8/24, fd00::8\r\nAddress = 10.200.101.8 10.200.102.8/32\r\nMTU = 1420\r\nTable = 1234\r\n\
         DNS = 10.200.100.1\r\nPreUp = iptables -A INPUT -j DROP # not run\r\nPostUp = a=b\r\nPreDown = c\r\n\
         PostDown = d\r\nSaveConfig = true\r\n\r\n\
         [PEER]\r\nPublicKey={FIRST}\r\nPresharedKey={SHARED}\r\nAllowedIPs=0.0.0.0/0\r\nAllowedIPs=::/0\r\n\
         Endpoint=demo.wireguard.com:51820\r\nPersistentKeepalive=25"
    );
    let ignored = |line, key| Ignored { line, key, sets: vec![] };
    let expected = File {
        private_key: Some(OURS.parse().unwrap()),
        listen_port: Some(0),
        fwmark: Some(0xca6c),
        addresses: nets(&["10.200.100.8/24", "fd00::8/128", "10.200.101.8/32", "10.200.102.8/32"]),
        mtu: Some(1420),
        table: Table::Number(1234),
        peers: vec![FilePeer {
            preshared_key: Some(SHARED.parse().unwrap()),
            allowed_ips: nets(&["0.0.0.0/0", "::/0"]),
            endpoint: Some(EndpointName::Name { host: "demo.wireguard.com".to_owned(), port: 51820 }),
            persistent_keepalive: Some(25),
            ..first()
        }],
        ignored: vec![
            ignored(10, "DNS"),
            ignored(11, "PreUp"),
            ignored(12, "PostUp"),
            ignored(13, "PreDown"),
            ignored(14, "PostDown"),
            ignored(15, "SaveConfig"),
        ],
        warnings: vec![],
    };
    assert_eq!(parsed(&text), Ok(expected));
}

#[test]
fn an_empty_file_sets_nothing() {
    for text in ["", "\n\n", "# only a comment", "[Interface]\n"] {
        assert_eq!(parsed(text), Ok(File::default()), "{text}");
    }
}

#[test]
fn off_and_zeroes_mean_none() {
    let text = format!("[Interface]\nPrivateKey = {NONE}\nFwMark = OFF\nTable = off\n");
    assert_eq!(parsed(&text), Ok(File { fwmark: Some(0), table: Table::Off, ..File::default() }));
    let lines = format!("PresharedKey = {NONE}\nPersistentKeepalive = off");
    assert_eq!(peer(&lines), Ok(FilePeer { persistent_keepalive: Some(0), ..first() }));
}

#[test]
fn a_table_may_have_a_name() {
    for (text, table) in [
        ("auto", Table::Auto),
        ("Main", Table::Number(254)),
        ("default", Table::Number(253)),
        ("local", Table::Number(255)),
        ("0x10", Table::Number(16)),
        ("4294967295", Table::Number(u32::MAX)),
    ] {
        assert_eq!(parsed(&format!("[Interface]\nTable = {text}")).map(|file| file.table), Ok(table), "{text}");
    }
}

#[test]
fn allowed_ips_are_added_and_removed_in_their_order() {
    for (lines, expected) in [
        ("AllowedIPs =", &[][..]),
        ("AllowedIPs = 10.0.0.1", &["10.0.0.1/32"]),
        ("AllowedIPs = 2001:db8::1", &["2001:db8::1/128"]),
        ("AllowedIPs = 10.1.2.3/8,10.0.0.0/8", &["10.0.0.0/8"]),
        ("AllowedIPs = 10.0.0.2/32\nAllowedIPs = +10.0.0.1/32", &["10.0.0.2/32", "10.0.0.1/32"]),
        ("AllowedIPs = 10.0.0.1/32, 10.0.0.2/32, -10.0.0.1/32", &["10.0.0.2/32"]),
        ("AllowedIPs = 10.0.0.1/32, 10.0.0.2/32, -10.0.0.1, 10.0.0.1", &["10.0.0.2/32", "10.0.0.1/32"]),
        ("AllowedIPs = -10.0.0.1/32", &[]),
    ] {
        assert_eq!(peer(lines).map(|peer| peer.allowed_ips), Ok(nets(expected)), "{lines}");
    }
}

#[test]
fn an_address_of_version_6_needs_no_brackets() {
    let endpoint = Some("[2001:db8::1]:51820".parse().unwrap());
    assert_eq!(peer("Endpoint = 2001:db8::1:51820"), Ok(FilePeer { endpoint, ..first() }));
    for text in ["[fe80::1%eth0]:51820", "fe80::1%eth0:51820"] {
        let endpoint = Some("[fe80::1%eth0]:51820".parse().unwrap());
        assert_eq!(peer(&format!("Endpoint = {text}")), Ok(FilePeer { endpoint, ..first() }), "{text}");
    }
}

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let text = format!(
        "ListenPort = 1\n[Interface]\nPrivateKey = short\nListenPort = 65536\nlistenport = 1\nFwMark = blue\n\
         Address = 10.0.0.1/33, 10.0.0.2/24, nowhere\nMTU = 67\nTable = 0\n\
         Adress = 10.0.0.1\nPublicKey = {FIRST}\ntext\n\
         [Interface]\nMTU = 1420\n[Colour]\nshade = 1\n[Peer]\nAllowedIPs = 10.0.0.0/8\n\
         [Peer]\nPublicKey = {FIRST}\nPresharedKey = {OURS}A\nAllowedIPs = 10.0.0.0/8, 10.0.0, ,-x\n\
         Endpoint = 192.0.2.1\n\
         PersistentKeepalive = 65536\nMTU = 1\nPublicKey = {SECOND}\n\
         [Peer]\nPublicKey = {FIRST}\nColour = 7\n[Peer]\nPublicKey = no\n"
    );
    let no_key = "not a WireGuard key: 32 bytes are written as 44 characters of base64 that end in `=`, as `wg \
         genkey` prints them";
    let expected = [
        "line 1: a section, [Interface] or [Peer], has to come first",
        &format!("line 3: PrivateKey: {no_key}"),
        "line 4: ListenPort: `65536` is not a port (0 to 65535)",
        "line 6: FwMark: `blue` is not off or a number of 32 bits",
        "line 7: Address: `10.0.0.1/33` is no address, as in 10.0.0.1/24",
        "line 7: Address: `nowhere` is no address, as in 10.0.0.1/24",
        "line 8: MTU: `67` is not a number of bytes (68 to 65535)",
        "line 9: Table: `0` is not auto, off or the number of a routing table (1 to 4294967295)",
        "line 10: `Adress` is no key; did you mean Address?",
        "line 11: `PublicKey` belongs to [Peer]",
        "line 12: neither a section in brackets nor `Key = value`",
        "line 15: `Colour` is no section; there are [Interface] and [Peer]",
        "line 17: [Peer] needs a PublicKey",
        &format!("line 21: PresharedKey: {no_key}"),
        "line 22: AllowedIPs: `10.0.0` is no prefix, as in 10.0.0.0/24",
        "line 22: AllowedIPs: an empty value is no prefix, as in 10.0.0.0/24",
        "line 22: AllowedIPs: `x` is no prefix, as in 10.0.0.0/24",
        "line 23: Endpoint: `192.0.2.1` is not an address or a name with a port, as in 192.0.2.1:51820, \
         [2001:db8::1]:51820, [fe80::1%eth0]:51820",
        "line 24: PersistentKeepalive: `65536` is not off or a number of seconds (0 to 65535)",
        "line 25: `MTU` belongs to [Interface]",
        "line 29: `Colour` is no key",
        &format!("line 31: PublicKey: {no_key}"),
    ];
    assert_eq!(parsed(&text), Err(expected.map(str::to_owned).to_vec()));
}

#[test]
fn a_secret_is_never_repeated() {
    for line in [
        format!("PrivateKey = {OURS}x"),
        format!("PrivateKey = \"{OURS}\""),
        format!("PrivateKy = {OURS}"),
        format!("ListenPort = {OURS}"),
        format!("Address = {OURS}"),
        format!("Table = {OURS}"),
        OURS.to_owned(),
        format!("[{OURS}]"),
        format!("[Peer]\nPresharedKey = {OURS}x\nEndpoint = {OURS}\nAllowedIPs = {OURS}\nPersistentKeepalive = {OURS}"),
    ] {
        let problems = parsed(&format!("[Interface]\n{line}\n")).unwrap_err().join("\n");
        assert!(!problems.contains("yAnz5TF"), "{problems}");
    }
}

#[test]
fn invalid_utf_8_is_reported_except_in_a_comment_and_in_what_is_ignored() {
    let problem = Problem { line: 2, reason: "not UTF-8 text".to_owned() };
    assert_eq!(parse(b"[Interface]\nMTU = \xff\n# caf\xe9\n"), Err(vec![problem]));
    assert_eq!(parse(b"[Interface] # caf\xe9\n"), Ok(File::default()));
    let file = parse(b"[Interface]\r\nPostUp = echo caf\xe9\r\nMTU = 1400 # \xfc\r\n").unwrap();
    assert_eq!((file.mtu, file.ignored.len()), (Some(1400), 1));
}

#[test]
fn utf_16_and_bytes_of_zero_are_named() {
    let text = "[Interface]\nMTU = 1400\n";
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for bytes in [[b"\xff\xfe", &little[..]].concat(), [b"\xfe\xff", &big[..]].concat(), little, big] {
        let reason = "UTF-16 text; save the file as UTF-8 (iconv -f UTF-16 -t UTF-8)".to_owned();
        assert_eq!(parse(&bytes), Err(vec![Problem { line: 1, reason }]));
    }
    let reason = "a byte of zero; save the file as UTF-8 text".to_owned();
    assert_eq!(parse(b"[Interface]\nMTU = 1400\0\n"), Err(vec![Problem { line: 2, reason }]));
}

/// What is read, and the warnings about it.
fn doubtful(text: &str) -> (File, Vec<String>) {
    let mut file = parse(text.as_bytes()).unwrap();
    let warnings = std::mem::take(&mut file.warnings);
    (file, warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn what_is_there_twice_or_blank_is_read_as_wg_reads_it_with_a_warning() {
    let text = format!(
        "[Interface]\nMTU =\nTable = # none\nListenPort = 1\n[Peer]\nPublicKey = {FIRST}\nAllowedIPs = 10.0.0.1/32, \
         10.0.0.2/32\nEndpoint = 192.0.2.1:1\nPersistentKeepalive = 5\n[Interface]\nlistenport = 2\n\
         [Peer]\nPublicKey = {SECOND}\nAllowedIPs = 10.0.0.2/32, 10.0.0.9/24\n\
         [Peer]\nAllowedIPs = 10.0.0.3/32\nPublicKey = {FIRST}\n"
    );
    let (file, warnings) = doubtful(&text);
    assert_eq!((file.mtu, file.table, file.listen_port), (None, Table::Auto, Some(2)));
    let peers = vec![
        FilePeer { allowed_ips: nets(&["10.0.0.3/32"]), endpoint: "192.0.2.1:1".parse().ok(), ..first() },
        FilePeer { allowed_ips: nets(&["10.0.0.2/32", "10.0.0.0/24"]), ..FilePeer::new(SECOND.parse().unwrap()) },
    ];
    assert_eq!(file.peers, peers);
    assert_eq!(
        warnings,
        [
            "line 2: MTU has no value; it is left out, as with wg-quick",
            "line 3: Table has no value; it is left out, as with wg-quick",
            "line 10: [Interface] is there already, in line 1; both count, as with wg-quick",
            "line 11: ListenPort is there already, in line 4; the last one counts, as with wg",
            "line 14: AllowedIPs: the peer of line 5 has 10.0.0.2/32, too; the last one has it, as with wg",
            "line 14: AllowedIPs: 10.0.0.9/24 is the whole range 10.0.0.0/24; did you mean 10.0.0.9/32?",
            "line 15: the peer of line 5 has this PublicKey, too; the last one counts, as with wg",
        ]
    );
    let (file, warnings) = doubtful("[Interface]\nMTU = 1300\nmtu = 1400\n");
    assert_eq!((file.mtu, warnings.len()), (Some(1400), 1));
}

#[test]
fn white_space_is_taken_away_where_wg_takes_it_away() {
    let (file, warnings) = doubtful(&format!(
        "  [interface]  \n\tListen Port\t=\t51 820\n[PEER]\npublic key={FIRST}\nallowed ips = 10.0.0.1 / 32 ,10.0.0.2\n\
         end point = 192.0.2.1 : 1\n"
    ));
    assert_eq!((file.listen_port, warnings.len()), (Some(51820), 0));
    let peer = FilePeer {
        allowed_ips: nets(&["10.0.0.1/32", "10.0.0.2/32"]),
        endpoint: "192.0.2.1:1".parse().ok(),
        ..first()
    };
    assert_eq!(file.peers, [peer]);
    assert!(parse(b"[Interface]\nM T U = 1400\n").is_err(), "wg-quick does not take it away");
}

#[test]
fn reading_a_file_of_another_kind_stops_soon() {
    let problems = parse("nonsense\n".repeat(100_000).as_bytes()).unwrap_err();
    assert_eq!((problems.len(), problems.iter().map(|problem| problem.line).max()), (101, Some(100)));
    let problems = parse(&vec![b'\n'; MAX_BYTES + 1]).unwrap_err();
    assert_eq!(problems[0].to_string(), "line 1: more than 4194304 bytes are no configuration");
}

#[test]
fn ten_thousand_peers_are_read() {
    let mut text = "[Interface]\n".to_owned();
    let mut peers = Vec::new();
    for number in 0..10_000_u32 {
        let mut key = [7; LENGTH];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let address = IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        peers.push(FilePeer { allowed_ips: vec![address], ..FilePeer::new(PublicKey(key)) });
        writeln!(text, "[Peer]\nPublicKey = {}\nAllowedIPs = {address}", PublicKey(key)).unwrap();
    }
    assert_eq!(parsed(&text), Ok(File { peers, ..File::default() }));
}

/// The file as a person would write it. Its text is a secret too; only tests print it.
fn printed(file: &File) -> String {
    let File { private_key, listen_port, fwmark, addresses, mtu, table, peers, ignored, warnings } = file;
    assert_eq!(*warnings, vec![]);
    assert_eq!(*ignored, vec![], "what is ignored is not kept, so it cannot be printed");
    let mut text = "[Interface]\n".to_owned();
    let mut line = |key: &str, value: &dyn fmt::Display| writeln!(text, "{key} = {value}").unwrap();
    let list = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ");
    if let Some(key) = private_key {
        line("PrivateKey", &*key.to_base64());
    }
    if let Some(port) = listen_port {
        line("ListenPort", port);
    }
    if let Some(mark) = fwmark {
        line("FwMark", &format_args!("{mark:#x}"));
    }
    line("Address", &list(addresses));
    if let Some(mtu) = mtu {
        line("MTU", mtu);
    }
    match table {
        Table::Auto => {}
        Table::Off => line("Table", &"off"),
        Table::Number(number) => line("Table", number),
    }
    for peer in peers {
        line("\n[Peer]\nPublicKey", &peer.public_key);
        if let Some(key) = &peer.preshared_key {
            line("PresharedKey", &*key.to_base64());
        }
        line("AllowedIPs", &list(&peer.allowed_ips));
        if let Some(endpoint) = &peer.endpoint {
            line("Endpoint", endpoint);
        }
        if let Some(seconds) = peer.persistent_keepalive {
            line("PersistentKeepalive", &seconds);
        }
    }
    text
}

fn any_address() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=128_u8).prop_map(|(address, length)| {
        let length = if address.is_ipv4() { length % 33 } else { length };
        IpNet::new(address, length).unwrap()
    })
}

fn any_endpoint() -> impl Strategy<Value = EndpointName> {
    let address = any::<(IpAddr, u16)>().prop_map(|(ip, port)| EndpointName::Address(SocketAddr::new(ip, port.max(1))));
    let name = ("[a-z0-9]{1,10}(\\.[a-z]{1,10}){0,2}[a-z]\\.?", 1..=u16::MAX);
    prop_oneof![address, name.prop_map(|(host, port)| EndpointName::Name { host, port })]
}

prop_compose! {
    fn any_peer()(
        public_key in any::<[u8; LENGTH]>(),
        preshared_key in option::of(any::<[u8; LENGTH]>()),
        allowed_ips in vec(any_address(), 0..4),
        endpoint in option::of(any_endpoint()),
        persistent_keepalive in option::of(any::<u16>()),
    ) -> FilePeer {
        FilePeer {
            public_key: PublicKey(public_key),
            preshared_key: preshared_key.map(PresharedKey).filter(|key| !key.is_none()),
            allowed_ips: allowed_ips.into_iter().map(|net| net.trunc()).collect(),
            endpoint,
            persistent_keepalive,
        }
    }
}

prop_compose! {
    fn any_file()(
        private_key in option::of(any::<[u8; LENGTH]>().prop_map(PrivateKey::from_bytes)),
        listen_port in option::of(any::<u16>()),
        fwmark in option::of(any::<u32>()),
        addresses in vec(any_address(), 0..4),
        mtu in option::of(68..=65535_u32),
        table in prop_oneof![Just(Table::Auto), Just(Table::Off), (1..=u32::MAX).prop_map(Table::Number)],
        mut peers in vec(any_peer(), 0..4),
    ) -> File {
        // Of two peers with the same key or prefix, the last one counts.
        let (mut keys, mut nets) = (BTreeSet::new(), BTreeSet::new());
        peers.retain(|peer| keys.insert(peer.public_key));
        for peer in &mut peers {
            peer.allowed_ips.retain(|&net| nets.insert(net));
        }
        File { private_key, listen_port, fwmark, addresses, mtu, table, peers, ignored: vec![], warnings: vec![] }
    }
}

proptest! {
    #[test]
    fn a_file_that_is_printed_is_read_back_the_same(file in any_file()) {
        prop_assert_eq!(parsed(&printed(&file)), Ok(file));
    }
}
