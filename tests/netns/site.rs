//! What the site pass finds out by asking the kernel: routes that lead elsewhere, and ranges of the tunnel that would.

use std::time::Duration;

use bastiond::internals::outcome::{ComponentName, Problem, State};
use bastiond::internals::report::Health;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::Installation;
use sandbox::traffic::{DownloadServer, download};
use sandbox::world::{PublicAddress, Settings, World, addresses as at};

use crate::coexistence::run;
use crate::gateway::{
    FAST, NEVER, Result, SOON, Server, component, egress, ensure, ensure_eq, gateways, healthy, installation, is_shut,
    open, report, table, text, trial, wait_for, wait_until_ok,
};

/// A pass follows a change within half a second.
const NOTICED: Duration = Duration::from_secs(12);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_network_whose_route_is_gone_is_reported_and_attracts_nothing_until_the_named_command_ran", route_gone),
        trial("a_rule_or_route_for_a_part_of_the_packets_is_named_with_the_command", parts),
        trial("every_route_and_rule_that_leads_a_network_elsewhere_is_named", swallowed),
        trial("a_default_route_that_wins_over_the_public_links_is_named_with_the_command", another_default_route),
        trial("an_address_of_a_private_host_on_this_server_is_named_with_the_command", address_here),
        trial("a_metadata_service_that_takes_seconds_is_waited_for_at_the_first_start", slow_metadata),
        trial("a_metadata_service_that_lists_nothing_any_more_closes_nothing_and_is_reported", empty_metadata),
        trial("the_servers_own_address_stays_the_first_when_it_is_removed_and_added_again", own_address_again),
        trial("a_server_made_from_a_snapshot_is_noticed_and_takes_no_route_of_the_other", snapshot),
        trial("a_private_link_with_a_larger_mtu_than_its_network_is_reported_and_tcp_passes", large_mtu),
        trial("a_vpn_on_a_server_with_ipv6_only_is_healthy", ipv6_only),
        trial("a_range_of_the_tunnel_that_overlaps_what_the_server_has_cuts_nothing_off", tunnel_over_networks),
    ]
}

/// The site's problems, once there is one.
fn problems(installation: &Installation<'_>, what: &str) -> Result<Vec<Problem>> {
    wait_for(&format!("reported: {what}"), NOTICED, || {
        Ok(component(installation, ComponentName::Site)?.state == State::Waiting)
    })?;
    Ok(component(installation, ComponentName::Site)?.problems)
}

/// Another program gives this server the address of a host, or routes a range of the network to it.
fn address_here() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    for command in ["addr add 10.0.1.5/32 dev lo", "route add local 10.0.1.0/24 dev lo"] {
        world.bastion().ip(command)?;
        ensure(is_shut(&egress(world.worker(), &server, NEVER)?), format!("{command}: this proves nothing"))?;
        let found = problems(&installation, command)?;
        let [Problem { code, what, advice, .. }] = &found[..] else { return Err(format!("{found:?}").into()) };
        ensure(code == "address-of-network" && what.contains("10.0.1."), what)?;
        let (_, remove) = advice.split_once(": ").ok_or(format!("no command in {advice}"))?;
        run(&world, remove)?;
        wait_for("nothing is reported", SOON, || {
            Ok(component(&installation, ComponentName::Site)?.problems.is_empty())
        })?;
        ensure_eq(egress(world.worker(), &server, SOON)?, open())?;
    }
    Ok(())
}

fn slow_metadata() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    world.cloud().delay_metadata(Duration::from_secs(6));
    let installation = installation(&world)?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let found = problems(&installation, "the answer is awaited")?;
    ensure_eq(
        found.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>(),
        vec!["the metadata service has not answered yet"],
    )?;
    wait_until_ok("every component is ok", Duration::from_secs(10), &installation)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn empty_metadata() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    let before = table(&world, "inet bastiond")?;
    for network in [world.private_network_id(), world.second_network_id()] {
        world.cloud().metadata_hide_network(world.bastion_id(), network);
    }
    // Also over a restart: what is known and stands is served.
    drop(daemon);
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let found = problems(&installation, "the empty list")?;
    for (interface, address) in [("eth1", at::BASTION_PRIVATE), ("eth2", at::BASTION_SECOND)] {
        let text = format!("but {interface} still has its address {address}: it is served");
        ensure(found.iter().any(|problem| problem.what.ends_with(&text)), format!("{found:?}"))?;
    }
    ensure_eq(table(&world, "inet bastiond")?, before)?;
    for host in [world.web(), world.tenant()] {
        ensure_eq(egress(host, &server, SOON)?, open())?;
    }
    for network in [world.private_network_id(), world.second_network_id()] {
        world.cloud().metadata_show_network(world.bastion_id(), network);
    }
    wait_until_ok("every component is ok again", Duration::from_secs(12), &installation)?;
    Ok(())
}

