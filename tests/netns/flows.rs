//! Live flows: how the kernel's table is read, and which connections end when the configuration changes.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bastiond::internals::component;
use bastiond::internals::config::{Config, Environment, Forward, Ports, Service, Transports, parse};
use bastiond::internals::conntrack::{
    Conntrack, EndReason, Error, Flow, FlowDeleter, Layer4, Status, Tuple, for_each_flow, observe_counters,
};
use bastiond::internals::inputs::Inputs;
use bastiond::internals::nat::Nat;
use bastiond::internals::outcome::ComponentName;
use bastiond::internals::site::{PrivateLink, PublicLink, Site};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::Installation;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, HeldConnection, Ping, Reflector};
use sandbox::world::{World, addresses as at};

use crate::bpf;
use crate::gateway::{
    NEVER, Result, SOON, Server, component, ensure, ensure_eq, healthy, installation, report, text, trial, wait_for,
};
use crate::routes::inside;
use crate::way_in::{self, ADA, BOB, Client, serving, tunnel};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("flows_read_as_the_kernel_has_them_and_one_is_deleted_alone", read_and_delete),
        trial("a_flow_in_a_zone_is_read_and_deleted_there", zone),
        trial("a_hundred_thousand_flows_are_listed_and_deleted_in_a_moment", many),
        trial("a_removed_peer_loses_its_connections_and_others_keep_theirs", peer_goes),
        trial("a_daemon_that_starts_with_another_configuration_ends_the_flows_it_no_longer_allows", restarted),
        trial("a_removed_or_redirected_forward_ends_its_connections_and_no_others", forward_goes),
        trial("a_flow_that_would_bypass_a_new_forward_ends", bypass),
        trial("the_status_shows_how_many_flows_there_are_and_where_they_go", status),
    ]
}

/// All flows of a namespace.
fn listed(host: &Namespace) -> Result<Vec<Flow>> {
    let mut all = Vec::new();
    host.run(|| {
        for_each_flow(|flow| {
            all.push(*flow);
            Ok(())
        })
    })?;
    Ok(all)
}

/// Deletes a flow; whether it was there.
fn delete(host: &Namespace, flow: &Flow) -> Result<bool> {
    Ok(host.run(|| {
        let mut deleter = FlowDeleter::open()?;
        let existed = deleter.delete(flow)?;
        deleter.finish()?;
        Ok::<bool, Error>(existed)
    })?)
}

/// How many flows there are from or to an address.
fn count_flows(host: &Namespace, address: Ipv4Addr) -> Result<usize> {
    let matches = |flow: &Flow| [flow.original.source, flow.original.destination].contains(&address);
    Ok(listed(host)?.iter().filter(|flow| matches(flow)).count())
}

