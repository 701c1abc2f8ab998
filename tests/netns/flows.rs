//! Live flows: the kernel's table as it is read, and who loses a connection when the configuration changes.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bastiond::config::{Config, Environment, Forward, Ports, Service, Transports, parse};
use bastiond::conntrack::{Conntrack, Ender, Ends, Flow, Reason, Status, Tuple, counters, flows};
use bastiond::nat::Nat;
use bastiond::outcome::ComponentName;
use bastiond::site::{PrivateLink, PublicLink, Site};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::Installation;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, HeldConnection, Ping, Reflector};
use sandbox::world::{World, addresses as at};

use crate::gateway::{
    NEVER, Result, SOON, Server, ensure, ensure_eq, healthy, installation, report, room, text, trial, wait_for,
};
use crate::routes::inside;
use crate::way_in::{self, ADA, BOB, Client, serving, tunnel};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("flows_are_read_as_they_are_and_one_of_them_ends_alone", read_and_end),
        trial("a_flow_in_a_zone_is_read_and_ended_there", zone),
        trial("a_hundred_thousand_flows_are_looked_through_in_a_moment", many),
        trial("a_peer_that_is_removed_loses_its_connection_and_the_others_keep_theirs", peer_goes),
        trial("a_daemon_that_starts_with_another_configuration_ends_what_that_takes_back", restarted),
        trial("a_forward_that_goes_or_leads_elsewhere_ends_its_connections_and_no_others", forward_goes),
        trial("what_would_go_on_past_a_new_forward_ends", bypass),
        trial("the_status_tells_how_many_flows_there_are_and_where_they_go", status),
    ]
}

/// All flows of a namespace.
fn listed(host: &Namespace) -> Result<Vec<Flow>> {
    let mut all = Vec::new();
    host.run(|| {
        flows(|flow| {
            all.push(*flow);
            Ok(())
        })
    })?;
    Ok(all)
}

fn end(host: &Namespace, flow: &Flow) -> Result<bool> {
    Ok(host.run(|| {
        let mut kernel = Ender::open()?;
        let ended = kernel.end(flow)?;
        kernel.finish()?;
        Ok::<bool, bastiond::conntrack::Error>(ended)
    })?)
}

/// The flows from or to an address, whichever side began.
fn of(host: &Namespace, address: Ipv4Addr) -> Result<usize> {
    let has = |flow: &Flow| [flow.original.source, flow.original.destination].contains(&address);
    Ok(listed(host)?.iter().filter(|flow| has(flow)).count())
}

fn read_and_end() -> Result {
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
    let ends = Ends::Ports { source: held.local()?.port(), destination: server.tcp.address().port() };
    let answers = Ends::Ports { source: server.tcp.address().port(), destination: held.seen().port() };
    ensure_eq((tcp.original.destination, tcp.original.ends), (at::SERVER, ends))?;
    ensure_eq((tcp.reply.source, tcp.reply.destination, tcp.reply.ends), (at::SERVER, at::BASTION, answers))?;
    let translated = Status::SRC_NAT | Status::CONFIRMED | Status::ASSURED;
    ensure(tcp.status.has(translated) && !tcp.status.has(Status::DST_NAT), format!("{:?}", tcp.status))?;
    ensure(tcp.id.is_some() && !tcp.is_in_a_zone(), format!("{tcp:?}"))?;
    ensure_eq(found(17, at::WEB)?.reply.destination_port(), Some(seen.port()))?;
    let ping = found(1, at::WORKER)?;
    let echo = matches!(
        (ping.original.ends, ping.reply.ends),
        (Ends::Icmp { kind: 8, code: 0, .. }, Ends::Icmp { kind: 0, .. })
    );
    ensure(echo, format!("{ping:?}"))?;

    // One that has taken its place would have another number.
    let successor = Flow { id: tcp.id.map(|id| id.wrapping_add(1)), ..tcp };
    ensure_eq(end(world.bastion(), &successor)?, false)?;
    held.exchange(SOON)?;
    ensure_eq(end(world.bastion(), &tcp)?, true)?;
    ensure_eq(end(world.bastion(), &tcp)?, false)?;
    ensure(held.exchange(NEVER).is_err(), "the connection lives on")?;
    ensure_eq(end(world.bastion(), &ping)?, true)?;
    let left = listed(world.bastion())?;
    ensure(!left.contains(&ping) && left.iter().any(|flow| flow.original.protocol == 17), format!("{left:?}"))?;
    world.bastion().run(counters)?;
    Ok(())
}

