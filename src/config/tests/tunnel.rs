//! The tunnel: peers in files of their own, keys in files, the port that the firewall opens, and warnings.

use super::*;

const ADA: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const BOB: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
// RFC 7748 section 6.1: Alice's private and public key.
const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

/// A tunnel without warnings, with `text` below it.
fn with_address(text: &str) -> String {
    format!("[wireguard]\naddresses = [\"10.100.0.1/24\"]\n{text}")
}

fn peer(key: &str, allowed_ip: &str) -> String {
    format!("public_key = \"{key}\"\nallowed_ips = [\"{allowed_ip}\"]\n")
}

fn checked(text: &str, files: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let files = files.iter().copied().collect::<InMemory>();
    parse_with(text, &Environment::default(), &files)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn warnings(text: &str) -> Vec<String> {
    checked(text, &[]).unwrap().warnings.iter().map(ToString::to_string).collect()
}

fn ports(text: &str) -> (Option<u16>, Option<u16>) {
    let config = parse(text, &Environment::default()).unwrap();
    (config.firewall.wireguard_port, config.wireguard.map(|tunnel| tunnel.listen_port))
}

#[test]
fn the_firewall_opens_the_port_that_the_tunnel_listens_on() {
    for (text, expected) in [
        ("", (Some(51820), None)),
        ("firewall.wireguard_port = \"auto\"", (Some(51820), None)),
        ("firewall.wireguard_port = 4242", (Some(4242), None)),
        ("firewall.wireguard_port = false", (None, None)),
        ("[wireguard]", (Some(51820), Some(51820))),
        ("wireguard.listen_port = 4242", (Some(4242), Some(4242))),
        ("wireguard.listen_port = 4242\nfirewall.wireguard_port = 4242", (Some(4242), Some(4242))),
        ("wireguard.listen_port = 4242\nfirewall.wireguard_port = false", (None, Some(4242))),
        ("firewall.wireguard_port = 4242\n[wireguard]", (Some(4242), Some(4242))),
        ("wireguard = { enabled = false, listen_port = 4242 }", (None, None)),
        ("firewall.wireguard_port = 4242\nwireguard.enabled = false", (Some(4242), None)),
    ] {
        assert_eq!(ports(text), expected, "{text}");
    }
}

#[test]
fn a_peer_can_have_a_file_of_its_own_and_gets_its_name_from_it() {
    let files = [
        ("peers.d/ada.toml", peer(ADA, "10.100.0.2")),
        ("peers.d/zoe.toml", format!("name = \"Bob\"\n{}", peer(BOB, "10.100.0.3"))),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let peer = |name: &str, key: &str, address: &str| Peer {
        name: Some(name.to_owned()),
        public_key: key.parse().unwrap(),
        preshared_key: None,
        allowed_ips: vec![address.parse().unwrap()],
        in_private_network: false,
        endpoint: None,
        persistent_keepalive: None,
        enabled: true,
        expires: None,
        access: PeerAccess::default(),
    };
    let expected =
        Wireguard { peers: vec![peer("ada", ADA, "10.100.0.2/32"), peer("Bob", BOB, "10.100.0.3/32")], ..tunnel() };
    assert_eq!(checked("", &files).unwrap().wireguard, Some(expected), "a peer is enough for a tunnel");
    assert_eq!(checked("wireguard.enabled = false", &files).unwrap().wireguard, None);
}

#[test]
fn all_errors_in_peer_files_are_reported_at_once_with_the_files_names() {
    let ada = peer(ADA, "10.100.0.2");
    let block = with_address(&format!("[[wireguard.peer]]\nname = \"bob\"\n{}", peer(BOB, "10.100.0.3")));
    let files = [
        ("peers.d/ada.toml", ada.as_str()),
        ("peers.d/bob.toml", "allowed_ip = []\nendpoint = \"here\"\npersistent_keepalive = 0\n"),
        ("peers.d/copy.toml", ada.as_str()),
        ("peers.d/torn.toml", "public_key = \""),
    ];
    assert_eq!(
        checked(&block, &files),
        Err([
            "peers.d/bob.toml: allowed_ip: unknown key; did you mean `wireguard.peer.allowed_ips`?",
            "peers.d/bob.toml: endpoint: `here` is not an endpoint (like 192.0.2.7:51820, [2001:db8::7]:51820 or \
             vpn.example.org:51820)",
            "peers.d/bob.toml: name: is also the name of wireguard.peer[0]; choose another name",
            "peers.d/bob.toml: persistent_keepalive: 0 is not between 1 and 65535 seconds; remove the key for no \
             keepalives",
            "peers.d/bob.toml: public_key: is missing: `wg pubkey` derives it from the peer's private key",
            "peers.d/copy.toml: allowed_ips[0]: 10.100.0.2/32 is also in allowed_ips of peers.d/ada.toml; a range can \
             belong to only one peer",
            "peers.d/copy.toml: public_key: is also the key of peers.d/ada.toml; make a key for each peer",
            "peers.d/torn.toml: line 1, column 15: invalid basic string, expected `\"`",
        ]
        .map(str::to_owned)
        .to_vec())
    );
}

#[test]
fn the_private_key_comes_from_its_key_file_the_credential_or_the_state_directory() {
    let state = ("/state/wireguard.key", PRIVATE);
    let credential = ("/credentials/wireguard-private-key", PRIVATE);
    let named = ("/srv/key", PRIVATE);
    let written = "wireguard.private_key_file = \"/srv/key\"";
    let environment = Environment {
        credentials_directory: Some("/credentials".into()),
        state_directory: Some("/state".into()),
        ..Environment::default()
    };
    for (text, files, path, is_there) in [
        ("[wireguard]", vec![], "/state/wireguard.key", false),
        ("[wireguard]", vec![state], "/state/wireguard.key", true),
        ("[wireguard]", vec![state, credential], "/credentials/wireguard-private-key", true),
        (written, vec![state, credential, named], "/srv/key", true),
        (written, vec![state, credential], "/srv/key", false),
    ] {
        let files = files.into_iter().collect::<InMemory>();
        let tunnel = parse_with(text, &environment, &files).unwrap().wireguard.unwrap();
        assert_eq!(tunnel.private_key_file, Path::new(path), "{text} {files:?}");
        assert_eq!(tunnel.private_key.map(|key| key.public().to_string()), is_there.then(|| PUBLIC.to_owned()));
    }
}

#[test]
fn an_invalid_key_is_reported_without_its_text() {
    let secret = "c2VjcmV0";
    let files = [("/srv/key", secret), ("/srv/psk", "")];
    let text = format!(
        "[wireguard]\nprivate_key_file = \"/srv/key\"\n[[wireguard.peer]]\npublic_key = \"{ADA}\"\n\
         preshared_key = \"{secret}\"\n[[wireguard.peer]]\npublic_key = \"{BOB}\"\npreshared_key_file = \"/srv/psk\"\n\
         [[wireguard.peer]]\npublic_key = \"{PUBLIC}\"\npreshared_key_file = \"/srv/gone\"\n"
    );
    let problems = checked(&text, &files).unwrap_err();
    let no_key = "not a WireGuard key: 32 bytes are written as 44 characters of base64 that end in `=`, as `wg genkey` \
                  prints them";
    assert_eq!(
        problems,
        [
            format!("wireguard.peer[0].preshared_key: {no_key}"),
            format!("wireguard.peer[1].preshared_key_file: /srv/psk does not hold a key: {no_key}"),
            "wireguard.peer[2].preshared_key_file: cannot read /srv/gone: No such file or directory (os error 2)"
                .to_owned(),
            format!("wireguard.private_key_file: /srv/key does not hold a key: {no_key}"),
        ]
    );
    assert!(!problems.join("").contains(secret));
}

#[test]
fn a_world_readable_secret_gets_a_warning_with_the_command_that_protects_it() {
    let inline = format!("{}preshared_key = \"{PRIVATE}\"\n", peer(ADA, "10.100.0.2"));
    let named = with_address(&format!(
        "[[wireguard.peer]]\n{}preshared_key_file = \"/srv/world-readable\"\n",
        peer(BOB, "10.100.0.3")
    ));
    let files = [("peers.d/world-readable", inline.as_str()), ("/srv/world-readable", PRIVATE)];
    let config = checked(&named, &files).unwrap();
    assert_eq!(
        config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "peers.d/world-readable: preshared_key: every user of this server can read it; run `chgrp bastiond` and \
             `chmod 640` on the file, or move the key into a preshared_key_file",
            "wireguard.peer[0].preshared_key_file: every user of this server can read /srv/world-readable, which \
             holds a secret; run `chgrp bastiond /srv/world-readable && chmod 640 /srv/world-readable`",
        ]
    );
}

#[test]
fn a_peer_cannot_have_this_servers_own_key() {
    let files = [("/srv/key", PRIVATE)];
    let text =
        with_address(&format!("private_key_file = \"/srv/key\"\n[[wireguard.peer]]\n{}", peer(PUBLIC, "10.100.0.2")));
    assert_eq!(
        checked(&text, &files),
        Err(vec!["wireguard.peer[0].public_key: is this server's own key; write the peer's public key".to_owned()])
    );
}

#[test]
fn a_world_readable_file_with_a_secret_gets_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let key_file = directory.path().join("key");
    std::fs::write(&key_file, PRIVATE).unwrap();
    let text = format!(
        "private_key_file = {key_file:?}\n[[wireguard.peer]]\npreshared_key = \"{PRIVATE}\"\n{}",
        peer(ADA, "10.100.0.2")
    );
    std::fs::write(&path, with_address(&text)).unwrap();
    let warned = |mode| -> Vec<String> {
        use std::os::unix::fs::PermissionsExt;
        for file in [&path, &key_file] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        load(&path, &Environment::default()).unwrap().warnings.into_iter().map(|warning| warning.key).collect()
    };
    assert_eq!(warned(0o640), [""; 0]);
    assert_eq!(warned(0o644), ["wireguard.private_key_file", "wireguard.peer[0].preshared_key"]);
}