fn own_address_again() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    world.internet().ip("route add 198.51.100.50/32 via 198.51.100.2 dev bastion onlink")?;
    world.bastion().ip("addr add 198.51.100.50/32 dev eth0")?;
    let statics = "[[nat.static]]\npublic = \"198.51.100.50\"\nprivate = \"10.0.1.5\"\n";
    installation.write_config(&format!("{FAST}{statics}"))?;
    let _daemon = healthy(&installation)?;
    let before = table(&world, "inet bastiond")?;
    ensure(before.contains("198.51.100.50"), before.clone())?;
    world.bastion().ip("addr del 198.51.100.2/32 dev eth0")?;
    let found = problems(&installation, "the missing address")?;
    ensure(
        found.iter().any(|problem| problem.what.contains("does not have its own address 198.51.100.2")),
        format!("{found:?}"),
    )?;
    ensure_eq(table(&world, "inet bastiond")?, before.clone())?;
    world.bastion().ip("addr add 198.51.100.2/32 dev eth0")?;
    let order = text(&world.bastion().command("ip").args(["-4", "-o", "addr", "show", "dev", "eth0"]).output()?.stdout);
    ensure(order.find("100.50/").zip(order.find("100.2/")).is_some_and(|(other, own)| other < own), order)?;
    wait_until_ok("every component is ok again", NOTICED, &installation)?;
    ensure_eq(table(&world, "inet bastiond")?, before)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    ensure_eq(egress(world.worker(), &server, SOON)?.tcp, Ok(std::net::Ipv4Addr::new(198, 51, 100, 50).into()))
}

fn large_mtu() -> Result {
    let world = World::start(Settings::default())?;
    let downloads = DownloadServer::start(world.server(), (at::SERVER, 8081))?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    for (host, interface) in [(world.bastion(), "eth1"), (world.web(), "eth0")] {
        host.ip(&format!("link set {interface} mtu 1500"))?;
    }
    // The network swallows what is too large, and says nothing.
    let gateway = world.gateway(world.private_network_id()).namespace();
    gateway.nft("table ip mute { chain out { type filter hook output priority 0; meta l4proto icmp drop; }; }")?;
    let found = problems(&installation, "the MTU")?;
    ensure_eq(
        found.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>(),
        vec!["eth1 has MTU 1500, but Hetzner's networks carry packets of at most 1450 bytes: larger ones are lost"],
    )?;
    wait_for("the table clamps", NOTICED, || Ok(table(&world, "inet bastiond")?.contains("size set 1410")))?;
    let loaded = download(world.web(), downloads.address(), 1 << 20, NOTICED * 2);
    ensure(loaded.is_ok(), format!("{loaded:?}"))?;
    world.bastion().ip("link set eth1 mtu 1450")?;
    wait_until_ok("every component is ok again", NOTICED * 3, &installation)?;
    ensure(!table(&world, "inet bastiond")?.contains("size set 1410"), "the rule stayed")
}

fn ipv6_only() -> Result {
    let settings = Settings { public_address: PublicAddress::Pending, ..Settings::default() };
    let world = World::start(settings)?;
    let v6 = world.bastion_v6();
    world.bastion().ip(&format!("addr add {v6}/64 dev eth0 nodad\nroute add default via fe80::1 dev eth0"))?;
    let installation = installation(&world)?;
    let tunnel = "[wireguard]\ninterface = \"wg-site\"\naddresses = [\"10.100.0.1/24\"]\n";
    // Without the API: it has an IPv4 address only.
    installation.write_config(&format!("hcloud.enabled = false\n{tunnel}"))?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let found = problems(&installation, "the missing address")?;
    ensure(found.iter().any(|problem| problem.code == "no-public-address"), format!("{found:?}"))?;
    installation.write_config(&format!("hcloud.enabled = false\negress.allow = []\n{tunnel}"))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("it is healthy", NOTICED, || Ok(report(&installation)?.health == Health::Healthy))
        .map_err(|error| format!("{error:?} {:?}", report(&installation)))?;
    ensure(
        component(&installation, ComponentName::Site)?.hints.iter().any(|it| it.code == "no-public-address"),
        "no hint",
    )
}

