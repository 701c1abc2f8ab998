//! What the bastion itself accepts, and the limits on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, HeldConnection, Ping, Reflector};
use sandbox::world::{Laptop, Settings, World, addresses as at};

use super::Attempt::{Tcp, Udp};
use super::{contents, counted, gateway, reload, silent, tcp, udp};
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, report, trial, wait_for};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_source_with_too_many_ssh_attempts_is_banned_and_no_other_source_is", brute_force),
        trial("an_ssh_ban_expires", ban_ends),
        trial("connection_requests_that_nobody_completes_ban_nobody", forged_requests),
        trial("private_hosts_are_not_banned_from_ssh_and_have_a_limit_of_their_own", private_hosts),
        trial("full_lists_of_ssh_attempts_do_not_lift_the_limit", full_lists),
        trial("an_ipv6_64_network_counts_as_one_source_of_ssh_attempts", ipv6_network),
        trial("ssh_only_by_tunnel_closes_ssh_everywhere_else", only_by_tunnel),
        trial("a_service_of_the_bastion_is_open_to_the_sources_that_it_names", services),
        trial("pings_over_the_limit_are_not_answered", ping_limit),
        trial("new_connections_of_one_source_over_the_limit_are_dropped", syn_limit),
        trial("packets_of_blocklisted_sources_are_dropped", blocklist),
    ]
}

const SSH: (Ipv4Addr, u16) = (at::BASTION, 22);

/// A listener on the SSH port.
fn ssh(world: &World) -> Result<Reflector> {
    Ok(Reflector::tcp(world.bastion(), (Ipv6Addr::UNSPECIFIED, 22))?)
}

/// Opens connections one after the other until one is not answered; returns how many were.
fn count_answered(from: &Namespace, target: (Ipv4Addr, u16), most: usize) -> usize {
    (0..most).take_while(|_| traffic::tcp_connects(from, target, NEVER).is_ok()).count()
}

/// The same for connections on which the server also sends something.
fn count_served(from: &Namespace, target: (Ipv4Addr, u16), most: usize) -> usize {
    (0..most).take_while(|_| traffic::tcp_probe(from, target, NEVER).is_ok()).count()
}

fn brute_force() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    let _ssh = ssh(&world)?;
    let (installation, mut daemon) = gateway(&world, "[firewall]\nssh_attempts = 5")?;
    let mut session = HeldConnection::open(world.server(), SSH, SOON)?;
    // The burst is twice the limit; the session is one of them.
    ensure_eq(count_served(world.server(), SSH, 30), 9)?;
    silent([Tcp(world.server(), SSH)])?;
    ensure(counted(&world, "dropped_banned")? >= 2, "dropped attempts are not counted")?;
    ensure(contents(&world, "set", "banned4")?.contains("203.0.113.10"), "the ban is not in the set")?;
    session.exchange(SOON)?;
    ensure_eq(tcp(world.laptop(), SSH), Ok(at::HOME.into()))?;
    ensure_eq(tcp(world.web(), SSH), Ok(at::WEB.into()))?;
    // A reload with other rules and limits does not end the ban.
    reload(
        &installation,
        &mut daemon,
        "[firewall]\nssh_attempts = 1000\nwireguard_port = false\n[nat]\nrandom_ports = false",
    )?;
    silent([Tcp(world.server(), SSH)])?;
    session.exchange(SOON)?;
    drop(daemon);
    let _daemon = crate::gateway::healthy(&installation)?;
    silent([Tcp(world.server(), SSH)])?;
    ensure_eq(tcp(world.laptop(), SSH), Ok(at::HOME.into()))?;
    session.exchange(SOON)?;
    Ok(())
}

fn ban_ends() -> Result {
    let world = World::start(Settings::default())?;
    let _ssh = ssh(&world)?;
    // One new attempt is allowed each second, so there is one when the ban ends.
    let (_installation, _daemon) = gateway(&world, "[firewall]\nssh_attempts = 60\nssh_ban = \"2s\"")?;
    let allowed = count_answered(world.server(), SSH, 200);
    ensure((120..=130).contains(&allowed), format!("{allowed} attempts were allowed"))?;
    let start = Instant::now();
    ensure(contents(&world, "set", "banned4")?.contains("203.0.113.10"), "there is no ban")?;
    wait_for("the ban ends", Duration::from_secs(4), || Ok(traffic::tcp_connects(world.server(), SSH, NEVER).is_ok()))?;
    ensure(start.elapsed() > Duration::from_secs(1), format!("the ban ended after {:?}", start.elapsed()))
}

