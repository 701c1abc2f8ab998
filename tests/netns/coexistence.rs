//! Other firewalls on the bastion: the daemon reports what they drop, with commands that help, and changes nothing of
//! theirs.

use bastiond::internals::outcome::{ComponentName, Problem, State};
use bastiond::internals::report::{ComponentReport, Health, Report};
use libtest_mimic::Trial;
use sandbox::daemon::Installation;
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
        trial("legacy_iptables_is_reported_and_the_advice_opens_it", || {
            advised(
                "iptables-legacy",
                &["-P FORWARD DROP", "-A FORWARD -i docker0 -j ACCEPT"],
                "chain FORWARD of the old iptables (rules of iptables)",
                "ip none",
            )
        }),
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
    // The rules and forwarding are set, but the health is degraded.
    ensure_eq((component.state, report.health), (State::Ok, Health::Waiting))?;
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
    let report = reconciled(&installation)?;
    ensure_eq((&nat(&report)?.problems, report.health), (&vec![], Health::Healthy))
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
