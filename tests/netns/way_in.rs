//! The tunnel of the daemon: people and sites come in with Debian's wireguard-go, as a person would configure it.

use std::net::Ipv4Addr;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use bastiond::report::{Room, State};
use bastiond::wireguard::key::{PrivateKey, PublicKey};
use bastiond::wireguard::status::PeerReport;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::cloud::{Fault, Injection, Matching, Times};
use sandbox::daemon::{Daemon, Station};
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Flood, Held, Mirror, Ping, ProbeFailure};
use sandbox::world::{Laptop, SecondNetwork, Settings, World, addresses as at};

use crate::gateway::{
    FAST, NEVER, Result, SOON, Server, all_stand, egress, ensure, ensure_eq, is_shut, open, report, room, station,
    text, trial, wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_laptop_behind_a_nat_reaches_private_hosts_under_its_own_address", laptop_comes_in),
        trial("a_peer_reaches_private_networks_and_nothing_else", peers_limits),
        trial("a_full_tunnel_leads_to_the_internet_from_the_bastions_address", full_tunnel),
        trial("without_a_way_back_in_the_cloud_peers_are_masqueraded_until_it_stands", masqueraded_meanwhile),
        trial("a_reload_touches_only_what_differs", reload),
        trial("after_a_restart_the_daemon_calls_on_those_who_were_active", restart),
        trial("interface_and_sockets_stay_while_a_new_daemon_starts", kept),
        trial("a_tunnel_that_somebody_deletes_is_made_again", deleted),
        trial("a_site_and_the_private_network_reach_each_other", site_to_site),
        trial("an_interface_of_somebody_elses_is_left_alone", foreign_interface),
        trial("what_somebody_changes_in_the_tunnel_is_changed_back", drift),
        trial("an_existing_wg_file_is_served_as_it_stands", wg_file),
        trial("a_port_in_use_is_told_and_taken_when_it_is_free", port_in_use),
        trial("the_kernels_wireguard_is_used_where_there_is_one_and_missed_aloud_where_there_is_none", kernel),
        trial("ten_thousand_peers_are_served_and_one_more_is_a_small_change", crowd),
        trial("down_takes_the_tunnel_away", down),
    ]
}

/// The bastion's own address in the tunnel.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);
pub(crate) const ADA: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 2);
pub(crate) const BOB: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 3);
/// A host in the office's network.
pub(crate) const OFFICE_HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 9);

/// A world with a laptop behind a NAT.
pub(crate) fn world() -> Result<World> {
    let settings = Settings { laptop: Laptop::BehindNat, second_network: SecondNetwork::Absent, ..Settings::default() };
    Ok(World::start(settings)?)
}

/// Somebody with wireguard-go. Interfaces have names of their own: all tests' control sockets lie in one directory.
pub(crate) struct Client<'w> {
    namespace: &'w Namespace,
    interface: String,
    key: PrivateKey,
    address: Ipv4Addr,
    /// None where the kernel carries it.
    program: Option<Child>,
}

impl<'w> Client<'w> {
    /// Starts it with an address in the tunnel; it knows nobody yet.
    pub(crate) fn start(namespace: &'w Namespace, interface: &str, address: Ipv4Addr) -> Result<Self> {
        let command = namespace.command("wireguard-go").args(["-f", interface]);
        let program = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let client = Self::new(namespace, interface, address, Some(program));
        let asked = || Ok(namespace.command("wg").args(["show", interface]).output()?.status.success());
        wait_for("wireguard-go runs", SOON, asked)?;
        client.comes_up()
    }

    /// The same by the kernel's own WireGuard.
    pub(crate) fn of_kernel(namespace: &'w Namespace, interface: &str, address: Ipv4Addr) -> Result<Self> {
        namespace.ip(&format!("link add {interface} type wireguard"))?;
        Self::new(namespace, interface, address, None).comes_up()
    }

    fn new(namespace: &'w Namespace, interface: &str, address: Ipv4Addr, program: Option<Child>) -> Self {
        Self { namespace, interface: interface.to_owned(), key: PrivateKey::generate(), address, program }
    }

