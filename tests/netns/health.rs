//! The probes: the daemon proves by packets that traffic flows, and notices when it does not.

mod addresses;

use std::net::Ipv4Addr;
use std::time::Duration;

use bastiond::internals::health::{Path, PathReport, PathState};
use bastiond::internals::report::Health;
use libtest_mimic::Trial;
use sandbox::daemon::Installation;
use sandbox::world::{Laptop, RESOLVERS, SecondNetwork, Settings, World, addresses as at};

use crate::gateway::{
    FAST, Result, SOON, Server, egress, ensure, ensure_eq, healthy, installation, open, report, trial, wait_for,
};

/// How long a path may be called ok while it is dead, and lost while it works.
pub(crate) const NOTICED: Duration = Duration::from_secs(10);
/// Another public address of the bastion.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

pub(crate) fn trials() -> Vec<Trial> {
    let own = vec![
        trial("the_path_to_the_internet_is_proven_within_seconds_of_the_start", proven),
        trial("each_network_has_a_path_of_its_own", two_networks),
        trial("an_uplink_that_carries_nothing_is_noticed_within_ten_seconds_and_so_is_its_return", uplink),
        trial("losing_the_way_back_of_one_egress_address_is_blamed_on_that_address_alone", one_address),
        trial("an_egress_address_that_is_not_routed_here_stays_unproven_and_the_others_are_ok", unrouted_address),
        trial("networks_with_pools_of_their_own_have_a_path_for_each_address", pools_of_networks),
        trial("a_translation_by_another_program_is_no_pass", foreign_translation),
        trial("a_foreign_rule_that_drops_the_networks_packets_is_noticed", foreign_drop),
        trial("a_foreign_chain_that_lets_only_the_private_link_pass_is_named_as_the_reason", foreign_chain),
        trial("one_dead_resolver_is_named_and_two_are_a_lost_path", resolvers),
        trial("a_path_that_passed_before_a_restart_is_lost_after_it_and_one_that_never_did_is_unproven", restart),
        trial("a_path_is_not_called_lost_because_forwarding_was_off_for_a_moment", forwarding),
        trial("a_network_on_the_link_itself_is_proven_too", on_link),
        trial("lists_that_forbid_every_target_are_named_as_the_reason", forbidden),
        trial("an_allowed_host_is_asked_where_no_resolver_is_allowed", allowed_host),
        trial("a_probes_interface_that_another_program_removes_or_takes_down_comes_back", interface),
        trial("nothing_is_sent_where_probes_are_off", off),
        trial("probes_leave_no_flow_and_no_dropped_packet_behind", no_traces),
    ];
    [own, addresses::trials()].into_iter().flatten().collect()
}

/// A world with one private network.
pub(crate) fn one_network() -> Result<World> {
    Ok(World::start(Settings { second_network: SecondNetwork::Absent, laptop: Laptop::Absent, ..Settings::default() })?)
}

fn paths(installation: &Installation<'_>) -> Result<Vec<PathReport>> {
    Ok(report(installation)?.paths)
}

/// The state of each path by its egress address.
fn states(installation: &Installation<'_>) -> Result<Vec<(Ipv4Addr, PathState)>> {
    let by_address = |report: PathReport| match report.path {
        Path::Nat { egress: Some(egress), .. } => Some((egress, report.state)),
        _ => None,
    };
    Ok(paths(installation)?.into_iter().filter_map(by_address).collect())
}

/// Waits until the paths are in these states; fails with what is known about them.
fn become_states(
    installation: &Installation<'_>,
    expected: &[(Ipv4Addr, PathState)],
    within: Duration,
) -> Result<Duration> {
    let waited = wait_for("the paths are in the expected states", within, || Ok(states(installation)? == expected));
    waited.map_err(|_| format!("expected {expected:?}, found {:#?}", paths(installation)).into())
}

/// Waits until the only path is in this state.
pub(crate) fn becomes(installation: &Installation<'_>, state: PathState, within: Duration) -> Result<Duration> {
    become_states(installation, &[(at::BASTION, state)], within)
}

/// Drops packets at the internet's router.
fn lose(world: &World, hook: &str, condition: &str) -> Result {
    let priority = if hook == "prerouting" { -400 } else { 400 };
    let rules = format!(
        "table inet lost {{ chain lost {{ type filter hook {hook} priority {priority}; {condition} drop; }}; }}"
    );
    world.internet().nft(&rules)?;
    Ok(())
}

fn lose_nothing(world: &World) -> Result {
    world.internet().nft("delete table inet lost")?;
    Ok(())
}