#[test]
fn an_entry_of_peers_d_that_is_no_peers_file_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    let at = |name: &str| directory.path().join("peers.d").join(name);
    std::fs::write(&config, "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n").unwrap();
    std::fs::create_dir_all(at("team.toml")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("eve.toml")).unwrap();
    let ignored = ["bob.conf", "carol", "dan.TOML", "ada.toml~", "ada.toml.bak", ".ada.toml.swp", "#ada.toml#"];
    for name in ignored.into_iter().chain(["ada.toml", "ada.key", "ada.psk", ".gitignore"]) {
        std::fs::write(at(name), peer(ADA, "10.100.0.2")).unwrap();
    }
    let loaded = load(&config, &Environment::default()).unwrap();
    assert_eq!(loaded.wireguard.unwrap().peers.len(), 1);
    let mut warned: Vec<&str> = loaded.warnings.iter().map(|warning| warning.key.as_str()).collect();
    warned.sort_unstable();
    let mut expected: Vec<String> =
        ignored.into_iter().chain(["team.toml", "eve.toml"]).map(|name| format!("peers.d/{name}")).collect();
    expected.sort();
    assert_eq!(warned, expected);
    let dan = loaded.warnings.iter().find(|warning| warning.key == "peers.d/dan.TOML").unwrap();
    assert_eq!(dan.reason, "its name does not end with .toml, so it is no peer's file and is not used");
}

