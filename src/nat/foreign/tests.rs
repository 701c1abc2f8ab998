use proptest::prelude::*;
use serde_json::json;

use super::paths::Packets;
use super::*;
use crate::config::{Environment, Transport, parse};
use crate::inputs::{SeenReturnRoutes, tunnel};
use crate::site::{PrivateLink, PublicLink};

/// A file of `tests/data/foreign`: the listing of all chains, and below it those of the chains that are read.
macro_rules! listings {
    ($name:literal) => {
        include_str!(concat!("../../../tests/data/foreign/", $name))
    };
}

fn config(text: &str) -> Config {
    parse(text, &Environment::default()).unwrap()
}

fn private(interface: &str, network: &str) -> PrivateLink {
    PrivateLink::example(interface, "10.0.0.2", network)
}

fn site() -> Site {
    Site {
        public: Some(PublicLink::example("eth0", &[])),
        private: vec![private("eth1", "10.0.0.0/16")],
        ..Site::default()
    }
}

/// The drop chains in listings, as [`list_chains`] has them after it has read the chains.
fn drop_chains_in(listings: &str) -> Vec<DropChain> {
    let mut lines = listings.lines();
    let mut drop_chains = drop_chain::read_chains(lines.next().unwrap()).unwrap();
    let chains: Vec<&str> = lines.collect();
    for drop_chain in &mut drop_chains {
        for name in std::mem::take(&mut drop_chain.unread) {
            let is_of_chain =
                |listing: &&&str| objects(listing, "chain").iter().any(|chain| chain["name"] == name.as_str());
            let rules = chains.iter().find(is_of_chain).map(|listing| accepting_rules(listing));
            drop_chain.rules.extend(rules.unwrap_or_default());
        }
    }
    drop_chains
}

/// The report for one private network and a tunnel whose port has to be open.
fn report_on(drop_chains: &[DropChain]) -> ForeignReport {
    let paths = paths::forward_paths(&config(""), &site(), None);
    report(drop_chains, &paths, &paths::open_ports(&config("[wireguard]"), &site()))
}

fn texts(report: &ForeignReport) -> (Vec<String>, Vec<String>) {
    let words = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect();
    (words(&report.problems), words(&report.hints))
}

#[test]
fn docker_is_named_and_rules_for_its_own_chain_are_advised_until_they_are_there() {
    let problem = "chain FORWARD of table ip filter (Docker) drops what its rules do not accept, including what our \
                   rules let pass: \
                   forwarding from eth0 to eth1, from eth1 to eth0 stops there unless other rules of it accept it: \
                   iptables -I DOCKER-USER -i eth1 -o eth0 -j ACCEPT; iptables -I DOCKER-USER -i eth0 -o eth1 -m \
                   conntrack \
                   --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT, and have them set at every boot \
                   (netfilter-persistent, or a \
                   unit of your own)";
    assert_eq!(texts(&report_on(&drop_chains_in(listings!("docker.json")))), (vec![problem.to_owned()], vec![]));
    assert_eq!(report_on(&drop_chains_in(listings!("docker-followed.json"))), ForeignReport::default());
}

#[test]
fn for_ufw_commands_of_ufw_are_advised() {
    let (problems, hints) = texts(&report_on(&drop_chains_in(listings!("ufw.json"))));
    // ufw accepts answers by itself, and SSH is open.
    assert_eq!(
        problems,
        ["chain FORWARD of table ip filter (ufw) drops what its rules do not accept, including what our rules let \
             pass: forwarding from \
          eth1 to eth0 stops there unless other rules of it accept it: ufw route allow in on eth1 out on eth0"]
    );
    assert_eq!(
        hints,
        ["chain INPUT of table ip filter (ufw) drops what its rules do not accept, including what our rules let \
             in: WireGuard (udp 51820) \
          may be closed by it unless other rules of it accept it: ufw allow 51820/udp"]
    );
    assert_eq!(report_on(&drop_chains_in(listings!("ufw-followed.json"))), ForeignReport::default());
}

