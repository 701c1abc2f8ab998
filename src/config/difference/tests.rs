use super::super::{Environment, parse};
use super::*;

fn config(text: &str) -> Config {
    parse(text, &Environment::default()).unwrap()
}

/// What the plan prints for a change from one file to another.
fn changes(before: &str, after: &str) -> Vec<String> {
    difference(&config(before), &config(after)).iter().map(ToString::to_string).collect()
}

const ADA: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const BOB: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

fn tunnel(peers: &[(&str, &str)]) -> String {
    let mut text = "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n".to_owned();
    text.extend(peers.iter().map(|(key, more)| format!("[[wireguard.peer]]\npublic_key = \"{key}\"\n{more}\n")));
    text
}

#[test]
fn the_same_configuration_has_no_difference_however_it_is_written() {
    let written = "[firewall]\nssh_from = [\"192.0.2.7\", \"10.0.0.0/16\"]\n[[nat.forward]]\nport = 443\nto = \
                   \"10.0.0.4\"\n[[nat.forward]]\nport = 80\nto = \"10.0.0.4\"\nfrom = [\"192.0.2.8\", \"192.0.2.7\"]\n";
    let otherwise = "[[nat.forward]]\nto = \"10.0.0.4\"\nport = 80\nfrom = [\"192.0.2.7\", \"192.0.2.8\"]\n\
                     [[nat.forward]]\nport = 443\nto = \"10.0.0.4\"\nprotocol = \"tcp\"\n\
                     [firewall]\nssh_from = [\"10.0.0.0/16\", \"192.0.2.7/32\"]\n";
    assert_eq!(changes(written, otherwise), Vec::<String>::new());
}

#[test]
fn a_change_is_told_in_the_words_of_the_file() {
    let web = "[[nat.forward]]\nname = \"web\"\nport = 443\nto = \"10.0.0.4\"\n";
    let narrow = "[firewall]\nssh_from = [\"203.0.113.7\"]\nssh_ban = \"1h\"\nssh_attempts = false\n";
    assert_eq!(
        changes("", &format!("{web}{narrow}")),
        [
            "+ forward tcp 443 -> 10.0.0.4 \"web\"",
            "- ssh from 0.0.0.0/0",
            "- ssh from ::/0",
            "+ ssh from 203.0.113.7/32",
            "~ firewall.ssh_attempts = false (was: = 60)",
            "~ firewall.ssh_ban = 1h (was: = 10m)",
        ]
    );
    assert_eq!(
        changes(web, &web.replace("10.0.0.4", "10.0.1.5")),
        ["~ forward tcp 443 -> 10.0.1.5 \"web\" (was: tcp 443 -> 10.0.0.4 \"web\")"]
    );
    // A block before another one moves its place in the file, and nothing else.
    let first = "[[nat.forward]]\nport = \"8000-8100\"\nprotocol = \"both\"\npublic = [\"198.51.100.2\"]\n\
                 from = [\"192.0.2.0/24\"]\nto = \"10.0.0.9\"\n";
    assert_eq!(
        changes(web, &format!("{first}{web}")),
        ["+ forward [198.51.100.2] tcp+udp 8000-8100 -> 10.0.0.9 from 192.0.2.0/24"]
    );
}