#[test]
fn backup_files_of_editors_in_peers_d_are_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, with_address("")).unwrap();
    std::fs::create_dir(directory.path().join("peers.d")).unwrap();
    for name in ["ada.toml", "ada.toml~", ".ada.toml", "README"] {
        std::fs::write(directory.path().join("peers.d").join(name), peer(ADA, "10.100.0.2")).unwrap();
    }
    let names: Vec<_> =
        load(&path, &Environment::default()).unwrap().wireguard.unwrap().peers.iter().map(Peer::label).collect();
    assert_eq!(names, ["ada"]);
}

#[test]
fn a_probable_mistake_in_the_tunnel_gets_a_warning() {
    let with_peer = |allowed_ip: &str| {
        let link = "[[site.private]]\ninterface = \"eth1\"\nnetwork = \"10.0.0.0/16\"\n";
        with_address(&format!("[[wireguard.peer]]\n{}{link}", peer(ADA, allowed_ip)))
    };
    assert_eq!(warnings(&with_peer("10.100.0.2")), [""; 0]);
    for (allowed_ip, warned) in [
        ("10.100.0.0/24", "10.100.0.0/24 covers this server's own address 10.100.0.1; write narrower ranges"),
        (
            "0.0.0.0/0",
            "0.0.0.0/0 covers every address: this server sends the peer only what narrower allowed_ips cover, and \
             adds no route for 0.0.0.0/0",
        ),
    ] {
        assert_eq!(warnings(&with_peer(allowed_ip)), [format!("wireguard.peer[0].allowed_ips[0]: {warned}")]);
    }
    assert_eq!(
        warnings(&with_address(&format!("[[wireguard.peer]]\npublic_key = \"{ADA}\""))),
        ["wireguard.peer[0].allowed_ips: is empty, so no packet can be sent to this peer or accepted from it; \
          list its addresses"]
    );
}