fn read_and_delete() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let mut held = HeldConnection::open(world.web(), server.tcp.address(), SOON)?;
    held.exchange(SOON)?;
    let seen = traffic::udp_probe(world.web(), server.udp.address(), SOON)?;
    ensure(!traffic::ping(world.worker(), at::SERVER, Ping::default())?.replies.is_empty(), "a ping")?;

    let all = listed(world.bastion())?;
    let found = |protocol, source| {
        let is_it = |flow: &&Flow| flow.original.protocol == protocol && flow.original.source == source;
        all.iter().find(is_it).copied().ok_or_else(|| format!("no flow {protocol} {source} in {all:?}"))
    };
    let tcp = found(6, at::WEB)?;
    let ends = Layer4::Ports { source: held.local()?.port(), destination: server.tcp.address().port() };
    let answers = Layer4::Ports { source: server.tcp.address().port(), destination: held.seen().port() };
    ensure_eq((tcp.original.destination, tcp.original.layer4), (at::SERVER, ends))?;
    ensure_eq((tcp.reply.source, tcp.reply.destination, tcp.reply.layer4), (at::SERVER, at::BASTION, answers))?;
    let translated = Status::SRC_NAT | Status::CONFIRMED | Status::ASSURED;
    ensure(tcp.status.has(translated) && !tcp.status.has(Status::DST_NAT), format!("{:?}", tcp.status))?;
    ensure(tcp.id.is_some() && !tcp.has_zone(), format!("{tcp:?}"))?;
    ensure_eq(found(17, at::WEB)?.reply.destination_port(), Some(seen.port()))?;
    let ping = found(1, at::WORKER)?;
    let echo = matches!(
        (ping.original.layer4, ping.reply.layer4),
        (Layer4::Icmp { kind: 8, code: 0, .. }, Layer4::Icmp { kind: 0, .. })
    );
    ensure(echo, format!("{ping:?}"))?;

    // A later flow with the same tuple would have another number.
    let successor = Flow { id: tcp.id.map(|id| id.wrapping_add(1)), ..tcp };
    ensure_eq(delete(world.bastion(), &successor)?, false)?;
    held.exchange(SOON)?;
    ensure_eq(delete(world.bastion(), &tcp)?, true)?;
    ensure_eq(delete(world.bastion(), &tcp)?, false)?;
    bpf::let_foreign_change_hold();
    ensure(held.exchange(NEVER).is_err(), "the connection continues")?;
    ensure_eq(delete(world.bastion(), &ping)?, true)?;
    let left = listed(world.bastion())?;
    ensure(!left.contains(&ping) && left.iter().any(|flow| flow.original.protocol == 17), format!("{left:?}"))?;
    world.bastion().run(observe_counters)?;
    Ok(())
}

/// A host that tracks the flows that it sends to itself.
fn tracking(name: &str, more: &str) -> Result<Namespace> {
    let host = Namespace::create(name)?;
    host.nft(&format!(
        "table ip t {{
            chain early {{ type filter hook output priority raw; {more} }}
            chain tracked {{ type filter hook output priority filter; ct state new accept; }}
        }}"
    ))?;
    Ok(host)
}

fn zone() -> Result {
    // A zone of both directions, and one of a single direction.
    for (name, rule) in [("flows-zone", "ct zone set 7;"), ("flows-zone-of-one", "ct original zone set 9;")] {
        let host = tracking(name, rule)?;
        let socket = host.bind_udp((Ipv4Addr::LOCALHOST, 4000))?;
        socket.send_to(b"x", (Ipv4Addr::LOCALHOST, 4001))?;
        let all = listed(&host)?;
        let flow = all.iter().find(|flow| flow.original.source_port() == Some(4000)).copied();
        let flow = flow.ok_or_else(|| format!("{rule}: {all:?}"))?;
        ensure(flow.has_zone(), format!("{rule}: {flow:?}"))?;
        // Without its zone it is another flow, which does not exist.
        let original = Tuple { zone: None, ..flow.original };
        ensure_eq(delete(&host, &Flow { zone: 0, original, ..flow })?, false)?;
        ensure_eq(delete(&host, &flow)?, true)?;
        ensure(!listed(&host)?.contains(&flow), format!("{rule}: it is still there"))?;
    }
    Ok(())
}

fn many() -> Result {
    const COUNT: u32 = 100_000;
    let host = tracking("flows-many", "")?;
    host.run(|| -> std::io::Result<()> {
        for number in 0..COUNT / 50_000 {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 5000 + u16::try_from(number).unwrap_or_default()))?;
            for port in 10_000..60_000 {
                // Err: an ICMP error about an earlier datagram, since nothing listens.
                let _ = socket.send_to(b"x", (Ipv4Addr::new(127, 0, 0, 2), port));
            }
        }
        Ok(())
    })?;
    let began = Instant::now();
    let mut seen = 0_u32;
    let total = host.run(|| {
        for_each_flow(|flow| {
            seen += u32::from(flow.original.destination == Ipv4Addr::new(127, 0, 0, 2));
            Ok(())
        })
    })?;
    let took = began.elapsed();
    println!("{total} flows were listed in {took:?}");
    ensure(seen >= COUNT * 9 / 10, format!("{seen} of {COUNT} were seen"))?;
    ensure(took < Duration::from_secs(5), format!("it took {took:?}"))?;
    let all = listed(&host)?;
    let began = Instant::now();
    let count = host.run(|| -> std::result::Result<usize, Error> {
        let mut deleter = FlowDeleter::open()?;
        let mut count = 0;
        for flow in &all {
            count += usize::from(deleter.delete(flow)?);
        }
        deleter.finish()?;
        Ok(count)
    })?;
    println!("{count} were deleted in {:?}", began.elapsed());
    ensure_eq((count >= all.len() * 9 / 10, listed(&host)?.len()), (true, 0))
}

