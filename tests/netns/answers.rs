//! Hosts that do not answer what forwards and static addresses lead to them: the status names them, and no others.

use std::net::Ipv4Addr;
use std::time::Duration;

use bastiond::internals::outcome::ComponentName;
use bastiond::internals::report::Health;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::Installation;
use sandbox::traffic::{self, Reflector};
use sandbox::world::{World, addresses as at};

use crate::gateway::{
    FAST, Result, SOON, component, ensure, ensure_eq, healthy, installation, report, trial, wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_forward_to_a_host_that_does_not_answer_is_named_until_it_answers", forwards),
        trial("a_refused_connection_is_an_answer", refused),
    ]
}

/// Two reads of the flows, the first of them with the next regular pass, on a busy machine.
const NOTICED: Duration = Duration::from_secs(90);
/// Long enough for an answer in the sandbox.
const SHORT: Duration = Duration::from_millis(300);
/// The public address of the host web.
const STATIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 51);

const SECTIONS: &str = r#"
[[nat.forward]]
name = "web"
port = 443
to = "10.0.0.4"
to_port = 8443
[[nat.forward]]
name = "next to it"
port = 444
to = "10.0.1.5"
[[nat.forward]]
name = "down"
port = 445
to = "10.2.0.4"
[[nat.forward]]
name = "log"
protocol = "udp"
port = 514
to = "10.0.0.4"
[[nat.static]]
name = "mail"
public = "198.51.100.51"
private = "10.0.0.4"
open = [{ protocol = "tcp", ports = [25] }]
"#;

/// What the status says about hosts that answer nothing.
fn named(installation: &Installation<'_>) -> Result<Vec<String>> {
    let problems = component(installation, ComponentName::Conntrack)?.problems;
    let ours = problems.into_iter().filter(|problem| problem.code == "forward-unanswered");
    let mut named: Vec<String> = ours.map(|problem| problem.what).collect();
    named.sort_unstable();
    Ok(named)
}

fn forwards() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    world.add_public_address(STATIC)?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let _mail = Reflector::tcp(world.web(), (at::WEB, 25))?;
    let _worker = Reflector::tcp(world.worker(), (at::WORKER, 444))?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}{SECTIONS}"))?;
    let daemon = healthy(&installation)?;
    let connect = || {
        let _ = traffic::udp_probe(world.server(), (at::BASTION, 514), Duration::from_millis(1));
        [(at::BASTION, 443), (STATIC, 25), (at::BASTION, 444), (at::BASTION, 445)]
            .map(|target| traffic::tcp_connects(world.server(), target, SHORT).is_ok())
    };
    world.tenant().ip("link set eth0 down")?;
    ensure_eq(connect(), [true, true, true, false])?;
    world.web().ip("route del default")?;
    ensure_eq(connect(), [false, false, true, false])?;
    let (web, down, mail) = (
        "nat.forward \"web\" (tcp 443 to 10.0.0.4:8443): the host answers no connection",
        "nat.forward \"down\" (tcp 445 to 10.2.0.4): the host answers no connection",
        "nat.static \"mail\" (tcp, 198.51.100.51 to 10.0.0.4): the host answers no connection",
    );
    let are = |names: &[&str]| {
        connect();
        Ok(named(&installation)? == names)
    };
    wait_for("the hosts without answers are named", NOTICED, || are(&[down, web, mail]))?;
    ensure_eq(report(&installation)?.health, Health::Waiting)?;
    let status = installation.ctl(&["status"])?;
    let status = crate::gateway::text(&status.stdout);
    ensure(
        status.contains("IN THE LAST 5 MINUTES") && status.contains("nat.forward \"log\" (udp 514 to 10.0.0.4)"),
        format!("the status does not count them:\n{status}"),
    )?;
    let listed = report(&installation)?.flows.map(|flows| flows.unanswered).unwrap_or_default();
    ensure(
        listed.iter().all(|forward| forward.name != "nat.forward \"next to it\""),
        format!("the host that answers is listed: {listed:?}"),
    )?;
    world.web().ip("route add default via 10.0.0.1")?;
    wait_for("the host that answers again is no longer named", NOTICED, || are(&[down]))?;
    let log = daemon.log();
    ensure(log.contains(&format!("solved: {web}")), format!("the journal does not say so:\n{log}"))
}

fn refused() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    let installation = installation(&world)?;
    let mut daemon = healthy(&installation)?;
    installation.write_config(&format!("{FAST}[[nat.forward]]\nport = 443\nto = \"10.0.0.4\"\n"))?;
    daemon.signal(Signal::SIGHUP)?;
    ensure(daemon.wait_for_notification("READY=1", SOON).is_some(), "the reload did not end")?;
    for _ in 0..3 {
        for _ in 0..4 {
            let refused = traffic::tcp_connects(world.server(), (at::BASTION, 443), SOON);
            ensure_eq(refused, Err(traffic::ProbeFailure::Refused))?;
        }
        std::thread::sleep(Duration::from_secs(10));
        installation.ctl(&["reconcile"])?;
    }
    ensure_eq(named(&installation)?, Vec::new())?;
    ensure_eq(report(&installation)?.flows.map(|flows| flows.unanswered), Some(Vec::new()))
}
