//! Dropped sources in the status: scanning, over their limits, or banned; and lifting a ban.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bastiond::internals::nat::{FirewallReport, Sources};
use libtest_mimic::Trial;
use sandbox::daemon::Installation;
use sandbox::traffic::{self, Ping, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, report, text, trial, wait_for};
use crate::policy::{contents, counted, gateway};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("scanning_sources_are_listed_with_their_packets", scanner),
        trial("sources_over_the_flow_limits_are_listed", too_many),
        trial("a_ban_is_listed_and_can_be_lifted", lifted_ban),
        trial("a_ban_of_an_ipv6_network_is_lifted_by_any_of_its_addresses", lifted_ban_of_ipv6),
        trial("the_ten_busiest_sources_of_a_full_set_are_listed", full_set),
    ]
}

fn firewall(installation: &Installation<'_>) -> Result<FirewallReport> {
    report(installation)?.firewall.ok_or_else(|| "the report has nothing of the firewall".into())
}

fn status(installation: &Installation<'_>) -> Result<String> {
    Ok(text(&installation.ctl(&["status"])?.stdout))
}

/// The addresses and their packet counts.
fn counts(sources: &Sources) -> Vec<(String, u64)> {
    sources.busiest.iter().map(|source| (source.address.to_string(), source.packets)).collect()
}

fn scanner() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world, "")?;
    ensure_eq(firewall(&installation)?.scanning, Sources::default())?;
    let socket = world.web().bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
    for host in 1..=30 {
        socket.send_to(b"anybody?", (Ipv4Addr::new(192, 168, 7, host), 9))?;
    }
    let other = world.worker().bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
    other.send_to(b"anybody?", (Ipv4Addr::new(192, 168, 7, 1), 9))?;
    wait_for("all are dropped", SOON, || Ok(counted(&world, "dropped_unroutable")? == 31))?;
    let shown = firewall(&installation)?;
    ensure_eq(counts(&shown.scanning), vec![(at::WEB.to_string(), 30), (at::WORKER.to_string(), 1)])?;
    ensure(shown.scanning.busiest[0].seconds_ago.is_some_and(|seconds| seconds < 10), format!("{shown:?}"))?;
    ensure_eq(shown.counters["dropped_unroutable"].packets, 31)?;
    let output = status(&installation)?;
    ensure(output.contains("31 unroutable") && output.contains("10.0.0.4                 30 "), output)?;
    // The output of a requested pass contains it too.
    let reconciled = text(&installation.ctl(&["reconcile"])?.stdout);
    ensure(reconciled.contains("addresses that do not exist on the internet"), reconciled)
}

fn too_many() -> Result {
    let world = World::start(Settings::default())?;
    let options = "[egress]\nnew_flows_per_second = 20\nmax_flows = 30";
    let (installation, _daemon) = gateway(&world, options)?;
    let open = |from: &sandbox::namespace::Namespace, ports: std::ops::Range<u16>| -> Result {
        let socket = from.bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
        for port in ports {
            socket.send_to(b"open", (at::SERVER, port))?;
        }
        Ok(())
    };
    // Forty are within the burst of the rate limit, and ten above the limit of thirty.
    open(world.web(), 2000..2030)?;
    let is_limited = || Ok(contents(&world, "set", "limited4")?.contains("10.0.0.4"));
    wait_for("the source is limited", SOON, is_limited)?;
    open(world.web(), 2030..2040)?;
    wait_for("ten were too many", SOON, || Ok(counted(&world, "dropped_flows")? == 10))?;
    open(world.tenant(), 2000..2100)?;
    wait_for("some came too fast", SOON, || Ok(counted(&world, "dropped_new_flows")? > 0))?;
    let shown = firewall(&installation)?;
    ensure(counts(&shown.over_flows).contains(&(at::WEB.to_string(), 10)), format!("{shown:?}"))?;
    ensure_eq(counts(&shown.over_new_flows)[0].0.clone(), at::TENANT.to_string())?;
    let output = status(&installation)?;
    ensure(output.contains("opens too many flows a second") && output.contains("has too many flows"), output)
}

