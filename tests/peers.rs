//! `bastionctl peer` without a daemon: which files it writes, and what it refuses.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy allows it only in functions that are marked as tests"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bastiond_tunnel::file;
use tempfile::TempDir;

/// The daemon does not answer.
const NO_DAEMON: i32 = 3;
/// The configuration is wrong.
const WRONG_CONFIGURATION: i32 = 78;

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER_KEY: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

const TUNNEL: &str = "[site]
public_interface = \"eth0\"
[[site.private]]
interface = \"enp7s0\"
network = \"10.0.0.0/16\"
[wireguard]
addresses = [\"10.100.0.1/24\", \"fd00:100::1/64\"]
endpoint = \"vpn.example.org\"
dns = [\"10.0.0.2\"]
";

/// A configuration in a directory of its own.
struct Server(TempDir);

impl Server {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        // RFC 7748 section 6.1: Alice's private key.
        let key = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n";
        std::fs::write(directory.path().join("state/wireguard.key"), key).unwrap();
        std::fs::write(directory.path().join("config.toml"), text).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn peer_file(&self, name: &str) -> String {
        std::fs::read_to_string(self.path("peers.d").join(name)).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("peers.d")) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bastionctl"));
        command.env_clear().env("RUNTIME_DIRECTORY", self.path("run")).env("STATE_DIRECTORY", self.path("state"));
        command.arg("--config").arg(self.path("config.toml")).arg("peer").args(arguments).output().unwrap()
    }

    /// The output of a command that writes, or shows what is written, without a daemon.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(NO_DAEMON), "{arguments:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command says that is refused, and changes nothing.
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let before = self.files();
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", errors(&output));
        assert_eq!(output.stdout, b"", "{arguments:?}");
        assert_eq!(self.files(), before, "{arguments:?}");
        errors(&output)
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_peer_is_added_in_one_command_and_its_private_key_is_nowhere_on_the_server() {
    let server = Server::new(TUNNEL);
    let text = server.done(&["add", "alice/phone", "--psk", "--expires", "2099-01-31"]);
    let client = file::parse(text.as_bytes()).unwrap();
    let private = client.private_key.clone().unwrap();
    let peer = &client.peers[0];
    // Alice's public key of RFC 7748 is the server's here.
    assert_eq!(peer.public_key.to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    assert_eq!(peer.endpoint.as_ref().unwrap().to_string(), "vpn.example.org:51820");
    let ranges: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.0.0.0/16", "10.100.0.0/24", "fd00:100::/64"]);
    let addresses: Vec<String> = client.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.100.0.2/32", "fd00:100::2/128"]);
    assert!(text.starts_with("# alice/phone\n") && text.contains("DNS = 10.0.0.2\n"), "{text}");

    let written = server.peer_file("alice.phone.toml");
    let psk = peer.preshared_key.as_ref().unwrap().to_base64();
    let today: String = written.lines().next().unwrap().chars().rev().take(10).collect();
    assert_eq!(
        written,
        format!(
            "# added by `bastionctl peer add` on {}\nname = \"alice/phone\"\npublic_key = \"{}\"\npreshared_key = \
             \"{}\"\nallowed_ips = [\"10.100.0.2/32\", \"fd00:100::2/128\"]\nexpires = 2099-01-31T00:00:00Z\n",
            today.chars().rev().collect::<String>(),
            private.public(),
            psk.as_str()
        )
    );
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(server.path("peers.d/alice.phone.toml")), 0o640);
    for file in [server.path("peers.d/alice.phone.toml"), server.path("config.toml")] {
        assert!(!std::fs::read_to_string(file).unwrap().contains(private.to_base64().as_str()));
    }
    // The next one gets the next addresses; a client that made its key itself keeps it.
    let text = server.done(&["add", "bob", "--public-key", KEY]);
    assert!(
        text.contains("PrivateKey = PRIVATE_KEY_OF_THE_CLIENT\nAddress = 10.100.0.3/32, fd00:100::3/128\n"),
        "{text}"
    );
    assert_eq!(server.files(), ["alice.phone.toml", "bob.toml"]);
}

#[test]
fn what_is_wrong_is_refused_and_nothing_is_written() {
    let server = Server::new(&format!(
        "{TUNNEL}[[wireguard.peer]]\nname = \"office\"\npublic_key = \"{OTHER_KEY}\"\nallowed_ips = [\"10.100.0.9\"]\n"
    ));
    server.done(&["add", "alice", "--public-key", KEY]);
    let config = server.path("config.toml").display().to_string();
    let alice = server.path("peers.d/alice.toml").display().to_string();
    for (arguments, words) in [
        (&["add", "alice"][..], vec!["there is a peer alice already", alice.as_str()]),
        (&["add", "office"], vec!["there is a peer office already", config.as_str(), "line 12"]),
        (&["add", "zoe", "--public-key", KEY], vec!["belongs to the peer alice already", alice.as_str()]),
        (&["add", "zoe", "--public-key", "short"], vec!["\"short\" is not a WireGuard key"]),
        (&["add", "zoe", "--address", "10.100.0.2"], vec!["10.100.0.2 is in use by alice", alice.as_str()]),
        (&["add", "zoe", "--address", "10.100.0.9"], vec!["10.100.0.9 is in use by office", "line 12"]),
        (&["add", "zoe", "--address", "10.101.0.2"], vec!["outside of the tunnel's networks"]),
        (&["add", "zoe", "--address", "10.100.0.255"], vec!["network or broadcast address"]),
        (&["add", "zoe", "--expires", "2020-01-01"], vec!["\"2020-01-01\" is in the past"]),
        (&["add", "zoe", "--full-tunnel"], vec!["set wireguard.full_tunnel = true"]),
        (&["add", "zoe", "--output", &config], vec!["there is", "already; choose another file"]),
        (&["add", "../zoe"], vec!["\"../zoe\" is not a name for a peer"]),
        (&["add", "zoe\"\n\u{1b}[31m"], vec!["\"zoe\\\"\\n\\u{1b}[31m\" is not a name for a peer"]),
        (&["disable", "office"], vec!["office is written in", &config, "line 12: edit it there"]),
        (&["remove", "office"], vec!["office is written in"]),
        (&["disable", "alise"], vec!["there is no peer \"alise\"; did you mean \"alice\"?"]),
        (&["rename", "alice", "office"], vec!["there is a peer office already"]),
        (&["extend", "alice", "2020-01-01"], vec!["is in the past"]),
    ] {
        let said = server.refused(arguments, 1);
        for words in words {
            assert!(said.contains(words), "{arguments:?}: no {words:?} in {said}");
        }
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    let without_tunnel = Server::new("");
    assert!(without_tunnel.refused(&["add", "alice"], 1).contains("the configuration has no tunnel"));
}

#[test]
fn a_wrong_file_among_good_ones_is_named_with_its_line() {
    let server = Server::new(TUNNEL);
    server.done(&["add", "alice"]);
    std::fs::write(server.path("peers.d/broken.toml"), "# Bob\npublic_key = \"short\"\n").unwrap();
    for arguments in [&["add", "carol"][..], &["disable", "alice"]] {
        let said = server.refused(arguments, WRONG_CONFIGURATION);
        assert!(said.contains("broken.toml:2:14") && said.contains("is not a WireGuard key"), "{said}");
    }
    // The wrong file itself can be removed.
    server.done(&["remove", "broken"]);
    assert_eq!(server.files(), ["alice.toml"]);
    let mode = std::fs::Permissions::from_mode(0o000);
    std::fs::create_dir(server.path("peers.d/directory.toml.bak")).unwrap();
    std::fs::set_permissions(server.path("peers.d/directory.toml.bak"), mode).unwrap();
    server.done(&["add", "carol"]);
}

#[test]
fn a_peer_is_added_with_its_groups_and_what_it_reaches() {
    let groups = "[hosts]\ndb = \"10.0.1.5\"\n[[wireguard.group]]\nname = \"dev\"\nreach = [\"db:tcp/5432\"]\n";
    let server = Server::new(&format!("{TUNNEL}{groups}"));
    server.done(&["add", "alice", "--group", "dev", "--reach", "db:icmp", "--reach", "10.0.2.0/24:tcp/443"]);
    let written = server.peer_file("alice.toml");
    assert!(written.ends_with("groups = [\"dev\"]\nreach = [\"db:icmp\", \"10.0.2.0/24:tcp/443\"]\n"), "{written}");
    for (option, value, reason) in
        [("--group", "devs", "dev"), ("--reach", "dbs:tcp/5432", "db"), ("--reach", "10.0.1.0/24:tcp/99999", "65535")]
    {
        let said = server.refused(&["add", "bob", option, value], WRONG_CONFIGURATION);
        assert!(said.contains(value.split(':').next().unwrap()) && said.contains(reason), "{said}");
    }
}

#[test]
fn the_last_peer_that_lets_an_administrator_in_stays() {
    let server = Server::new(&format!("[firewall]\nssh_only_by_tunnel = true\n{TUNNEL}"));
    let first = server.run(&["add", "alice"]);
    assert_eq!(first.status.code(), Some(WRONG_CONFIGURATION), "without a peer the file is wrong already");
    std::fs::write(server.path("config.toml"), TUNNEL).unwrap();
    server.done(&["add", "alice"]);
    std::fs::write(server.path("config.toml"), format!("[firewall]\nssh_only_by_tunnel = true\n{TUNNEL}")).unwrap();
    for arguments in [&["remove", "alice"][..], &["disable", "alice"], &["extend", "alice", "30d"]] {
        let said = server.refused(arguments, WRONG_CONFIGURATION);
        assert!(said.contains("would lock you out"), "{said}");
    }
    assert!(!server.peer_file("alice.toml").contains("enabled"));
    // One whose access ends is right beside one whose access does not.
    server.done(&["add", "bob", "--expires", "30d"]);
    server.refused(&["remove", "alice"], WRONG_CONFIGURATION);
}

#[test]
fn changes_keep_the_comments_of_a_persons_file() {
    let server = Server::new(TUNNEL);
    std::fs::create_dir(server.path("peers.d")).unwrap();
    let text =
        format!("# Alice, ticket 4711\npublic_key = \"{KEY}\" # laptop\nallowed_ips = [\"10.100.0.7\"]\n# end\n");
    std::fs::write(server.path("peers.d/whoever.toml"), format!("name = \"alice\"\n{text}")).unwrap();
    server.done(&["disable", "alice"]);
    let disabled = format!("name = \"alice\"\n{}enabled = false\n# end\n", text.strip_suffix("# end\n").unwrap());
    assert_eq!(server.peer_file("whoever.toml"), disabled);
    let listed = server.done(&["list"]);
    assert!(
        listed.lines().any(|line| line.split_whitespace().take(3).eq(["alice", "disabled", "10.100.0.7"])),
        "{listed}"
    );
    server.done(&["enable", "alice"]);
    server.done(&["extend", "alice", "2099-01-31T12:00:00+02:00"]);
    let extended = disabled.replace("enabled = false\n", "enabled = true\nexpires = 2099-01-31T10:00:00Z\n");
    assert_eq!(server.peer_file("whoever.toml"), extended);
    server.done(&["extend", "alice", "never"]);
    server.done(&["rename", "alice", "alice/laptop"]);
    assert_eq!(server.files(), ["alice.laptop.toml"]);
    assert!(server.peer_file("alice.laptop.toml").starts_with("name = \"alice/laptop\"\n# Alice, ticket 4711\n"));
    server.done(&["rename", "alice/laptop", "zoe"]);
    assert_eq!(
        server.peer_file("zoe.toml"),
        format!("{}enabled = true\n# end\n", text.strip_suffix("# end\n").unwrap())
    );
    let shown = server.done(&["show", KEY]);
    assert!(shown.contains("name        zoe\n") && shown.contains("zoe.toml"), "{shown}");
    let exported = server.done(&["export", "zoe"]);
    assert!(exported.contains("PrivateKey = PRIVATE_KEY_OF_THE_CLIENT\nAddress = 10.100.0.7/32\n"), "{exported}");
    server.done(&["remove", "zoe"]);
    assert_eq!(server.files(), Vec::<String>::new());
}

#[test]
fn a_new_key_replaces_the_old_one_and_the_preshared_key() {
    let server = Server::new(TUNNEL);
    let first = file::parse(server.done(&["add", "alice", "--psk"]).as_bytes()).unwrap();
    let second = file::parse(server.done(&["rotate", "alice"]).as_bytes()).unwrap();
    assert_ne!(first.private_key, second.private_key);
    assert_ne!(first.peers[0].preshared_key, second.peers[0].preshared_key);
    assert_eq!((first.addresses, second.peers[0].preshared_key.is_some()), (second.addresses, true));
    let written = server.peer_file("alice.toml");
    assert!(written.contains(&second.private_key.unwrap().public().to_string()), "{written}");
}

#[test]
fn a_configuration_goes_into_a_file_that_only_its_owner_reads() {
    let server = Server::new(TUNNEL);
    let path = server.path("alice.conf");
    assert_eq!(server.done(&["add", "alice", "--output", path.to_str().unwrap()]), "");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    file::parse(&std::fs::read(&path).unwrap()).unwrap().private_key.unwrap();
}

#[test]
fn who_has_access_is_listed_for_programs_too() {
    let server = Server::new(TUNNEL);
    server.done(&["add", "alice", "--public-key", KEY, "--expires", "2099-01-31"]);
    let rows: serde_json::Value = serde_json::from_str(&server.done(&["list", "--json"])).unwrap();
    assert_eq!(
        rows,
        serde_json::json!([{
            "name": "alice",
            "state": "unknown",
            "public_key": KEY,
            "allowed_ips": ["10.100.0.2/32", "fd00:100::2/128"],
            "last_handshake_unix": null,
            "endpoint": null,
            "rx_bytes": 0,
            "tx_bytes": 0,
            "expires_unix": 4_073_500_800_u64,
        }])
    );
    assert_eq!(
        server.done(&["report", "--csv"]),
        format!(
            "name,state,public_key,allowed_ips,last_handshake,endpoint,received_bytes,sent_bytes,expires\r\n\
             alice,unknown,{KEY},10.100.0.2/32 fd00:100::2/128,,,0,0,2099-01-31T00:00:00Z\r\n"
        )
    );
}

/// What Debian's zbarimg reads in a picture.
fn scanned(picture: &Path) -> String {
    let mut command = Command::new("zbarimg");
    command.args(["--quiet", "--raw", "--oneshot", "-Sdisable", "-Sqr.enable"]).arg(picture);
    let output =
        command.output().expect("zbarimg is installed: scripts/install-test-clients, or apt install zbar-tools");
    assert!(output.status.success(), "zbarimg: {}", errors(&output));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The configuration without what a code leaves out.
fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// A terminal's half blocks as a picture (PGM), eight pixels a module.
fn photographed(blocks: &str) -> Vec<u8> {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    for line in blocks.lines() {
        let characters = line.chars().filter(|c| "█▀▄ ".contains(*c));
        let (upper, lower) = characters.map(|c| (u8::from("█▀".contains(c)), u8::from("█▄".contains(c)))).unzip();
        rows.extend([upper, lower]);
    }
    let (width, height) = (rows[0].len() * 8, rows.len() * 8);
    let mut picture = format!("P5\n{width} {height}\n255\n").into_bytes();
    for y in 0..height {
        picture.extend((0..width).map(|x| rows[y / 8][x / 8] * 255));
    }
    picture
}

#[test]
fn a_phone_reads_the_code_in_the_terminal_and_in_the_picture() {
    let server = Server::new(TUNNEL);
    let picture = server.path("alice.png");
    let printed = server.done(&["add", "alice/phone", "--psk", "--qr", "--png", picture.to_str().unwrap()]);
    let (text, blocks) = printed.split_once("\u{1b}[").unwrap();
    let wanted = without_comments(text);
    file::parse(wanted.as_bytes()).unwrap().private_key.unwrap();
    assert_eq!(scanned(&picture), wanted);
    assert_eq!(std::fs::metadata(&picture).unwrap().permissions().mode() & 0o777, 0o600);
    let lines = blocks.lines().map(|line| line.chars().filter(|c| "█▀▄ ".contains(*c)).count());
    assert!(lines.max().unwrap() <= 80);
    let photo = server.path("terminal.pgm");
    std::fs::write(&photo, photographed(blocks)).unwrap();
    assert_eq!(scanned(&photo), wanted);
    // Without the private key there is nothing to scan.
    let said = server.refused(&["add", "bob", "--public-key", KEY, "--qr"], 1);
    assert!(said.contains("no app can use the code"), "{said}");
    let said = server.refused(&["export", "alice/phone", "--qr"], 1);
    assert!(said.contains("peer rotate NAME --qr"), "{said}");
}

#[test]
fn peers_of_another_server_are_imported_all_or_none() {
    let server = Server::new(TUNNEL);
    let path = server.path("wg0.conf");
    let text = format!(
        "[Interface]\nListenPort = 51820\n# Alice's laptop\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.100.0.7/32\n\
         [Peer]\n# office\nPublicKey = {OTHER_KEY}\nAllowedIPs = 10.100.0.8/32, 192.168.7.0/24\nEndpoint = \
         office.example.org:51820\nPersistentKeepalive = 25\n"
    );
    std::fs::write(&path, &text).unwrap();
    let arguments = ["import", path.to_str().unwrap(), "--dry-run"];
    let output = server.run(&arguments);
    let rows = "Alice-s-laptop 10.100.0.7/32 (Alice's laptop)\noffice 10.100.0.8/32 192.168.7.0/24\n";
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap().as_str()), (Some(0), rows));
    assert_eq!(server.files(), Vec::<String>::new());
    assert_eq!(server.done(&arguments[..2]), rows);
    assert_eq!(server.files(), ["Alice-s-laptop.toml", "office.toml"]);
    let office = server.peer_file("office.toml");
    let keys = office.split_once('\n').unwrap().1;
    assert_eq!(
        keys,
        format!(
            "public_key = \"{OTHER_KEY}\"\nallowed_ips = [\"10.100.0.8/32\", \"192.168.7.0/24\"]\nendpoint = \
             \"office.example.org:51820\"\npersistent_keepalive = 25\n"
        )
    );
    // Once more, every key is there already.
    let said = server.refused(&arguments[..2], WRONG_CONFIGURATION);
    assert!(said.contains("is also the key of"), "{said}");
    std::fs::write(&path, "[Peer]\nPublicKey = short\n").unwrap();
    assert!(server.refused(&arguments[..2], 1).contains("wg0.conf: line 2: PublicKey"), "the line");
}
