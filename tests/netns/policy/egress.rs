//! What private hosts can reach on the internet, and with which addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bastiond::internals::outcome::ComponentName;
use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, HeldConnection, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use super::Attempt::Tcp;
use super::{assign, counted, gateway, pings, reload, silent, tcp, udp};
use crate::gateway::{NEVER, Result, SOON, Server, ensure, ensure_eq, report, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("each_source_uses_one_address_of_a_pool_and_the_sources_are_spread_over_it", pool),
        trial("a_network_with_its_own_addresses_uses_only_these", own_addresses),
        trial("a_subnet_and_a_host_with_egress_addresses_of_their_own_use_only_these", of_hosts),
        trial("new_flows_avoid_a_drained_address_and_old_ones_keep_it", drained),
        trial("with_an_allow_list_nothing_else_passes", allowed),
        trial("denied_packets_are_dropped_and_counted_and_the_rest_passes", denied),
        trial("port_25_is_closed_unless_the_configuration_opens_it", smtp),
        trial("a_network_can_have_its_own_lists", own_lists),
    ]
}

/// Floating IPs of the bastion.
const FLOATING: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 50), Ipv4Addr::new(198, 51, 100, 51)];
const POOL: &str = "[nat]\negress_addresses = [\"198.51.100.2\", \"198.51.100.50\", \"198.51.100.51\"]\n";
/// The number of source addresses that [`add_sources`] gives to one host.
const SOURCES: u8 = 32;

fn world() -> Result<World> {
    let world = World::start(Settings::default())?;
    for address in FLOATING {
        assign(&world, address)?;
    }
    Ok(world)
}