#[test]
fn a_range_of_the_tunnel_that_would_cut_off_what_the_file_names_is_refused() {
    let link = "[[site.private]]\ninterface = \"eth1\"\nnetwork = \"10.0.0.0/16\"\naddress = \"10.0.0.2\"\n";
    let with_peer = |allowed_ip: &str, rest: &str| {
        problems_of(&with_address(&format!("[[wireguard.peer]]\n{}{rest}\n{link}", peer(ADA, allowed_ip))))
    };
    for (allowed_ip, reason) in [
        (
            "10.0.5.0/24",
            "10.0.5.0/24 is inside 10.0.0.0/16 (site.private[0].network), so its packets would go to the peer \
             instead of \
             the private network; write another range, or set the peer's in_private_network = true if these hosts are \
             behind it",
        ),
        (
            "10.0.0.0/15",
            "10.0.0.0/15 covers 10.0.0.0/16 (site.private[0].network), so the network would lead into the \
             tunnel; write \
             ranges without that network",
        ),
        ("10.0.0.2", "10.0.0.2/32 contains 10.0.0.2, this server's own address (site.private[0].address)"),
        (
            "172.31.1.1",
            "172.31.1.1/32 contains 172.31.1.1, the gateway of Hetzner's public links, which this server must reach; \
             write ranges without it",
        ),
        (
            "172.16.0.0/12",
            "172.16.0.0/12 contains 172.31.1.1, the gateway of Hetzner's public links, which this server must reach; \
             write ranges without it",
        ),
        (
            "185.12.64.0/24",
            "185.12.64.0/24 contains 185.12.64.1, a resolver of Hetzner's, which this server must reach; write ranges \
             without it",
        ),
    ] {
        assert_eq!(with_peer(allowed_ip, ""), [format!("wireguard.peer[0].allowed_ips[0]: {reason}")]);
    }
    assert_eq!(
        with_peer("203.0.113.0/24", "endpoint = \"203.0.113.5:51820\""),
        ["wireguard.peer[0].allowed_ips[0]: 203.0.113.0/24 contains 203.0.113.5, the peer's own endpoint, so \
             the tunnel's \
          packets would go into the tunnel; write ranges without it"]
    );
    // Hosts of a network may be behind a peer, if a person says so; this server itself and a whole network never are.
    assert_eq!(with_peer("10.0.5.0/24", "in_private_network = true"), [""; 0]);
    for allowed_ip in ["10.0.0.0/24", "10.0.0.0/16"] {
        assert_eq!(with_peer(allowed_ip, "in_private_network = true").len(), 1, "{allowed_ip}");
    }
    for (address, reason) in [
        ("10.0.1.40/24", "10.0.1.0/24 is inside 10.0.0.0/16 (site.private[0].network); choose another network"),
        (
            "172.31.0.1/16",
            "172.31.0.0/16 contains 172.31.1.1, the gateway of Hetzner's public links; choose another network",
        ),
    ] {
        let problems = problems_of(&format!("[wireguard]\naddresses = [\"{address}\"]\n{link}"));
        assert_eq!(problems, [format!("wireguard.addresses[0]: {reason}")]);
    }
}

#[test]
fn an_mtu_is_within_the_limits_of_ip() {
    let is_valid = |mtu: u32, address: &str| {
        problems_of(&format!("[wireguard]\nmtu = {mtu}\naddresses = [\"{address}\"]")).is_empty()
    };
    for (mtu, v4, v6) in [
        (575, false, false),
        (576, true, false),
        (1279, true, false),
        (1280, true, true),
        (65455, true, true),
        (65456, false, false),
    ] {
        assert_eq!((is_valid(mtu, "10.100.0.1/24"), is_valid(mtu, "fd00::1/64")), (v4, v6), "{mtu}");
    }
}