/// Connects until one attempt is refused.
fn get_banned(world: &World, target: SocketAddr) -> Result {
    let refused = (0..30).any(|_| traffic::tcp_connects(world.server(), target, NEVER).is_err());
    ensure(refused, "no source is banned")
}

fn lifted_ban() -> Result {
    let world = World::start(Settings::default())?;
    let ssh = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    // Two: the connection that was banned repeats its last packet, and that counts as an attempt after the ban is
    // lifted.
    let (installation, _daemon) = gateway(&world, "[firewall]\nssh_attempts = 2\nssh_ban = \"10m\"")?;
    get_banned(&world, ssh.address())?;
    let banned = firewall(&installation)?.banned;
    let [ban] = &banned.longest[..] else { return Err(format!("{banned:?}").into()) };
    ensure_eq(ban.source.to_string(), format!("{}/32", at::SERVER))?;
    ensure(ban.seconds_left.is_some_and(|left| (590..=600).contains(&left)), format!("{ban:?}"))?;
    let output = status(&installation)?;
    ensure(output.contains("203.0.113.10               9 min"), output)?;
    let unban = |source: &str| -> Result<(Option<i32>, String)> {
        let output = installation.ctl(&["unban", source])?;
        Ok((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
    };
    ensure_eq(unban("203.0.113.10")?, (Some(0), "203.0.113.10 is no longer banned\n".to_owned()))?;
    ensure_eq(firewall(&installation)?.banned.longest, vec![])?;
    // Earlier attempts are forgotten too, although less than a minute has passed.
    ensure_eq(traffic::tcp_connects(world.server(), ssh.address(), SOON), Ok(()))?;
    ensure_eq(traffic::tcp_connects(world.server(), ssh.address(), SOON), Ok(()))?;
    ensure_eq(unban("203.0.113.10")?, (Some(1), "bastionctl: 203.0.113.10 is not banned\n".to_owned()))?;
    ensure_eq(unban("203.0.113.10/32")?.0, Some(1))?;
    let (code, output) = unban("203.0.113.0/24")?;
    ensure(code == Some(64) && output.contains("this is not an address"), output)
}

fn lifted_ban_of_ipv6() -> Result {
    let world = World::start(Settings::default())?;
    let _ssh = Reflector::tcp(world.bastion(), (Ipv6Addr::UNSPECIFIED, 22))?;
    let (installation, _daemon) = gateway(&world, "[firewall]\nssh_attempts = 1")?;
    let target = SocketAddr::from((world.bastion_v6(), 22));
    let ping = Ping { timeout: SOON, ..Ping::default() };
    ensure(!traffic::ping(world.server(), world.bastion_v6(), ping)?.replies.is_empty(), "it is not there")?;
    get_banned(&world, target)?;
    let output = status(&installation)?;
    ensure(output.contains("2001:db8:ffff::/64 "), output)?;
    let output = installation.ctl(&["unban", "2001:db8:ffff::99"])?;
    ensure_eq(text(&output.stdout), "2001:db8:ffff::99 is no longer banned\n".to_owned())?;
    ensure_eq(traffic::tcp_connects(world.server(), target, SOON), Ok(()))?;
    ensure_eq(installation.ctl(&["unban", "2001:db8:ffff::/64"])?.status.code(), Some(1))
}

fn full_set() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world, "")?;
    let elements: Vec<String> = (0..65_000u32)
        .map(|number| format!("{} counter packets {number} bytes 0", Ipv4Addr::from_bits(0x0a00_0000 + number)))
        .collect();
    world.bastion().nft(&format!("add element inet bastiond scanning {{ {} }}", elements.join(", ")))?;
    let scanning = firewall(&installation)?.scanning;
    ensure_eq((scanning.busiest.len(), scanning.more), (10, 64_990))?;
    ensure_eq(scanning.busiest[0].packets, 64_999)?;
    let output = status(&installation)?;
    ensure(output.contains("64990 more"), output)
}