/// Gives web the addresses of many hosts, from 10.0.0.128 on.
fn add_sources(world: &World) -> Result<Vec<Ipv4Addr>> {
    let addresses: Vec<_> = (0..SOURCES).map(|host| Ipv4Addr::new(10, 0, 0, 128 + host)).collect();
    let lines: Vec<String> = addresses.iter().map(|address| format!("addr add {address}/32 dev eth0")).collect();
    world.web().ip(&lines.join("\n"))?;
    let gateway = world.gateway(world.private_network_id()).namespace();
    gateway.nft("delete table inet gateway")?;
    let route = gateway.ip(&format!("route get {}", at::WEB))?;
    let link = route.split_once(" dev ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default().to_owned();
    gateway.ip(&format!("route add 10.0.0.128/25 via {} dev {link} onlink", at::WEB))?;
    Ok(addresses)
}

/// The addresses that the server sees of each source, over `flows` flows.
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
    let sources = add_sources(&world)?;
    let (_installation, _daemon) = gateway(&world, POOL)?;
    let seen = seen(&world, &server, &sources, 6)?;
    let unstable: Vec<_> = seen.iter().filter(|(_, addresses)| addresses.len() != 1).collect();
    ensure(unstable.is_empty(), format!("some sources have several addresses: {unstable:?}"))?;
    let mut shares: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for address in seen.values().flatten() {
        *shares.entry(*address).or_default() += 1;
    }
    let expected: BTreeSet<IpAddr> = [at::BASTION, FLOATING[0], FLOATING[1]].map(IpAddr::from).into();
    ensure_eq(shares.keys().copied().collect::<BTreeSet<_>>(), expected)?;
    // An even share of 32 sources is 10 or 11.
    ensure(shares.values().all(|&share| share >= 4), format!("{shares:?} is uneven"))?;
    // The same address for TCP and for another destination: only the source decides.
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
    let sources = add_sources(&world)?;
    let (installation, mut daemon) = gateway(&world, POOL)?;
    // The address of web's own connection is drained.
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
    let moved: BTreeSet<_> = after.iter().filter(|(source, _)| before[*source].contains(&drained)).collect();
    ensure(!moved.is_empty(), "no source had the drained address, so the test proves nothing")?;
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

/// Which of [`services`] a host reaches, and whether its ping is answered.
fn reachable(from: &Namespace) -> Vec<&'static str> {
    type Probe = (&'static str, fn(&Namespace) -> bool);
    let probes: [Probe; 7] = [
        ("smtp", |from| traffic::tcp_connects(from, (at::SERVER, 25), NEVER).is_ok()),
        ("http", |from| traffic::tcp_connects(from, (at::SERVER, 80), NEVER).is_ok()),
        ("https", |from| traffic::tcp_connects(from, (at::SERVER, 443), NEVER).is_ok()),
        ("irc", |from| traffic::tcp_connects(from, (at::SERVER, 6667), NEVER).is_ok()),
        ("dns", |from| traffic::udp_probe(from, (at::SERVER, 53), NEVER).is_ok()),
        ("ntp", |from| traffic::udp_probe(from, (at::SERVER, 123), NEVER).is_ok()),
        ("ping", |from| pings(from, at::SERVER, NEVER).is_ok_and(|answered| answered)),
    ];
    // All at once, because each unanswered probe waits for its timeout.
    let reached = std::thread::scope(|scope| {
        let probes = probes.map(|(name, probe)| scope.spawn(move || probe(from).then_some(name)));
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
    ensure_eq(reachable(world.web()), vec!["https", "dns"])?;
    // 203.0.113.1 is the router of the internet, where the cloud's API answers.
    ensure_eq(traffic::tcp_connects(world.web(), (at::API, 80), SOON), Ok(()))?;
    ensure(counted(&world, "dropped_egress")? >= before + 5, "packets that are not allowed are not counted")?;
    reload(&installation, &mut daemon, "[egress]\nallow = []")?;
    ensure_eq(reachable(world.web()), vec![])?;
    reload(&installation, &mut daemon, "[egress]\nallow = [{ protocol = \"icmp\" }]")?;
    ensure_eq(reachable(world.web()), vec!["ping"])
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
    let (_installation, _daemon) = gateway(&world, sections)?;
    let before = counted(&world, "dropped_egress")?;
    // `deny` wins over `allow`.
    ensure_eq(reachable(world.web()), vec!["http", "https"])?;
    silent([Tcp(world.web(), (at::API, 80))])?;
    ensure(counted(&world, "dropped_egress")? >= before + 6, "denied packets are not counted")?;
    // The lists do not apply to the bastion itself.
    ensure_eq(traffic::tcp_connects(world.bastion(), (at::API, 80), SOON), Ok(()))
}

fn smtp() -> Result {
    let world = World::start(Settings::default())?;
    let _services = services(&world)?;
    let (installation, mut daemon) = gateway(&world, "")?;
    let before = counted(&world, "dropped_egress")?;
    silent([Tcp(world.web(), (at::SERVER, 25))])?;
    ensure(counted(&world, "dropped_egress")? > before, "the dropped packet is not counted")?;
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
    ensure_eq(reachable(world.web()), vec!["http"])?;
    ensure_eq(reachable(world.tenant()), vec!["smtp", "http", "https", "irc", "ntp", "ping"])?;
    // Keys that the network's block lacks are taken from [egress].
    let sections = "
        [egress]
        deny = [{ protocol = \"tcp\", ports = [443] }]
        [[network]]
        range = \"10.2.0.0/16\"
        smtp = true";
    reload(&installation, &mut daemon, sections)?;
    ensure_eq(reachable(world.web()), vec!["http", "irc", "dns", "ntp", "ping"])?;
    ensure_eq(reachable(world.tenant()), vec!["smtp", "http", "irc", "dns", "ntp", "ping"])
}

fn of_hosts() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let addresses = [50, 51, 52].map(|last| Ipv4Addr::new(198, 51, 100, last));
    for address in addresses {
        assign(&world, address)?;
    }
    let [network, subnet, host] = addresses;
    let block = |from: &str, address: Ipv4Addr| {
        format!("[[network.egress]]\nfrom = [\"{from}\"]\naddresses = [\"{address}\"]\n")
    };
    let whole = format!("[[network]]\nrange = \"10.0.0.0/16\"\negress_addresses = [\"{network}\"]\n");
    // The wider entry comes first in the file.
    let sections = [whole.clone(), block("10.0.1.0/24", subnet), block("10.0.1.5", host)].concat();
    let (installation, mut daemon) = gateway(&world, &sections)?;
    let seen = |from: &Namespace| tcp(from, (at::SERVER, server.tcp.address().port()));
    ensure_eq((seen(world.web()), seen(world.worker())), (Ok(network.into()), Ok(host.into())))?;
    ensure_eq(seen(world.tenant()), Ok(at::BASTION.into()))?;
    reload(&installation, &mut daemon, &[whole.clone(), block("10.0.1.0/24", subnet)].concat())?;
    ensure_eq((seen(world.web()), seen(world.worker())), (Ok(network.into()), Ok(subnet.into())))?;
    // An address that the server does not have is reported, and its hosts leave under the server's own.
    let missing = Ipv4Addr::new(198, 51, 100, 99);
    reload(&installation, &mut daemon, &[whole, block("10.0.1.0/24", missing)].concat())?;
    ensure_eq((seen(world.web()), seen(world.worker())), (Ok(network.into()), Ok(at::BASTION.into())))?;
    let problems = report(&installation)?.components[&ComponentName::Nat].problems.clone();
    let expected = "network[0].egress[0].addresses[0]: eth0 does not have 198.51.100.99, so no flow leaves under it";
    ensure_eq(problems.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>(), vec![expected])
}