#[test]
fn ten_thousand_peers_are_checked_within_20_seconds() {
    let block = |n: u32| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        let key = bastiond_tunnel::key::PublicKey(key);
        let address = Ipv4Addr::from(0x0a64_0002 + n);
        format!("[[wireguard.peer]]\npublic_key = \"{key}\"\nallowed_ips = [\"{address}\"]\n")
    };
    let peers = (0..10_000).map(block).collect::<Vec<_>>().concat();
    let text = format!("[wireguard]\naddresses = [\"10.100.0.1/16\"]\n{peers}");
    let started = std::time::Instant::now();
    let tunnel = parse(&text, &Environment::default()).unwrap().wireguard.unwrap();
    assert_eq!((tunnel.peers.len(), tunnel.remote_networks().count()), (10_000, 0));
    // An idle machine takes a tenth of it; a quadratic check takes minutes.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn remote_networks_are_the_allowed_ips_outside_the_tunnels_own_networks() {
    let peers = [(ADA, "10.100.0.2"), (BOB, "192.168.178.0/24"), (PUBLIC, "0.0.0.0/0")]
        .map(|(key, allowed_ip)| format!("[[wireguard.peer]]\n{}", peer(key, allowed_ip)));
    let tunnel = checked(&with_address(&peers.join("")), &[]).unwrap().wireguard.unwrap();
    assert_eq!(
        tunnel.remote_networks().map(|(_, range)| range).collect::<Vec<_>>(),
        ["192.168.178.0/24".parse::<IpNet>().unwrap()]
    );
}

const WG_EXAMPLE: &str = include_str!("../../../tests/data/wireguard/wg-example.conf");

#[test]
fn the_example_file_of_wg_is_used_unchanged() {
    let config =
        checked("wireguard.file = \"/etc/wireguard/wg-office.conf\"", &[("/etc/wireguard/wg-office.conf", WG_EXAMPLE)]);
    let peer = |key: &str, allowed_ips: &[&str], endpoint: &str| Peer {
        name: None,
        public_key: key.parse().unwrap(),
        preshared_key: None,
        allowed_ips: allowed_ips.iter().map(|text| text.parse().unwrap()).collect(),
        in_private_network: false,
        endpoint: Some(endpoint.parse().unwrap()),
        persistent_keepalive: None,
        enabled: true,
        expires: None,
        access: PeerAccess::default(),
    };
    let expected = Wireguard {
        interface: "wg-office".parse().unwrap(),
        private_key: Some("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=".parse().unwrap()),
        private_key_file: "/etc/wireguard/wg-office.conf".into(),
        is_key_in_wg_file: true,
        peers: vec![
            peer(ADA, &["10.192.122.3/32", "10.192.124.0/24"], "192.95.5.67:1234"),
            peer(BOB, &["10.192.122.4/32", "192.168.0.0/16"], "[2607:5300:60:6b0::c05f:543]:2468"),
            peer("gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=", &["10.10.10.230/32"], "test.wireguard.com:18981"),
        ],
        ..tunnel()
    };
    assert_eq!(config.unwrap().wireguard, Some(expected));
}

#[test]
fn a_value_in_both_the_wg_file_and_the_configuration_is_an_error() {
    let text = format!(
        "[wireguard]\nfile = \"/srv/wg7.conf\"\nlisten_port = 7\nprivate_key_file = \"/srv/key\"\n\
         addresses = [\"10.7.0.1/24\"]\nmtu = 1400\nfwmark = 7\n[[wireguard.peer]]\n{}",
        peer(PUBLIC, "10.7.0.9")
    );
    let wg =
        format!("[Interface]\nPrivateKey = {PRIVATE}\nListenPort = 7\nAddress = 10.8.0.1/24\nMTU = 1400\nFwMark = 7\n");
    assert_eq!(
        checked(&text, &[("/srv/wg7.conf", &wg)]).unwrap_err(),
        [
            "wireguard.addresses: /srv/wg7.conf sets Address too; remove one of them",
            "wireguard.fwmark: /srv/wg7.conf sets FwMark too; remove one of them",
            "wireguard.listen_port: /srv/wg7.conf sets ListenPort too; remove one of them",
            "wireguard.mtu: /srv/wg7.conf sets MTU too; remove one of them",
            "wireguard.peer[0]: wireguard.file holds the peers; move this peer there, or remove wireguard.file",
            "wireguard.peer[0].public_key: is this server's own key; write the peer's public key",
            "wireguard.private_key_file: /srv/wg7.conf sets PrivateKey too; remove one of them",
        ]
    );
}

