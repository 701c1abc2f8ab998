//! The daemon repairs foreign changes of its settings in the kernel, and does not change those of others.

use std::time::Duration;

use bastiond::internals::outcome::{ComponentName, State};
use libtest_mimic::Trial;
use sandbox::traffic::{Flood, HeldConnection, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{
    FAST, REPAIR, Result, SOON, Server, all_components_ok, component, egress, ensure, ensure_eq, healthy, installation,
    open, table, trial, wait_for, wait_until_ok,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_deleted_rule_is_restored", || {
            breaks("flush chain inet bastiond forward", "rule(s) of chain forward were gone")
        }),
        trial("a_foreign_rule_in_our_table_is_removed", || {
            breaks("insert rule inet bastiond input accept", "1 foreign rule(s) stood in chain input")
        }),
        trial("a_flushed_rule_set_is_restored", || breaks("flush ruleset", "table inet bastiond was gone")),
        trial("a_deleted_table_is_restored", || breaks("delete table inet bastiond", "table inet bastiond was gone")),
        trial("an_emptied_set_is_restored", || {
            breaks("flush set inet bastiond private_networks", "set private_networks had other contents")
        }),
        trial("a_changed_chain_policy_is_restored", || {
            breaks("add chain inet bastiond forward { policy accept; }", "chain forward had another declaration")
        }),
        trial("a_second_daemon_is_reported", second_daemon),
        trial("a_dormant_table_is_woken", || {
            breaks(
                "add table inet bastiond { flags dormant; }",
                "the table was dormant, so that its chains saw no packets",
            )
        }),
        trial("disabled_forwarding_is_restored", forwarding_comes_back),
        trial("tables_of_others_are_unchanged", foreign_tables_are_unchanged),
        trial("a_reload_under_load_loses_no_packet_and_cuts_no_connection", reload_under_load),
        trial("a_network_that_is_attached_late_is_served", late_network),
        trial("a_verdict_map_with_foreign_chains_is_removed", foreign_map),
        trial("forwarding_disabled_on_one_interface_is_restored", one_interface),
        trial("a_restart_without_an_answer_of_the_metadata_service_removes_nothing", silent_metadata),
        trial("a_first_start_without_an_answer_of_the_metadata_service_loads_closed_rules_at_once", shut_at_once),
        trial("a_network_that_is_briefly_missing_from_the_metadata_is_kept", forgotten_network),
        trial("a_flush_without_a_default_route_is_repaired", flush_without_default_route),
        trial("a_private_interface_that_disappears_and_returns_is_served_again", interface_comes_back),
    ]
}

/// Another daemon in directories of its own, which wants other rules.
fn second_daemon() -> Result {
    let world = World::start(Settings::default())?;
    let first = installation(&world)?;
    let _daemon = healthy(&first)?;
    let second = installation(&world)?;
    second.write_config(&format!("{FAST}[firewall]\nssh_from = [\"192.0.2.7\"]\n"))?;
    let other = second.start()?;
    let is_reported = || {
        let problems = component(&first, ComponentName::Nat)?.problems;
        Ok(problems
            .iter()
            .any(|problem| problem.code == "table-contested" && problem.advice.contains("second bastiond")))
    };
    wait_for("the contest is reported", Duration::from_secs(10), is_reported)?;
    drop(other);
    // It is told for a minute after the last repair.
    ensure(is_reported()?, "the contest is forgotten at once")
}