fn snapshot() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}take_over = true"))?;
    let file = installation.state_directory().join("server.json");
    drop(healthy(&installation)?);
    ensure_eq(std::fs::read_to_string(&file)?, format!("{{\"server_id\":{}}}", world.bastion_id()))?;
    // The disk of server 17, which has the route.
    std::fs::write(&file, "{\"server_id\":17}")?;
    world.put_route("0.0.0.0/0".parse()?, at::WORKER);
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let found = problems(&installation, "the other server's state")?;
    let expected = format!("this is server {}, but its state directory is that of server 17", world.bastion_id());
    ensure(found[0].what.starts_with(&expected), format!("{found:?}"))?;
    wait_for("the other's route is reported", NOTICED, || {
        let problems = component(&installation, ComponentName::Hcloud)?.problems;
        Ok(problems.iter().any(|problem| problem.what.contains("sends 0.0.0.0/0 to 10.0.1.5")))
    })?;
    std::thread::sleep(Duration::from_millis(1500));
    ensure_eq(gateways(&world), vec![at::WORKER])?;
    // The decision: this server takes over.
    std::fs::remove_file(&file)?;
    ensure(installation.ctl(&["reconcile"])?.status.code().is_some(), "bastionctl was killed")?;
    wait_for("the route is taken over", NOTICED * 2, || Ok(gateways(&world) == [at::BASTION_PRIVATE]))?;
    wait_until_ok("every component is ok", NOTICED, &installation)?;
    wait_for("traffic flows", SOON, || Ok(egress(world.web(), &server, SOON)? == open()))?;
    Ok(())
}

/// The first `ip …` command of an advice, as a person would copy it.
fn command(problem: &Problem) -> Result<String> {
    let (_, command) = problem.advice.split_once(": ip ").ok_or(format!("no command in {problem}"))?;
    Ok(command.split(';').next().unwrap_or_default().split("&&").next().unwrap_or_default().trim().to_owned())
}

fn route_gone() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    ensure_eq(gateways(&world), vec![at::BASTION_PRIVATE])?;
    world.bastion().ip("route del 10.0.0.0/16")?;
    let found = problems(&installation, "the lost route")?;
    let expected = format!(
        "10.0.0.0/16 (network {}) is not routed out of eth1: packets to 10.0.0.3 leave by eth0 (default via 172.31.1.1 \
         dev eth0)",
        world.private_network_id()
    );
    ensure_eq(found.iter().map(|problem| problem.what.clone()).collect::<Vec<_>>(), vec![expected])?;
    // Nothing is withdrawn, and nothing is attracted either. The other network is served on.
    ensure_eq(gateways(&world), vec![at::BASTION_PRIVATE])?;
    world.remove_route("0.0.0.0/0".parse()?);
    std::thread::sleep(Duration::from_millis(2500));
    ensure_eq(gateways(&world), vec![])?;
    ensure_eq(component(&installation, ComponentName::Hcloud)?.state, State::Waiting)?;
    ensure_eq(egress(world.tenant(), &server, SOON)?, open())?;
    world.bastion().ip(&command(&found[0])?)?;
    wait_until_ok("every component is ok again", Duration::from_secs(12), &installation)?;
    wait_for("the route in the cloud is back", Duration::from_secs(12), || {
        Ok(gateways(&world) == [at::BASTION_PRIVATE])
    })?;
    wait_for("traffic flows", SOON, || Ok(egress(world.web(), &server, SOON)? == open()))?;
    Ok(())
}

