//! Other firewalls on the bastion: the daemon reports what they drop, with commands that help, and changes nothing of
//! theirs.

use std::time::Duration;

use bastiond::internals::outcome::{ComponentName, Problem, State};
use bastiond::internals::report::{ComponentReport, Health, Report};
use libtest_mimic::Trial;
use sandbox::daemon::{Daemon, Installation};
use sandbox::traffic::{self, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{
    FAST, NEVER, REPAIR, Result, SOON, Server, egress, ensure, ensure_eq, healthy, installation, is_shut, open, table,
    text, trial, wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_foreign_table_that_drops_is_reported_and_the_advice_opens_it", || {
            advised(
                "nft",
                &["add table inet filter; \
                     add chain inet filter forward { type filter hook forward priority filter; policy drop; }"],
                "chain forward of table inet filter (probably /etc/nftables.conf)",
                "inet filter",
            )
        }),
        trial("dockers_forward_policy_is_reported_and_the_advice_opens_it", || {
            advised(
                "iptables-nft",
                &["-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER"],
                "chain FORWARD of table ip filter (Docker)",
                "ip filter",
            )
        }),
        // The answers pass, and nft does not show that only they do.
        trial("a_policy_with_rules_whose_states_nft_hides_is_reported_and_the_advice_opens_it", || {
            advised(
                "iptables-nft",
                &["-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-P FORWARD DROP"],
                "chain FORWARD of table ip filter (rules of iptables)",
                "ip filter",
            )
        }),
        trial("legacy_iptables_is_reported_and_the_advice_opens_it", || {
            advised(
                "iptables-legacy",
                &["-P FORWARD DROP", "-A FORWARD -i docker0 -j ACCEPT"],
                "chain FORWARD of the old iptables (rules of iptables)",
                "ip none",
            )
        }),
        trial("a_single_rule_of_another_program_that_drops_is_named_and_the_advice_opens_it", single_rules),
        trial("what_ufw_and_firewalld_deny_before_they_allow_it_is_named_and_the_advice_opens_it", denied),
        trial("a_changed_ban_list_is_not_reported", ban_list),
        trial("a_foreign_input_policy_that_may_block_the_tunnel_is_a_hint_and_not_a_problem", input_policy),
        trial("a_reload_of_nftables_conf_is_repaired_and_its_drop_policy_is_reported", reload_of_file),
    ]
}

/// Runs a pass and returns its report.
pub(crate) fn reconciled(installation: &Installation<'_>) -> Result<Report> {
    let output = installation.ctl(&["reconcile", "--json"])?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {}", text(&output.stderr)).into())
}

pub(crate) fn nat(report: &Report) -> Result<&ComponentReport> {
    report.components.get(&ComponentName::Nat).ok_or_else(|| "there is no component nat".into())
}

pub(crate) fn run(world: &World, command: &str) -> Result {
    let output = world.bastion().command("bash").args(["-ec", command]).output()?;
    ensure(output.status.success(), format!("{command}: {}", text(&output.stderr)))
}

