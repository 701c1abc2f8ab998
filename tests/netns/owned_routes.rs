//! Which cloud routes are the daemon's: over moves of the server, restarts and changed files; and what `down` removes.

use std::net::Ipv4Addr;
use std::time::Duration;

use bastiond::internals::outcome::ComponentName;
use ipnet::Ipv4Net;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::Daemon;
use sandbox::world::{SecondNetwork, Settings, World, addresses as at};

use crate::gateway::{
    FAST, Result, SOON, Server, component, egress, ensure, ensure_eq, gateways, healthy, installation, open, table,
    text, trial, wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_server_that_got_another_private_address_replaces_its_route", moved),
        trial("a_route_to_an_address_that_another_server_has_now_is_left_alone", moved_and_replaced),
        trial("routes_of_a_tunnel_that_was_removed_while_no_daemon_ran_are_withdrawn", tunnel_removed),
        trial("down_leaves_a_route_to_an_alias_address_that_others_may_share", alias_route),
        trial("down_works_without_a_daemon_and_with_a_wrong_file", wrong_file),
        trial("a_daemon_starts_at_once_after_down", start_after_down),
    ]
}

/// The address that the server gets after it was detached and attached again.
const MOVED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const DEFAULT: &str = "0.0.0.0/0";

fn one_network() -> Result<World> {
    Ok(World::start(Settings { second_network: SecondNetwork::Absent, ..Settings::default() })?)
}

fn stop(mut daemon: Daemon) -> Result {
    daemon.signal(Signal::SIGTERM)?;
    ensure(daemon.wait_for_exit(SOON)?.is_some(), "the daemon does not end")
}

/// Detaches the bastion from its network, and attaches it again with another address.
fn move_bastion(world: &World) -> Result {
    let (bastion, network) = (world.bastion_id(), world.private_network_id());
    let links: serde_json::Value =
        serde_json::from_slice(&world.bastion().command("ip").args(["-j", "link", "show", "eth1"]).output()?.stdout)?;
    let mac = links[0]["address"].as_str().ok_or("eth1 has no Ethernet address")?.to_owned();
    world.cloud().detach(bastion, network);
    world.cloud().attach(bastion, network, MOVED, &mac);
    world.bastion().ip(&format!("addr add {MOVED}/32 dev eth1\naddr del {}/32 dev eth1", at::BASTION_PRIVATE))?;
    Ok(())
}

fn moved() -> Result {
    let world = one_network()?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    stop(healthy(&installation)?)?;
    move_bastion(&world)?;
    world.put_route(DEFAULT.parse()?, at::BASTION_PRIVATE);
    let _daemon = installation.start()?;
    wait_for("the route leads to the new address", Duration::from_secs(8), || Ok(gateways(&world) == [MOVED]))?;
    wait_for("traffic flows", SOON, || Ok(egress(world.web(), &server, SOON)? == open()))?;
    Ok(())
}

fn moved_and_replaced() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    stop(healthy(&installation)?)?;
    move_bastion(&world)?;
    let other = world.cloud().create_server("other", None);
    world.cloud().attach(other, world.private_network_id(), at::BASTION_PRIVATE, "86:00:00:00:77:01");
    world.put_route(DEFAULT.parse()?, at::BASTION_PRIVATE);
    let _daemon = installation.start()?;
    wait_for("the other server's route is reported", Duration::from_secs(8), || {
        let hcloud = component(&installation, ComponentName::Hcloud);
        Ok(hcloud.is_ok_and(|hcloud| hcloud.problems.iter().any(|problem| problem.code == "route-held-by-other")))
    })?;
    ensure_eq(gateways(&world), vec![at::BASTION_PRIVATE])
}

fn tunnel_removed() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    installation
        .write_config(&format!("{FAST}[wireguard]\ninterface = \"wg-owned\"\naddresses = [\"10.100.0.1/24\"]"))?;
    let daemon = healthy(&installation)?;
    let range: Ipv4Net = "10.100.0.0/24".parse()?;
    let has_route = || world.cloud().routes(world.private_network_id()).iter().any(|route| route.destination == range);
    wait_for("the tunnel's network has a route", SOON, || Ok(has_route()))?;
    stop(daemon)?;
    installation.write_config(FAST)?;
    let _daemon = installation.start()?;
    wait_for("the route is withdrawn", SOON, || Ok(!has_route()))?;
    ensure_eq(gateways(&world), vec![at::BASTION_PRIVATE])
}

fn alias_route() -> Result {
    let world = one_network()?;
    let shared = Ipv4Addr::new(10, 0, 0, 50);
    world.cloud().set_alias_ips(world.bastion_id(), world.private_network_id(), &[shared]);
    world.put_route(DEFAULT.parse()?, shared);
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    ensure_eq(gateways(&world), vec![shared])?;
    let output = installation.ctl(&["down"])?;
    ensure(output.status.success(), text(&output.stderr))?;
    ensure_eq(gateways(&world), vec![shared])
}

fn wrong_file() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    stop(healthy(&installation)?)?;
    // The file says where the API is, so the configuration that was applied last has to.
    std::fs::write(installation.config_path(), "[firewall]\nssh_form = []\n")?;
    let output = installation.ctl(&["down"])?;
    ensure(output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))?;
    ensure(text(&output.stderr).contains("down works all the same"), text(&output.stderr))?;
    ensure_eq(gateways(&world), Vec::new())?;
    ensure_eq(table(&world, "inet bastiond")?, String::new())?;
    ensure_eq(world.bastion().read_sysctl("net.ipv4.ip_forward")?, "0".to_owned())
}

fn start_after_down() -> Result {
    let world = one_network()?;
    let installation = installation(&world)?;
    for _ in 0..3 {
        let _daemon = healthy(&installation)?;
        let output = installation.ctl(&["down"])?;
        ensure(output.status.success(), text(&output.stderr))?;
    }
    Ok(())
}