#[test]
fn a_peer_of_a_wg_file_without_allowed_ips_is_named_by_its_key() {
    let text = format!("[Interface]\nAddress = 10.100.0.1/24\nPrivateKey = {PRIVATE}\n[Peer]\nPublicKey = {ADA}\n");
    let config = checked("wireguard.file = \"/etc/bastiond/wg7.conf\"", &[("/etc/bastiond/wg7.conf", &text)]).unwrap();
    let warned: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let expected = format!(
        "wireguard.file: AllowedIPs of {ADA} of /etc/bastiond/wg7.conf is empty, so no packet can be sent to this peer \
         or accepted from it; list its addresses"
    );
    assert_eq!(warned, [expected]);
}

#[test]
fn an_error_in_a_wg_file_is_reported_with_its_line() {
    let files = [("/srv/bad.conf", "[Interface]\nListenPort = x\nAddres = 10.7.0.1/24\n")];
    let errors = |text: &str| checked(text, &files).unwrap_err();
    assert_eq!(
        errors("wireguard.file = \"/srv/bad.conf\""),
        [
            "wireguard.file: line 2 of /srv/bad.conf: ListenPort: `x` is not a port (0 to 65535)",
            "wireguard.file: line 3 of /srv/bad.conf: `Addres` is no key; did you mean Address?",
        ]
    );
    assert_eq!(errors("wireguard.file = \"bad.conf\""), ["wireguard.file: `bad.conf` is not an absolute path"]);
    assert_eq!(
        errors("wireguard.file = \"/srv/gone.conf\""),
        ["wireguard.file: cannot read /srv/gone.conf: No such file or directory (os error 2)"]
    );
}

#[test]
fn directives_of_wg_quick_that_bastiond_ignores_get_a_warning() {
    let wg = "[Interface]\nAddress = 10.8.0.1/24\nDNS = 1.1.1.1\nPostUp = iptables -A FORWARD -j ACCEPT\nTable = off\n";
    let config = checked("wireguard.file = \"/srv/world-readable\"", &[("/srv/world-readable", wg)]).unwrap();
    let warned: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warned,
        [
            "wireguard.file: /srv/world-readable has no PrivateKey: a new key is made in \
             /var/lib/bastiond/wireguard.key, which every peer needs; if the tunnel has a key, name its file in \
             private_key_file",
            "wireguard.file: a file NAME.conf, with 1 to 15 letters, digits, `.`, `_` or `-` as NAME, gives the \
             interface \
             its name; `world-readable` is called otherwise (a back-up?), and the interface world-readable: rename it, \
             or write wireguard.interface",
            "wireguard.file: line 3 of /srv/world-readable: bastiond ignores DNS",
            "wireguard.file: line 4 of /srv/world-readable: bastiond ignores PostUp",
        ]
    );
}