/// Runs an nft command, and checks that the table is restored and the repair is reported.
fn breaks(command: &str, expected: &str) -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    // nft lists chains in the order of their creation, which differs if the fast path was added by a later pass.
    let lines = || -> Result<Vec<String>> {
        let mut lines: Vec<String> = table(&world, "inet bastiond")?.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        Ok(lines)
    };
    let before = lines()?;
    let repairs = component(&installation, ComponentName::Nat)?.totals.repairs;
    world.bastion().nft(command)?;
    wait_for("the table is as it was", REPAIR, || Ok(lines()? == before))?;
    wait_for("the repair is counted", REPAIR, || {
        Ok(component(&installation, ComponentName::Nat)?.totals.repairs == repairs + 1)
    })?;
    let changes = component(&installation, ComponentName::Nat)?.last_changes;
    ensure(changes.iter().any(|change| change.contains(expected)), format!("{changes:?} do not contain `{expected}`"))?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn forwarding_comes_back() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let repairs = component(&installation, ComponentName::Sysctl)?.totals.repairs;
    world.bastion().sysctl("net.ipv4.ip_forward", "0")?;
    wait_for("forwarding is on", REPAIR, || Ok(world.bastion().read_sysctl("net.ipv4.ip_forward")? == "1"))?;
    wait_for("the repair is counted", REPAIR, || {
        Ok(component(&installation, ComponentName::Sysctl)?.totals.repairs == repairs + 1)
    })?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn foreign_tables_are_unchanged() -> Result {
    let world = World::start(Settings::default())?;
    world.bastion().nft(
        "table inet foreign {
            set friends { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }; }
            map ways { type inet_service : verdict; elements = { 80 : accept }; }
            chain input {
                type filter hook input priority -10; policy accept;
                ip saddr @friends counter accept; tcp dport vmap @ways;
            }
        }
        table ip bastiond {
            chain mine { type nat hook prerouting priority -100; policy accept; tcp dport 81 redirect to :82; }
        }",
    )?;
    let foreign_tables = || -> Result<_> { Ok((table(&world, "inet foreign")?, table(&world, "ip bastiond")?)) };
    let before = foreign_tables()?;
    ensure(before.0.contains("friends") && before.1.contains("redirect"), "the foreign tables were not created")?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    world.bastion().nft("delete table inet bastiond")?;
    wait_for("the table is back", REPAIR, || Ok(!table(&world, "inet bastiond")?.is_empty()))?;
    installation.write_config(&format!("{FAST}[nat]\nrandom_ports = false"))?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait_for("the new rules are loaded", REPAIR, || Ok(!table(&world, "inet bastiond")?.contains("fully-random")))?;
    let down = installation.ctl(&["down"])?;
    ensure(down.status.success(), format!("{down:?}"))?;
    ensure_eq(table(&world, "inet bastiond")?, String::new())?;
    ensure_eq(foreign_tables()?, before)
}

fn reload_under_load() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let held_by = Reflector::tcp(world.server(), (at::SERVER, 9000))?;
    let installation = installation(&world)?;
    let mut daemon = healthy(&installation)?;
    let mut connection = HeldConnection::open(world.web(), held_by.address(), SOON)?;
    let flood = Flood::start(world.web(), server.udp.address(), 2000)?;
    wait_for("the flood runs", SOON, || Ok(flood.received() > 100))?;
    for reload in 0..20 {
        // Rules, sets and settings change back and forth.
        let options = if reload % 2 == 0 {
            "[nat]\nrandom_ports = false\n\
             [firewall]\nssh_from = [\"203.0.113.10\", \"10.0.0.0/8\"]\nwireguard_port = 40000"
        } else {
            ""
        };
        installation.write_config(&format!("{FAST}{options}"))?;
        daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
        ensure(daemon.wait_for_notification("READY=1", SOON).is_some(), "the reload does not end")?;
        connection.exchange(SOON)?;
    }
    let changes = component(&installation, ComponentName::Nat)?.totals.changes;
    ensure(changes >= 20, format!("the rules changed only {changes} times"))?;
    let flood = flood.stop();
    ensure(flood.sent > 1000, format!("{flood:?}"))?;
    ensure_eq(flood.lost, vec![])
}

fn late_network() -> Result {
    let settings = Settings { private_nic: sandbox::world::PrivateNic::Absent, ..Settings::default() };
    let world = World::start(settings)?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    ensure_eq(egress(world.tenant(), &server, SOON)?, open())?;
    world.attach_private_nic()?;
    wait_for("the late network is served", Duration::from_secs(8), || {
        Ok(all_components_ok(&installation)?
            && component(&installation, ComponentName::Hcloud)?.detail.matches("0.0.0.0/0 via").count() == 2)
    })?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn foreign_map() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let before = table(&world, "inet bastiond")?;
    world.bastion().nft(
        "table inet bastiond {
            chain backdoor { accept; }
            map ways { type inet_service : verdict; elements = { 1 : jump backdoor }; }
        }
        insert rule inet bastiond input tcp dport vmap @ways
        insert rule inet bastiond input accept",
    )?;
    wait_for("the table is as it was", REPAIR, || Ok(table(&world, "inet bastiond")? == before))?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn one_interface() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    for interface in ["eth0", "eth1"] {
        let key = format!("net.ipv4.conf.{interface}.forwarding");
        world.bastion().sysctl(&key, "0")?;
        wait_for("it forwards", REPAIR, || Ok(world.bastion().read_sysctl(&key)? == "1"))?;
    }
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