/// Sends connection requests that are not completed, as a sender with a forged address does: it gets no answer.
fn request_without_completing(from: &Namespace, target: (Ipv4Addr, u16), count: usize) -> Result {
    from.nft(&format!(
        "table inet forger {{ chain answers {{ type filter hook input priority -400; tcp sport {} drop; }}; }}",
        target.1
    ))?;
    std::thread::scope(|scope| {
        for _ in 0..count {
            // Shorter than the time after which the request would be repeated.
            scope.spawn(|| traffic::tcp_connects(from, target, NEVER));
        }
    });
    from.nft("delete table inet forger")?;
    Ok(())
}

fn forged_requests() -> Result {
    let world = World::start(Settings::default())?;
    let _ssh = ssh(&world)?;
    let (installation, mut daemon) = gateway(&world, "")?;
    request_without_completing(world.server(), SSH, 140)?;
    // The answer is repeated after a second, and the host whose address it was answers each with a reset.
    std::thread::sleep(Duration::from_millis(1500));
    ensure(!contents(&world, "set", "banned4")?.contains("203.0.113.10"), "the source is banned")?;
    ensure_eq(counted(&world, "dropped_banned")?, 0)?;
    ensure_eq(tcp(world.server(), SSH), Ok(at::SERVER.into()))?;
    // Far more requests than that are limited by their rate, and ban nobody either.
    reload(&installation, &mut daemon, "[firewall]\nssh_attempts = 2")?;
    request_without_completing(world.server(), SSH, 40)?;
    ensure(counted(&world, "dropped_ssh")? >= 20, "requests beyond the limit are not dropped")?;
    ensure(!contents(&world, "set", "banned4")?.contains("203.0.113.10"), "the source is banned")?;
    let over = report(&installation)?.firewall.map(|firewall| firewall.over_ssh.busiest);
    let over: Vec<_> = over.into_iter().flatten().map(|source| source.address).collect();
    ensure_eq(over, vec![IpAddr::from(at::SERVER)])
}

fn private_hosts() -> Result {
    let world = World::start(Settings::default())?;
    let _ssh = ssh(&world)?;
    let (installation, mut daemon) = gateway(&world, "")?;
    let target = (at::BASTION_PRIVATE, 22);
    ensure_eq(count_answered(world.web(), target, 130), 130)?;
    ensure_eq(tcp(world.web(), target), Ok(at::WEB.into()))?;
    ensure(!contents(&world, "set", "banned4")?.contains("10.0.0.4"), "a private host is banned")?;
    // A host that was taken over cannot guess without end: ten times as many as others, and twice that at once.
    reload(&installation, &mut daemon, "[firewall]\nssh_attempts = 2")?;
    let answered = count_answered(world.web(), target, 60);
    ensure((40..=42).contains(&answered), format!("{answered} connections passed"))?;
    ensure(counted(&world, "dropped_ssh")? >= 1, "a connection beyond the limit is not counted")?;
    let over = report(&installation)?.firewall.map(|firewall| firewall.over_ssh.busiest).unwrap_or_default();
    ensure_eq(over.first().map(|source| source.address), Some(at::WEB.into()))?;
    let status = crate::gateway::text(&installation.ctl(&["status"])?.stdout);
    ensure(status.contains("opens too many SSH connections to this server"), status)?;
    ensure_eq(tcp(world.worker(), target), Ok(at::WORKER.into()))?;
    wait_for("the host is let in again", Duration::from_secs(5), || Ok(tcp(world.web(), target).is_ok()))?;
    Ok(())
}

/// Fills a set of sources, as an attacker with very many addresses could.
fn fill(world: &World, set: &str) -> Result {
    let others = (0..65_535_u32).map(|n| format!("{} timeout 10m", Ipv4Addr::from(0x6000_0000 + n)));
    let others = others.collect::<Vec<_>>().join(",");
    world.bastion().nft(&format!("flush set inet bastiond {set}; add element inet bastiond {set} {{ {others} }}"))?;
    Ok(())
}