/// Blocks forwarding with a foreign rule, checks the report, and follows its advice, which must open it.
fn advised(program: &str, commands: &[&str], named: &str, shows: &str) -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let _published = Reflector::tcp(world.web(), (at::WEB, 8080))?;
    let installation = installation(&world)?;
    let forward = "[[nat.forward]]\nport = 8443\nto = \"10.0.0.4\"\nto_port = 8080";
    installation.write_config(&format!("{FAST}{forward}"))?;
    let _daemon = healthy(&installation)?;
    let reaches_forward = |from| traffic::tcp_connects(from, (at::BASTION, 8443), NEVER).is_ok();
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    ensure(reaches_forward(world.server()), "the forward does not work before")?;
    for command in commands {
        run(&world, &if program == "nft" { format!("nft '{command}'") } else { format!("{program} {command}") })?;
    }
    ensure(is_shut(&egress(world.web(), &server, NEVER)?), "nothing is in the way: this proves nothing")?;
    let theirs = table(&world, shows)?;
    ensure(!reaches_forward(world.server()), "the forward is not in the way")?;
    let report = reconciled(&installation)?;
    let component = nat(&report)?;
    // The rules and forwarding are set, but the health is not. On a slow machine the paths are lost by now.
    ensure_eq(component.state, State::Ok)?;
    ensure(matches!(report.health, Health::Waiting | Health::Degraded), format!("{:?}", report.health))?;
    let [Problem { what, advice, .. }] = &component.problems[..] else {
        return Err(format!("{:?}", component.problems).into());
    };
    ensure(what.contains(named), what)?;
    ensure(what.contains("from eth1 to eth0") && what.contains("from eth2 to eth0"), what)?;
    let output = text(&installation.ctl(&["status"])?.stdout);
    ensure(output.contains(what) && output.contains(advice), output)?;
    ensure_eq(table(&world, shows)?, theirs)?;
    // The text after the commands is about later boots.
    let commands = advice.split(", and ").next().unwrap_or(advice);
    run(&world, commands)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    ensure_eq(egress(world.tenant(), &server, SOON)?, open())?;
    ensure(reaches_forward(world.server()), "the forward is still closed from outside")?;
    ensure(reaches_forward(world.worker()), "the forward is still closed from inside")?;
    ensure_eq(&nat(&reconciled(&installation)?)?.problems, &vec![])?;
    // The paths may have been lost meanwhile, and are proven again by the next probes.
    wait_for("the gateway is healthy", Duration::from_secs(10), || {
        Ok(reconciled(&installation)?.health == Health::Healthy)
    })?;
    Ok(())
}

/// Rules of others that stop a protocol or a subnet, under chains that accept all else: the probes do not meet them.
const SINGLE_RULES: [(&str, &str); 12] = [
    ("add rule ip x forward meta l4proto tcp drop", "TCP packets"),
    ("add rule ip x forward ip saddr 10.0.0.0/24 drop", "packets of 10.0.0.0/24"),
    ("add rule ip x forward iifname eth1 jump more; add rule ip x more ip protocol tcp reject", "TCP packets"),
    ("add rule ip x arrive ip saddr 10.0.0.0/24 drop", "packets of 10.0.0.0/24"),
    ("add rule ip x leave oifname eth0 meta l4proto tcp drop", "TCP packets"),
    (
        "add table netdev y; add chain netdev y at { type filter hook ingress device eth1 priority 0; }; \
         add rule netdev y at ip protocol tcp drop",
        "TCP packets",
    ),
    ("add rule ip x forward iifname eth1 ip saddr set 10.77.0.1", "writes other addresses"),
    ("add rule ip x arrive iifname eth1 ip daddr set 10.2.0.4", "writes other addresses"),
    ("add rule ip x arrive iifname eth1 ct zone set 5", "they or their answers are lost"),
    ("add rule ip x forward iifname eth1 ip ttl set 1", "they or their answers are lost"),
    ("add rule ip x turn iifname eth1 tcp dport != 1 dnat to 10.2.0.4", "changes destinations"),
    ("add rule ip x turn iifname eth1 ip saddr 10.0.0.0/24 tcp dport != 1 redirect to :3128", "redirects flows"),
];
const CHAINS: &str = "table ip x {
    chain more { }
    chain arrive { type filter hook prerouting priority -310; }
    chain turn { type nat hook prerouting priority dstnat; }
    chain forward { type filter hook forward priority 10; }
    chain leave { type filter hook postrouting priority 10; }
}";

/// A gateway whose network has its route, and that keeps none itself. Some foreign rules cut the bastion's own way to
/// the API, and `bastionctl reconcile` waits for an answer.
pub(crate) fn without_api(world: &World) -> Result<(Installation<'_>, Daemon)> {
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    let installation = installation(world)?;
    installation.write_config("[hcloud]\nenabled = false\n")?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let is_healthy = || Ok(crate::gateway::report(&installation)?.health == Health::Healthy);
    wait_for("the gateway is healthy", SOON, is_healthy)?;
    Ok((installation, daemon))
}