    fn comes_up(self) -> Result<Self> {
        let Self { namespace, interface, address, .. } = &self;
        let key_file = tempfile::NamedTempFile::new()?;
        std::fs::write(key_file.path(), self.key.to_base64().as_bytes())?;
        self.wg(&format!("private-key {}", key_file.path().display()))?;
        namespace.ip(&format!("addr add {address}/24 dev {interface}\nlink set {interface} mtu 1420 up"))?;
        Ok(self)
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// `wg set INTERFACE WORDS`
    pub(crate) fn wg(&self, words: &str) -> Result {
        let words = words.split_whitespace();
        let output = self.namespace.command("wg").args(["set", &self.interface]).args(words).output()?;
        ensure(output.status.success(), text(&output.stderr))
    }

    /// Makes the bastion its peer, for these ranges.
    pub(crate) fn meets(&self, bastion: PublicKey, ranges: &str) -> Result {
        self.wg(&format!("peer {bastion} endpoint {}:51820 allowed-ips {ranges}", at::BASTION))?;
        for range in ranges.split(',').filter(|range| !range.starts_with("10.100.0.")) {
            self.namespace.ip(&format!("route replace {range} dev {}", self.interface))?;
        }
        Ok(())
    }

    /// The block of the bastion's configuration that lets it in.
    pub(crate) fn block(&self, name: &str, more: &str) -> String {
        let (key, address) = (self.public_key(), self.address);
        format!("[[wireguard.peer]]\nname = \"{name}\"\npublic_key = \"{key}\"\nallowed_ips = [\"{address}\"{more}]\n")
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        // It has ended, or ends now.
        if let Some(program) = &mut self.program {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// The configuration of a tunnel; its interface is the test's own.
pub(crate) fn tunnel(interface: &str, more: &str) -> String {
    format!("{FAST}[wireguard]\ninterface = \"{interface}\"\naddresses = [\"{INSIDE}/24\"]\n{more}")
}

/// A daemon that is ready, whose every room stands, and the public key that its status shows.
pub(crate) fn serving(station: &Station<'_>) -> Result<(Daemon, PublicKey)> {
    let mut daemon = station.start()?;
    daemon.ready();
    // The way back stands a moment after the rest.
    wait_for("every room stands", SOON, || all_stand(station))
        .map_err(|error| format!("{}\n{}", error.message().unwrap_or_default(), daemon.log()))?;
    let public_key = report(station)?.tunnel.and_then(|tunnel| tunnel.public_key);
    Ok((daemon, public_key.ok_or("the status shows no public key")?))
}

/// A daemon that serves a laptop, which knows it.
fn with_laptop<'w>(
    world: &'w World,
    interface: &str,
    more: &str,
    ranges: &str,
) -> Result<(Station<'w>, Daemon, Client<'w>)> {
    let ada = Client::start(world.laptop(), &format!("{interface}-ada"), ADA)?;
    let station = station(world)?;
    station.write_config(&tunnel(interface, &format!("{more}{}", ada.block("ada", ""))))?;
    let (daemon, bastion) = serving(&station)?;
    ada.meets(bastion, ranges)?;
    Ok((station, daemon, ada))
}

pub(crate) fn peer(station: &Station<'_>, name: &str) -> Result<PeerReport> {
    let tunnel = report(station)?.tunnel.ok_or("no tunnel in the status")?;
    let peer = tunnel.peers.into_iter().find(|peer| peer.name.as_deref() == Some(name));
    peer.ok_or_else(|| format!("no peer {name}").into())
}

fn pings(from: &Namespace, to: Ipv4Addr, timeout: Duration) -> Result<bool> {
    Ok(!traffic::ping(from, to, Ping { timeout, ..Ping::default() })?.replies.is_empty())
}

/// The source that a private host sees.
pub(crate) fn seen(from: &Namespace, to: &Mirror) -> std::result::Result<std::net::IpAddr, ProbeFailure> {
    traffic::tcp_probe(from, to.address(), SOON).map(|seen| seen.ip())
}

/// Waits until flows from the laptop are seen as coming from `source`.
fn wait_for_source(what: &str, laptop: &Namespace, mirror: &Mirror, source: Ipv4Addr) -> Result {
    wait_for(what, Duration::from_secs(5), || Ok(seen(laptop, mirror) == Ok(source.into())))?;
    Ok(())
}

fn laptop_comes_in() -> Result {
    let world = world()?;
    let web = Mirror::tcp(world.web(), (at::WEB, 80))?;
    let (station, _daemon, _ada) = with_laptop(&world, "wi-laptop", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the bastion's own address in the tunnel")?;
    let _ssh = Mirror::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 22))?;
    ensure_eq(traffic::tcp_connects(world.laptop(), (INSIDE, 22), SOON), Ok(()))?;
    let peer = peer(&station, "ada")?;
    ensure(peer.last_handshake_unix.is_some() && peer.rx_bytes > 0 && peer.tx_bytes > 0, format!("{peer:?}"))?;
    ensure_eq(peer.endpoint.map(|endpoint| endpoint.ip()), Some(at::HOME.into()))?;
    let shown = text(&station.ctl(&["status"])?.stdout);
    for words in ["TUNNEL wi-laptop: UDP 51820, MTU 1420; userspace", "ada", " s ago", "wireguard ok", "routes    ok"] {
        ensure(shown.contains(words), format!("no {words:?} in {shown}"))?;
    }
    // What wg itself says, and the key that was made.
    let wg = text(&world.bastion().command("wg").args(["show", "wi-laptop", "latest-handshakes"]).output()?.stdout);
    ensure(wg.contains(&peer.public_key.to_string()), wg)?;
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(station.state_directory().join("wireguard.key"))?.permissions(),
    );
    ensure_eq(mode & 0o777, 0o600)
}

fn peers_limits() -> Result {
    let world = world()?;
    let server = Server::start(&world)?;
    let _web = Mirror::tcp(world.web(), (at::WEB, 80))?;
    let bob = Client::start(world.server(), "wi-limits-bob", BOB)?;
    let everything = "10.100.0.0/24,10.0.0.0/16,169.254.0.0/16,203.0.113.0/24";
    let block = bob.block("bob", "");
    let (station, _daemon, ada) = with_laptop(&world, "wi-limits", &block, everything)?;
    bob.meets(report(&station)?.tunnel.and_then(|tunnel| tunnel.public_key).ok_or("no key")?, "10.100.0.0/24")?;
    ensure_eq(traffic::tcp_connects(world.laptop(), (at::WEB, 80), SOON), Ok(()))?;
    ensure(pings(world.server(), INSIDE, SOON)?, "Bob's tunnel works")?;
    // Peer to peer, the bastion's metadata, the internet, another port of the bastion.
    ensure(!pings(world.laptop(), BOB, NEVER)?, "one peer reaches another")?;
    ensure(traffic::tcp_connects(world.laptop(), (at::METADATA, 80), NEVER).is_err(), "the metadata service answers")?;
    ensure(is_shut(&egress(world.laptop(), &server, NEVER)?), "the internet is reached without full_tunnel")?;
    let _open = Mirror::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 8080))?;
    ensure(traffic::tcp_connects(world.laptop(), (INSIDE, 8080), NEVER).is_err(), "port 8080 of the bastion")?;
    // A private host does not call on a laptop.
    let _listening = Mirror::tcp(world.laptop(), (ADA, 80))?;
    ensure(traffic::tcp_connects(world.web(), (ADA, 80), NEVER).is_err(), "a private host calls on a laptop")?;
    // A source that is not its own is not heard.
    world.laptop().ip(&format!("addr add 10.100.0.77/32 dev {}", ada.interface))?;
    let from = std::net::SocketAddr::from((Ipv4Addr::new(10, 100, 0, 77), 40000));
    let dns = Mirror::udp(world.web(), (at::WEB, 53))?;
    ensure(traffic::udp_probe(world.laptop(), dns.address(), SOON).is_ok(), "its own source")?;
    ensure(traffic::udp_probe_from(world.laptop(), from, dns.address(), NEVER).is_err(), "another source")
}

