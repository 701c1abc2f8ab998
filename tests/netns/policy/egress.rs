//! What private hosts may reach on the internet, and the addresses under which they are seen there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, HeldConnection, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use super::Knock::Tcp;
use super::{assign, counted, gateway, pings, reload, silent, tcp, udp};
use crate::gateway::{NEVER, Result, SOON, Server, ensure, ensure_eq, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("each_source_has_one_address_of_a_pool_and_the_sources_are_spread_over_it", pool),
        trial("a_network_with_addresses_of_its_own_uses_them_alone", own_addresses),
        trial("new_flows_avoid_a_drained_address_and_old_ones_keep_it", drained),
        trial("with_a_list_of_what_is_allowed_nothing_else_passes", allowed),
        trial("what_is_denied_is_dropped_and_counted_and_the_rest_passes", denied),
        trial("port_25_is_closed_unless_the_configuration_opens_it", smtp),
        trial("a_network_may_have_lists_of_its_own", own_lists),
    ]
}

/// Floating IPs of the bastion's.
const FLOATING: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 50), Ipv4Addr::new(198, 51, 100, 51)];
const POOL: &str = "[nat]\negress_addresses = [\"198.51.100.2\", \"198.51.100.50\", \"198.51.100.51\"]\n";
/// How many private hosts [`crowd`] makes of one.
const CROWD: u8 = 32;

fn world() -> Result<World> {
    let world = World::start(Settings::default())?;
    for address in FLOATING {
        assign(&world, address)?;
    }
    Ok(world)
}