fn swallowed() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    world.bastion().ip(
        "link add vpn0 type veth peer name vpn1\nlink set vpn0 up\nlink set vpn1 up\naddr add 10.66.0.2/24 dev vpn0\nroute add default dev vpn0 table 77",
    )?;
    let whole = "no route is added for 10.0.0.0/16 until its packets are routed right";
    for (change, undo, named, is_whole) in [
        ("route add 10.0.1.0/24 dev vpn0", "route del 10.0.1.0/24 dev vpn0", "(10.0.1.0/24 dev vpn0)", false),
        ("route add 10.0.1.5/32 dev vpn0", "route del 10.0.1.5/32 dev vpn0", "(10.0.1.5/32 dev vpn0)", false),
        ("route add blackhole 10.0.1.0/24", "route del blackhole 10.0.1.0/24", "(blackhole 10.0.1.0/24)", false),
        ("route add unreachable 10.0.1.0/24", "route del unreachable 10.0.1.0/24", "(unreachable 10.0.1.0/24)", false),
        ("route add throw 10.0.1.0/24", "route del throw 10.0.1.0/24", "(throw 10.0.1.0/24)", false),
        (
            "route add 10.0.0.0/17 dev vpn0\nroute add 10.0.128.0/17 dev vpn0",
            "route del 10.0.0.0/17 dev vpn0\nroute del 10.0.128.0/17 dev vpn0",
            "(10.0.0.0/17 dev vpn0)",
            true,
        ),
        (
            "rule add to 10.0.0.0/16 lookup 77 priority 50",
            "rule del to 10.0.0.0/16 lookup 77 priority 50",
            "(default dev vpn0 table 77)",
            true,
        ),
        // Only what is forwarded: this server's own packets are routed right.
        (
            "rule add iif eth0 to 10.0.0.0/16 lookup 77 priority 50",
            "rule del iif eth0 to 10.0.0.0/16 lookup 77 priority 50",
            "(default dev vpn0 table 77)",
            true,
        ),
        (
            "rule add iif eth1 from 10.0.0.0/16 lookup 77 priority 50",
            "rule del iif eth1 from 10.0.0.0/16 lookup 77 priority 50",
            "they leave by vpn0 (default dev vpn0 table 77)",
            true,
        ),
    ] {
        world.bastion().ip(change)?;
        let found = problems(&installation, change)?;
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        ensure(texts.iter().any(|text| text.contains(named)), format!("{change}: {texts:?}"))?;
        if is_whole {
            wait_for("the cloud's component waits", NOTICED * 2, || {
                Ok(component(&installation, ComponentName::Hcloud)?.detail.contains(whole))
            })
            .map_err(|error| format!("{change}: {error:?}"))?;
        }
        world.bastion().ip(undo)?;
        wait_until_ok(&format!("solved: {undo}"), NOTICED * 3, &installation)?;
    }
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

/// Rules and routes that concern a part of the packets only, so that neither the probes nor a few addresses meet them.
fn parts() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    world.bastion().ip("route add unreachable default table 77")?;
    let site = || component(&installation, ComponentName::Site);
    let add = |rule: &str| world.bastion().ip(&format!("rule add {rule} lookup 77 priority 50"));
    for (rule, shown) in [
        ("to 10.0.1.0/24", "from all to 10.0.1.0/24 lookup 77"),
        ("from 10.0.1.0/24", "from 10.0.1.0/24 lookup 77"),
        ("from 10.0.1.5", "from 10.0.1.5/32 lookup 77"),
        ("iif eth1 from 10.0.1.4/30 to 0.0.0.0/1", "from 10.0.1.4/30 to 0.0.0.0/1 iif eth1 lookup 77"),
        ("ipproto tcp", "from all ipproto 6 lookup 77"),
        ("ipproto tcp dport 80", "from all ipproto 6 dport 80 lookup 77"),
    ] {
        add(rule)?;
        let found = problems(&installation, rule)?;
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        ensure(found[0].code == "rule-misroutes" && texts[0].contains(shown), format!("{rule}: {texts:?}"))?;
        if !rule.contains("/30") && !rule.contains("dport") {
            ensure(egress(world.worker(), &server, NEVER)?.tcp.is_err(), format!("{rule}: this proves nothing"))?;
        }
        world.bastion().ip(&command(&found[0])?)?;
        wait_until_ok(&format!("solved: {rule}"), NOTICED * 3, &installation)?;
    }
    // Whether packets of ours carry a mark is not known, and a part of the internet may be wanted elsewhere.
    for (change, undo, code) in [
        ("rule add fwmark 7 lookup 77 priority 50", "rule del priority 50", "rule-misroutes"),
        ("rule add to 203.0.113.0/24 lookup 77 priority 50", "rule del priority 50", "rule-misroutes"),
        ("route add blackhole 203.0.113.0/25", "route del blackhole 203.0.113.0/25", "part-of-internet-misrouted"),
        ("route add 202.0.0.0/7 via 10.0.0.1 dev eth1", "route del 202.0.0.0/7", "part-of-internet-misrouted"),
    ] {
        world.bastion().ip(change)?;
        wait_for(change, NOTICED, || Ok(site()?.hints.iter().any(|hint| hint.code == code)))?;
        world.bastion().ip(undo)?;
        wait_for(undo, NOTICED, || Ok(site()?.hints.is_empty()))?;
    }
    world.bastion().ip("route replace default nexthop via 172.31.1.1 dev eth0 onlink nexthop via 10.0.0.1 dev eth1")?;
    let found = problems(&installation, "a default route with two links")?;
    ensure(found[0].code == "internet-misrouted", format!("{found:?}"))?;
    world.bastion().ip("route replace default via 172.31.1.1 dev eth0 onlink")?;
    wait_until_ok("every component is ok again", NOTICED * 3, &installation)?;
    ensure_eq(egress(world.worker(), &server, SOON)?, open())
}

