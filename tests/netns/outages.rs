//! Each outage of one part of the world: which probe notices it, in time, and that nothing else is blamed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use libtest_mimic::Trial;
use sandbox::cloud::Fault;
use sandbox::daemon::{Daemon, Installation};
use sandbox::world::{Outage, Settings, World, addresses as at};

use crate::gateway::{FAST, Result, ensure, ensure_eq, healthy, installation, text, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_route_that_is_gone_in_the_data_plane_only_is_noticed_by_the_private_path", route_is_gone),
        trial("a_route_that_leads_to_another_server_is_noticed_by_the_private_path", route_leads_elsewhere),
        trial("a_route_that_somebody_takes_away_is_put_back_as_soon_as_its_path_is_lost", route_taken_away),
        trial("a_dead_private_link_is_noticed_by_its_own_paths_only", private_link),
        trial("a_dead_uplink_is_noticed_by_the_nat_paths", uplink),
        trial("a_public_address_without_a_way_back_is_noticed_alone", way_back),
        trial("a_dead_resolver_is_named_and_no_path_is_lost", resolver),
        trial("a_network_that_swallows_long_packets_is_named_by_the_private_path", long_packets),
        trial("an_outage_of_the_api_or_of_the_metadata_loses_no_path", api_and_metadata),
        trial("a_strangers_drop_on_the_private_link_is_noticed_by_the_whole_path_alone", strangers_drop),
        trial("a_strangers_routing_rule_for_the_private_link_is_noticed_by_the_whole_path_alone", strangers_rule),
        trial("a_route_that_others_keep_is_unproven_when_it_is_gone", kept_by_others),
        trial("routes_of_probes_made_by_hand_are_removed_and_ours_come_back", probe_routes),
        trial("down_removes_the_routes_of_probes", down),
    ]
}

/// The promised time in which an outage is noticed.
const NOTICED: Duration = Duration::from_secs(10);
/// For how long nothing else may be blamed after that.
const NOTHING_ELSE: Duration = Duration::from_secs(4);
const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);

const NAT: &str = "nat 10.0.0.0/16 198.51.100.2";
const PRIVATE: &str = "private 10.0.0.0/16";
const WHOLE: &str = "whole 10.0.0.0/16";
const SECOND_NAT: &str = "nat 10.2.0.0/16 198.51.100.50";
const SECOND_PRIVATE: &str = "private 10.2.0.0/16";
const SECOND_WHOLE: &str = "whole 10.2.0.0/16";
const ALL: [&str; 6] = [NAT, SECOND_NAT, PRIVATE, SECOND_PRIVATE, WHOLE, SECOND_WHOLE];

/// Each path with its state and its detail.
fn paths(installation: &Installation<'_>) -> Result<BTreeMap<String, (String, String)>> {
    let output = installation.ctl(&["status", "--json"])?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))?;
    let word = |path: &serde_json::Value, key: &str| path[key].as_str().unwrap_or_default().to_owned();
    let paths = report["paths"].as_array().into_iter().flatten();
    Ok(paths
        .map(|path| {
            let name = ["kind", "network", "egress"].map(|key| word(path, key)).join(" ");
            (name.trim().to_owned(), (word(path, "state"), word(path, "detail")))
        })
        .collect())
}

fn in_state(installation: &Installation<'_>, state: &str) -> Result<Vec<String>> {
    let paths = paths(installation)?.into_iter().filter(|(_, (its, _))| its == state);
    Ok(paths.map(|(path, _)| path).collect())
}

/// A gateway of two networks, each with a public address of its own, all of whose paths are ok.
fn gateway(world: &World) -> Result<(Installation<'_>, Daemon)> {
    world.add_public_address(SECOND_ADDRESS)?;
    let installation = installation(world)?;
    installation.write_config(&format!(
        "{FAST}[[network]]\nrange = \"10.2.0.0/16\"\negress_addresses = [\"{SECOND_ADDRESS}\"]\n"
    ))?;
    let daemon = healthy(&installation)?;
    wait_for("all paths are ok", NOTICED, || Ok(in_state(&installation, "ok")? == ALL))
        .map_err(|error| format!("{error:?}: {:#?}\n{}", paths(&installation), daemon.log()))?;
    Ok((installation, daemon))
}