#[test]
fn firewalld_rejects_by_its_last_rule_and_a_policy_is_advised() {
    let (problems, hints) = texts(&report_on(&drop_chains_in(listings!("firewalld.json"))));
    assert_eq!(
        problems,
        ["chain filter_FORWARD of table inet firewalld (firewalld) drops what its rules do not accept, including \
             what our rules let pass: \
          forwarding from eth1 to eth0 stops there unless other rules of it accept it: \
          firewall-cmd --permanent --new-policy bastiond; \
          firewall-cmd --permanent --policy bastiond --add-ingress-zone ANY; \
          firewall-cmd --permanent --policy bastiond --add-egress-zone ANY; \
          firewall-cmd --permanent --policy bastiond --add-rich-rule 'rule family=ipv4 source address=10.0.0.0/16 \
          accept'; \
          firewall-cmd --reload"]
    );
    assert!(hints[0].ends_with("firewall-cmd --permanent --add-port=51820/udp; firewall-cmd --reload"), "{hints:?}");
    assert!(!hints[0].contains("SSH"), "firewalld opens SSH by itself: {hints:?}");
    assert_eq!(report_on(&drop_chains_in(listings!("firewalld-followed.json"))), ForeignReport::default());
}

#[test]
fn for_the_distributions_own_file_nft_rules_are_advised() {
    let (problems, hints) = texts(&report_on(&drop_chains_in(listings!("nftables-conf.json"))));
    assert_eq!(
        problems,
        ["chain forward of table inet filter (probably /etc/nftables.conf) drops what its rules do not accept, \
             including \
          what our rules let pass: forwarding from eth0 to eth1, from eth1 to eth0 stops there unless other rules of \
          it accept it: \
          nft insert rule inet filter forward iifname \"eth1\" oifname \"eth0\" accept; \
          nft insert rule inet filter forward ct state established,related accept, \
          and the same rules at the top of chain forward of /etc/nftables.conf"]
    );
    // The file accepts SSH.
    assert_eq!(hints.len(), 1);
    assert!(hints[0].contains("nft insert rule inet filter input udp dport 51820 accept"), "{hints:?}");
    assert_eq!(report_on(&drop_chains_in(listings!("nftables-conf-followed.json"))), ForeignReport::default());
}

#[test]
fn editing_dockers_own_tables_is_not_advised() {
    let (problems, _) = texts(&report_on(&drop_chains_in(listings!("docker-bridges.json"))));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("chain filter-FORWARD of table ip docker-bridges (Docker)"), "{problems:?}");
    assert!(
        problems[0].contains("\"ip-forward-no-drop\": true") && !problems[0].contains("nft insert"),
        "{problems:?}"
    );
}

#[test]
fn chains_that_only_ban_translate_or_bridge_are_not_reported() {
    assert_eq!(drop_chains_in(listings!("fail2ban.json")), []);
    assert_eq!(drop_chains_in(listings!("harmless.json")), []);
}

#[test]
fn a_ban_list_with_a_policy_of_drop_is_reported() {
    let shut = listings!("fail2ban.json").replace("\"policy\": \"accept\"", "\"policy\": \"drop\"");
    let (_, hints) = texts(&report_on(&drop_chains_in(&shut)));
    assert!(hints[0].starts_with("chain f2b-chain of table inet f2b-table (fail2ban) drops"), "{hints:?}");
}

#[test]
fn the_old_iptables_is_reported_with_its_own_commands() {
    let before = legacy::read_chains(listings!("legacy.txt"));
    let (problems, hints) = texts(&report_on(&before));
    assert_eq!(
        problems,
        ["chain FORWARD of the old iptables (Docker) drops what its rules do not accept, including what our rules \
             let pass: forwarding \
          from eth0 to eth1, from eth1 to eth0 stops there unless other rules of it accept it: \
          iptables-legacy -I DOCKER-USER -i eth1 -o eth0 -j ACCEPT; iptables-legacy -I DOCKER-USER -i eth0 -o eth1 \
          -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT, and have them set at every boot \
          (netfilter-persistent, or a \
          unit of your own)"]
    );
    assert_eq!(hints.len(), 1, "SSH is open: {hints:?}");
    assert!(hints[0].contains("iptables-legacy -I INPUT -p udp --dport 51820 -j ACCEPT"), "{hints:?}");
    assert_eq!(report_on(&legacy::read_chains(listings!("legacy-followed.txt"))).problems, []);
    assert_eq!(legacy::read_chains("-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT DROP\n"), []);
}