fn another_default_route() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    world.bastion().ip(
        "route add default via 172.31.1.1 dev eth0 onlink metric 100\nroute del default via 172.31.1.1 dev eth0 metric 0",
    )?;
    wait_until_ok("every component is ok", NOTICED, &installation)?;
    world.bastion().ip("route add default via 10.0.0.1 dev eth1")?;
    let what = "packets to the internet do not leave by eth0: they leave by eth1 (default via 10.0.0.1 dev eth1)";
    // The first look may have been half before and half after the change.
    wait_for(what, NOTICED, || {
        let found = component(&installation, ComponentName::Site)?.problems;
        Ok(found.iter().map(|problem| problem.what.as_str()).eq([what]))
    })?;
    let found = problems(&installation, "the other default route")?;
    world.bastion().ip(&command(&found[0])?)?;
    wait_until_ok("every component is ok again", NOTICED * 3, &installation)?;
    wait_for("traffic flows", SOON, || Ok(egress(world.web(), &server, SOON)? == open()))?;
    Ok(())
}

fn tunnel_over_networks() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    for (address, allowed_ips, reported) in [
        ("10.100.0.1/24", "\"10.100.0.2\", \"192.168.1.0/24\"", None),
        ("10.100.0.1/24", "\"10.100.0.2\", \"10.0.0.0/24\"", Some("10.0.0.0/24 of ada's allowed_ips")),
        ("10.100.0.1/24", "\"10.0.1.5/32\"", Some("10.0.1.5/32 of ada's allowed_ips is inside")),
        ("10.100.0.1/24", "\"10.0.0.2/32\"", Some("10.0.0.2/32 of ada's allowed_ips contains 10.0.0.2, this server")),
        ("10.100.0.1/24", "\"198.51.100.0/24\"", Some("contains 198.51.100.2, this server's own address on eth0")),
        ("10.0.1.40/24", "\"10.100.0.2\"", Some("10.0.1.0/24 of wireguard.addresses is inside")),
    ] {
        let tunnel = format!(
            "[wireguard]\ninterface = \"wg-overlap\"\naddresses = [\"{address}\"]\n[[wireguard.peer]]\n\
             name = \"ada\"\npublic_key = \"{key}\"\n\
             allowed_ips = [{allowed_ips}]\n"
        );
        installation.write_config(&format!("{FAST}{tunnel}"))?;
        daemon.signal(Signal::SIGHUP)?;
        let problems = || -> Result<Vec<String>> {
            let found = component(&installation, ComponentName::Wireguard)?.problems;
            Ok(found.into_iter().map(|problem| problem.what).collect())
        };
        match reported {
            None => wait_until_ok("the tunnel is ok", NOTICED, &installation)?,
            Some(reported) => wait_for(reported, NOTICED, || Ok(problems()?.iter().any(|it| it.contains(reported))))
                .map_err(|error| format!("{error:?}: {:?}", problems()))?,
        };
        for (host, address) in [(world.web(), at::WEB), (world.worker(), at::WORKER)] {
            let way =
                text(&world.bastion().command("ip").args(["route", "get", &address.to_string()]).output()?.stdout);
            ensure(way.contains("dev eth1"), format!("{address} with {allowed_ips}: {way}"))?;
            ensure_eq(egress(host, &server, SOON)?, open())?;
        }
    }
    Ok(())
}