fn proven() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    let report = report(&installation)?;
    ensure_eq(report.health, Health::Healthy)?;
    ensure_eq(report.paths[0].detail.as_str(), "")?;
    ensure(report.paths[0].round_trip_us.is_some_and(|us| us < 1_000_000), format!("{:?}", report.paths))?;
    let status = String::from_utf8(installation.ctl(&["status"])?.stdout)?;
    ensure(status.contains("nat 10.0.0.0/16 by 198.51.100.2  ok"), status)
}

fn two_networks() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    become_states(&installation, &[(at::BASTION, PathState::Ok), (at::BASTION, PathState::Ok)], SOON)?;
    let networks: Vec<String> = paths(&installation)?.iter().map(|report| report.path.to_string()).collect();
    let expected = [
        "nat 10.0.0.0/16 by 198.51.100.2",
        "nat 10.2.0.0/16 by 198.51.100.2",
        "private 10.0.0.0/16",
        "private 10.2.0.0/16",
        "whole 10.0.0.0/16",
        "whole 10.2.0.0/16",
    ];
    ensure_eq(networks, expected.map(str::to_owned).to_vec())
}

fn uplink() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    lose(&world, "prerouting", "iifname bastion ip daddr 185.12.64.0/24")?;
    becomes(&installation, PathState::Lost, NOTICED)?;
    let lost = report(&installation)?;
    ensure_eq(lost.health, Health::Degraded)?;
    ensure(
        lost.paths[0].detail.starts_with("no answer from 185.12.64.1, 185.12.64.2; "),
        lost.paths[0].detail.clone(),
    )?;
    ensure_eq(installation.ctl(&["status"])?.status.success(), false)?;
    lose_nothing(&world)?;
    becomes(&installation, PathState::Ok, NOTICED)?;
    wait_for("the gateway is healthy", SOON, || Ok(report(&installation)?.health == Health::Healthy))?;
    let log = daemon.log();
    ensure(log.contains("nat 10.0.0.0/16 by 198.51.100.2 is lost") && log.contains("198.51.100.2 is ok"), log)
}

/// A world whose bastion has two public addresses, of which private hosts use both.
fn with_pool(world: &World) -> Result<Installation<'_>> {
    world.internet().ip(&format!("route add {OTHER}/32 via {} dev bastion onlink", at::BASTION))?;
    world.bastion().ip(&format!("addr add {OTHER}/32 dev eth0"))?;
    let installation = installation(world)?;
    installation.write_config(&format!("{FAST}[nat]\negress_addresses = [\"{}\", \"{OTHER}\"]\n", at::BASTION))?;
    Ok(installation)
}

fn one_address() -> Result {
    let world = one_network()?;
    let installation = with_pool(&world)?;
    let _daemon = healthy(&installation)?;
    become_states(&installation, &[(at::BASTION, PathState::Ok), (OTHER, PathState::Ok)], SOON)?;
    lose(&world, "postrouting", &format!("ip daddr {OTHER}"))?;
    become_states(&installation, &[(at::BASTION, PathState::Ok), (OTHER, PathState::Lost)], NOTICED)?;
    ensure_eq(report(&installation)?.health, Health::Degraded)?;
    lose_nothing(&world)?;
    become_states(&installation, &[(at::BASTION, PathState::Ok), (OTHER, PathState::Ok)], NOTICED)?;
    Ok(())
}

fn unrouted_address() -> Result {
    let world = one_network()?;
    let installation = with_pool(&world)?;
    world.internet().ip(&format!("route del {OTHER}/32"))?;
    let _daemon = healthy(&installation)?;
    become_states(&installation, &[(at::BASTION, PathState::Ok), (OTHER, PathState::Unproven)], SOON)?;
    wait_for("the reason is shown", NOTICED, || Ok(paths(&installation)?[1].detail.starts_with("no answer from")))?;
    ensure_eq(states(&installation)?, vec![(at::BASTION, PathState::Ok), (OTHER, PathState::Unproven)])?;
    ensure_eq(report(&installation)?.health, Health::Healthy)?;
    world.internet().ip(&format!("route add {OTHER}/32 via {} dev bastion onlink", at::BASTION))?;
    become_states(&installation, &[(at::BASTION, PathState::Ok), (OTHER, PathState::Ok)], NOTICED)?;
    Ok(())
}