fn full_tunnel() -> Result {
    let world = world()?;
    let server = Server::start(&world)?;
    let (_station, _daemon, _ada) =
        with_laptop(&world, "wi-full", "full_tunnel = true\n", "10.100.0.0/24,203.0.113.0/24,169.254.0.0/16")?;
    wait_for("the internet is reached", SOON, || Ok(egress(world.laptop(), &server, SOON)? == open()))?;
    ensure(traffic::tcp_connects(world.laptop(), (at::METADATA, 80), NEVER).is_err(), "the metadata service answers")
}

fn masqueraded_meanwhile() -> Result {
    let world = world()?;
    let web = Mirror::tcp(world.web(), (at::WEB, 80))?;
    let tunnel: ipnet::Ipv4Net = "10.100.0.0/24".parse()?;
    // Somebody else has the route at first.
    world.put_route(tunnel, at::WORKER);
    let (station, daemon, _ada) = with_laptop(&world, "wi-snat", "", "10.100.0.0/24,10.0.0.0/16")?;
    wait_for_source("masqueraded", world.laptop(), &web, at::BASTION_PRIVATE)?;
    let told = |room_of: Room| -> Result<String> { Ok(room(&station, room_of)?.detail) };
    ensure(told(Room::Nat)?.contains("10.100.0.0/24 masqueraded on eth1"), told(Room::Nat)?)?;
    ensure(told(Room::Hcloud)?.contains("peers are masqueraded"), told(Room::Hcloud)?)?;
    // It goes: the route is claimed, and new flows keep their source.
    world.remove_route(tunnel);
    wait_for_source("routed", world.laptop(), &web, ADA)?;
    ensure(!told(Room::Nat)?.contains("masqueraded"), told(Room::Nat)?)?;
    // An API that is silent takes nothing away; a route that is somebody else's again does.
    world.cloud().inject(Injection {
        matching: Matching::any(),
        fault: Fault::Status { code: 503, json: true },
        times: Times::UntilCleared,
    });
    wait_for("the trouble is told", SOON, || Ok(room(&station, Room::Hcloud)?.state == State::Failed))?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    world.cloud().clear_faults();
    world.remove_route(tunnel);
    world.put_route(tunnel, at::WORKER);
    wait_for_source("masqueraded again", world.laptop(), &web, at::BASTION_PRIVATE)?;
    world.remove_route(tunnel);
    wait_for_source("routed again", world.laptop(), &web, ADA)?;
    // As told.
    let config = std::fs::read_to_string(station.config_path())?;
    station.write_config(&config.replace("addresses", "snat = true\naddresses"))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for_source("masqueraded as told", world.laptop(), &web, at::BASTION_PRIVATE)?;
    wait_for("the route is given up", SOON, || {
        Ok(world.cloud().routes(world.private_network_id()).iter().all(|route| route.destination != tunnel))
    })?;
    Ok(())
}