/// Waits until exactly these paths are lost, with these words in their details, and watches that no other one follows.
fn noticed(installation: &Installation<'_>, lost: &[(&str, &str)]) -> Result {
    let mut expected: Vec<String> = lost.iter().map(|(path, _)| (*path).to_owned()).collect();
    expected.sort_unstable();
    let told = |error| format!("{error:?}: {:#?}", paths(installation));
    wait_for("the outage is noticed", NOTICED, || Ok(in_state(installation, "lost")? == expected)).map_err(told)?;
    let end = std::time::Instant::now() + NOTHING_ELSE;
    while std::time::Instant::now() < end {
        ensure_eq(in_state(installation, "lost")?, expected.clone())?;
        std::thread::sleep(Duration::from_millis(300));
    }
    let paths = paths(installation)?;
    for (path, words) in lost {
        let detail = &paths[*path].1;
        ensure(detail.contains(words), format!("{path}: `{words}` is not in `{detail}`"))?;
    }
    Ok(())
}

/// Begins an outage, checks who notices it, ends it, and checks that all is well again.
fn notices(world: &World, installation: &Installation<'_>, outage: &Outage, lost: &[(&str, &str)]) -> Result {
    world.begin(outage)?;
    noticed(installation, lost).map_err(|error| format!("{outage:?}: {error:?}"))?;
    world.end(outage)?;
    all_well(installation)
}

fn all_well(installation: &Installation<'_>) -> Result {
    wait_for("all paths are ok again", NOTICED, || Ok(in_state(installation, "ok")? == ALL))
        .map_err(|error| format!("{error:?}: {:#?}", paths(installation)).into())
        .map(drop)
}

const BY_LINK: &str = "does not come back";
const DATA_PLANE: &str = "or its route to this server in the data plane";

fn route_is_gone() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    let network = world.private_network_id();
    let outage = Outage::DataPlaneRoute { network, destination: "0.0.0.0/0".parse()?, to: None };
    notices(&world, &installation, &outage, &[(PRIVATE, DATA_PLANE), (WHOLE, "as the private path")])?;
    let network = world.second_network_id();
    let outage = Outage::DataPlaneRoute { network, destination: "0.0.0.0/0".parse()?, to: None };
    notices(&world, &installation, &outage, &[(SECOND_PRIVATE, BY_LINK), (SECOND_WHOLE, "as the private path")])
}

/// The cloud is asked once an hour, and otherwise when there is a reason.
fn route_taken_away() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    installation.write_config("[hcloud]\npoll_interval = \"1h\"")?;
    let daemon = healthy(&installation)?;
    let is_proven = || Ok(in_state(&installation, "ok")?.iter().any(|path| path == PRIVATE));
    wait_for("the private path is ok", NOTICED, is_proven)?;
    world.remove_route("0.0.0.0/0".parse()?);
    let routes = || world.cloud().routes(world.private_network_id()).len();
    ensure_eq(routes(), 0)?;
    wait_for("the route is put back", NOTICED, || Ok(routes() == 1))
        .map_err(|error| format!("{error:?}: {:#?}\n{}", paths(&installation), daemon.log()))?;
    wait_for("the private path is ok again", NOTICED, is_proven)?;
    Ok(())
}

fn route_leads_elsewhere() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    let network = world.private_network_id();
    let outage = Outage::DataPlaneRoute { network, destination: "0.0.0.0/0".parse()?, to: Some(at::WORKER) };
    notices(&world, &installation, &outage, &[(PRIVATE, DATA_PLANE), (WHOLE, "as the private path")])
}

fn private_link() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    let network = world.second_network_id();
    for outage in [Outage::PrivateLink(network), Outage::PrivateCarrier(network)] {
        notices(
            &world,
            &installation,
            &outage,
            &[(SECOND_PRIVATE, "10.2.0.1"), (SECOND_WHOLE, "as the private path")],
        )?;
    }
    Ok(())
}

fn uplink() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    let (nat, whole) = ("the public link, the way back to it", "as the path to the internet");
    let lost = [(NAT, nat), (SECOND_NAT, nat), (WHOLE, whole), (SECOND_WHOLE, whole)];
    for outage in [Outage::Uplink, Outage::PublicCarrier] {
        notices(&world, &installation, &outage, &lost)?;
    }
    Ok(())
}

fn way_back() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    let outage = Outage::WayBack(SECOND_ADDRESS);
    // The whole path of the second network leaves under the second address as well.
    let lost = [(SECOND_NAT, "this public address"), (SECOND_WHOLE, "as the path to the internet")];
    notices(&world, &installation, &outage, &lost)
}

fn resolver() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    let outage = Outage::Host([185, 12, 64, 1].into());
    world.begin(&outage)?;
    wait_for("the resolver is named", NOTICED, || {
        let detail = paths(&installation)?[NAT].1.clone();
        Ok(detail.contains("no answer from 185.12.64.1"))
    })?;
    ensure_eq(in_state(&installation, "ok")?, ALL.map(str::to_owned).to_vec())?;
    world.end(&outage)?;
    wait_for("the resolver is not named any more", NOTICED, || Ok(paths(&installation)?[NAT].1.is_empty()))?;
    Ok(())
}

