//! Errors of the cloud and changes by others: traffic continues, the status reports the problem, the route is restored.

use std::time::Duration;

use bastiond::internals::outcome::{ComponentName, State};
use libtest_mimic::Trial;
use sandbox::cloud::{Fault, Injection, Matching, Times};
use sandbox::traffic::{Flood, HeldConnection, Reflector};
use sandbox::world::{SecondNetwork, Settings, World, addresses as at};

use crate::gateway::{
    FAST, REPAIR, Result, SOON, Server, component, egress, ensure, ensure_eq, gateways, healthy, installation, open,
    table, trial, wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_route_deleted_by_others_is_restored_at_the_next_poll", deleted_route),
        trial("a_route_redirected_by_others_is_reported_and_taken_back_only_if_configured", re_pointed_route),
        trial("api_errors_do_not_stop_traffic_and_the_route_is_correct_once_the_api_works", troubles),
        trial("a_hanging_api_delays_no_repair_of_the_rules", hanging_api),
        trial("a_read_only_token_is_reported_and_the_rest_works", read_only_token),
        trial("an_idle_daemon_sends_few_api_requests", idle),
        trial("the_route_is_applied_in_hetzners_gateway_when_its_action_ends", route_follows_action),
    ]
}

/// One network is enough here, and is polled twice as often as two.
fn one_network() -> Result<World> {
    Ok(World::start(Settings { second_network: SecondNetwork::Absent, ..Settings::default() })?)
}

