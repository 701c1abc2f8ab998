//! Ranges behind private networks: pods behind a private host, known by the network's routes or named by hand.

use std::net::Ipv4Addr;
use std::time::Duration;

use bastiond::internals::outcome::{ComponentName, State};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::cloud::{Fault, Injection, Matching, Times};
use sandbox::daemon::Installation;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Ping, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{
    FAST, NEVER, Result, SOON, Server, component, egress, ensure, ensure_eq, healthy, installation, is_shut, open,
    our_routes, report, trial, wait_for,
};
use crate::policy::{gateway, reload};
use crate::way_in::{ADA, Client, seen, serving, tunnel};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("hosts_behind_a_private_host_are_served_while_the_networks_route_leads_to_them", by_the_clouds_route),
        trial("a_route_of_the_network_is_remembered_over_a_restart_without_the_api", remembered),
        trial("a_range_behind_a_network_can_be_named_by_hand", by_hand),
        trial("peers_of_the_tunnel_reach_hosts_behind_a_private_host", from_the_tunnel),
        trial("the_lists_and_tenants_of_a_network_hold_for_hosts_behind_it", lists),
        trial("a_route_of_the_network_that_overlaps_another_network_is_reported_and_not_served", overlapping),
        trial("a_private_source_that_no_link_delivers_is_reported", nobodys_source),
    ]
}

/// Of the pod.
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 5);
const PODS: &str = "10.244.1.0/24";
/// How long the daemon takes to notice a change in the cloud: a poll every second for each of two networks.
const POLLED: Duration = Duration::from_secs(6);

/// A pod behind the worker, which forwards without translation.
fn pod(world: &World, name: &str) -> Result<Namespace> {
    let pod = Namespace::create(name)?;
    pod.ip(&format!("link add eth0 type veth peer name pods netns {}", world.worker().name()))?;
    pod.ip(&format!("link set lo up\nlink set eth0 mtu 1450 up\naddr add {POD}/24 dev eth0"))?;
    world.worker().ip("link set pods mtu 1450 up\naddr add 10.244.1.1/24 dev pods")?;
    world.worker().sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv4.conf.pods.rp_filter", "0")])?;
    pod.ip("route add default via 10.244.1.1")?;
    Ok(pod)
}

fn pings(from: &Namespace, to: Ipv4Addr) -> Result<bool> {
    Ok(!traffic::ping(from, to, Ping { timeout: SOON, ..Ping::default() })?.replies.is_empty())
}

fn is_served(installation: &Installation<'_>) -> Result<bool> {
    Ok(component(installation, ComponentName::Site)?.detail.contains(PODS))
}

fn by_the_clouds_route() -> Result {
    let world = World::start(Settings::default())?;
    let pod = pod(&world, "behind-cloud")?;
    let server = Server::start(&world)?;
    let web = Reflector::tcp(&pod, (POD, 8443))?;
    let _ssh = Reflector::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 22))?;
    let sections =
        format!("[firewall]\nssh_from = [\"{PODS}\"]\n[[nat.forward]]\nport = 443\nto = \"{POD}\"\nto_port = 8443\n");
    let (installation, _daemon) = gateway(&world, &sections)?;
    ensure(is_shut(&egress(&pod, &server, NEVER)?), "the pod reaches the internet without a route")?;
    world.put_route(PODS.parse()?, at::WORKER);
    wait_for("the range is served", POLLED, || is_served(&installation))?;
    ensure_eq(our_routes(&world)?, "10.244.1.0/24 via 10.0.0.1 dev eth1 onlink".to_owned())?;
    ensure_eq(component(&installation, ComponentName::Routes)?.state, State::Ok)?;
    // The pod uses the internet under the public address, and logs in to the bastion.
    ensure_eq(egress(&pod, &server, SOON)?, open())?;
    ensure_eq(traffic::tcp_connects(&pod, (at::BASTION_PRIVATE, 22), SOON), Ok(()))?;
    ensure(traffic::tcp_connects(world.web(), (at::BASTION_PRIVATE, 22), NEVER).is_err(), "ssh_from holds")?;
    // The bastion reaches the pod, and so does the internet by the forward, with its own address.
    ensure(pings(world.bastion(), POD)?, "the bastion does not reach the pod")?;
    ensure_eq(
        traffic::tcp_probe(world.server(), (at::BASTION, 443), SOON).map(|seen| seen.ip()),
        Ok(at::SERVER.into()),
    )?;
    ensure_eq(web.seen().len(), 1)?;
    ensure_eq(report(&installation)?.components[&ComponentName::Nat].problems.clone(), vec![])?;
    // Packets with that source from another network are still forged.
    world.gateway(world.second_network_id()).namespace().nft("delete table inet gateway")?;
    world.tenant().ip("addr add 10.244.1.99/32 dev lo")?;
    let forged =
        traffic::udp_probe_from(world.tenant(), (Ipv4Addr::new(10, 244, 1, 99), 40_000), server.udp.address(), NEVER);
    ensure(forged.is_err() && server.udp.seen().len() == 1, "a tenant sends with a pod's address")?;
    // Without the route, nothing of it is left.
    world.remove_route(PODS.parse()?);
    wait_for("the range is not served any more", POLLED, || Ok(!is_served(&installation)?))?;
    wait_for("its route is gone", SOON, || Ok(our_routes(&world)?.is_empty()))?;
    ensure(is_shut(&egress(&pod, &server, NEVER)?), "the pod reaches the internet without a route")
}

