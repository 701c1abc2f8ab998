//! Attempts to fill the connection tracking table, so that nobody else can open a flow: each attacker goes on while
//! others open flows and log in. They send as fast as they can, so they run alone.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bastiond::internals::report::Report;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{Result, SOON, ensure, installation, lone_trial, report, wait_for};
use crate::policy::{contents, counted, gateway};
use crate::way_in::{ADA, Client, serving, tunnel, world as world_with_laptop};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        lone_trial("a_host_at_its_flow_limit_does_not_slow_or_stop_others", by_its_limit),
        lone_trial("sources_are_counted_again_by_the_next_daemon", next_daemon),
        lone_trial("flows_that_do_not_report_their_end_are_soon_forgotten", unreported),
        lone_trial("the_status_names_who_has_most_of_the_flows", named),
        lone_trial("without_fair_shares_one_host_fills_the_table", without_shares),
        lone_trial("a_private_host_that_fills_the_table_by_its_own_forward_stops_nobody_else", || by_hairpin(SHORT)),
        lone_trial("ten_private_hosts_that_fill_the_table_together_stop_nobody_else", || by_ten_hosts(SHORT)),
        lone_trial("an_internet_source_that_fills_the_table_by_a_forward_stops_nobody_else", || by_forward(SHORT)),
        lone_trial("a_peer_that_fills_the_table_stops_nobody_else", || by_peer(SHORT)),
        long("a_private_host_that_fills_the_table_by_its_own_forward_for_a_minute_stops_nobody_else", || {
            by_hairpin(LONG)
        }),
        long("ten_private_hosts_that_fill_the_table_together_for_a_minute_stop_nobody_else", || by_ten_hosts(LONG)),
        long("an_internet_source_that_fills_the_table_by_a_forward_for_a_minute_stops_nobody_else", || {
            by_forward(LONG)
        }),
        long("a_peer_that_fills_the_table_for_a_minute_stops_nobody_else", || by_peer(LONG)),
        long("a_site_that_fills_the_table_from_many_addresses_stops_nobody_else", by_site),
        long("established_connections_that_nobody_ends_stop_nobody_else", established),
    ]
}

/// Answers connections at ports 9000 to 9011 of an address, and forgets each in silence (`TCP_REPAIR`).
const SILENT_SERVER: &str = "
import select, socket, sys
ready = select.epoll()
listening = {}
for port in range(9000, 9012):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((sys.argv[1], port))
    server.listen(4096)
    server.setblocking(False)
    ready.register(server, select.EPOLLIN)
    listening[server.fileno()] = server
print('ready', flush=True)
while True:
    for descriptor, _ in ready.poll():
        try:
            for _ in range(256):
                client, _ = listening[descriptor].accept()
                client.setsockopt(socket.IPPROTO_TCP, 19, 1)
                client.close()
        except OSError:
            pass
";

/// Opens connections from each of the sources in turn and forgets them in silence, so that the gateway keeps every one
/// as established.
const SILENT_CLIENT: &str = "
import select, socket, sys
target, first, sources = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
opened = 0
while True:
    for port in range(first, first + 12):
        for local in range(10000, 60000, 200):
            for source in sources:
                waiting = []
                for number in range(local, local + 200):
                    client = socket.socket()
                    client.setblocking(False)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    try:
                        client.bind((source, number))
                        client.connect_ex((target, port))
                        waiting.append(client)
                    except OSError:
                        client.close()
                opened += len(waiting)
                for _ in range(4):
                    _, done, _ = select.select([], waiting, [], 0.01)
                    for client in done:
                        try:
                            client.setsockopt(socket.IPPROTO_TCP, 19, 1)
                        except OSError:
                            pass
                        client.close()
                    waiting = [client for client in waiting if client.fileno() >= 0]
                    if not waiting:
                        break
                for client in waiting:
                    client.close()
                print(opened, flush=True)
";

/// A Python program in a namespace, until the value is dropped.
struct Program(std::process::Child);