fn deleted_route() -> Result {
    let world = one_network()?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let repairs = component(&installation, ComponentName::Hcloud)?.totals.repairs;
    world.remove_route("0.0.0.0/0".parse()?);
    // A poll every second, plus the duration of the change.
    wait_for("the route is back", Duration::from_secs(3), || Ok(gateways(&world) == [at::BASTION_PRIVATE]))?;
    wait_for("the repair is counted", SOON, || {
        Ok(component(&installation, ComponentName::Hcloud)?.totals.repairs == repairs + 1)
    })?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn re_pointed_route() -> Result {
    let world = one_network()?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    world.put_route("0.0.0.0/0".parse()?, at::WORKER);
    wait_for("the status reports it", Duration::from_secs(3), || {
        Ok(component(&installation, ComponentName::Hcloud)?.problems.iter().any(|problem| {
            problem.what.contains("sends 0.0.0.0/0 to 10.0.1.5, which is not this server")
                && problem.advice.contains("take_over")
        }))
    })?;
    ensure_eq(
        (component(&installation, ComponentName::Hcloud)?.state, gateways(&world)),
        (State::Waiting, vec![at::WORKER]),
    )?;
    installation.write_config(&format!("{FAST}take_over = true"))?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait_for("the route is taken back", Duration::from_secs(3), || Ok(gateways(&world) == [at::BASTION_PRIVATE]))?;
    world.put_route("0.0.0.0/0".parse()?, at::WORKER);
    wait_for("it is restored", Duration::from_secs(3), || Ok(gateways(&world) == [at::BASTION_PRIVATE]))?;
    wait_for("traffic flows", SOON, || Ok(egress(world.web(), &server, SOON)? == open()))?;
    Ok(())
}

fn troubles() -> Result {
    let world = one_network()?;
    let server = Server::start(&world)?;
    let held_by = Reflector::tcp(world.server(), (at::SERVER, 9000))?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let mut connection = HeldConnection::open(world.web(), held_by.address(), SOON)?;
    let api = |status: u16, code: &str| Fault::Api { status, code: code.to_owned(), message: "trouble".to_owned() };
    let cut = Duration::from_millis(200);
    let mut troubles = vec![
        (api(409, "conflict"), "HTTP 409"),
        (api(423, "locked"), "HTTP 423"),
        (Fault::RateLimited, "rate_limit_exceeded"),
        (Fault::Status { code: 500, json: true }, "HTTP 500"),
        (Fault::Status { code: 502, json: false }, "HTTP 502"),
        (Fault::Status { code: 503, json: true }, "HTTP 503"),
        (Fault::Status { code: 504, json: true }, "HTTP 504"),
        (Fault::Timeout { applied: false, hold: cut }, "got no answer"),
        (Fault::Reset { applied: false }, "got no answer"),
        (Fault::TruncatedJson, "cannot be read"),
        (api(401, "unauthorized"), "check the token"),
    ];
    // A random order in each run. The messages contain the fault.
    fastrand::shuffle(&mut troubles);
    for (fault, message) in troubles {
        let flood = Flood::start(world.web(), server.udp.address(), 200)?;
        world.cloud().inject(Injection { matching: Matching::any(), fault: fault.clone(), times: Times::UntilCleared });
        wait_for(&format!("{fault:?} is reported as {message}"), Duration::from_secs(4), || {
            let problems = component(&installation, ComponentName::Hcloud)?.problems;
            Ok(problems.iter().any(|problem| problem.what.contains(message) || problem.advice.contains(message)))
        })?;
        world.bastion().nft("flush chain inet bastiond postrouting")?;
        wait_for("the rules are repaired meanwhile", REPAIR, || {
            Ok(table(&world, "inet bastiond")?.contains("snat ip to"))
        })?;
        connection.exchange(SOON)?;
        let flood = flood.stop();
        ensure(flood.sent > 20, format!("{flood:?}"))?;
        ensure_eq(flood.lost, vec![])?;
        // The route is deleted while it cannot be added again.
        world.remove_route("0.0.0.0/0".parse()?);
        world.cloud().clear_faults();
        wait_for("the route is back", Duration::from_secs(8), || Ok(gateways(&world) == [at::BASTION_PRIVATE]))?;
        // The network's gateway applies the change shortly after the API.
        let gateway = world.gateway(world.private_network_id());
        gateway.wait_for_route("0.0.0.0/0".parse()?, Some(at::BASTION_PRIVATE), SOON)?;
        wait_for("every component is ok again", SOON, || {
            Ok(component(&installation, ComponentName::Hcloud)?.state == State::Ok)
        })?;
        connection = HeldConnection::open(world.web(), held_by.address(), SOON)?;
    }
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn hanging_api() -> Result {
    let world = one_network()?;
    let hang = Fault::Timeout { applied: false, hold: Duration::from_secs(30) };
    world.cloud().inject(Injection { matching: Matching::any(), fault: hang, times: Times::UntilCleared });
    let installation = installation(&world)?;
    let mut daemon = installation.start()?;
    // The rules are loaded long before the time-out of the API, and readiness does not wait for it.
    wait_for("the rules are loaded", SOON, || Ok(table(&world, "inet bastiond")?.contains("snat ip to")))?;
    daemon.wait_until_ready();
    for _ in 0..3 {
        world.bastion().nft("delete table inet bastiond")?;
        wait_for("the table is back", REPAIR, || Ok(table(&world, "inet bastiond")?.contains("snat ip to")))?;
    }
    Ok(())
}

fn read_only_token() -> Result {
    let world = one_network()?;
    let server = Server::start(&world)?;
    let read_only = world.settings().cloud.read_only_token.clone();
    let installation = installation(&world)?.env("HCLOUD_TOKEN", &read_only);
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let hcloud = component(&installation, ComponentName::Hcloud)?;
    ensure_eq(hcloud.state, State::Failed)?;
    ensure_eq(hcloud.problems[0].advice.as_str(), "the token may only read: give one with read and write permission")?;
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    wait_for("a route added by hand is enough", Duration::from_secs(4), || {
        Ok(component(&installation, ComponentName::Hcloud)?.state == State::Ok)
    })?;
    Ok(())
}

fn idle() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    // The default interval: 20 s for each of two networks.
    installation.write_config("")?;
    let _daemon = healthy(&installation)?;
    let calls = world.cloud().requests().len();
    // Two polls of two networks, two changes, and the polls of two actions.
    ensure(calls <= 14, format!("{calls} calls to start with: {:#?}", world.cloud().requests()))?;
    world.cloud().forget_requests();
    std::thread::sleep(Duration::from_secs(3));
    ensure_eq(world.cloud().requests(), vec![])
}

fn route_follows_action() -> Result {
    let mut settings = Settings { second_network: SecondNetwork::Absent, ..Settings::default() };
    settings.cloud.action_duration = Duration::from_millis(1500);
    let world = World::start(settings)?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let mut daemon = installation.start()?;
    wait_for("the claim is on its way", SOON, || {
        Ok(world
            .cloud()
            .requests()
            .iter()
            .any(|call| call.path.ends_with("/actions/add_route") && call.status == Some(201)))
    })?;
    ensure(
        egress(world.web(), &server, Duration::from_millis(200))?.tcp.is_err(),
        "traffic flows before the action has ended",
    )?;
    daemon.wait_until_ready();
    ensure_eq(component(&installation, ComponentName::Hcloud)?.state, State::Ok)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}