fn reload() -> Result {
    let world = world()?;
    let web = Mirror::tcp(world.web(), (at::WEB, 80))?;
    let (station, daemon, _ada) = with_laptop(&world, "wi-reload", "", "10.100.0.0/24,10.0.0.0/16")?;
    let mut held = Held::open(world.laptop(), web.address(), SOON)?;
    let before = peer(&station, "ada")?;
    let bob = Client::start(world.server(), "wi-reload-bob", BOB)?;
    let config = std::fs::read_to_string(station.config_path())?;
    station.write_config(&format!("{config}{}", bob.block("bob", ", \"192.168.77.0/24\"")))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("Bob is let in", SOON, || Ok(peer(&station, "bob").is_ok()))?;
    let bastion = report(&station)?.tunnel.and_then(|tunnel| tunnel.public_key).ok_or("no key")?;
    bob.meets(bastion, "10.100.0.0/24")?;
    ensure(pings(world.server(), INSIDE, SOON)?, "Bob's tunnel works")?;
    held.exchange(SOON)?;
    let after = peer(&station, "ada")?;
    ensure_eq((after.last_handshake_unix, after.endpoint), (before.last_handshake_unix, before.endpoint))?;
    let changes = room(&station, Room::Wireguard)?.last_changes;
    ensure_eq(changes, vec!["peer bob added".to_owned()])?;
    let routes = world.bastion().ip("route show proto 98")?;
    ensure(routes.contains("192.168.77.0/24 dev wi-reload"), routes)?;
    // Another port: Bob, whom no NAT shuts off, is called upon from it.
    station.write_config(
        &format!("{config}{}", bob.block("bob", "")).replace("addresses", "listen_port = 51999\naddresses"),
    )?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("the port is another one", SOON, || {
        Ok(report(&station)?.tunnel.is_some_and(|tunnel| tunnel.listen_port == 51999))
    })?;
    wait_for("Bob follows", SOON, || pings(world.server(), INSIDE, Duration::from_millis(200)))?;
    ensure_eq(world.bastion().ip("route show proto 98")?.trim().to_owned(), String::new())?;
    // Back, and Bob out: Ada's session lives through all of it.
    station.write_config(&config)?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("Bob is out", SOON, || Ok(peer(&station, "bob").is_err()))?;
    ensure(!pings(world.server(), INSIDE, NEVER)?, "Bob still gets in")?;
    held.exchange(Duration::from_secs(5))?;
    ensure_eq(peer(&station, "ada")?.endpoint.map(|endpoint| endpoint.ip()), Some(at::HOME.into()))
}