/// A host that tracks what it sends to itself.
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
    // Of both directions, and of one alone.
    for (name, rule) in [("flows-zone", "ct zone set 7;"), ("flows-zone-of-one", "ct original zone set 9;")] {
        let host = tracking(name, rule)?;
        let socket = host.bind_udp((Ipv4Addr::LOCALHOST, 4000))?;
        socket.send_to(b"x", (Ipv4Addr::LOCALHOST, 4001))?;
        let all = listed(&host)?;
        let flow = all.iter().find(|flow| flow.original.source_port() == Some(4000)).copied();
        let flow = flow.ok_or_else(|| format!("{rule}: {all:?}"))?;
        ensure(flow.is_in_a_zone(), format!("{rule}: {flow:?}"))?;
        // Without its zone it is another one, which is not there.
        let original = Tuple { zone: None, ..flow.original };
        ensure_eq(end(&host, &Flow { zone: 0, original, ..flow })?, false)?;
        ensure_eq(end(&host, &flow)?, true)?;
        ensure(!listed(&host)?.contains(&flow), format!("{rule}: it lives on"))?;
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
                // Err: nobody listens, which an earlier datagram was told.
                let _ = socket.send_to(b"x", (Ipv4Addr::new(127, 0, 0, 2), port));
            }
        }
        Ok(())
    })?;
    let began = Instant::now();
    let mut seen = 0_u32;
    let total = host.run(|| {
        flows(|flow| {
            seen += u32::from(flow.original.destination == Ipv4Addr::new(127, 0, 0, 2));
            Ok(())
        })
    })?;
    let took = began.elapsed();
    println!("{total} flows were looked through in {took:?}");
    ensure(seen >= COUNT * 9 / 10, format!("{seen} of {COUNT} were seen"))?;
    ensure(took < Duration::from_secs(5), format!("it took {took:?}"))?;
    let all = listed(&host)?;
    let began = Instant::now();
    let ended = host.run(|| -> std::result::Result<usize, bastiond::conntrack::Error> {
        let mut kernel = Ender::open()?;
        let mut ended = 0;
        for flow in &all {
            ended += usize::from(kernel.end(flow)?);
        }
        kernel.finish()?;
        Ok(ended)
    })?;
    println!("{ended} were ended in {:?}", began.elapsed());
    ensure_eq((ended >= all.len() * 9 / 10, listed(&host)?.len()), (true, 0))
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
    ensure_eq([of(world.bastion(), ADA)?, of(world.bastion(), BOB)?], [1, 1])?;
    Ok(Peers { installation, daemon: Some(daemon), without_bob, held, _clients: [ada, bob] })
}

impl Peers<'_> {
    /// Bob's connection is over, Ada's is not.
    fn only_ada_is_left(mut self, world: &World) -> Result {
        let told = || -> Result<Vec<String>> { Ok(room(&self.installation, ComponentName::Conntrack)?.last_changes) };
        wait_for("a flow is ended", SOON, || Ok(!told()?.is_empty()))?;
        ensure_eq(told()?, vec![format!("live flows ended: 1 {}", Reason::Tunnel)])?;
        ensure_eq([of(world.bastion(), ADA)?, of(world.bastion(), BOB)?], [1, 0])?;
        ensure(self.held[1].exchange(NEVER).is_err(), "Bob's connection lives on")?;
        self.held[0].exchange(Duration::from_secs(5))?;
        // Nothing of Bob's comes again, and nothing more is ended.
        ensure_eq(of(world.bastion(), BOB)?, 0)?;
        let output = self.installation.ctl(&["reconcile"])?;
        ensure(output.status.success(), text(&output.stderr))?;
        ensure_eq(room(&self.installation, ComponentName::Conntrack)?.totals.changes, 1)?;
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
    // The plan is made without it. A daemon that is told to end writes down whom to call upon.
    if let Some(mut daemon) = peers.daemon.take() {
        daemon.signal(Signal::SIGTERM)?;
        ensure(daemon.wait_for_exit(Duration::from_secs(5))?.is_some(), "the daemon ends")?;
    }
    let plan = planned(&peers.installation)?;
    ensure(plan.contains(&format!("end live flows: 1 {}", Reason::Tunnel)), plan)?;
    ensure_eq(of(world.bastion(), BOB)?, 1)?;
    peers.daemon = Some(serving(&peers.installation)?.0);
    peers.only_ada_is_left(&world)
}

/// The rooms of rules and flows by themselves, on the world's bastion.
struct Rooms<'w> {
    world: &'w World,
    nat: Nat,
    conntrack: Conntrack,
    site: Site,
    _memory: tempfile::TempDir,
}