fn full_lists() -> Result {
    let world = World::start(Settings::default())?;
    let _ssh = ssh(&world)?;
    let (_installation, _daemon) = gateway(&world, "[firewall]\nssh_attempts = 2")?;
    // The set of bans is full: attempts that reach the limit get nothing but the answer to their request.
    fill(&world, "banned4")?;
    ensure_eq(count_served(world.server(), SSH, 15), 4)?;
    // The sets of attempts are full: sources that are not in them share one limit. Another world, since the dropped
    // connections of this one are still repeating their packets.
    let world = World::start(Settings::default())?;
    let _ssh = ssh(&world)?;
    let (_installation, _daemon) = gateway(&world, "[firewall]\nssh_attempts = 2")?;
    fill(&world, "ssh_tries4")?;
    fill(&world, "ssh_counted4")?;
    ensure_eq(count_served(world.server(), SSH, 15), 4)?;
    ensure(
        !contents(&world, "set", "banned4")?.contains("203.0.113.10"),
        "the source was banned although the sets were full",
    )
}

fn ipv6_network() -> Result {
    let world = World::start(Settings::default())?;
    let _ssh = ssh(&world)?;
    let (_installation, _daemon) = gateway(&world, "[firewall]\nssh_attempts = 2")?;
    let target = (world.bastion_v6(), 22);
    let tries = |count| -> Vec<bool> {
        (0..count).map(|_| traffic::tcp_connects(world.server(), target, NEVER).is_ok()).collect()
    };
    // Two of four that are allowed at once.
    ensure_eq(tries(2), vec![true, true])?;
    let other: Ipv6Addr = "2001:db8:ffff::99".parse()?;
    world.server().ip(&format!("addr add {other}/64 dev eth0 nodad\naddr del {}/64 dev eth0", at::SERVER_V6))?;
    // Neighbour discovery takes a moment.
    let answered = || {
        Ok(!traffic::ping(world.server(), at::ROUTER_V6, Ping { timeout: NEVER, ..Ping::default() })?
            .replies
            .is_empty())
    };
    wait_for("the new address is known", SOON, answered)?;
    // The fifth handshake is completed on this side, and bans.
    ensure_eq(tries(4), vec![true, true, true, false])?;
    ensure(contents(&world, "set", "banned6")?.contains("2001:db8:ffff::"), "the ban is not in the set")
}