/// A tunnel with Ada on the laptop and Bob on the internet host, each with a connection to the private host.
struct Peers<'w> {
    installation: Installation<'w>,
    daemon: Option<sandbox::daemon::Daemon>,
    without_bob: String,
    held: [HeldConnection; 2],
    _clients: [Client<'w>; 2],
}

fn peers<'w>(world: &'w World, web: &Reflector, interface: &str) -> Result<Peers<'w>> {
    let ada = Client::start(world.laptop(), &format!("{interface}-ada"), ADA)?;
    let bob = Client::start(world.server(), &format!("{interface}-bob"), BOB)?;
    let installation = installation(world)?;
    let without_bob = tunnel(interface, &ada.block("ada", ""));
    installation.write_config(&format!("{without_bob}{}", bob.block("bob", "")))?;
    let (daemon, bastion) = serving(&installation)?;
    for client in [&ada, &bob] {
        client.meets(bastion, "10.100.0.0/24,10.0.0.0/16")?;
    }
    let open = |from: &Namespace| HeldConnection::open(from, web.address(), 2 * SOON);
    let mut held = [open(world.laptop())?, open(world.server())?];
    for held in &mut held {
        held.exchange(SOON)?;
    }
    ensure_eq([count_flows(world.bastion(), ADA)?, count_flows(world.bastion(), BOB)?], [1, 1])?;
    Ok(Peers { installation, daemon: Some(daemon), without_bob, held, _clients: [ada, bob] })
}

impl Peers<'_> {
    /// Bob's connection is over, Ada's is not.
    fn only_ada_is_left(mut self, world: &World) -> Result {
        let changes =
            || -> Result<Vec<String>> { Ok(component(&self.installation, ComponentName::Conntrack)?.last_changes) };
        wait_for("a flow is ended", SOON, || Ok(!changes()?.is_empty()))?;
        ensure_eq(changes()?, vec![format!("live flows ended: 1 {}", EndReason::Tunnel)])?;
        ensure_eq([count_flows(world.bastion(), ADA)?, count_flows(world.bastion(), BOB)?], [1, 0])?;
        ensure(self.held[1].exchange(NEVER).is_err(), "Bob's connection continues")?;
        self.held[0].exchange(Duration::from_secs(5))?;
        // No flow of Bob's begins again, and the next pass ends none.
        ensure_eq(count_flows(world.bastion(), BOB)?, 0)?;
        let output = self.installation.ctl(&["reconcile"])?;
        ensure(output.status.success(), text(&output.stderr))?;
        ensure_eq(component(&self.installation, ComponentName::Conntrack)?.totals.changes, 1)?;
        self.held[0].exchange(SOON)?;
        Ok(())
    }
}

fn peer_goes() -> Result {
    let world = way_in::world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let peers = peers(&world, &web, "fl-peer")?;
    peers.installation.write_config(&peers.without_bob)?;
    if let Some(daemon) = &peers.daemon {
        daemon.signal(Signal::SIGHUP)?;
    }
    peers.only_ada_is_left(&world)
}