fn pools_of_networks() -> Result {
    let world = World::start(Settings::default())?;
    let others: Vec<Ipv4Addr> = (3..8).map(|last| Ipv4Addr::new(198, 51, 100, last)).collect();
    for address in &others {
        world.internet().ip(&format!("route add {address}/32 via {} dev bastion onlink", at::BASTION))?;
        world.bastion().ip(&format!("addr add {address}/32 dev eth0"))?;
    }
    let pool = others.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ");
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[[network]]\nrange = \"10.2.0.0/16\"\negress_addresses = [{pool}]\n"))?;
    let _daemon = healthy(&installation)?;
    let expected: Vec<_> = std::iter::once(at::BASTION).chain(others).map(|address| (address, PathState::Ok)).collect();
    become_states(&installation, &expected, SOON)?;
    let table = String::from_utf8(world.bastion().command("nft").args(["list", "ruleset"]).output()?.stdout)?;
    ensure(table.contains("198.19.240.1"), table)
}

fn foreign_translation() -> Result {
    let world = one_network()?;
    let server = Server::start(&world)?;
    world.bastion().ip(&format!("addr add {OTHER}/32 dev eth0"))?;
    world.internet().ip(&format!("route add {OTHER}/32 via {} dev bastion onlink", at::BASTION))?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    // A kernel chain of an earlier priority translates first, unless ours was registered ahead of it.
    world.bastion().nft(&format!(
        "table ip stranger {{ chain postrouting {{ type nat hook postrouting priority -150; \
         oifname eth0 ip saddr 10.0.0.0/16 snat to {OTHER}; }}; }}"
    ))?;
    // The oracle is a private host's own traffic.
    let noticed = wait_for("the path is ok just if hosts are translated by our rules", NOTICED, || {
        let is_ours = egress(world.web(), &server, SOON)?.tcp == Ok(at::BASTION.into());
        let path = paths(&installation)?.remove(0);
        let names_it = path.detail == format!("packets leave as {OTHER} instead of {}", at::BASTION);
        Ok(if is_ours { path.state == PathState::Ok } else { path.state == PathState::Lost && names_it })
    });
    noticed.map_err(|error| format!("{}: {:#?}", error.message().unwrap_or_default(), paths(&installation)))?;
    world.bastion().nft("delete table ip stranger")?;
    becomes(&installation, PathState::Ok, NOTICED)?;
    Ok(())
}

fn foreign_drop() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    world.bastion().nft(
        "table ip stranger { chain forward { type filter hook forward priority 10; ip saddr 10.0.0.0/16 drop; }; }",
    )?;
    becomes(&installation, PathState::Lost, NOTICED)?;
    world.bastion().nft("delete table ip stranger")?;
    becomes(&installation, PathState::Ok, NOTICED)?;
    Ok(())
}

fn foreign_chain() -> Result {
    let world = one_network()?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    world.bastion().nft(
        "table ip stranger { chain forward { type filter hook forward priority 10; policy drop; \
         iifname eth1 oifname eth0 accept; iifname eth0 oifname eth1 ct state established,related accept; }; }",
    )?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    becomes(&installation, PathState::Cannot, NOTICED)?;
    let detail = paths(&installation)?.remove(0).detail;
    ensure(detail.contains("chain forward of table ip stranger") && detail.contains("probe-0a000000"), detail)?;
    // As the status advises.
    world.bastion().nft("insert rule ip stranger forward iifname probe-0a000000 oifname eth0 accept")?;
    let answers =
        "insert rule ip stranger forward iifname eth0 oifname probe-0a000000 ct state established,related accept";
    world.bastion().nft(answers)?;
    becomes(&installation, PathState::Ok, NOTICED)?;
    Ok(())
}

fn resolvers() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    lose(&world, "prerouting", &format!("ip daddr {}", RESOLVERS[0]))?;
    wait_for("the dead resolver is named", NOTICED, || {
        Ok(paths(&installation)?[0].detail == format!("no answer from {}", RESOLVERS[0]))
    })?;
    ensure_eq(states(&installation)?, vec![(at::BASTION, PathState::Ok)])?;
    ensure_eq(report(&installation)?.health, Health::Healthy)?;
    world.internet().nft(&format!("add rule inet lost lost ip daddr {} drop", RESOLVERS[1]))?;
    becomes(&installation, PathState::Lost, NOTICED)?;
    lose_nothing(&world)?;
    wait_for("both answer again", NOTICED, || {
        let paths = paths(&installation)?;
        Ok(paths[0].state == PathState::Ok && paths[0].detail.is_empty())
    })?;
    Ok(())
}

fn restart() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    lose(&world, "prerouting", "ip daddr 185.12.64.0/24")?;
    let daemon = healthy(&installation)?;
    wait_for("the path is found not to pass", NOTICED, || {
        Ok(paths(&installation)?[0].detail.starts_with("no answer"))
    })?;
    ensure_eq(states(&installation)?, vec![(at::BASTION, PathState::Unproven)])?;
    ensure_eq(report(&installation)?.health, Health::Healthy)?;
    lose_nothing(&world)?;
    becomes(&installation, PathState::Ok, NOTICED)?;
    drop(daemon);
    lose(&world, "prerouting", "ip daddr 185.12.64.0/24")?;
    let _daemon = healthy(&installation)?;
    becomes(&installation, PathState::Lost, NOTICED)?;
    Ok(())
}