#[test]
fn rules_of_the_old_iptables_count_for_what_they_match() {
    let passes = |rule: &str, path: &ForwardPath| {
        let drop_chains = legacy::read_chains(&format!("-P FORWARD DROP\n-A FORWARD {rule}\n"));
        drop_chains[0].rules.iter().any(|rule| rule.accepts_path(path))
    };
    let [out, answers] = [0, 1].map(|index| paths::forward_paths(&config(""), &site(), None)[index].clone());
    for (rule, expected) in [
        ("-j ACCEPT", (true, true)),
        ("-i eth+ -j ACCEPT", (true, true)),
        ("-i eth1 -m comment --comment ours -j ACCEPT", (true, false)),
        ("-s 10.0.0.0/8 -j ACCEPT", (true, false)),
        ("-s 10.0.0.0/24 -j ACCEPT", (false, false)),
        ("-m state --state RELATED,ESTABLISHED -j ACCEPT", (false, true)),
        ("-m conntrack --ctstate NEW -j ACCEPT", (true, false)),
        ("! -i eth0 -j ACCEPT", (false, false)),
        ("-p tcp -m tcp --dport 80 -j ACCEPT", (false, false)),
        ("-p tcp -j ACCEPT", (false, false)),
        ("-i eth1 -o eth0 -j DROP", (false, false)),
        ("-i eth1 -o eth0", (false, false)),
    ] {
        assert_eq!((passes(rule, &out), passes(rule, &answers)), expected, "{rule}");
    }
}

#[test]
fn a_port_that_ufw_limits_is_open() {
    let ssh = paths::open_ports(&config(""), &site()).into_iter().find(|port| port.port == 22).unwrap();
    let limit = json!({ "jump": { "target": "ufw-user-limit-accept" } });
    let tcp = json!({ "payload": { "protocol": "tcp", "field": "dport" } });
    let rule = |port: u16| json!({ "expr": [{ "match": { "op": "==", "left": tcp, "right": port } }, limit] });
    let opens = |port| rule::Rule::from_json(&rule(port)).is_some_and(|rule| rule.accepts_port(&ssh));
    assert_eq!((opens(22), opens(2222)), (true, false));
    let listed = "-P INPUT DROP\n-N ufw-user-input\n\
                  -A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --set --name DEFAULT\n\
                  -A ufw-user-input -p tcp -m tcp --dport 22 -j ufw-user-limit-accept\n";
    assert!(legacy::read_chains(listed)[0].rules.iter().any(|rule| rule.accepts_port(&ssh)));
}