/// Blocks the bastion's metadata service, as a link-local firewall or an outage does.
fn silence_metadata(world: &World) -> Result {
    let rule =
        "table inet silence { chain out { type filter hook output priority 0; ip daddr 169.254.169.254 drop; }; }";
    world.bastion().nft(rule)?;
    Ok(())
}

fn silent_metadata() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    drop(healthy(&installation)?);
    let before = table(&world, "inet bastiond")?;
    silence_metadata(&world)?;
    let mut daemon = installation.start()?;
    let ready = daemon.wait_until_ready();
    ensure(ready < SOON, format!("it waited {ready:?} although it knows the site already"))?;
    wait_for("the missing answer is reported", Duration::from_secs(4), || {
        let problems = component(&installation, ComponentName::Site)?.problems;
        Ok(problems.iter().any(|problem| problem.what.starts_with("the metadata service does not answer")))
    })?;
    ensure_eq(table(&world, "inet bastiond")?, before)?;
    ensure_eq(component(&installation, ComponentName::Nat)?.totals.changes, 0)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn forgotten_network() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let before = table(&world, "inet bastiond")?;
    for network in [world.private_network_id(), world.second_network_id()] {
        world.cloud().metadata_hide_network(world.bastion_id(), network);
    }
    // Any change of a link makes the daemon ask the metadata service again.
    world.bastion().ip("link set eth1 alias changed")?;
    std::thread::sleep(Duration::from_millis(1500));
    ensure_eq(table(&world, "inet bastiond")?, before)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn flush_without_default_route() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    let before = table(&world, "inet bastiond")?;
    let route = text_of_default_route(&world)?;
    world.bastion().ip("route del default")?;
    wait_for("the loss is reported", SOON, || {
        Ok(component(&installation, ComponentName::Site)?.state == State::Waiting)
    })?;
    world.bastion().nft("flush ruleset")?;
    wait_for("the table is as it was", REPAIR, || Ok(table(&world, "inet bastiond")? == before))?;
    // A daemon that starts now does not know the public interface. It forwards nothing, but the operator can log in.
    drop(daemon);
    world.bastion().nft("flush ruleset")?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let closed = table(&world, "inet bastiond")?;
    ensure(closed.contains("policy drop") && closed.contains("ssh_ports") && !closed.contains("snat ip to"), closed)?;
    world.bastion().ip(&format!("route add {route}"))?;
    wait_for("traffic flows", REPAIR, || Ok(egress(world.web(), &server, SOON)? == open()))?;
    // Chains that the closed rules lacked stand at its end now.
    let lines = |listing: &str| listing.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    wait_for("the table is as it was", SOON, || Ok(lines(&table(&world, "inet bastiond")?) == lines(&before)))?;
    Ok(())
}

fn text_of_default_route(world: &World) -> Result<String> {
    let routes = world.bastion().ip("route show default")?;
    Ok(routes.lines().next().ok_or("the bastion has no default route")?.trim().to_owned())
}

fn interface_comes_back() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    world.bastion().ip("link set eth1 down")?;
    wait_for("the loss is reported", SOON, || {
        Ok(component(&installation, ComponentName::Site)?.state == State::Waiting)
    })?;
    ensure_eq(egress(world.tenant(), &server, SOON)?, open())?;
    world.bastion().ip(
        "link set eth1 up\nroute replace 10.0.0.1 dev eth1 scope link\nroute replace 10.0.0.0/16 via 10.0.0.1 dev eth1",
    )?;
    wait_until_ok("every component is ok again", Duration::from_secs(4), &installation)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn shut_at_once() -> Result {
    let world = World::start(Settings::default())?;
    silence_metadata(&world)?;
    let installation = installation(&world)?;
    let mut daemon = installation.start()?;
    wait_for("closed rules are loaded", Duration::from_secs(1), || {
        let rules = table(&world, "inet bastiond")?;
        Ok(rules.contains("policy drop") && rules.contains("ssh_ports") && !rules.contains("snat ip to"))
    })?;
    ensure(
        daemon.wait_for_notification("READY=1", Duration::ZERO).is_none(),
        "it was ready before, so the test proves nothing",
    )?;
    world.bastion().nft("delete table inet silence")?;
    daemon.wait_until_ready();
    wait_until_ok("every component is ok", Duration::from_secs(8), &installation)?;
    Ok(())
}