fn forwarding() -> Result {
    let world = one_network()?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    for _ in 0..3 {
        world.bastion().sysctl("net.ipv4.ip_forward", "0")?;
        wait_for("forwarding is on", SOON, || Ok(world.bastion().read_sysctl("net.ipv4.ip_forward")? == "1"))?;
    }
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    becomes(&installation, PathState::Ok, SOON)?;
    let log = daemon.log();
    ensure(!log.contains("is lost"), log)
}

fn on_link() -> Result {
    let world = one_network()?;
    // As on a dedicated server with a VLAN: the kernel takes 10.0.255.255 for a broadcast address.
    world.bastion().ip("addr del 10.0.0.2/32 dev eth1\naddr add 10.0.0.2/16 dev eth1")?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    Ok(())
}

fn forbidden() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    let list = "[egress]\nallow = [{ to = [\"203.0.113.0/24\"], protocol = \"tcp\", ports = [8080] }]\n";
    installation.write_config(&format!("{FAST}{list}"))?;
    let _daemon = healthy(&installation)?;
    becomes(&installation, PathState::Cannot, SOON)?;
    ensure(paths(&installation)?[0].detail.contains("health.targets"), format!("{:?}", paths(&installation)))?;
    ensure_eq(report(&installation)?.health, Health::Healthy)
}

fn allowed_host() -> Result {
    let world = one_network()?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let list = format!("[egress]\nallow = [{{ to = [\"{}\"], protocol = \"tcp\", ports = [8080] }}]\n", at::SERVER);
    installation.write_config(&format!("{FAST}{list}"))?;
    let _daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    lose(&world, "prerouting", &format!("iifname bastion ip daddr {}", at::SERVER))?;
    becomes(&installation, PathState::Lost, NOTICED)?;
    let detail = paths(&installation)?[0].detail.clone();
    ensure(detail.starts_with("no answer from 203.0.113.10:8080/tcp; "), detail)?;
    drop(server);
    Ok(())
}

fn interface() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    for change in ["link set probe-0a000000 down", "link del probe-0a000000", "route flush dev probe-0a000000"] {
        world.bastion().ip(change)?;
        let back = || {
            Ok(world.bastion().ip("route show dev probe-0a000000").is_ok_and(|routes| routes.contains("10.0.255.255")))
        };
        wait_for(change, NOTICED, back)?;
        becomes(&installation, PathState::Ok, NOTICED)?;
    }
    let log = daemon.log();
    ensure(!log.contains("is lost"), log)
}

fn off() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[health]\nenabled = false\n"))?;
    let daemon = healthy(&installation)?;
    ensure_eq(paths(&installation)?, Vec::new())?;
    ensure(!world.bastion().ip("link")?.contains("probe-"), "there is an interface for probes")?;
    let table = || -> Result<String> {
        Ok(String::from_utf8(world.bastion().command("nft").args(["list", "ruleset"]).output()?.stdout)?)
    };
    ensure(!table()?.contains("probe-"), "the rules name an interface for probes")?;
    // Switched on and off by reloads.
    installation.write_config(FAST)?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    becomes(&installation, PathState::Ok, SOON)?;
    installation.write_config(&format!("{FAST}[health]\nenabled = false\n"))?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait_for("the interface is gone", SOON, || Ok(!world.bastion().ip("link")?.contains("probe-")))?;
    wait_for("no path is reported", SOON, || Ok(paths(&installation)?.is_empty()))?;
    Ok(())
}

fn no_traces() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    becomes(&installation, PathState::Ok, SOON)?;
    std::thread::sleep(Duration::from_secs(4));
    let flows = std::fs::read_to_string(format!("/proc/{}/net/nf_conntrack", daemon.pid())).unwrap_or_default();
    let left: Vec<&str> = flows.lines().filter(|line| line.contains("185.12.64")).collect();
    ensure(left.is_empty(), format!("{left:#?}"))?;
    let dropped = report(&installation)?.firewall.ok_or("no table")?;
    ensure(!format!("{dropped:?}").contains("185.12.64"), format!("{dropped:?}"))?;
    drop(daemon);
    wait_for("the interface goes with the daemon", SOON, || Ok(!world.bastion().ip("link")?.contains("probe-")))?;
    Ok(())
}