fn restart() -> Result {
    let world = world()?;
    let web = Mirror::udp(world.web(), (at::WEB, 53))?;
    let (station, daemon, _ada) = with_laptop(&world, "wi-restart", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure(traffic::udp_probe(world.laptop(), web.address(), SOON).is_ok(), "the tunnel works")?;
    // A kill gives no time to write anything down: it has to be there by then.
    let memory = station.runtime_directory().join("wireguard-wi-restart.json");
    wait_for("the laptop is remembered", Duration::from_secs(8), || {
        Ok(std::fs::read_to_string(&memory).is_ok_and(|text| text.contains("192.0.2.7")))
    })?;
    let flood = Flood::start(world.laptop(), web.address(), 100)?;
    drop(daemon);
    let stopped = Instant::now();
    let (_daemon, _) = serving(&station)?;
    wait_for("the laptop is heard again", SOON, || Ok(peer(&station, "ada")?.last_handshake_unix.is_some()))?;
    let took = stopped.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    let flood = flood.stop();
    // By itself a client notices after 15 s.
    ensure(flood.longest_gap < Duration::from_secs(3), format!("a gap of {:?}", flood.longest_gap))?;
    println!("heard again {took:?} after the kill; the longest gap was {:?}", flood.longest_gap);
    Ok(())
}

fn kept() -> Result {
    let world = world()?;
    let web = Mirror::udp(world.web(), (at::WEB, 53))?;
    let (station, mut daemon, _ada) = with_laptop(&world, "wi-kept", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure(traffic::udp_probe(world.laptop(), web.address(), SOON).is_ok(), "the tunnel works")?;
    // The kernel's number of the interface: a new one would have another.
    let index = || -> Result<Option<String>> {
        let output = world.bastion().command("ip").args(["-o", "link", "show", "wi-kept"]).output()?;
        Ok(text(&output.stdout).split(':').next().map(str::to_owned).filter(|index| !index.is_empty()))
    };
    let before = index()?;
    ensure(before.is_some(), "the interface is there")?;
    wait_for("interface and sockets are kept", SOON, || Ok(station.kept_names().len() >= 3))?;
    let names = station.kept_names();
    let flood = Flood::start(world.laptop(), web.address(), 200)?;
    std::thread::sleep(Duration::from_millis(300));
    daemon.signal(Signal::SIGTERM)?;
    ensure(daemon.ended(Duration::from_secs(5))?.is_some(), "the daemon ends")?;
    ensure_eq(index()?, before.clone())?;
    let mut daemon = station.start()?;
    daemon.ready();
    wait_for("the laptop is heard again", SOON, || Ok(peer(&station, "ada")?.last_handshake_unix.is_some()))?;
    std::thread::sleep(Duration::from_millis(500));
    let flood = flood.stop();
    ensure_eq(index()?, before)?;
    ensure_eq(station.kept_names(), names)?;
    // By itself a client notices after 15 s.
    ensure(flood.longest_gap < Duration::from_secs(1), format!("a gap of {:?}", flood.longest_gap))?;
    println!("the longest gap over the restart was {:?}", flood.longest_gap);

    // Without a tunnel nothing is kept, and nothing is left of what was.
    station.write_config(FAST)?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("nothing is kept", SOON, || Ok(station.kept_names().is_empty()))?;
    wait_for("the interface is gone", SOON, || Ok(index()?.is_none()))?;
    Ok(())
}

fn deleted() -> Result {
    let world = world()?;
    let web = Mirror::tcp(world.web(), (at::WEB, 80))?;
    let (station, _daemon, _ada) = with_laptop(&world, "wi-deleted", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    world.bastion().ip("link del wi-deleted")?;
    wait_for("it is there again", SOON, || Ok(all_stand(&station)? && peer(&station, "ada").is_ok()))?;
    wait_for("the laptop is called upon", SOON, || Ok(peer(&station, "ada")?.last_handshake_unix.is_some()))?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    ensure_eq(room(&station, Room::Wireguard)?.totals.repairs, 1)
}

fn site_to_site() -> Result {
    let world = world()?;
    // The office: a host on the internet with a network of its own behind it. The name in the endpoint is one that every
    // resolver takes for 203.0.113.10, without asking anybody (inet_aton(3)).
    let office = Client::start(world.server(), "wi-site-office", BOB)?;
    office.wg("listen-port 51820")?;
    world.server().ip(&format!("addr add {OFFICE_HOST}/32 dev lo"))?;
    let block = office.block("office", ", \"192.168.77.0/24\"");
    let station = station(&world)?;
    station.write_config(&tunnel(
        "wi-site",
        &format!("{block}endpoint = \"0xcb00710a:51820\"\npersistent_keepalive = 25\n"),
    ))?;
    let bastion = {
        // The key is made before anybody can know it.
        let (daemon, bastion) = serving(&station)?;
        drop(daemon);
        bastion
    };
    office.wg(&format!("peer {bastion} allowed-ips 10.100.0.0/24,10.0.0.0/16"))?;
    world.server().ip("route replace 10.0.0.0/16 dev wi-site-office")?;
    let (_daemon, _) = serving(&station)?;
    // The bastion begins: the office does not know where it is.
    wait_for("a handshake", SOON, || Ok(peer(&station, "office")?.last_handshake_unix.is_some()))?;
    let intranet = Mirror::tcp(world.server(), (OFFICE_HOST, 80))?;
    let web = Mirror::tcp(world.web(), (at::WEB, 80))?;
    wait_for("the ways back stand", SOON, || Ok(world.cloud().routes(world.private_network_id()).len() == 3))?;
    wait_for("the office sees a private host's own address", SOON, || {
        Ok(seen(world.web(), &intranet) == Ok(at::WEB.into()))
    })?;
    let from = std::net::SocketAddr::from((OFFICE_HOST, 0));
    let dns = Mirror::udp(world.web(), (at::WEB, 53))?;
    let office_seen = traffic::udp_probe_from(world.server(), from, dns.address(), SOON).map(|seen| seen.ip());
    ensure_eq(office_seen, Ok(OFFICE_HOST.into()))?;
    ensure_eq(seen(world.server(), &web), Ok(BOB.into()))
}

fn foreign_interface() -> Result {
    let world = world()?;
    world
        .bastion()
        .ip("tuntap add wi-foreign mode tun\naddr add 10.9.9.1/24 dev wi-foreign\nlink set wi-foreign up")?;
    let station = station(&world)?;
    station.write_config(&tunnel("wi-foreign", ""))?;
    let mut daemon = station.start()?;
    daemon.ready();
    let told = room(&station, Room::Wireguard)?;
    ensure_eq(told.state, State::Failed)?;
    ensure_eq(
        told.problems[0].what.as_str(),
        "there is an interface wi-foreign already (a tun one), which is not bastiond's",
    )?;
    ensure_eq(room(&station, Room::Routes)?.state, State::HeldBack)?;
    let addresses = world.bastion().ip("addr show dev wi-foreign")?;
    ensure(addresses.contains("10.9.9.1/24") && !addresses.contains("10.100.0.1"), addresses)?;
    // The rest of the gateway works, and the tunnel as soon as it can.
    ensure_eq(room(&station, Room::Hcloud)?.state, State::Ok)?;
    world.bastion().ip("link del wi-foreign")?;
    wait_for("the tunnel is made", Duration::from_secs(4), || all_stand(&station))?;
    Ok(())
}

fn drift() -> Result {
    let world = world()?;
    let web = Mirror::tcp(world.web(), (at::WEB, 80))?;
    let (station, _daemon, ada) = with_laptop(&world, "wi-drift", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    let repairs = || -> Result<u64> { Ok(room(&station, Room::Wireguard)?.totals.repairs) };
    let roamed = peer(&station, "ada")?.endpoint;
    let key = PrivateKey::generate().public();
    let set = format!("set wi-drift peer {} remove peer {key} allowed-ips 10.100.0.9/32", ada.public_key());
    let output = world.bastion().command("wg").args(set.split(' ')).output()?;
    ensure(output.status.success(), text(&output.stderr))?;
    world.bastion().ip("link set wi-drift mtu 1300\naddr del 10.100.0.1/24 dev wi-drift")?;
    wait_for("all is as it was", SOON, || {
        let tunnel = report(&station)?.tunnel.ok_or("no tunnel")?;
        let addresses = world.bastion().ip("addr show dev wi-drift")?;
        let keys: Vec<PublicKey> = tunnel.peers.iter().map(|peer| peer.public_key).collect();
        Ok(keys == [ada.public_key()] && addresses.contains("mtu 1420") && addresses.contains("10.100.0.1/24"))
    })?;
    ensure(repairs()? >= 1, "the repair is counted")?;
    // She was taken away with her session; her next packet makes a new one.
    wait_for("Ada gets in", Duration::from_secs(20), || Ok(seen(world.laptop(), &web) == Ok(ADA.into())))?;
    ensure_eq(peer(&station, "ada")?.endpoint.map(|it| it.ip()), roamed.map(|it| it.ip()))
}

/// The example of wg(8), served as it stands, and given back by `wg showconf`.
fn wg_file() -> Result {
    let world = world()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("wi-file.conf");
    std::fs::write(&file, include_str!("../data/wireguard/wg-example.conf"))?;
    let station = station(&world)?;
    station.write_config(&format!("{FAST}[wireguard]\nfile = \"{}\"\n", file.display()))?;
    let station = station.env("RES_OPTIONS", "timeout:1 attempts:1");
    let mut daemon = station.start()?;
    daemon.ready();
    let shown = || -> Result<String> {
        let Output { stdout, .. } = world.bastion().command("wg").args(["showconf", "wi-file"]).output()?;
        Ok(text(&stdout))
    };
    wait_for("the tunnel runs", SOON, || Ok(shown()?.contains("ListenPort = 51820")))?;
    let shown = shown()?;
    for line in [
        "PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
        "AllowedIPs = 10.192.122.3/32, 10.192.124.0/24",
        "Endpoint = 192.95.5.67:1234",
        "AllowedIPs = 10.192.122.4/32, 192.168.0.0/16",
        "Endpoint = [2607:5300:60:6b0::c05f:543]:2468",
        "AllowedIPs = 10.10.10.230/32",
    ] {
        ensure(shown.contains(line), format!("no {line:?} in {shown}"))?;
    }
    // Nobody resolves names here: it is told, and everything else stands.
    wait_for("the name is told", Duration::from_secs(15), || {
        let told = room(&station, Room::Wireguard)?;
        Ok(told.state == State::Waiting && told.problems[0].what.starts_with("test.wireguard.com does not resolve"))
    })?;
    let routes = world.bastion().ip("route show proto 98")?;
    for range in ["10.192.122.3", "10.192.124.0/24", "10.192.122.4", "192.168.0.0/16", "10.10.10.230"] {
        ensure(routes.contains(&format!("{range} dev wi-file")), format!("no {range} in {routes}"))?;
    }
    Ok(())
}

fn port_in_use() -> Result {
    let world = world()?;
    let other = world.bastion().bind_udp((Ipv4Addr::UNSPECIFIED, 51820))?;
    let station = station(&world)?;
    station.write_config(&tunnel("wi-port", ""))?;
    let mut daemon = station.start()?;
    daemon.ready();
    let told = room(&station, Room::Wireguard)?;
    ensure_eq(told.state, State::Failed)?;
    let problem = &told.problems[0];
    ensure(problem.what.contains("cannot bind UDP port 51820"), problem.what.clone())?;
    ensure(problem.advice.contains("ss -ulnp"), problem.advice.clone())?;
    drop(other);
    wait_for("the tunnel is made", Duration::from_secs(4), || all_stand(&station))?;
    Ok(())
}

fn kernel() -> Result {
    let world = world()?;
    let made = world.bastion().command("ip").args(["link", "add", "wi-probe", "type", "wireguard"]).output()?;
    let has_wireguard = made.status.success();
    if has_wireguard {
        world.bastion().ip("link del wi-probe")?;
    }
    let web = Mirror::tcp(world.web(), (at::WEB, 80))?;
    let (station, daemon, _ada) =
        with_laptop(&world, "wi-kernel", "backend = \"auto\"\n", "10.100.0.0/24,10.0.0.0/16")?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    let data_plane = || -> Result<Option<String>> {
        Ok(report(&station)?.tunnel.and_then(|tunnel| tunnel.data_plane.into_iter().next()))
    };
    ensure_eq(data_plane()?, Some(if has_wireguard { "kernel" } else { "userspace" }.to_owned()))?;
    if has_wireguard {
        // It goes on without a daemon, and the next one knows it.
        drop(daemon);
        ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
        let (_daemon, _) = serving(&station)?;
        ensure_eq(data_plane()?, Some("kernel".to_owned()))?;
        return ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()));
    }
    let config = std::fs::read_to_string(station.config_path())?;
    station.write_config(&config.replace("\"auto\"", "\"kernel\""))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("it is told", SOON, || Ok(room(&station, Room::Wireguard)?.state == State::Failed))?;
    let problem = room(&station, Room::Wireguard)?.problems.remove(0);
    ensure_eq(problem.what.as_str(), "this kernel has no WireGuard")?;
    ensure(problem.advice.contains("modprobe wireguard"), problem.advice)?;
    // What runs is not given up for what cannot run; nor for a name that is somebody else's.
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    station.write_config(&config.replace("wi-kernel\"", "lo2\""))?;
    world.bastion().ip("tuntap add lo2 mode tun")?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("it is told", SOON, || {
        Ok(room(&station, Room::Wireguard)?
            .problems
            .iter()
            .any(|problem| problem.what.contains("interface lo2 already")))
    })?;
    ensure_eq(report(&station)?.tunnel.map(|tunnel| tunnel.interface.to_string()), Some("wi-kernel".to_owned()))
}

fn crowd() -> Result {
    let world = world()?;
    let station = station(&world)?;
    let block = |number: u32| {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let address = Ipv4Addr::from(u32::from(INSIDE) + 255 + number);
        format!("[[wireguard.peer]]\npublic_key = \"{}\"\nallowed_ips = [\"{address}\"]\n", PublicKey(key))
    };
    let peers = (0..10_000).map(block).collect::<Vec<_>>().concat();
    let config = tunnel("wi-crowd", &peers).replace("/24", "/16");
    station.write_config(&config)?;
    let started = Instant::now();
    let (daemon, _) = serving(&station)?;
    let (ready, started) = (started.elapsed(), Instant::now());
    station.write_config(&format!("{config}{}", block(10_000)))?;
    daemon.signal(Signal::SIGHUP)?;
    let count = || -> Result<usize> { Ok(report(&station)?.tunnel.map_or(0, |tunnel| tunnel.peers.len())) };
    wait_for("the one is there", Duration::from_secs(10), || Ok(count()? == 10_001))?;
    let changes = room(&station, Room::Wireguard)?.last_changes;
    ensure(changes.len() == 1 && changes[0].ends_with(" added"), format!("{changes:?}"))?;
    println!(
        "10 000 peers: ready after {ready:?}, one more after {:?}; {}",
        started.elapsed(),
        daemon.status_field("VmRSS")?
    );
    Ok(())
}

fn down() -> Result {
    let world = world()?;
    let (station, mut daemon, _ada) = with_laptop(&world, "wi-down", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the tunnel works")?;
    let output = station.ctl(&["down"])?;
    ensure(output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))?;
    ensure(text(&output.stdout).contains("wi-down removed"), text(&output.stdout))?;
    ensure(daemon.ended(SOON)?.is_some(), "the daemon goes on")?;
    ensure(!world.bastion().links()?.contains_key("wi-down"), "the interface is there")?;
    ensure_eq(world.cloud().routes(world.private_network_id()).len(), 0)?;
    ensure_eq(world.bastion().ip("route show proto 98")?, String::new())?;
    ensure(!station.runtime_directory().join("wireguard-wi-down.json").exists(), "the peers are remembered")?;
    ensure(
        station.state_directory().join("wireguard.key").exists(),
        "the key is gone, and every peer would need a new one",
    )
}
