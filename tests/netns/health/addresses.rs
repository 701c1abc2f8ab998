//! Probes of public addresses: each address under which hosts are seen has one of its own.

use std::net::Ipv4Addr;
use std::time::Duration;

use bastiond::internals::health::{Path, PathReport, PathState};
use bastiond::internals::report::Health;
use libtest_mimic::Trial;
use sandbox::daemon::Installation;
use sandbox::traffic;
use sandbox::world::{Outage, World, addresses as at};

use super::{NOTICED, one_network, paths};
use crate::gateway::{
    FAST, NEVER, Result, SOON, Server, ensure, ensure_eq, healthy, installation, report, trial, wait_for,
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_static_address_that_is_not_routed_here_any_more_is_named_and_nothing_else_is_blamed", lost_static),
        trial("an_address_of_a_part_of_a_network_that_is_not_routed_here_any_more_is_named", lost_part),
        trial("a_static_address_that_was_never_routed_here_is_unproven_with_the_reason", unproven),
        trial("the_probes_of_many_static_addresses_are_spread_and_a_lost_one_is_listed_alone", many),
    ]
}

/// The public address of the host worker.
const STATIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 51);
/// The public address of the host web, and of its subnet.
const PART: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 52);
const SECTIONS: &str = "
    [[nat.static]]
    public = \"198.51.100.51\"
    private = \"10.0.1.5\"
    [[network]]
    range = \"10.0.0.0/16\"
    [[network.egress]]
    from = [\"10.0.0.0/29\"]
    addresses = [\"198.51.100.52\"]
";

/// The state of each path to the internet by its address.
fn states(installation: &Installation<'_>) -> Result<Vec<(String, PathState)>> {
    let to_internet = paths(installation)?.into_iter().filter(|report| report.path.egress().is_some());
    Ok(to_internet.map(|report| (report.path.to_string(), report.state)).collect())
}

const PATHS: [&str; 3] =
    ["nat 10.0.0.0/16 by 198.51.100.2", "part 10.0.0.0/29 by 198.51.100.52", "static 10.0.1.5 by 198.51.100.51"];

fn become_states(installation: &Installation<'_>, expected: [PathState; 3], within: Duration) -> Result {
    let expected: Vec<_> = PATHS.map(str::to_owned).into_iter().zip(expected).collect();
    let waited = wait_for("the paths are in the expected states", within, || Ok(states(installation)? == expected));
    waited.map(drop).map_err(|_| format!("expected {expected:?}, found {:#?}", paths(installation)).into())
}

fn world() -> Result<World> {
    let world = one_network()?;
    for address in [STATIC, PART] {
        world.add_public_address(address)?;
    }
    Ok(world)
}

fn gateway(world: &World) -> Result<Installation<'_>> {
    let installation = installation(world)?;
    installation.write_config(&format!("{FAST}{SECTIONS}"))?;
    Ok(installation)
}

fn of(installation: &Installation<'_>, address: Ipv4Addr) -> Result<PathReport> {
    let path = paths(installation)?.into_iter().find(|report| report.path.egress() == Some(address));
    path.ok_or_else(|| format!("there is no path by {address}").into())
}

/// Loses the way back to an address, of which one host knows, and finds it again.
fn loses(address: Ipv4Addr, expected: [PathState; 3]) -> Result {
    let world = world()?;
    let server = Server::start(&world)?;
    let installation = gateway(&world)?;
    let _daemon = healthy(&installation)?;
    become_states(&installation, [PathState::Ok; 3], SOON)?;
    let (concerned, other) =
        if address == STATIC { (world.worker(), world.web()) } else { (world.web(), world.worker()) };
    let target = server.udp.address();
    ensure_eq(traffic::udp_probe(concerned, target, SOON).map(|seen| seen.ip()), Ok(address.into()))?;
    world.begin(&Outage::WayBack(address))?;
    become_states(&installation, expected, NOTICED)?;
    ensure(traffic::udp_probe(concerned, target, NEVER).is_err(), "the host is answered all the same")?;
    ensure(traffic::udp_probe(other, target, SOON).is_ok(), "another host is concerned too")?;
    let lost = of(&installation, address)?;
    ensure(lost.detail.contains("; this public address: the provider does not route it here"), lost.detail)?;
    let others = paths(&installation)?.into_iter().filter(|report| report.path.egress() != Some(address));
    let blamed: Vec<PathReport> = others.filter(|report| report.state == PathState::Lost).collect();
    ensure(blamed.is_empty(), format!("{blamed:?}"))?;
    ensure_eq(report(&installation)?.health, Health::Degraded)?;
    world.end(&Outage::WayBack(address))?;
    become_states(&installation, [PathState::Ok; 3], NOTICED)
}

fn lost_static() -> Result {
    loses(STATIC, [PathState::Ok, PathState::Ok, PathState::Lost])
}

fn lost_part() -> Result {
    loses(PART, [PathState::Ok, PathState::Lost, PathState::Ok])
}

fn unproven() -> Result {
    let world = world()?;
    world.internet().ip(&format!("route del {STATIC}/32"))?;
    let installation = gateway(&world)?;
    let _daemon = healthy(&installation)?;
    become_states(&installation, [PathState::Ok, PathState::Ok, PathState::Unproven], SOON)?;
    wait_for("the reason is shown", NOTICED, || Ok(of(&installation, STATIC)?.detail.starts_with("no answer from")))?;
    ensure_eq(of(&installation, STATIC)?.state, PathState::Unproven)?;
    ensure_eq(report(&installation)?.health, Health::Healthy)
}

/// The addresses of 198.51.100.64/26 but the first and the last one.
fn hosts() -> impl Iterator<Item = Ipv4Addr> {
    (65..127).map(|last| Ipv4Addr::new(198, 51, 100, last))
}

fn many() -> Result {
    let world = one_network()?;
    world.internet().ip(&format!("route add 198.51.100.64/26 via {} dev bastion onlink", at::BASTION))?;
    let lines: Vec<String> = hosts().map(|address| format!("addr add {address}/32 dev eth0")).collect();
    world.bastion().ip(&lines.join("\n"))?;
    let entry = |address: Ipv4Addr| {
        format!("[[nat.static]]\npublic = \"{address}\"\nprivate = \"10.0.7.{}\"\n", address.octets()[3])
    };
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}{}", hosts().map(entry).collect::<String>()))?;
    let _daemon = healthy(&installation)?;
    // Four rounds a second.
    let once = Duration::from_secs(hosts().count() as u64 / 4 + 1);
    let are_ok = || Ok(paths(&installation)?.iter().all(|report| report.state == PathState::Ok));
    wait_for("all paths are ok", once + SOON, are_ok)?;
    let questions = "ip saddr 198.51.100.64/26 udp dport 53 counter";
    world.internet().nft(&format!(
        "table inet seen {{ chain seen {{ type filter hook prerouting priority -400; {questions}; }}; }}"
    ))?;
    let lost = Ipv4Addr::new(198, 51, 100, 99);
    let begin = std::time::Instant::now();
    world.begin(&Outage::WayBack(lost))?;
    wait_for("the lost address is noticed", once + NOTICED, || Ok(of(&installation, lost)?.state == PathState::Lost))?;
    let is_lost = |report: &PathReport| report.state != PathState::Ok;
    let not_ok: Vec<Path> = paths(&installation)?.into_iter().filter(is_lost).map(|report| report.path).collect();
    ensure(matches!(not_ok.as_slice(), [path] if path.egress() == Some(lost)), format!("{not_ok:?}"))?;
    let status = String::from_utf8(installation.ctl(&["status"])?.stdout)?;
    ensure(status.contains("static 10.0.7.99 by 198.51.100.99  lost"), status.clone())?;
    ensure(status.contains("\n61 of kind static ") && status.matches("static 10.0.7").count() <= 2, status)?;
    let listing = world.internet().nft("list chain inet seen seen")?;
    let count = listing.split("packets ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let (count, seconds) = (count.parse::<u64>()?, begin.elapsed().as_secs() + 1);
    ensure(count > 0 && count <= 4 * 2 * (seconds + 1), format!("{count} questions in {seconds} s"))
}