fn single_rules() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let (installation, _daemon) = without_api(&world)?;
    world.bastion().nft(CHAINS)?;
    let iptables = [
        ("iptables -I FORWARD -p tcp -j DROP", "TCP packets"),
        // nft does not show the state.
        ("iptables -I FORWARD -i eth1 -m conntrack --ctstate NEW -j DROP", "packets, from eth1 to eth0"),
        ("iptables -I FORWARD -m state --state NEW,ESTABLISHED -j REJECT", "packets, from eth0 to eth1, from eth0 to"),
        ("iptables-legacy -I FORWARD -s 10.0.0.0/24 -j DROP", "packets of 10.0.0.0/24"),
        ("iptables -t mangle -I POSTROUTING -o eth0 -p tcp -j DROP", "TCP packets"),
    ];
    let nft = SINGLE_RULES.map(|(rule, named)| (format!("nft '{rule}'"), named));
    let iptables = iptables.map(|(rule, named)| (rule.to_owned(), named));
    for (rule, named) in nft.into_iter().chain(iptables) {
        run(&world, &rule)?;
        ensure(egress(world.web(), &server, NEVER)?.tcp.is_err(), format!("{rule}: this proves nothing"))?;
        let report = reconciled(&installation)?;
        let [Problem { what, advice, .. }] = &nat(&report)?.problems[..] else {
            return Err(format!("{rule}: {report:?}").into());
        };
        ensure(what.contains(named), format!("{rule}: {what}"))?;
        ensure(report.health != Health::Healthy, format!("{rule}: healthy"))?;
        let (_, command) = advice.split_once(": ").ok_or(format!("no command in {advice}"))?;
        run(&world, command)?;
        ensure_eq(egress(world.web(), &server, SOON)?, open())?;
        let report = reconciled(&installation)?;
        ensure_eq((&nat(&report)?.problems, &nat(&report)?.hints), (&vec![], &vec![]))?;
    }
    // A part of it is a hint, and what is for others is nothing.
    let rules = [("tcp dport 25 drop", 1), ("iifname docker0 drop", 0), ("ct state invalid drop", 0)];
    for (rule, hints) in rules {
        run(&world, &format!("nft 'flush chain ip x forward; add rule ip x forward {rule}'"))?;
        let report = reconciled(&installation)?;
        ensure_eq((nat(&report)?.problems.len(), nat(&report)?.hints.len()), (0, hints))?;
    }
    Ok(())
}

/// The chains of ufw that see forwarded packets, with what `ufw route allow in on eth1 out on eth0` adds.
const UFW: &str = "iptables-nft-restore <<'END'
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-forward - [0:0]
:ufw-user-forward - [0:0]
:ufw-reject-forward - [0:0]
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp --icmp-type echo-request -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-user-forward -i eth1 -o eth0 -j ACCEPT
-A ufw-user-forward -i eth2 -o eth0 -j ACCEPT
-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable
COMMIT
END";

/// firewalld with the advised policy for both networks. The private links have a zone of their own.
const FIREWALLD: &str = "nft -f - <<'END'
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname lo accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_ZONES {
        iifname { eth1, eth2 } goto filter_FWD_internal
        goto filter_FWD_public
    }
    chain filter_FWD_public {
        jump filter_FWD_policy_bastiond
        jump filter_FWD_public_deny
        reject with icmpx admin-prohibited
    }
    chain filter_FWD_public_deny { }
    chain filter_FWD_internal {
        jump filter_FWD_policy_bastiond
        reject with icmpx admin-prohibited
    }
    chain filter_FWD_policy_bastiond {
        jump filter_FWD_policy_bastiond_deny
        jump filter_FWD_policy_bastiond_allow
    }
    chain filter_FWD_policy_bastiond_deny { }
    chain filter_FWD_policy_bastiond_allow { ip saddr { 10.0.0.0/16, 10.2.0.0/16 } accept; }
}
END";