fn restarted() -> Result {
    let world = way_in::world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let mut peers = peers(&world, &web, "fl-start")?;
    peers.installation.write_config(&peers.without_bob)?;
    let planned =
        |installation: &Installation<'_>| Ok::<_, libtest_mimic::Failed>(text(&installation.ctl(&["plan"])?.stdout));
    // `bastionctl plan` works without a daemon.
    if let Some(mut daemon) = peers.daemon.take() {
        daemon.signal(Signal::SIGTERM)?;
        ensure(daemon.wait_for_exit(Duration::from_secs(5))?.is_some(), "the daemon ends")?;
    }
    let plan = planned(&peers.installation)?;
    ensure(plan.contains(&format!("end live flows: 1 {}", EndReason::Tunnel)), plan)?;
    ensure_eq(count_flows(world.bastion(), BOB)?, 1)?;
    peers.daemon = Some(serving(&peers.installation)?.0);
    peers.only_ada_is_left(&world)
}

/// The components nat and conntrack without a daemon, on the world's bastion.
struct Components<'w> {
    world: &'w World,
    nat: Nat,
    conntrack: Conntrack,
    site: Site,
    _memory: tempfile::TempDir,
}

impl<'w> Components<'w> {
    fn on(world: &'w World) -> Result<Self> {
        world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
        world.bastion().sysctl("net.ipv4.ip_forward", "1")?;
        let link = PrivateLink {
            interface: "eth1".parse()?,
            mtu: 1450,
            address: at::BASTION_PRIVATE,
            address_present: true,
            aliases: std::collections::BTreeSet::new(),
            network: at::PRIVATE.range,
            network_id: None,
            network_name: None,
            gateway: None,
            behind: Vec::new(),
            is_local: false,
        };
        let public = PublicLink { interface: "eth0".parse()?, mtu: 1500, addresses: vec![at::BASTION] };
        let site = Site { public: Some(public), private: vec![link], ..Site::default() };
        let memory = tempfile::tempdir()?;
        let (nat, conntrack) = (Nat::load(memory.path(), memory.path()), Conntrack::load(memory.path()));
        Ok(Self { world, nat, conntrack, site, _memory: memory })
    }

    /// Loads the rules, and lets the flows follow them. Returns which flows ended.
    fn follow(&mut self, config: &Config) -> Result<Vec<String>> {
        let Self { world, nat, conntrack, site, .. } = self;
        let inputs = Inputs { config, site, tunnel: None, now: tokio::time::Instant::now() };
        let (loaded, outcome) = inside(world.bastion(), async {
            let loaded = component::reconcile(nat, &inputs).await;
            (loaded, component::reconcile(conntrack, &inputs).await)
        });
        ensure_eq([loaded.problems, outcome.problems], [Vec::new(), Vec::new()])?;
        Ok(outcome.changes)
    }
}

fn config() -> Result<Config> {
    Ok(parse("", &Environment::default()).map_err(|problems| format!("{problems:?}"))?)
}

fn forward(port: u16, transports: Transports, to: Ipv4Addr, to_port: u16) -> Forward {
    Forward {
        key: "nat.forward[0]".to_owned(),
        name: None,
        public: Vec::new(),
        transports,
        ports: Ports::single(port),
        to,
        to_port: Some(to_port),
        from: Vec::new(),
        snat: false,
    }
}