impl Program {
    fn start(namespace: &Namespace, script: &str, arguments: &[&str]) -> Result<Self> {
        // Not that of a version manager.
        let command = namespace.command("/usr/bin/python3").args(["-c", script]).args(arguments);
        Ok(Self(command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn()?))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Established connections, which the kernel gives up for nobody, from one internet source by a forward and from ten
/// private hosts.
fn established() -> Result {
    let world = World::start(Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let _ssh = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    world.put_route("10.8.0.0/24".parse()?, at::WEB);
    let sources: Vec<String> = (1..=10).map(|host| format!("10.8.0.{host}")).collect();
    for source in &sources {
        world.web().ip(&format!("addr add {source}/32 dev lo"))?;
    }
    let config = "[[network]]\nrange = \"10.0.0.0/16\"\nalso = [\"10.8.0.0/24\"]\n\
                  [[nat.forward]]\nport = \"9000-9011\"\nto = \"10.0.0.4\"\n";
    let (installation, _daemon) = gateway(&world, &format!("{ONLY_SHARES}{config}"))?;
    let _servers = [(world.server(), "203.0.113.10"), (world.web(), "10.0.0.4")]
        .map(|(host, address)| Program::start(host, SILENT_SERVER, &[address]));
    std::thread::sleep(Duration::from_secs(1));
    let _one_at_a_time = ATTACKING.lock().unwrap_or_else(PoisonError::into_inner);
    let inside: Vec<&str> = ["203.0.113.10", "9000"].into_iter().chain(sources.iter().map(String::as_str)).collect();
    let attackers = [
        Program::start(world.web(), SILENT_CLIENT, &inside)?,
        Program::start(world.server(), SILENT_CLIENT, &["198.51.100.2", "9000", "203.0.113.10"])?,
    ];
    let (_, max) = entries(&world)?;
    let mut most = 0;
    let see = |most: &mut u64| -> Result<u64> {
        *most = entries(&world)?.0.max(*most);
        Ok(*most)
    };
    wait_for("the table is half full", Duration::from_secs(240), || Ok(see(&mut most)? > max / 2))?;
    let began = Instant::now();
    let (mut opened, mut logged_in) = (0, 0);
    for flow in 0..100 {
        opened += usize::from(traffic::tcp_connects(world.worker(), server.address(), SOON).is_ok());
        if flow % 5 == 0 {
            logged_in += usize::from(traffic::tcp_connects(world.server(), (at::BASTION, 22), SOON).is_ok());
        }
        see(&mut most)?;
        std::thread::sleep(Duration::from_millis(300));
    }
    drop(attackers);
    let busiest = flows(&report(&installation)?)?;
    let outcome =
        format!("{opened} flows, {logged_in} logins in {:?}, {most} of {max} entries: {busiest}", began.elapsed());
    ensure((opened, logged_in) == (100, 20), outcome.clone())?;
    ensure(most <= max / 4 * 3 + max / 20, outcome.clone())?;
    // The attackers are gone, and their connections stay for two hours: others still open flows.
    for _ in 0..100 {
        opened += usize::from(traffic::tcp_connects(world.worker(), server.address(), SOON).is_ok());
        opened += usize::from(traffic::tcp_connects(world.tenant(), server.address(), SOON).is_ok());
    }
    ensure(opened == 300, format!("{opened} of 300 flows; {outcome}"))
}

/// A trial of `make test-long`.
fn long(name: &'static str, test: fn() -> Result) -> Trial {
    lone_trial(name, test).with_ignored_flag(true)
}

/// How long attackers go on: in CI until the table would be full several times, and with `make test-long`.
const SHORT: Duration = Duration::from_secs(4);
const LONG: Duration = Duration::from_secs(60);

/// So many datagrams attackers send as fast as they can where no number is asked for.
const FAST_AT_FIRST: u64 = 30_000;

/// One attack at a time: each takes all processors.
static ATTACKING: Mutex<()> = Mutex::new(());

/// Nothing but the fair share limits anybody: attackers are as fast as they can.
const ONLY_SHARES: &str = "[egress]\nnew_flows_per_second = false\nmax_flows = false\n\
                           network_new_flows_per_second = false\n\
                           [firewall]\nnew_flows_per_second = false\nmax_flows = false\nsyns_per_second = false\n";

/// A sender of datagrams, each of which opens another flow.
#[derive(Clone, Copy)]
struct Attacker<'w> {
    from: &'w Namespace,
    source: Ipv4Addr,
    /// It sends from so many addresses in turn, from `source` on.
    sources: u32,
    target: Ipv4Addr,
    first_port: u16,
}

impl Attacker<'_> {
    /// As fast as it can up to `least` datagrams, then a few thousand a second: other tests share the processors.
    fn send(&self, stop: &AtomicBool, sent: &AtomicU64, least: u64) -> Result {
        let each = 20_000 / u16::try_from(self.sources)?;
        for number in (0..self.sources).cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let socket = self.from.bind_udp((Ipv4Addr::from_bits(self.source.to_bits() + number), 0))?;
            for port in self.first_port..self.first_port + each {
                // A full queue is no failure of the attack.
                _ = socket.send_to(b"fill", SocketAddrV4::new(self.target, port));
                let count = sent.fetch_add(1, Ordering::Relaxed);
                if count % 16 == 0 {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if count > least.max(FAST_AT_FIRST) {
                        std::thread::sleep(Duration::from_millis(4));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Who tries to do something while the attack goes on.
struct Others<'w> {
    /// Opens flows to `server`.
    host: &'w Namespace,
    server: SocketAddr,
    /// Logs in to the bastion.
    admin: &'w Namespace,
}

/// What came of an attack.
#[derive(Debug)]
struct Outcome {
    /// Datagrams of the attackers, each of another flow.
    sent: u64,
    /// Of a hundred flows of others.
    opened: usize,
    /// Of twenty connections to the bastion's SSH.
    logged_in: usize,
    /// The most entries that were seen, and the table's size.
    entries: u64,
    max: u64,
}

fn entries(world: &World) -> Result<(u64, u64)> {
    let read = |name: &str| -> Result<u64> {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        Ok(world.bastion().run(|| std::fs::read_to_string(&path))?.trim().parse()?)
    };
    Ok((read("count")?, read("max")?))
}

/// More flows than the table has room for.
fn more_than_fits(world: &World) -> Result<u64> {
    Ok(entries(world)?.1 + 1)
}

/// How long an attack may take to send more than the table holds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Attacks for a while, and until the attackers have sent `least` datagrams. When the table is more than half full, or
/// after a quarter of the time, others try a hundred flows and twenty logins.
fn attack(
    world: &World,
    attackers: &[Attacker<'_>],
    others: &Others<'_>,
    time: Duration,
    least: u64,
) -> Result<Outcome> {
    let _one_at_a_time = ATTACKING.lock().unwrap_or_else(PoisonError::into_inner);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut opened, mut logged_in, mut most, mut max) = (0, 0, 0, 0);
    std::thread::scope(|scope| -> Result {
        let threads: Vec<_> = attackers
            .iter()
            .map(|attacker| scope.spawn(|| attacker.send(&stop, &sent, least).map_err(|error| format!("{error:?}"))))
            .collect();
        let start = Instant::now();
        let mut tried = || -> Result {
            let (mut flows, mut logins) = (0, 0);
            let is_patient = || sent.load(Ordering::Relaxed) < least && start.elapsed() < PATIENCE;
            while start.elapsed() < time || flows < 100 || is_patient() {
                let (entries, size) = entries(world)?;
                (most, max) = (entries.max(most), size);
                let is_early = if least > 0 { most <= max / 2 && is_patient() } else { start.elapsed() < time / 4 };
                if is_early || flows == 100 {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                opened += usize::from(traffic::tcp_connects(others.host, others.server, SOON).is_ok());
                flows += 1;
                if flows % 5 == 0 && logins < 20 {
                    logged_in += usize::from(traffic::tcp_connects(others.admin, (at::BASTION, 22), SOON).is_ok());
                    logins += 1;
                }
            }
            Ok(())
        };
        let result = tried();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| "an attacker panicked")??;
        }
        result
    })?;
    Ok(Outcome { sent: sent.into_inner(), opened, logged_in, entries: most, max })
}

/// Everybody else got through, although the attackers sent more than the table holds, and three quarters were not
/// exceeded by more than what comes in while the daemon reacts: this test's daemon is not optimised, and shares two
/// cores with the attackers.
fn nobody_was_stopped(outcome: &Outcome) -> Result {
    let most = outcome.max / 4 * 3 + outcome.max / 20;
    ensure(outcome.sent > outcome.max, format!("the attack was too slow: {outcome:?}"))?;
    ensure((outcome.opened, outcome.logged_in) == (100, 20), format!("{outcome:?}"))?;
    ensure(outcome.entries > outcome.max / 2, format!("the table was not even half full: {outcome:?}"))?;
    ensure(outcome.entries <= most, format!("{outcome:?}, at most {most}"))
}

fn by_hairpin(time: Duration) -> Result {
    let world = World::start(Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let _ssh = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    let forward = "[[nat.forward]]\nprotocol = \"udp\"\nport = \"20000-40000\"\nto = \"10.0.0.4\"\n";
    let (_installation, _daemon) = gateway(&world, &format!("{ONLY_SHARES}{forward}"))?;
    let attacker = Attacker { from: world.web(), source: at::WEB, sources: 1, target: at::BASTION, first_port: 20_000 };
    let others = Others { host: world.worker(), server: server.address(), admin: world.server() };
    nobody_was_stopped(&attack(&world, &[attacker; 2], &others, time, more_than_fits(&world)?)?)
}

/// What the attacks would do: otherwise the others prove nothing.
fn without_shares() -> Result {
    let world = World::start(Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let _ssh = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    let (_installation, _daemon) = gateway(&world, &format!("{ONLY_SHARES}fair_share = false\n"))?;
    let attacker = Attacker { from: world.web(), source: at::WEB, sources: 1, target: at::SERVER, first_port: 20_000 };
    let others = Others { host: world.worker(), server: server.address(), admin: world.server() };
    let outcome = attack(&world, &[attacker; 2], &others, SHORT, more_than_fits(&world)?)?;
    ensure(outcome.entries > outcome.max / 8 * 7, format!("the attack is too weak: {outcome:?}"))
}

fn by_ten_hosts(time: Duration) -> Result {
    let world = World::start(Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let _ssh = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    // Ten hosts behind one, since the world has only three.
    world.put_route("10.8.0.0/24".parse()?, at::WEB);
    let sources: Vec<Ipv4Addr> = (1..=10).map(|host| Ipv4Addr::new(10, 8, 0, host)).collect();
    for source in &sources {
        world.web().ip(&format!("addr add {source}/32 dev lo"))?;
    }
    let network = "[[network]]\nrange = \"10.0.0.0/16\"\nalso = [\"10.8.0.0/24\"]\n";
    let (_installation, _daemon) = gateway(&world, &format!("{ONLY_SHARES}{network}"))?;
    let attacker =
        |source: Ipv4Addr| Attacker { from: world.web(), source, sources: 1, target: at::SERVER, first_port: 20_000 };
    let attackers: Vec<Attacker<'_>> = sources.into_iter().map(attacker).collect();
    let others = Others { host: world.worker(), server: server.address(), admin: world.server() };
    nobody_was_stopped(&attack(&world, &attackers, &others, time, more_than_fits(&world)?)?)
}

fn by_forward(time: Duration) -> Result {
    let world = World::start(Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let _ssh = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    let forward = "[[nat.forward]]\nprotocol = \"udp\"\nport = \"20000-40000\"\nto = \"10.0.0.4\"\n";
    let (_installation, _daemon) = gateway(&world, &format!("{ONLY_SHARES}{forward}"))?;
    let attacker =
        Attacker { from: world.server(), source: at::SERVER, sources: 1, target: at::BASTION, first_port: 20_000 };
    // The attacker itself may still log in.
    let others = Others { host: world.worker(), server: server.address(), admin: world.server() };
    nobody_was_stopped(&attack(&world, &[attacker; 2], &others, time, more_than_fits(&world)?)?)
}

fn by_peer(time: Duration) -> Result {
    let world = world_with_laptop()?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let _ssh = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    let interface = if time == LONG { "wgstarve1" } else { "wgstarve0" };
    let ada = Client::start(world.laptop(), &format!("{interface}c"), ADA)?;
    let installation = installation(&world)?;
    let config = tunnel(interface, &ada.block("ada", ""));
    installation.write_config(&format!("{config}{ONLY_SHARES}"))?;
    let (_daemon, key) = serving(&installation)?;
    ada.meets(key, "10.100.0.0/24,10.0.0.0/16")?;
    let echo = Reflector::udp(world.web(), (at::WEB, 5000))?;
    wait_for("the tunnel works", SOON, || Ok(traffic::udp_probe(world.laptop(), echo.address(), SOON).is_ok()))?;
    let attacker = Attacker { from: world.laptop(), source: ADA, sources: 1, target: at::WEB, first_port: 20_000 };
    let others = Others { host: world.worker(), server: server.address(), admin: world.server() };
    let outcome = attack(&world, &[attacker; 2], &others, time, 0)?;
    // The tunnel is slower than the table is large, in a short time.
    ensure((outcome.opened, outcome.logged_in) == (100, 20), format!("{outcome:?}"))?;
    ensure(outcome.entries <= outcome.max / 4 * 3 + outcome.max / 20, format!("{outcome:?}"))
}

/// A peer with a network behind it, all addresses of which it uses.
fn by_site() -> Result {
    let world = world_with_laptop()?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let _ssh = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    let site = Client::start(world.laptop(), "wgstarve2c", ADA)?;
    let installation = installation(&world)?;
    let config = tunnel("wgstarve2", &site.block("site", ", \"192.168.64.0/18\""));
    installation.write_config(&format!("{config}{ONLY_SHARES}"))?;
    let (_daemon, key) = serving(&installation)?;
    site.meets(key, "10.100.0.0/24,10.0.0.0/16")?;
    world.laptop().ip("route add local 192.168.64.0/18 dev lo")?;
    let source = Ipv4Addr::new(192, 168, 64, 1);
    let attacker = Attacker { from: world.laptop(), source, sources: 16_000, target: at::WEB, first_port: 20_000 };
    let others = Others { host: world.worker(), server: server.address(), admin: world.server() };
    // The tunnel loses most of what comes so fast, so it goes on for a minute.
    let outcome = attack(&world, &[attacker; 2], &others, LONG, 100 * more_than_fits(&world)?)?;
    ensure((outcome.opened, outcome.logged_in) == (100, 20), format!("{outcome:?}"))?;
    ensure(outcome.entries > outcome.max / 2, format!("the table was not even half full: {outcome:?}"))?;
    ensure(outcome.entries <= outcome.max / 4 * 3 + outcome.max / 20, format!("{outcome:?}"))?;
    ensure(counted(&world, "dropped_flows")? > 1000, "the site was not limited")?;
    let flows = serde_json::to_value(report(&installation)?)?["flows"]["by_source"].clone();
    ensure(flows["error"].is_null(), flows.to_string())
}

/// With the default limit, a host comes nowhere near the table's size.
fn by_its_limit() -> Result {
    let world = World::start(Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let _ssh = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    let (installation, _daemon) = gateway(&world, "[egress]\nnew_flows_per_second = false\n")?;
    let attacker = Attacker { from: world.web(), source: at::WEB, sources: 1, target: at::SERVER, first_port: 20_000 };
    let others = Others { host: world.worker(), server: server.address(), admin: world.server() };
    let outcome = attack(&world, &[attacker], &others, Duration::from_secs(2), 0)?;
    ensure((outcome.opened, outcome.logged_in) == (100, 20), format!("{outcome:?}"))?;
    // The limit of 4096 with what comes in until the daemon reacts, which the network's rate bounds.
    ensure((3500..25_000).contains(&outcome.entries), format!("{outcome:?}"))?;
    ensure(contents(&world, "set", "limited4")?.contains("10.0.0.4"), "the host is not limited")?;
    let busiest = flows(&report(&installation)?)?;
    ensure(busiest.contains("10.0.0.4") && busiest.contains("\"limited\":\"limit\""), busiest)
}

fn next_daemon() -> Result {
    let world = World::start(Settings::default())?;
    let options = "[egress]\nmax_flows = 40\n";
    let (installation, mut daemon) = gateway(&world, options)?;
    let socket = world.web().bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
    for port in 2000..2040 {
        socket.send_to(b"open", (at::SERVER, port))?;
    }
    let is_limited = || Ok(contents(&world, "set", "limited4")?.contains("10.0.0.4"));
    wait_for("the host is limited", SOON, is_limited)?;
    daemon.signal(Signal::SIGKILL)?;
    ensure(daemon.wait_for_exit(SOON)?.is_some(), "the daemon did not end")?;
    ensure(is_limited()?, "the host is not limited without a daemon")?;
    world.bastion().nft("flush set inet bastiond limited4")?;
    let _daemon = crate::gateway::healthy(&installation)?;
    wait_for("the next daemon knows how many flows the host has", SOON, is_limited)?;
    Ok(())
}

/// Flows that were born while nobody listened, as between the rules of a boot and the daemon's start.
fn unreported() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, daemon) = gateway(&world, "[egress]\nmax_flows = 40\n")?;
    drop(daemon);
    world.bastion().sysctl("net.netfilter.nf_conntrack_events", "2")?;
    let socket = world.web().bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
    (2000..2040).try_for_each(|port| socket.send_to(b"open", (at::SERVER, port)).map(drop))?;
    let _daemon = crate::gateway::healthy(&installation)?;
    let is_limited = || Ok(contents(&world, "set", "limited4")?.contains("10.0.0.4"));
    wait_for("the host is limited", SOON, is_limited)?;
    traffic::flush_conntrack(world.bastion())?;
    wait_for("the host may open flows again", Duration::from_secs(25), || Ok(!is_limited()?))?;
    Ok(())
}

fn named() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _daemon) = gateway(&world, "[egress]\nmax_flows = 60\n")?;
    let open = |from: &Namespace, count: u16| -> Result {
        let socket = from.bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
        (2000..2000 + count).try_for_each(|port| socket.send_to(b"open", (at::SERVER, port)).map(drop))?;
        Ok(())
    };
    open(world.web(), 60)?;
    open(world.tenant(), 30)?;
    let shown = || -> Result<String> { Ok(crate::gateway::text(&installation.ctl(&["status"])?.stdout)) };
    let lines = ["10.0.0.4         private host, eth1", "10.2.0.4         private host, eth2"];
    let has_lines = || Ok(shown().is_ok_and(|shown| lines.iter().all(|line| shown.contains(line))));
    wait_for("both are named", SOON, has_lines).map_err(|_| shown().unwrap_or_default())?;
    wait_for(
        "the first is limited",
        SOON,
        || Ok(shown()?.contains("opens no more: it has as many as one source may")),
    )?;
    Ok(())
}

/// The report's flows by source, as JSON.
fn flows(report: &Report) -> Result<String> {
    let json = serde_json::to_value(report)?;
    Ok(json["flows"]["by_source"].to_string())
}