fn long_packets() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    let outage = Outage::PathMtu(world.private_network_id(), 1300);
    world.begin(&outage)?;
    // Three rounds of three seconds each, and some more on a busy machine.
    wait_for("it is named", NOTICED + NOTHING_ELSE, || {
        Ok(paths(&installation)?[PRIVATE].1.contains("packets of 1450"))
    })?;
    ensure_eq(in_state(&installation, "ok")?, ALL.map(str::to_owned).to_vec())?;
    ensure_eq(paths(&installation)?[SECOND_PRIVATE].1.clone(), String::new())?;
    world.end(&outage)?;
    wait_for("it is not named any more", NOTICED, || Ok(paths(&installation)?[PRIVATE].1.is_empty()))?;
    Ok(())
}

fn api_and_metadata() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    for outage in [
        Outage::Api(Fault::Status { code: 503, json: true }),
        Outage::MetadataSilent,
        Outage::MetadataUnavailable,
        Outage::MetadataSlow(Duration::from_secs(1)),
    ] {
        world.begin(&outage)?;
        let end = std::time::Instant::now() + NOTHING_ELSE;
        while std::time::Instant::now() < end {
            ensure_eq(in_state(&installation, "ok")?, ALL.map(str::to_owned).to_vec())?;
            std::thread::sleep(Duration::from_millis(300));
        }
        world.end(&outage)?;
    }
    Ok(())
}

const FOREIGN: &str = "another program's rule";

fn strangers_drop() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    world.bastion().nft(
        "table ip stranger { chain forward {
             type filter hook forward priority 10; policy accept; iifname \"eth1\" drop
         }; }",
    )?;
    noticed(&installation, &[(WHOLE, FOREIGN)])?;
    world.bastion().nft("delete table ip stranger")?;
    all_well(&installation)
}

fn strangers_rule() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    world.bastion().ip("rule add pref 90 iif eth1 blackhole")?;
    noticed(&installation, &[(WHOLE, FOREIGN)])?;
    world.bastion().ip("rule del pref 90 iif eth1 blackhole")?;
    all_well(&installation)
}

fn kept_by_others() -> Result {
    let world = World::start(Settings::default())?;
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    let installation = installation(&world)?;
    installation.write_config("hcloud.enabled = false")?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let state = |path: &str| -> Result<String> { Ok(paths(&installation)?.get(path).cloned().unwrap_or_default().0) };
    wait_for("the private path is proven", NOTICED, || Ok(state(PRIVATE)? == "ok" && state(WHOLE)? == "ok"))?;
    // Nobody gave the second network a route.
    ensure_eq((state(SECOND_PRIVATE)?, state(SECOND_WHOLE)?), ("unproven".to_owned(), "unproven".to_owned()))?;
    world.remove_route("0.0.0.0/0".parse()?);
    wait_for("it is unproven", NOTICED, || Ok(state(PRIVATE)? == "unproven" && state(WHOLE)? == "unproven"))?;
    ensure_eq(in_state(&installation, "lost")?, Vec::new())
}

/// The routes with our number, without the flags of a link.
fn own_routes(world: &World) -> Result<Vec<String>> {
    let routes = text(&world.bastion().command("ip").args(["route", "show", "proto", "98"]).output()?.stdout);
    Ok(routes.lines().map(|line| line.trim().to_owned()).collect())
}

const PROBE_ROUTES: [&str; 2] =
    ["198.19.239.1 via 10.0.0.1 dev eth1 onlink", "198.19.239.2 via 10.2.0.1 dev eth2 onlink"];

fn probe_routes() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    ensure_eq(own_routes(&world)?, PROBE_ROUTES.map(str::to_owned).to_vec())?;
    world.bastion().ip("route add 198.19.239.9/32 via 10.0.0.1 dev eth1 onlink proto 98
         route replace 198.19.239.1/32 via 10.2.0.1 dev eth2 onlink proto 98
         route del 198.19.239.2/32")?;
    wait_for("the routes are as they were", NOTICED, || Ok(own_routes(&world)? == PROBE_ROUTES))?;
    all_well(&installation)
}

fn down() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world)?;
    let down = installation.ctl(&["down"])?;
    ensure(down.status.success(), format!("{down:?}"))?;
    ensure_eq(own_routes(&world)?, Vec::new())?;
    let probes: Vec<String> = world.bastion().links()?.into_keys().filter(|name| name.starts_with("probe")).collect();
    ensure_eq(probes, Vec::new())
}