fn denied() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let (installation, _daemon) = without_api(&world)?;
    for (rules, deny, remains, named) in [
        (UFW, "iptables-nft -I ufw-user-forward -s 10.0.0.0/16 -j DROP", "iptables-nft -F", "table ip filter (ufw)"),
        (
            FIREWALLD,
            "nft add rule inet firewalld filter_FWD_policy_bastiond_deny ip saddr 10.0.0.0/24 drop",
            "nft delete table inet firewalld",
            "table inet firewalld (firewalld)",
        ),
    ] {
        run(&world, rules)?;
        ensure_eq(egress(world.web(), &server, SOON)?, open())?;
        let report = reconciled(&installation)?;
        ensure_eq((&nat(&report)?.problems, &nat(&report)?.hints), (&vec![], &vec![]))?;
        run(&world, deny)?;
        let shut = egress(world.web(), &server, NEVER)?;
        ensure(shut.tcp.is_err() && shut.udp.is_err(), format!("{deny}: this proves nothing"))?;
        let report = reconciled(&installation)?;
        let [Problem { what, advice, .. }] = &nat(&report)?.problems[..] else {
            return Err(format!("{deny}: {report:?}").into());
        };
        ensure(what.contains(named) && what.contains("packets of 10.0.0.0/"), format!("{deny}: {what}"))?;
        ensure(report.health != Health::Healthy, format!("{deny}: healthy"))?;
        let (_, command) = advice.split_once(": ").ok_or(format!("no command in {advice}"))?;
        run(&world, command)?;
        ensure_eq(egress(world.web(), &server, SOON)?, open())?;
        ensure_eq(&nat(&reconciled(&installation)?)?.problems, &vec![])?;
        run(&world, &format!("{remains}; iptables-nft -P FORWARD ACCEPT"))?;
    }
    Ok(())
}

fn ban_list() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    world.bastion().nft(
        "table inet f2b-table {
            set addr-set-sshd { type ipv4_addr; elements = { 192.0.2.66 }; }
            chain f2b-chain { type filter hook input priority -1; tcp dport 22 ip saddr @addr-set-sshd reject; }
        }",
    )?;
    let report = reconciled(&installation)?;
    ensure_eq((&nat(&report)?.problems, &nat(&report)?.hints, report.health), (&vec![], &vec![], Health::Healthy))?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn input_policy() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    installation
        .write_config(&format!("{FAST}[wireguard]\ninterface = \"wg-policy\"\naddresses = [\"10.100.0.1/24\"]"))?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    world.bastion().nft(
        "table inet filter {
            chain input {
                type filter hook input priority filter; policy drop
                iif lo accept
                ct state established,related accept
                tcp dport 22 accept
            }
        }",
    )?;
    let report = reconciled(&installation)?;
    let [Problem { what, advice, .. }] = &nat(&report)?.hints[..] else { return Err(format!("{report:?}").into()) };
    ensure(what.contains("WireGuard (udp 51820) may be closed by it") && !what.contains("SSH"), what)?;
    ensure_eq((&nat(&report)?.problems, report.health), (&vec![], Health::Healthy))?;
    ensure(text(&installation.ctl(&["status"])?.stdout).contains("\nHINTS\nnat "), "the status does not show it")?;
    run(&world, advice.split(", and ").next().unwrap_or(advice))?;
    ensure_eq(&nat(&reconciled(&installation)?)?.hints, &vec![])
}

/// Does what `systemctl reload nftables` does with a file that begins with `flush ruleset`.
fn reload_of_file() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let before = table(&world, "inet bastiond")?;
    let file = |rules: &str| {
        format!(
            "flush ruleset
            table inet filter {{
                chain input {{ type filter hook input priority filter; }}
                chain forward {{
                    type filter hook forward priority filter; policy drop
                    {rules}
                }}
            }}"
        )
    };
    world.bastion().nft(&file(""))?;
    wait_for("the table is as it was", REPAIR, || Ok(table(&world, "inet bastiond")? == before))?;
    // The pass that repaired it has also checked the foreign rules.
    wait_for("the policy is reported", SOON, || Ok(nat(&crate::gateway::report(&installation)?)?.problems.len() == 1))?;
    ensure(is_shut(&egress(world.web(), &server, NEVER)?), "the file is not in the way: this proves nothing")?;
    let rules = "ct state vmap { established : accept, related : accept, invalid : drop }
                 iifname { eth1, eth2 } oifname eth0 accept";
    world.bastion().nft(&file(rules))?;
    wait_for("the table is as it was", REPAIR, || Ok(table(&world, "inet bastiond")? == before))?;
    wait_for("nothing is reported any more", SOON, || {
        Ok(nat(&crate::gateway::report(&installation)?)?.problems.is_empty())
    })?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    ensure(table(&world, "inet filter")?.contains("policy drop"), "the file's table is gone")
}