/// Gives web the addresses of many hosts, 10.0.0.128 and up.
fn crowd(world: &World) -> Result<Vec<Ipv4Addr>> {
    let addresses: Vec<_> = (0..CROWD).map(|host| Ipv4Addr::new(10, 0, 0, 128 + host)).collect();
    let lines: Vec<String> = addresses.iter().map(|address| format!("addr add {address}/32 dev eth0")).collect();
    world.web().ip(&lines.join("\n"))?;
    let gateway = world.gateway(world.private_network_id()).namespace();
    gateway.nft("delete table inet gateway")?;
    let way = gateway.ip(&format!("route get {}", at::WEB))?;
    let link = way.split_once(" dev ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default().to_owned();
    gateway.ip(&format!("route add 10.0.0.128/25 via {} dev {link} onlink", at::WEB))?;
    Ok(addresses)
}

/// Under which addresses the server sees each of the sources, over so many flows.
fn seen(
    world: &World,
    server: &Server,
    sources: &[Ipv4Addr],
    flows: usize,
) -> Result<BTreeMap<Ipv4Addr, BTreeSet<IpAddr>>> {
    let mut seen: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for &source in sources {
        for _ in 0..flows {
            let from = SocketAddr::from((source, 0));
            let address = traffic::udp_probe_from(world.web(), from, server.udp.address(), SOON)?.ip();
            seen.entry(source).or_default().insert(address);
        }
    }
    Ok(seen)
}

fn pool() -> Result {
    let world = world()?;
    let server = Server::start(&world)?;
    let sources = crowd(&world)?;
    let (_station, _daemon) = gateway(&world, POOL)?;
    let seen = seen(&world, &server, &sources, 6)?;
    let fickle: Vec<_> = seen.iter().filter(|(_, addresses)| addresses.len() != 1).collect();
    ensure(fickle.is_empty(), format!("some sources have several addresses: {fickle:?}"))?;
    let mut shares: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for address in seen.values().flatten() {
        *shares.entry(*address).or_default() += 1;
    }
    let expected: BTreeSet<IpAddr> = [at::BASTION, FLOATING[0], FLOATING[1]].map(IpAddr::from).into();
    ensure_eq(shares.keys().copied().collect::<BTreeSet<_>>(), expected)?;
    // Of 32 sources, 10 or 11 each would be even.
    ensure(shares.values().all(|&share| share >= 4), format!("{shares:?} is lopsided"))?;
    // TCP, and another destination: the source decides, nothing else does.
    let other = Reflector::tcp(world.server(), (at::SERVER, 9000))?;
    let by_web = tcp(world.web(), (at::SERVER, 9000))?;
    ensure_eq([tcp(world.web(), (at::SERVER, 8080)), udp(world.web(), (at::SERVER, 5353))], [Ok(by_web), Ok(by_web)])?;
    ensure_eq(other.seen().len(), 1)
}

fn own_addresses() -> Result {
    let world = world()?;
    let _server = Server::start(&world)?;
    let sections = "
        [nat]
        egress_addresses = [\"198.51.100.50\"]
        [[network]]
        range = \"10.2.0.0/16\"
        egress_addresses = [\"198.51.100.51\"]";
    let (installation, mut daemon) = gateway(&world, sections)?;
    let target = (at::SERVER, 8080);
    ensure_eq(
        [tcp(world.web(), target), tcp(world.worker(), target)],
        [Ok(FLOATING[0].into()), Ok(FLOATING[0].into())],
    )?;
    ensure_eq(tcp(world.tenant(), target), Ok(FLOATING[1].into()))?;
    ensure_eq(udp(world.tenant(), (at::SERVER, 5353)), Ok(FLOATING[1].into()))?;
    ensure(pings(world.tenant(), at::SERVER, SOON)?, "the tenant's ping has no answer")?;
    reload(&installation, &mut daemon, "[[network]]\nrange = \"10.2.0.0/16\"\negress_addresses = [\"198.51.100.51\"]")?;
    ensure_eq([tcp(world.web(), target), tcp(world.tenant(), target)], [Ok(at::BASTION.into()), Ok(FLOATING[1].into())])
}

fn drained() -> Result {
    let world = world()?;
    let server = Server::start(&world)?;
    let held_by = Reflector::tcp(world.server(), (at::SERVER, 9000))?;
    let sources = crowd(&world)?;
    let (installation, mut daemon) = gateway(&world, POOL)?;
    // Web's own connection is under some address: that one is drained.
    let mut held = HeldConnection::open(world.web(), held_by.address(), SOON)?;
    let drained = held.seen().ip();
    let before = seen(&world, &server, &sources, 1)?;
    reload(&installation, &mut daemon, &format!("{POOL}drain = [\"{drained}\"]"))?;
    held.exchange(SOON)?;
    let after = seen(&world, &server, &sources, 2)?;
    for (source, addresses) in &after {
        ensure(!addresses.contains(&drained) && addresses.len() == 1, format!("{source} is seen as {addresses:?}"))?;
        let had = &before[source];
        ensure(had.contains(&drained) || had == addresses, format!("{source} had {had:?}, now {addresses:?}"))?;
    }
    let heirs: BTreeSet<_> = after.iter().filter(|(source, _)| before[*source].contains(&drained)).collect();
    ensure(!heirs.is_empty(), "nobody had the drained address: this proves nothing")?;
    ensure(tcp(world.web(), (at::SERVER, 8080)).is_ok_and(|address| address != drained), "a new flow of web has it")?;
    held.exchange(SOON)?;
    reload(&installation, &mut daemon, POOL)?;
    ensure_eq(tcp(world.web(), (at::SERVER, 8080)), Ok(drained))?;
    held.exchange(SOON)?;
    Ok(())
}

/// Reflectors on the internet host: TCP on some ports, UDP on two.
fn services(world: &World) -> Result<Vec<Reflector>> {
    let tcp = [25, 80, 443, 6667].into_iter().map(|port| Reflector::tcp(world.server(), (at::SERVER, port)));
    let udp = [53, 123].into_iter().map(|port| Reflector::udp(world.server(), (at::SERVER, port)));
    Ok(tcp.chain(udp).collect::<std::result::Result<_, _>>()?)
}

/// What of [`services`] a host reaches, and whether its ping is answered.
fn reach(from: &Namespace) -> Vec<&'static str> {
    type Way = (&'static str, fn(&Namespace) -> bool);
    let ways: [Way; 7] = [
        ("smtp", |from| traffic::tcp_connects(from, (at::SERVER, 25), NEVER).is_ok()),
        ("http", |from| traffic::tcp_connects(from, (at::SERVER, 80), NEVER).is_ok()),
        ("https", |from| traffic::tcp_connects(from, (at::SERVER, 443), NEVER).is_ok()),
        ("irc", |from| traffic::tcp_connects(from, (at::SERVER, 6667), NEVER).is_ok()),
        ("dns", |from| traffic::udp_probe(from, (at::SERVER, 53), NEVER).is_ok()),
        ("ntp", |from| traffic::udp_probe(from, (at::SERVER, 123), NEVER).is_ok()),
        ("ping", |from| pings(from, at::SERVER, NEVER).is_ok_and(|answered| answered)),
    ];
    // All at once, as each that is shut waits for a while.
    let reached = std::thread::scope(|scope| {
        let probes = ways.map(|(name, probe)| scope.spawn(move || probe(from).then_some(name)));
        probes.map(|probe| probe.join().expect("a probe does not panic"))
    });
    reached.into_iter().flatten().collect()
}

fn allowed() -> Result {
    let world = World::start(Settings::default())?;
    let _services = services(&world)?;
    let sections = "[egress]
        allow = [
            { to = [\"203.0.113.0/24\"], protocol = \"udp\", ports = [53] },
            { protocol = \"tcp\", ports = [443] },
            { to = [\"203.0.113.1\"], protocol = \"tcp\", ports = [80] },
        ]";
    let (installation, mut daemon) = gateway(&world, sections)?;
    let before = counted(&world, "dropped_egress")?;
    ensure_eq(reach(world.web()), vec!["https", "dns"])?;
    // 203.0.113.1 is the router of the internet, where the cloud's API answers.
    ensure_eq(traffic::tcp_connects(world.web(), (at::API, 80), SOON), Ok(()))?;
    ensure(counted(&world, "dropped_egress")? >= before + 5, "what is not allowed is not counted")?;
    reload(&installation, &mut daemon, "[egress]\nallow = []")?;
    ensure_eq(reach(world.web()), vec![])?;
    reload(&installation, &mut daemon, "[egress]\nallow = [{ protocol = \"icmp\" }]")?;
    ensure_eq(reach(world.web()), vec!["ping"])
}

fn denied() -> Result {
    let world = World::start(Settings::default())?;
    let _services = services(&world)?;
    let sections = "[egress]
        deny = [
            { protocol = \"tcp\", ports = [\"6660-6669\"] },
            { to = [\"203.0.113.8/29\"], protocol = \"udp\", ports = [123] },
            { to = [\"203.0.113.1\"] },
            { to = [\"203.0.113.10\"], protocol = \"udp\", ports = [53] },
            { to = [\"203.0.113.10\"], protocol = \"tcp\", ports = [442] },
        ]
        allow = [{ protocol = \"tcp\", ports = [\"1-65535\"] }, { protocol = \"udp\", ports = [\"1-65535\"] }]";
    let (_station, _daemon) = gateway(&world, sections)?;
    let before = counted(&world, "dropped_egress")?;
    // A denial wins over an allowance.
    ensure_eq(reach(world.web()), vec!["http", "https"])?;
    silent([Tcp(world.web(), (at::API, 80))])?;
    ensure(counted(&world, "dropped_egress")? >= before + 6, "what is denied is not counted")?;
    // The bastion's own way is not the hosts'.
    ensure_eq(traffic::tcp_connects(world.bastion(), (at::API, 80), SOON), Ok(()))
}

fn smtp() -> Result {
    let world = World::start(Settings::default())?;
    let _services = services(&world)?;
    let (installation, mut daemon) = gateway(&world, "")?;
    let before = counted(&world, "dropped_egress")?;
    silent([Tcp(world.web(), (at::SERVER, 25))])?;
    ensure(counted(&world, "dropped_egress")? > before, "mail is dropped, but not counted")?;
    ensure_eq(tcp(world.web(), (at::SERVER, 80)), Ok(at::BASTION.into()))?;
    reload(&installation, &mut daemon, "[egress]\nsmtp = true")?;
    ensure_eq(tcp(world.web(), (at::SERVER, 25)), Ok(at::BASTION.into()))
}

fn own_lists() -> Result {
    let world = World::start(Settings::default())?;
    let _services = services(&world)?;
    let sections = "
        [egress]
        allow = [{ protocol = \"tcp\", ports = [80, 443] }]
        deny = [{ protocol = \"tcp\", ports = [443] }]
        [[network]]
        range = \"10.2.0.0/16\"
        smtp = true
        allow = [{}]
        deny = [{ protocol = \"udp\", ports = [53] }]";
    let (installation, mut daemon) = gateway(&world, sections)?;
    ensure_eq(reach(world.web()), vec!["http"])?;
    ensure_eq(reach(world.tenant()), vec!["smtp", "http", "https", "irc", "ntp", "ping"])?;
    // What its block does not say is taken from [egress].
    let sections = "
        [egress]
        deny = [{ protocol = \"tcp\", ports = [443] }]
        [[network]]
        range = \"10.2.0.0/16\"
        smtp = true";
    reload(&installation, &mut daemon, sections)?;
    ensure_eq(reach(world.web()), vec!["http", "irc", "dns", "ntp", "ping"])?;
    ensure_eq(reach(world.tenant()), vec!["smtp", "http", "irc", "dns", "ntp", "ping"])
}