impl<'w> Rooms<'w> {
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
        };
        let public = PublicLink { interface: "eth0".parse()?, mtu: 1500, addresses: vec![at::BASTION] };
        let site = Site { public: Some(public), private: vec![link], ..Site::default() };
        let memory = tempfile::tempdir()?;
        let (nat, conntrack) =
            (Nat::remembered_in(memory.path(), memory.path()), Conntrack::remembered_in(memory.path()));
        Ok(Self { world, nat, conntrack, site, _memory: memory })
    }

    /// Loads the rules, and has the flows follow them; what was ended.
    fn follow(&mut self, config: &Config) -> Result<Vec<String>> {
        let Self { world, nat, conntrack, site, .. } = self;
        let (loaded, outcome) = inside(world.bastion(), async {
            (nat.reconcile(config, site, None).await, conntrack.follow(config, site, None).await)
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
    }
}

fn forward_goes() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    let server = Server::start(&world)?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let _worker = Reflector::tcp(world.worker(), (at::WORKER, 80))?;
    let _ssh = Reflector::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 22))?;
    let mut rooms = Rooms::on(&world)?;
    let mut config = config()?;
    config.nat.forwards = [8080, 8081, 8082].map(|port| forward(port, Transports::Tcp, at::WEB, 80)).into();
    ensure_eq(rooms.follow(&config)?, Vec::new())?;
    let from_outside = |port: u16| HeldConnection::open(world.server(), SocketAddr::from((at::BASTION, port)), SOON);
    let (mut removed, mut moved, mut kept) = (from_outside(8080)?, from_outside(8081)?, from_outside(8082)?);
    let (mut ssh, mut egress) = (from_outside(22)?, HeldConnection::open(world.web(), server.tcp.address(), SOON)?);
    ensure_eq(removed.seen().ip(), at::SERVER.into())?;
    ensure_eq(web.seen().len(), 3)?;
    config.nat.forwards[1].to = at::WORKER;
    config.nat.forwards.remove(0);
    ensure_eq(rooms.follow(&config)?, vec![format!("live flows ended: 2 {}", Reason::Forward)])?;
    ensure(removed.exchange(NEVER).is_err(), "the connection by the forward that is gone lives on")?;
    ensure(moved.exchange(NEVER).is_err(), "the connection by the forward that leads elsewhere lives on")?;
    for alive in [&mut kept, &mut ssh, &mut egress] {
        alive.exchange(SOON)?;
    }
    // A deny list, then.
    config.egress.lists.deny = vec![bastiond::config::Acl { to: vec![at::SERVER.into()], ..Default::default() }];
    ensure_eq(rooms.follow(&config)?, vec![format!("live flows ended: 1 {}", Reason::Egress)])?;
    ensure(egress.exchange(NEVER).is_err(), "a denied destination is reached")?;
    for alive in [&mut kept, &mut ssh] {
        alive.exchange(SOON)?;
    }
    ensure_eq(rooms.follow(&config)?, Vec::new())
}

fn bypass() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    let mut rooms = Rooms::on(&world)?;
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
    ensure_eq(rooms.follow(&config)?, Vec::new())?;
    // A telephone that always has the same port, so that its flow never ends by itself.
    let telephone = || traffic::udp_probe_from(world.server(), (at::SERVER, 5060), (at::BASTION, 5060), SOON);
    telephone()?;
    ensure_eq([own.seen().len(), hosts.seen().len()], [1, 0])?;
    config.nat.forwards = vec![forward(5060, Transports::Udp, at::WEB, 5060)];
    ensure_eq(rooms.follow(&config)?, vec![format!("live flows ended: 1 {}", Reason::Bypass)])?;
    telephone()?;
    ensure_eq([own.seen().len(), hosts.seen().len()], [1, 1])
}

fn status() -> Result {
    let world = World::start(sandbox::world::Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let few = report(&installation)?.flows.ok_or("nothing is told of flows")?;
    ensure(few.fill.entries < 1000 && few.ports.is_none(), format!("{few:?}"))?;
    // Two hosts, since each may begin only so many flows at once.
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
    let flows = report(&installation)?.flows.ok_or("nothing is told of flows")?;
    let busiest = flows.ports.and_then(|ports| ports.busiest.into_iter().next()).ok_or("no destination")?;
    let share = busiest.share;
    ensure_eq((share.egress_address, share.destination, share.port), (at::BASTION, at::SERVER, 53))?;
    ensure((1300..=1400).contains(&busiest.used), format!("{busiest:?}"))?;
    ensure(flows.counters.is_some(), "no counters")?;
    let shown = text(&installation.ctl(&["status"])?.stdout);
    let line = format!("198.51.100.2 to {}:53 (udp)", at::SERVER);
    ensure(shown.contains("\nFLOWS ") && shown.contains(&line), shown)
}