#[test]
fn rules_of_nft_count_for_what_they_match() {
    let meta = |key: &str, value: Value| json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": value}});
    let state = |value: Value| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": value}});
    let saddr = |value: Value| {
        let left = json!({"payload": {"protocol": "ip", "field": "saddr"}});
        json!({"match": {"op": "==", "left": left, "right": value}})
    };
    let accept = || json!({"accept": null});
    let xt = |name: &str| json!({"xt": {"type": "match", "name": name}});
    let passes = |statements: Vec<Value>, path: &ForwardPath| {
        rule::Rule::from_json(&json!({"expr": statements})).is_some_and(|rule| rule.accepts_path(path))
    };
    let [out, answers] = [0, 1].map(|index| paths::forward_paths(&config(""), &site(), None)[index].clone());
    let verdicts = json!([["established", accept()], ["invalid", {"drop": null}]]);
    let vmap = json!({"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": verdicts}}});
    for (statements, expected) in [
        (vec![accept()], (true, true)),
        (vec![meta("iifname", json!({"set": ["eth1", "wg0"]})), accept()], (true, false)),
        (vec![meta("iif", json!("eth*")), json!({"counter": {"packets": 0, "bytes": 0}}), accept()], (true, true)),
        (vec![meta("oifname", json!("@links")), accept()], (false, false)),
        (vec![meta("mark", json!(1)), accept()], (false, false)),
        (
            vec![json!({"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}), accept()],
            (false, false),
        ),
        (vec![saddr(json!({"prefix": {"addr": "10.0.0.0", "len": 8}})), accept()], (true, false)),
        (vec![saddr(json!("10.0.0.4")), accept()], (false, false)),
        (vec![state(json!(["established", "related"])), accept()], (false, true)),
        (vec![state(json!("new")), accept()], (true, false)),
        (vec![vmap], (false, true)),
        (vec![xt("conntrack"), accept()], (false, true)),
        (vec![xt("comment"), accept()], (true, true)),
        (vec![xt("physdev"), accept()], (false, false)),
        (vec![json!({"limit": {"rate": 1, "per": "second"}}), accept()], (false, false)),
        (vec![json!({"drop": null})], (false, false)),
        (vec![json!({"jump": {"target": "more"}})], (false, false)),
        (vec![], (false, false)),
    ] {
        let text = format!("{statements:?}");
        assert_eq!((passes(statements.clone(), &out), passes(statements, &answers)), expected, "{text}");
    }
}

#[test]
fn every_path_that_the_configuration_needs_is_checked() {
    let two = Site { private: vec![private("eth1", "10.0.0.0/16"), private("eth2", "10.2.0.0/16")], ..site() };
    let text = "[wireguard]\naddresses = [\"10.100.0.1/24\"]\nfull_tunnel = true";
    let mut wanted = config(text);
    let needed = |config: &Config| {
        let paths = paths::forward_paths(config, &two, tunnel(config, &two, &SeenReturnRoutes::new()).as_ref());
        let word = |packets: &Packets| match packets {
            Packets::New(_) => "new",
            Packets::Answers => "answers",
            Packets::Published => "published",
        };
        paths.iter().map(|path| format!("{} {} {}", path.from, path.to, word(&path.packets))).collect::<Vec<_>>()
    };
    let mut expected = vec![
        "eth1 eth0 new",
        "eth0 eth1 answers",
        "wg0 eth1 new",
        "eth1 wg0 answers",
        "eth2 eth0 new",
        "eth0 eth2 answers",
        "wg0 eth2 new",
        "eth2 wg0 answers",
        "wg0 eth0 new",
        "eth0 wg0 answers",
    ];
    assert_eq!(needed(&wanted), expected);
    wanted.tenants = vec![crate::config::Acl::default()];
    expected.insert(2, "eth1 eth2 new");
    expected.insert(7, "eth2 eth1 new");
    assert_eq!(needed(&wanted), expected);
    assert_eq!(paths::forward_paths(&wanted, &Site { public: None, ..two.clone() }, None), []);
}

#[test]
fn for_published_hosts_a_rule_for_translated_packets_is_advised() {
    let mut wanted = config("");
    wanted.nat.statics = vec![crate::config::StaticNat {
        key: "nat.static[0]".to_owned(),
        name: None,
        public: "198.51.100.3".parse().unwrap(),
        private: "10.0.0.4".parse().unwrap(),
        open: Vec::new(),
    }];
    let paths = paths::forward_paths(&wanted, &site(), None);
    let advice = |listings: &str| report(&drop_chains_in(listings), &paths, &[]).problems[0].advice.clone();
    let docker = advice(listings!("docker-followed.json"));
    assert!(
        docker.starts_with("iptables -I DOCKER-USER -i eth1 -o eth1 -m conntrack --ctstate DNAT -j ACCEPT, "),
        "{docker}"
    );
    let conf = advice(listings!("nftables-conf-followed.json"));
    assert!(conf.starts_with("nft insert rule inet filter forward ct status dnat accept, "), "{conf}");
    // firewalld accepts translated packets by itself.
    assert_eq!(report(&drop_chains_in(listings!("firewalld-followed.json")), &paths, &[]).problems, []);
}

#[test]
fn the_port_of_ssh_is_the_one_that_sshd_listens_to() {
    let ports = |config: &Config, site: &Site| {
        paths::open_ports(config, site).iter().map(|port| (port.transport, port.port)).collect::<Vec<_>>()
    };
    assert_eq!(ports(&config(""), &site()), [(Transport::Tcp, 22)]);
    let elsewhere = Site { sshd_ports: [2222].into(), ..site() };
    assert_eq!(
        ports(&config("[wireguard]\nlisten_port = 443"), &elsewhere),
        [(Transport::Tcp, 2222), (Transport::Udp, 443)]
    );
}

#[test]
fn a_text_that_is_no_listing_is_an_error() {
    drop_chain::read_chains("").unwrap_err();
    drop_chain::read_chains("{\"nftables\": [").unwrap_err();
    assert_eq!(drop_chain::read_chains("{\"nftables\": []}").unwrap(), []);
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in ".{0,200}", words in "(-[PANijmos] [A-Z!0-9./]{0,8} ?){0,8}") {
        let _ = legacy::read_chains(&text);
        let _ = legacy::read_chains(&format!("-P FORWARD DROP\n-A FORWARD {words}"));
        let _ = drop_chain::read_chains(&text);
        prop_assert_eq!(accepting_rules(&text), []);
    }
}