#[test]
fn every_kind_of_block_and_list_is_told() {
    let text = r#"
        log.level = "debug"
        tenants.allow = [{ from = ["10.0.0.0/16"], to = ["10.2.0.0/16"], protocol = "tcp", ports = [5432] }]
        [nat]
        egress_addresses = ["198.51.100.2"]
        [[nat.static]]
        name = "mail"
        public = "203.0.113.51"
        private = "10.0.0.7"
        open = [{ protocol = "tcp", ports = [25, 80] }, { protocol = "icmp" }]
        [egress]
        deny = [{ to = ["192.0.2.0/24"] }]
        max_flows = 100
        [[network]]
        range = "10.2.0.0/16"
        allow = [{ to = ["1.1.1.1"], protocol = "udp", ports = [53] }]
        egress_addresses = ["203.0.113.52"]
        [firewall]
        blocklist = ["192.0.2.66"]
        wireguard_port = false
        [[firewall.service]]
        name = "node exporter"
        ports = [9100]
        from = ["10.0.0.0/16"]
        [hcloud]
        destinations = ["0.0.0.0/0", "10.200.0.0/16"]
        poll_interval = "1m"
    "#;
    let expected = [
        "~ log.level = debug (was: = info)",
        "~ nat.egress_addresses = [198.51.100.2] (was: = auto)",
        "+ static 203.0.113.51 <-> 10.0.0.7 open icmp; tcp 25, 80 \"mail\"",
        "~ egress.max_flows = 100 (was: = 4096)",
        "+ egress deny any protocol to 192.0.2.0/24",
        "+ network 10.2.0.0/16",
        "+ network 10.2.0.0/16 egress_addresses = [203.0.113.52]",
        "+ network 10.2.0.0/16 allow = only what is listed",
        "+ network 10.2.0.0/16 allow udp 53 to 1.1.1.1/32",
        "+ tenants allow tcp 5432 from 10.0.0.0/16 to 10.2.0.0/16",
        "~ firewall.wireguard_port = closed (was: = 51820)",
        "+ blocklist 192.0.2.66/32",
        "+ service tcp 9100 from 10.0.0.0/16 \"node exporter\"",
        "+ cloud route 10.200.0.0/16",
        "~ hcloud.poll_interval = 1m (was: = 20s)",
    ];
    let mut found = changes("", text);
    let mut wanted = expected.map(str::to_owned).to_vec();
    assert_eq!((found.first(), found.len()), (wanted.first(), wanted.len()), "{found:#?}");
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn a_peer_is_known_by_its_key_and_its_secret_is_not_shown() {
    let ada = "name = \"ada\"\nallowed_ips = [\"10.100.0.2/32\"]";
    let secret = |secret: &str| format!("{ada}\npreshared_key = \"{secret}\"");
    let [first, second] =
        ["FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=", "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVI="];
    assert_eq!(
        changes(&tunnel(&[(ADA, ada)]), &tunnel(&[(BOB, ada)])),
        [format!("- peer \"ada\" {ADA} [10.100.0.2/32]"), format!("+ peer \"ada\" {BOB} [10.100.0.2/32]")]
    );
    let renamed = "name = \"lovelace\"\nallowed_ips = [\"10.100.0.3/32\"]\npersistent_keepalive = 25";
    assert_eq!(
        changes(&tunnel(&[(ADA, ada)]), &tunnel(&[(ADA, renamed)])),
        [format!("~ peer \"lovelace\" {ADA} [10.100.0.3/32] keepalive 25 s (was: \"ada\" {ADA} [10.100.0.2/32])")]
    );
    let changed = changes(&tunnel(&[(ADA, &secret(first))]), &tunnel(&[(ADA, &secret(second))]));
    assert_eq!(changed, [format!("~ peer \"ada\" {ADA} [10.100.0.2/32] with a preshared key (another secret)")]);
}

#[test]
fn every_item_has_a_place_in_the_order_of_the_file() {
    let every_key = include_str!("../../../tests/config/good/every-key.toml");
    for config in [config(""), config(every_key)] {
        for item in items(&config) {
            assert!(item::KINDS.contains(&item.kind), "{item:?}");
        }
    }
}

#[test]
fn two_equal_lines_are_two_items() {
    let line = "{ to = [\"192.0.2.0/24\"] }";
    let deny = |lines: &[&str]| format!("[egress]\ndeny = [{}]\n", lines.join(", "));
    assert_eq!(changes(&deny(&[line, line]), &deny(&[line])), ["- egress deny any protocol to 192.0.2.0/24"]);
}