fn forward_goes() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    let server = Server::start(&world)?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let _worker = Reflector::tcp(world.worker(), (at::WORKER, 80))?;
    let _ssh = Reflector::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 22))?;
    let mut components = Components::on(&world)?;
    let mut config = config()?;
    config.nat.forwards = [8080, 8081, 8082].map(|port| forward(port, Transports::Tcp, at::WEB, 80)).into();
    ensure_eq(components.follow(&config)?, Vec::new())?;
    let from_outside = |port: u16| HeldConnection::open(world.server(), SocketAddr::from((at::BASTION, port)), SOON);
    let (mut removed, mut moved, mut kept) = (from_outside(8080)?, from_outside(8081)?, from_outside(8082)?);
    let (mut ssh, mut egress) = (from_outside(22)?, HeldConnection::open(world.web(), server.tcp.address(), SOON)?);
    ensure_eq(removed.seen().ip(), at::SERVER.into())?;
    ensure_eq(web.seen().len(), 3)?;
    config.nat.forwards[1].to = at::WORKER;
    config.nat.forwards.remove(0);
    ensure_eq(components.follow(&config)?, vec![format!("live flows ended: 2 {}", EndReason::Forward)])?;
    ensure(removed.exchange(NEVER).is_err(), "the connection by the removed forward continues")?;
    ensure(moved.exchange(NEVER).is_err(), "the connection by the forward with another target continues")?;
    for alive in [&mut kept, &mut ssh, &mut egress] {
        alive.exchange(SOON)?;
    }
    // The same for a line of a deny list.
    config.egress.lists.deny =
        vec![bastiond::internals::config::Acl { to: vec![at::SERVER.into()], ..Default::default() }];
    ensure_eq(components.follow(&config)?, vec![format!("live flows ended: 1 {}", EndReason::Egress)])?;
    ensure(egress.exchange(NEVER).is_err(), "a denied destination is reached")?;
    for alive in [&mut kept, &mut ssh] {
        alive.exchange(SOON)?;
    }
    ensure_eq(components.follow(&config)?, Vec::new())
}

fn bypass() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    let mut components = Components::on(&world)?;
    let (own, hosts) =
        (Reflector::udp(world.bastion(), (at::BASTION, 5060))?, Reflector::udp(world.web(), (at::WEB, 5060))?);
    let service = Service {
        key: "firewall.service[0]".to_owned(),
        name: None,
        transports: Transports::Udp,
        ports: vec![Ports::single(5060)],
        from: Vec::new(),
    };
    let mut config = config()?;
    config.firewall.services = vec![service];
    ensure_eq(components.follow(&config)?, Vec::new())?;
    // A telephone that always uses the same port and never pauses: its flow does not end by itself.
    let telephone = || traffic::udp_probe_from(world.server(), (at::SERVER, 5060), (at::BASTION, 5060), SOON);
    telephone()?;
    ensure_eq([own.seen().len(), hosts.seen().len()], [1, 0])?;
    config.nat.forwards = vec![forward(5060, Transports::Udp, at::WEB, 5060)];
    ensure_eq(components.follow(&config)?, vec![format!("live flows ended: 1 {}", EndReason::Bypass)])?;
    telephone()?;
    ensure_eq([own.seen().len(), hosts.seen().len()], [1, 1])
}

fn status() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let few = report(&installation)?.flows.ok_or("the report has no flows")?;
    ensure(few.usage.entries < 1000 && few.ports.is_none(), format!("{few:?}"))?;
    // Two hosts, since the number of new flows of one host is limited.
    for host in [world.web(), world.worker()] {
        host.run(|| -> std::io::Result<()> {
            for _ in 0..700 {
                UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.send_to(b"x", (at::SERVER, 53))?;
            }
            Ok(())
        })?;
    }
    let counted = || Ok(report(&installation)?.flows.is_some_and(|flows| flows.ports.is_some()));
    wait_for("ports are counted", SOON, counted)?;
    let flows = report(&installation)?.flows.ok_or("the report has no flows")?;
    let busiest = flows.ports.and_then(|ports| ports.busiest.into_iter().next()).ok_or("no destination")?;
    let pool = busiest.pool;
    ensure_eq((pool.egress_address, pool.destination, pool.port), (at::BASTION, at::SERVER, 53))?;
    ensure((1300..=1400).contains(&busiest.used), format!("{busiest:?}"))?;
    ensure(flows.counters.is_some(), "no counters")?;
    let shown = text(&installation.ctl(&["status"])?.stdout);
    let line = format!("198.51.100.2 to {}:53 (udp)", at::SERVER);
    ensure(shown.contains("\nFLOWS ") && shown.contains(&line), shown)
}
