//! The component routes on its own, with a TUN interface that no process serves.

use std::future::Future;

use bastiond::internals::component::reconcile;
use bastiond::internals::config::{self, Environment};
use bastiond::internals::inputs::{Inputs, Tunnel};
use bastiond::internals::outcome::{Outcome, State};
use bastiond::internals::routes::Routes;
use bastiond::internals::site::Site;
use ipnet::IpNet;
use libtest_mimic::Trial;
use sandbox::namespace::Namespace;

use crate::gateway::{Result, ensure_eq, lone_trial, text, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("addresses_and_routes_of_the_tunnel_are_set_and_foreign_ones_are_unchanged", addresses_and_routes),
        trial("a_conflicting_foreign_route_is_reported_and_ours_is_added_when_it_is_gone", contested),
        lone_trial("ten_thousand_routes_are_set_in_one_pass", many_routes),
        trial("ipv6_that_a_setting_switches_off_is_named_with_the_setting", no_ipv6),
    ]
}

fn tunnel(addresses: &[&str], sites: &[&str]) -> Tunnel {
    let nets = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().expect("a range")).collect() };
    Tunnel {
        interface: "wg0".parse().expect("a name"),
        mtu: 1420,
        addresses: nets(addresses),
        networks: nets(addresses).iter().map(IpNet::trunc).collect(),
        remote_networks: nets(sites),
        full_tunnel: false,
        routes: true,
        masqueraded: std::collections::BTreeMap::new(),
        problems: Vec::new(),
    }
}

/// A host with an unserved tunnel interface, and a foreign route and address on it.
fn host(name: &str) -> Result<Namespace> {
    let host = Namespace::create(name)?;
    host.ip("tuntap add wg0 mode tun\nlink set wg0 up\n\
         link add eth1 type veth peer name far\nlink set eth1 up\nlink set far up")?;
    Ok(host)
}

/// One pass of the component.
async fn pass(component: &mut Routes, tunnel: Option<&Tunnel>) -> Outcome {
    let config = config::parse("", &Environment::default()).expect("an empty configuration");
    let site = Site::default();
    reconcile(component, &Inputs { config: &config, site: &site, tunnel, now: tokio::time::Instant::now() }).await
}

/// Runs the component in the host's namespace.
pub(crate) fn inside<T: Send>(host: &Namespace, work: impl Future<Output = T> + Send) -> T {
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work)
    })
}

/// The lines of `ip`, without the flag of an unserved interface.
fn listed(host: &Namespace, question: &str) -> Result<Vec<String>> {
    let lines = text(&host.command("ip").args(question.split(' ')).output()?.stdout);
    let words = |line: &str| line.split_whitespace().filter(|&word| word != "linkdown").collect::<Vec<_>>().join(" ");
    Ok(lines.lines().map(words).collect())
}

fn addresses_and_routes() -> Result {
    let host = host("routes-plain")?;
    host.ip("addr add 10.99.0.1/32 dev wg0\nroute add 172.20.0.0/16 dev eth1\nroute add 192.168.7.0/24 dev wg0")?;
    let mut component = Routes::default();
    let first = tunnel(&["10.100.0.1/24", "fd00:100::1/64"], &["192.168.178.0/24", "192.168.7.0/24", "fd00:7::/64"]);
    let outcome = inside(&host, pass(&mut component, Some(&first)));
    ensure_eq(outcome.state, State::Ok)?;
    ensure_eq((outcome.problems.len(), outcome.hints.len()), (0, 1))?;
    ensure_eq(listed(&host, "route show proto 98")?, vec!["192.168.178.0/24 dev wg0 scope link".to_owned()])?;
    ensure_eq(
        listed(&host, "-6 route show proto 98")?,
        vec!["fd00:7::/64 dev wg0 metric 1024 pref medium".to_owned()],
    )?;
    let second = inside(&host, pass(&mut component, Some(&first)));
    ensure_eq((second.changes, second.repaired), (Vec::new(), false))?;
    // A foreign deletion is repaired and counted.
    host.ip("route del 192.168.178.0/24 dev wg0")?;
    let repaired = inside(&host, pass(&mut component, Some(&first)));
    ensure_eq((repaired.changes, repaired.repaired), (vec!["route 192.168.178.0/24 to wg0 added".to_owned()], true))?;
    // With another configuration, a new component removes what is left of the first one.
    let next = tunnel(&["10.100.0.1/24", "10.101.0.1/24"], &["192.168.1.0/24"]);
    let outcome = inside(&host, pass(&mut Routes::default(), Some(&next)));
    ensure_eq(outcome.state, State::Ok)?;
    let addresses = listed(&host, "-brief addr show dev wg0")?.concat();
    for (address, is_there) in
        [("10.100.0.1/24", true), ("10.101.0.1/24", true), ("10.99.0.1/32", true), ("fd00:100::1/64", false)]
    {
        ensure_eq((address, addresses.contains(address)), (address, is_there))?;
    }
    ensure_eq(listed(&host, "route show proto 98")?, vec!["192.168.1.0/24 dev wg0 scope link".to_owned()])?;
    ensure_eq(listed(&host, "-6 route show proto 98")?, Vec::<String>::new())?;
    // Without a tunnel nothing of ours is left, and everything foreign is.
    let outcome = inside(&host, pass(&mut component, None));
    ensure_eq((outcome.state, outcome.changes), (State::Off, vec!["route 192.168.1.0/24 to wg0 removed".to_owned()]))?;
    ensure_eq(
        listed(&host, "route show proto boot")?,
        vec!["172.20.0.0/16 dev eth1 scope link".to_owned(), "192.168.7.0/24 dev wg0 scope link".to_owned()],
    )
}