fn remembered() -> Result {
    let world = World::start(Settings::default())?;
    let pod = pod(&world, "behind-kept")?;
    let server = Server::start(&world)?;
    world.put_route(PODS.parse()?, at::WORKER);
    let installation = installation(&world)?;
    let mut daemon = healthy(&installation)?;
    wait_for("the range is served", POLLED, || is_served(&installation))?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait_for_exit(SOON)?;
    world.cloud().inject(Injection {
        matching: Matching::any(),
        fault: Fault::Status { code: 500, json: true },
        times: Times::UntilCleared,
    });
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    wait_for("the API's error is reported", POLLED, || {
        Ok(component(&installation, ComponentName::Hcloud)?.state == State::Failed)
    })?;
    ensure(is_served(&installation)?, "the route is forgotten")?;
    ensure_eq(egress(&pod, &server, SOON)?, open())
}

fn by_hand() -> Result {
    let world = World::start(Settings::default())?;
    let pod = pod(&world, "behind-hand")?;
    let server = Server::start(&world)?;
    // The sandbox's gateway needs the route too; the daemon is not told.
    world.put_route(PODS.parse()?, at::WORKER);
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    let installation = installation(&world)?;
    let settings = "[hcloud]\nenabled = false\n";
    installation.write_config(settings)?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    ensure(is_shut(&egress(&pod, &server, NEVER)?), "a range that nobody named is served")?;
    for block in [
        format!("[[network]]\nrange = \"10.0.0.0/16\"\nalso = [\"{PODS}\"]\n"),
        format!("[[site.private]]\ninterface = \"eth1\"\nnetwork = \"10.0.0.0/16\"\nalso = [\"{PODS}\"]\n"),
    ] {
        installation.write_config(&format!("{settings}{block}"))?;
        daemon.signal(Signal::SIGHUP)?;
        ensure(daemon.wait_for_notification("READY=1", SOON).is_some(), "the reload did not end")?;
        wait_for("the range is served", SOON, || is_served(&installation))?;
        ensure_eq(egress(&pod, &server, SOON)?, open())?;
        ensure_eq(our_routes(&world)?, "10.244.1.0/24 via 10.0.0.1 dev eth1 onlink".to_owned())?;
    }
    // An operator's own route stays, and then needs none of ours.
    world.bastion().ip(&format!("route del {PODS}\nroute add {PODS} via 10.0.0.1 dev eth1 proto static"))?;
    daemon.signal(Signal::SIGHUP)?;
    ensure(daemon.wait_for_notification("READY=1", SOON).is_some(), "the reload did not end")?;
    ensure_eq(our_routes(&world)?, String::new())?;
    ensure_eq(egress(&pod, &server, SOON)?, open())
}

fn from_the_tunnel() -> Result {
    let world = crate::way_in::world()?;
    let pod = pod(&world, "behind-tunnel")?;
    world.put_route(PODS.parse()?, at::WORKER);
    let web = Reflector::tcp(&pod, (POD, 80))?;
    let ada = Client::start(world.laptop(), "be-tun-ada", ADA)?;
    let installation = installation(&world)?;
    installation.write_config(&tunnel("be-tun", &ada.block("ada", "")))?;
    let (_daemon, bastion) = serving(&installation)?;
    ada.meets(bastion, &format!("10.100.0.0/24,10.0.0.0/16,{PODS}"))?;
    wait_for("the range is served", POLLED, || is_served(&installation))?;
    wait_for("the peer reaches the pod as itself", Duration::from_secs(5), || {
        Ok(seen(world.laptop(), &web) == Ok(ADA.into()))
    })?;
    Ok(())
}