fn only_by_tunnel() -> Result {
    let world = World::start(Settings::default())?;
    let ssh = ssh(&world)?;
    let tunnel = "
        [wireguard]
        interface = \"wg-ssh\"
        addresses = [\"10.100.0.1/24\"]
        [[wireguard.peer]]
        public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"
        allowed_ips = [\"10.100.0.2\"]
        [firewall]";
    let (installation, mut daemon) = gateway(&world, tunnel)?;
    ensure_eq(tcp(world.server(), SSH), Ok(at::SERVER.into()))?;
    reload(&installation, &mut daemon, &format!("{tunnel}\nssh_only_by_tunnel = true"))?;
    let seen = ssh.seen().len();
    silent([Tcp(world.server(), SSH), Tcp(world.web(), (at::BASTION_PRIVATE, 22))])?;
    ensure(traffic::tcp_connects(world.server(), (world.bastion_v6(), 22), NEVER).is_err(), "SSH over IPv6")?;
    ensure_eq(ssh.seen().len(), seen)
}

fn services() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    let any = Ipv6Addr::UNSPECIFIED;
    let _tcp = [9100, 9101, 5000].map(|port| Reflector::tcp(world.bastion(), (any, port)));
    let _udp = [123, 5000, 5005, 5011].map(|port| Reflector::udp(world.bastion(), (at::BASTION, port)));
    let sections = "
        [[firewall.service]]
        name = \"node exporter\"
        ports = [9100]
        from = [\"10.0.0.0/16\", \"192.0.2.7\", \"2001:db8:ffff::10\"]
        [[firewall.service]]
        protocol = \"udp\"
        ports = [123, \"5000-5010\"]";
    let (installation, mut daemon) = gateway(&world, sections)?;
    let exporter = (at::BASTION, 9100);
    ensure_eq([tcp(world.web(), exporter), tcp(world.laptop(), exporter)], [Ok(at::WEB.into()), Ok(at::HOME.into())])?;
    ensure_eq(traffic::tcp_connects(world.server(), (world.bastion_v6(), 9100), SOON), Ok(()))?;
    silent([Tcp(world.server(), exporter), Tcp(world.tenant(), exporter), Tcp(world.web(), (at::BASTION, 9101))])?;
    for port in [123, 5000, 5005] {
        ensure_eq(udp(world.server(), (at::BASTION, port)), Ok(at::SERVER.into()))?;
    }
    silent([Tcp(world.server(), (at::BASTION, 5000)), Udp(world.server(), (at::BASTION, 5011))])?;
    reload(&installation, &mut daemon, "")?;
    silent([Tcp(world.web(), exporter)])
}

fn ping_limit() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, mut daemon) = gateway(&world, "[firewall]\npings_per_second = 5")?;
    let flood = Ping { count: 30, interval: Duration::from_millis(2), timeout: NEVER, ..Ping::default() };
    let answered = traffic::ping(world.server(), at::BASTION, flood)?.replies.len();
    // A burst of ten, and five a second.
    ensure((10..=15).contains(&answered), format!("{answered} of 30 pings were answered"))?;
    ensure_eq(counted(&world, "dropped_pings")?, 30 - answered as u64)?;
    reload(&installation, &mut daemon, "[firewall]\npings_per_second = false")?;
    ensure_eq(traffic::ping(world.server(), at::BASTION, flood)?.replies.len(), 30)
}

fn syn_limit() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let _service = Reflector::tcp(world.bastion(), (at::BASTION, 9100))?;
    let sections = "
        [[nat.forward]]
        port = 443
        to = \"10.0.0.4\"
        to_port = 8443
        [[firewall.service]]
        ports = [9100]
        [firewall]
        syns_per_second = 2";
    let (installation, mut daemon) = gateway(&world, sections)?;
    let (forward, service) = ((at::BASTION, 443), (at::BASTION, 9100));
    let mut held = HeldConnection::open(world.server(), forward, SOON)?;
    // A burst of four for forwards and services together, of which one is used, and two a second.
    let begin = Instant::now();
    let passed = count_answered(world.server(), forward, 60);
    let most = 4 + begin.elapsed().as_millis() / 500;
    ensure(passed >= 3 && passed as u128 <= most, format!("{passed} of 60 connections passed, at most {most}"))?;
    ensure(counted(&world, "dropped_syns")? >= 1, "dropped packets are not counted")?;
    ensure_eq(tcp(world.laptop(), forward), Ok(at::HOME.into()))?;
    ensure_eq(tcp(world.laptop(), service), Ok(at::HOME.into()))?;
    held.exchange(SOON)?;
    wait_for("the source is accepted again", SOON, || Ok(tcp(world.server(), forward).is_ok()))?;
    let begin = Instant::now();
    let passed = count_answered(world.server(), service, 60);
    let most = 4 + begin.elapsed().as_millis() / 500;
    ensure(passed as u128 <= most, format!("{passed} of 60 connections to the service passed, at most {most}"))?;
    let off = sections.replace("syns_per_second = 2", "syns_per_second = false");
    reload(&installation, &mut daemon, &off)?;
    ensure_eq(count_answered(world.server(), forward, 60), 60)
}

fn blocklist() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    let _ssh = ssh(&world)?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let forward = "[[nat.forward]]\nport = 443\nto = \"10.0.0.4\"\nto_port = 8443\n";
    let blocked = "[firewall]\nblocklist = [\"203.0.113.0/28\", \"2001:db8:ffff::/64\"]";
    let (installation, mut daemon) = gateway(&world, forward)?;
    let mut held = HeldConnection::open(world.server(), SSH, SOON)?;
    ensure_eq(tcp(world.server(), (at::BASTION, 443)), Ok(at::SERVER.into()))?;
    // The fake cloud's API is in the blocked range too, so hcloud is switched off.
    installation.write_config(&format!("{forward}{blocked}\n[hcloud]\nenabled = false"))?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    ensure(daemon.wait_for_notification("READY=1", SOON).is_some(), "the reload does not end")?;
    silent([SSH, (at::BASTION, 443)].map(|target| Tcp(world.server(), target)))?;
    ensure(traffic::tcp_connects(world.server(), (world.bastion_v6(), 22), NEVER).is_err(), "SSH over IPv6")?;
    ensure(held.exchange(NEVER).is_err(), "a session of a blocked source continues")?;
    ensure(counted(&world, "dropped_blocked")? >= 4, "dropped packets are not counted")?;
    ensure_eq(tcp(world.laptop(), SSH), Ok(at::HOME.into()))?;
    ensure_eq(tcp(world.laptop(), (at::BASTION, 443)), Ok(at::HOME.into()))?;
    Ok(())
}