/// What is wrong with a configuration whose wg file has these lines in `[Interface]`: warnings, or errors.
fn with_interface_lines(section: &str, lines: &str) -> Result<Vec<String>, Vec<String>> {
    let wg = format!("[Interface]\nAddress = 10.8.0.1/24\n{lines}\n");
    let text = format!("[wireguard]\nfile = \"/etc/bastiond/wg7.conf\"\n{section}");
    let files = [("/etc/bastiond/wg7.conf", wg.as_str()), ("/etc/bastiond/wg7.key", PRIVATE)];
    checked(&text, &files).map(|config| config.warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn a_hook_that_sets_a_key_is_refused_with_what_to_write_instead() {
    let place = "wireguard.file: line 3 of /etc/bastiond/wg7.conf";
    for (lines, expected) in [
        (
            "PostUp = wg set %i private-key /etc/wireguard/%i.key",
            "PostUp sets the private key from /etc/wireguard/wg7.key; bastiond runs no hooks: write \
             `private_key_file = \
             \"/etc/wireguard/wg7.key\"` in [wireguard]",
        ),
        (
            "PreUp = pass vpn | wg set %i private-key /dev/stdin",
            "PreUp sets the private key; bastiond runs no hooks: write `private_key_file = \
             \"/etc/bastiond/wireguard.key\"` in [wireguard]",
        ),
        (
            "PostUp = wg set %i peer X preshared-key /etc/wireguard/psk",
            "PostUp sets a preshared key from /etc/wireguard/psk; bastiond runs no hooks: write that key as \
             PresharedKey of its [Peer], and remove the hook",
        ),
        (
            "PostUp = wg setconf %i /etc/wireguard/%i.real",
            "PostUp loads a configuration from /etc/wireguard/wg7.real; bastiond runs no hooks: write its content \
             into this file, and remove the hook",
        ),
    ] {
        assert_eq!(with_interface_lines("", lines), Err(vec![format!("{place}: {expected}")]), "{lines}");
    }
    let both = format!("PostUp = wg set %i private-key /k\nPrivateKey = {PRIVATE}");
    assert_eq!(
        with_interface_lines("", &both),
        Err(vec![format!(
            "{place}: PostUp sets the private key from /k; bastiond runs no hooks: write that key as PrivateKey, and \
             remove the hook"
        )])
    );
    assert_eq!(
        with_interface_lines(
            "private_key_file = \"/etc/bastiond/wg7.key\"",
            "PostUp = wg set %i private-key /etc/wireguard/%i.key\nPostUp = wg set %i fwmark 7"
        ),
        Ok(vec![
            format!(
                "{place}: bastiond ignores PostUp, which sets the private key from /etc/wireguard/wg7.key; it uses \
                 wireguard.private_key_file"
            ),
            "wireguard.file: line 4 of /etc/bastiond/wg7.conf: bastiond ignores PostUp, which changes the tunnel by \
             `wg set`: write that as a key"
                .to_owned(),
        ])
    );
}

#[test]
fn findings_about_a_wg_file_come_in_the_order_of_its_lines() {
    let lines = format!("PrivateKey = {PRIVATE}\nDNS = 1.1.1.1\n\n\n\n\n\nPostUp = a\nPostDown = b");
    let place =
        |line: u32, key: &str| format!("wireguard.file: line {line} of /etc/bastiond/wg7.conf: bastiond ignores {key}");
    assert_eq!(with_interface_lines("", &lines), Ok(vec![place(4, "DNS"), place(10, "PostUp"), place(11, "PostDown")]));
}

#[test]
fn table_off_means_no_routes_and_another_table_is_the_operators() {
    let routes = |section: &str, table: &str| {
        let wg = format!("[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.8.0.1/24\n{table}\n");
        let text = format!("[wireguard]\nfile = \"/srv/wg7.conf\"\n{section}");
        let config = checked(&text, &[("/srv/wg7.conf", &wg)])?;
        Ok::<_, Vec<String>>((config.wireguard.unwrap().routes, config.warnings.len()))
    };
    for (section, table, expected) in [
        ("", "", (true, 0)),
        ("", "Table = auto", (true, 0)),
        ("", "Table = main", (true, 0)),
        ("", "Table = off", (false, 0)),
        ("", "Table = 1234", (false, 1)),
        ("routes = false", "", (false, 0)),
    ] {
        assert_eq!(routes(section, table), Ok(expected), "{section} {table}");
    }
    assert_eq!(
        routes("routes = true", "Table = off"),
        Err(vec!["wireguard.routes: /srv/wg7.conf sets Table too; remove one of them".to_owned()])
    );
}

#[test]
fn a_wg_file_whose_name_is_none_for_an_interface_is_refused_or_doubted() {
    let wg = format!("[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.8.0.1/24\n");
    let found = |name: &str, section: &str| {
        let path = format!("/srv/{name}");
        let text = format!("[wireguard]\nfile = \"{path}\"\n{section}");
        let config = checked(&text, &[(path.as_str(), wg.as_str())])?;
        Ok::<_, Vec<String>>((config.wireguard.unwrap().interface.to_string(), config.warnings.len()))
    };
    for (name, interface) in
        [("wg0.conf", "wg0"), ("fifteen-letters.conf", "fifteen-letters"), ("a.b_c-9.conf", "a.b_c-9")]
    {
        assert_eq!(found(name, ""), Ok((interface.to_owned(), 0)));
    }
    for (name, interface) in [("wg0.conf.bak", "wg0.conf"), ("wg0.conf~", "wg0"), ("wg0", "wg0"), ("wg0.CONF", "wg0")] {
        assert_eq!(found(name, ""), Ok((interface.to_owned(), 1)), "{name}");
    }
    for name in ["my vpn.conf", "sixteen-letters-.conf", "caf\u{e9}.conf", "wg*.conf"] {
        let errors = found(name, "").unwrap_err();
        assert!(
            errors[0].starts_with(&format!("wireguard.file: `{name}` is no name for an interface: ")),
            "{errors:?}"
        );
        assert_eq!(found(name, "interface = \"wg7\""), Ok(("wg7".to_owned(), 0)));
    }
}