fn lists() -> Result {
    let world = World::start(Settings::default())?;
    let pod = pod(&world, "behind-lists")?;
    world.put_route(PODS.parse()?, at::WORKER);
    let server = Server::start(&world)?;
    let tenant = Reflector::tcp(world.tenant(), (at::TENANT, 5432))?;
    let (installation, mut daemon) = gateway(&world, "")?;
    wait_for("the range is served", POLLED, || is_served(&installation))?;
    ensure(traffic::tcp_connects(&pod, (at::TENANT, 5432), NEVER).is_err(), "the pod reaches another tenant")?;
    let sections = format!(
        "[[network]]\nrange = \"10.0.0.0/16\"\ndeny = [{{ protocol = \"udp\" }}]\n\
         [tenants]\nallow = [{{ from = [\"{PODS}\"], to = [\"10.2.0.0/16\"] }}]\n"
    );
    reload(&installation, &mut daemon, &sections)?;
    ensure_eq(component(&installation, ComponentName::Nat)?.problems, vec![])?;
    ensure_eq(traffic::tcp_probe(&pod, tenant.address(), SOON).map(|seen| seen.ip()), Ok(POD.into()))?;
    ensure(traffic::tcp_connects(world.worker(), (at::TENANT, 5432), NEVER).is_err(), "the line is for pods only")?;
    let outcome = egress(&pod, &server, SOON)?;
    ensure_eq((outcome.tcp, outcome.udp.is_err()), (Ok(at::BASTION.into()), true))
}

fn overlapping() -> Result {
    let world = World::start(Settings::default())?;
    let pod = pod(&world, "behind-overlap")?;
    let server = Server::start(&world)?;
    // The second network is 10.2.0.0/16, and this would take a part of it away.
    world.put_route("10.2.128.0/17".parse()?, at::WORKER);
    world.put_route(PODS.parse()?, at::WORKER);
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    wait_for("the other range is served", POLLED, || is_served(&installation))?;
    let hints = component(&installation, ComponentName::Site)?.hints;
    let expected = "the network behind eth1 sends 10.2.128.0/17 to 10.0.1.5, and it is not served here: it overlaps \
                    10.2.0.0/16 on eth2";
    ensure_eq(hints.iter().map(|hint| hint.what.as_str()).collect::<Vec<_>>(), vec![expected])?;
    ensure_eq(our_routes(&world)?, "10.244.1.0/24 via 10.0.0.1 dev eth1 onlink".to_owned())?;
    ensure_eq(egress(&pod, &server, SOON)?, open())?;
    ensure_eq(egress(world.tenant(), &server, SOON)?, open())
}

fn nobodys_source() -> Result {
    let world = World::start(Settings::default())?;
    let sections = "[firewall]\nssh_from = [\"10.8.0.0/24\", \"192.0.2.0/24\", \"10.0.0.0/8\"]\n\
                    [[firewall.service]]\nports = [9100]\nfrom = [\"172.17.0.0/16\"]\n\
                    [[nat.forward]]\nport = 443\nto = \"10.0.0.4\"\nfrom = [\"10.9.0.0/24\"]\n";
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}{sections}"))?;
    let _daemon = healthy(&installation)?;
    let reported = || -> Result<Vec<String>> {
        let hints = component(&installation, ComponentName::Nat)?.hints;
        let sources = hints.iter().filter(|hint| hint.what.contains("no link of this server delivers"));
        Ok(sources.filter_map(|hint| hint.what.split(" is private").next().map(str::to_owned)).collect())
    };
    ensure_eq(
        reported()?,
        vec![
            "firewall.ssh_from: 10.8.0.0/24".to_owned(),
            "firewall.service[0].from: 172.17.0.0/16".to_owned(),
            "nat.forward[0].from: 10.9.0.0/24".to_owned(),
        ],
    )?;
    // A bridge delivers packets too, and so does a route of the network.
    world.bastion().ip("link add docker0 type bridge\naddr add 172.17.0.1/16 dev docker0\nlink set docker0 up")?;
    world.put_route("10.8.0.0/24".parse()?, at::WORKER);
    wait_for("what can be delivered is not reported", POLLED, || {
        Ok(reported()? == ["nat.forward[0].from: 10.9.0.0/24".to_owned()])
    })?;
    Ok(())
}