fn contested() -> Result {
    let host = host("routes-contested")?;
    host.ip("route add 192.168.178.0/24 dev eth1 metric 50")?;
    let mut component = Routes::default();
    let wanted = tunnel(&["10.100.0.1/24"], &["192.168.178.0/24"]);
    let outcome = inside(&host, pass(&mut component, Some(&wanted)));
    ensure_eq(outcome.state, State::Waiting)?;
    ensure_eq(
        outcome.problems[0].what.as_str(),
        "192.168.178.0/24 is not routed into the tunnel: another program's route leads to eth1",
    )?;
    host.ip("route del 192.168.178.0/24 dev eth1 metric 50")?;
    let outcome = inside(&host, pass(&mut component, Some(&wanted)));
    ensure_eq(outcome.changes, vec!["route 192.168.178.0/24 to wg0 added".to_owned()])
}

fn many_routes() -> Result {
    let host = host("routes-many")?;
    let sites: Vec<String> =
        (0..10_000_u32).map(|n| format!("172.{}.{}.{}/32", 16 + n / 5000, n % 5000 / 250, n % 250)).collect();
    let sites: Vec<&str> = sites.iter().map(String::as_str).collect();
    let wanted = tunnel(&["10.100.0.1/24"], &sites);
    let mut component = Routes::default();
    let started = std::time::Instant::now();
    let Outcome { state, changes, .. } = inside(&host, pass(&mut component, Some(&wanted)));
    ensure_eq((state, changes.len()), (State::Ok, 10_001))?;
    let (took, started) = (started.elapsed(), std::time::Instant::now());
    let again = inside(&host, pass(&mut component, Some(&wanted)));
    ensure_eq(again.changes, Vec::new())?;
    println!("10 000 routes: {took:?} to add, {:?} to find them standing", started.elapsed());
    Ok(())
}

fn no_ipv6() -> Result {
    let host = host("no-ipv6")?;
    let disable =
        |value| host.command("sysctl").args(["-qw", &format!("net.ipv6.conf.wg0.disable_ipv6={value}")]).output();
    ensure_eq(disable(1)?.status.success(), true)?;
    let (mut component, wanted) = (Routes::default(), tunnel(&["10.9.0.1/24", "fd09::1/64"], &["fd10::/64"]));
    let refused = inside(&host, pass(&mut component, Some(&wanted)));
    ensure_eq(refused.state, State::Failed)?;
    let said: Vec<(&str, &str)> =
        refused.problems.iter().map(|problem| (problem.code.as_ref(), problem.what.as_str())).collect();
    let why = "IPv6 is disabled by sysctl (net.ipv6.conf.wg0.disable_ipv6 = 1)";
    let expected =
        [format!("cannot add address fd09::1/64 of wg0: {why}"), format!("cannot add route fd10::/64 to wg0: {why}")];
    ensure_eq(said, expected.iter().map(|what| ("ipv6-disabled", what.as_str())).collect())?;
    ensure_eq(host.ip("address show dev wg0")?.contains("10.9.0.1/24"), true)?;
    disable(0)?;
    ensure_eq(inside(&host, pass(&mut component, Some(&wanted))).state, State::Ok)
}
