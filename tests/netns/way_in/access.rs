//! Lists of peers: what each reaches, and who reaches it, packet by packet.

use std::net::Ipv4Addr;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::{Daemon, Installation};
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, ContinuousDownload, DownloadServer, HeldConnection, Reflector};
use sandbox::world::{World, addresses as at};

use super::{ADA, BOB, Client, INSIDE, OFFICE_HOST, pings, tunnel, with_laptop, world};
use crate::gateway::{
    NEVER, Result, SOON, Server, egress, ensure, ensure_eq, is_shut, open, report, text, trial, wait_for,
};
use crate::policy::counted;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_peer_with_lists_reaches_what_they_name_and_nothing_else", reach),
        trial("nobody_reaches_a_peer_with_lists_but_those_that_they_name", origin),
        trial("one_peer_reaches_another_if_the_lists_of_both_allow_it", between),
        trial("a_peer_uses_a_forward_only_to_what_its_lists_name", forwards),
        trial("the_internet_is_reached_through_the_tunnel_as_far_as_lists_name_it", internet),
        trial("what_peers_without_lists_reach_can_be_nothing", nothing),
        trial("a_flow_ends_when_the_lists_of_its_peer_no_longer_allow_it_and_the_others_go_on", live),
        trial("what_lists_refuse_is_logged_and_counted_by_the_name_of_the_peer", named),
    ]
}

/// Everything that a client may send into the tunnel.
const EVERYTHING: &str = "10.100.0.0/24,10.0.0.0/16,203.0.113.0/24,192.168.77.0/24,169.254.0.0/16";

fn reaches(from: &Namespace, to: (Ipv4Addr, u16)) -> bool {
    traffic::tcp_connects(from, to, SOON).is_ok()
}

fn is_cut_off(from: &Namespace, to: (Ipv4Addr, u16)) -> bool {
    traffic::tcp_connects(from, to, NEVER).is_err()
}

/// A world with Ada's laptop and Bob's as peers. `bob`: more keys of Bob's block.
struct Office<'w> {
    world: &'w World,
    installation: Installation<'w>,
    daemon: Daemon,
    _ada: Client<'w>,
    _bob: Client<'w>,
    ada_block: String,
    bob_block: String,
    interface: String,
}

impl<'w> Office<'w> {
    fn open(world: &'w World, interface: &str, lists: &str, ada: &str, bob: &str) -> Result<Self> {
        let bob_client = Client::start(world.server(), &format!("{interface}-b"), BOB)?;
        let ada_client = Client::start(world.laptop(), &format!("{interface}-a"), ADA)?;
        world.server().ip(&format!("addr add {OFFICE_HOST}/32 dev lo"))?;
        let (ada_block, bob_block) = (ada_client.block("ada", ""), bob_client.block("bob", ", \"192.168.77.0/24\""));
        let installation = crate::gateway::installation(world)?;
        installation.write_config(&config(interface, lists, &ada_block, ada, &bob_block, bob))?;
        let (daemon, bastion) = super::serving(&installation)?;
        ada_client.meets(bastion, EVERYTHING)?;
        // Bob is on the internet himself, and has the office's range.
        bob_client.meets(bastion, "10.100.0.0/24,10.0.0.0/16")?;
        let office = Self {
            world,
            installation,
            daemon,
            _ada: ada_client,
            _bob: bob_client,
            ada_block,
            bob_block,
            interface: interface.to_owned(),
        };
        ensure(pings(world.laptop(), INSIDE, SOON)? && pings(world.server(), INSIDE, SOON)?, "the tunnels work")?;
        Ok(office)
    }

    /// Reloads with other lists, and waits until the rules are the new ones.
    fn change(&self, lists: &str, ada: &str, bob: &str) -> Result {
        let before = generation(self.world)?;
        let text = config(&self.interface, lists, &self.ada_block, ada, &self.bob_block, bob);
        self.installation.write_config(&text)?;
        self.daemon.signal(Signal::SIGHUP)?;
        wait_for("the rules are new", SOON, || Ok(generation(self.world)? != before))?;
        Ok(())
    }
}

/// The chains of the tunnel with the maps that lead to them, as nft lists them.
fn generation(world: &World) -> Result<String> {
    let output = world.bastion().command("nft").args(["-s", "list", "table", "inet", "bastiond"]).output()?;
    Ok(crate::gateway::text(&output.stdout))
}

fn config(interface: &str, lists: &str, ada_block: &str, ada: &str, bob_block: &str, bob: &str) -> String {
    tunnel(interface, &format!("{lists}{ada_block}{ada}{bob_block}{bob}"))
}

fn reach() -> Result {
    let world = world()?;
    let _web = [80, 81, 443].map(|port| Reflector::tcp(world.web(), (at::WEB, port)));
    let _worker = Reflector::tcp(world.worker(), (at::WORKER, 80))?;
    let dns = Reflector::udp(world.web(), (at::WEB, 53))?;
    let _ssh = Reflector::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 22))?;
    let lists = "[[wireguard.group]]\nname = \"dev\"\nreach = [\"db:tcp/80-81\", \"10.0.0.0/16:udp/53\"]\n\
                 deny = [\"db:tcp/81\"]\n";
    let hosts = "[hosts]\ndb = \"10.0.0.4\"\n";
    let office = Office::open(&world, "wi-reach", lists, &format!("groups = [\"dev\"]\n{hosts}"), "")?;
    let (ada, bob) = (world.laptop(), world.server());
    ensure(reaches(ada, (at::WEB, 80)), "the port of the list")?;
    ensure(traffic::udp_probe(ada, dns.address(), SOON).is_ok(), "DNS in the range of the list")?;
    let before = counted(&world, "dropped_access")?;
    ensure(is_cut_off(ada, (at::WEB, 81)), "a port that is denied")?;
    ensure(is_cut_off(ada, (at::WEB, 443)), "a port that no list names")?;
    ensure(is_cut_off(ada, (at::WORKER, 80)), "a host that no list names")?;
    ensure(!pings(ada, at::WEB, NEVER)?, "a protocol that no list names")?;
    ensure(is_cut_off(ada, (INSIDE, 22)), "SSH to the bastion, which no list names")?;
    ensure(counted(&world, "dropped_access")? >= before + 5, "the drops are counted")?;
    // The bastion's own address in the tunnel answers: that is no way to anything else.
    ensure(pings(ada, INSIDE, SOON)?, "the bastion")?;
    // Who has no list reaches what everybody reached before there were lists.
    for to in [(at::WEB, 80), (at::WEB, 81), (at::WEB, 443), (at::WORKER, 80), (INSIDE, 22)] {
        ensure(reaches(bob, to), format!("Bob does not reach {to:?}"))?;
    }
    let asked = |destination| -> Result<String> {
        Ok(text(&office.installation.ctl(&["peer", "who-can-reach", destination])?.stdout))
    };
    ensure_eq(asked("db:80")?.as_str(), "ada: group dev\nbob: it has no list\n")?;
    ensure_eq(asked("10.0.0.4:443")?.as_str(), "bob: it has no list\n")?;
    // Own lists count beside those of groups, for this peer alone.
    let own = format!("groups = [\"dev\"]\nreach = [\"10.0.1.5:tcp\", \"bastion:ssh\"]\n{hosts}");
    office.change(lists, &own, "reach = [\"10.0.0.4:icmp\"]\n")?;
    for to in [(at::WEB, 80), (at::WORKER, 80), (INSIDE, 22)] {
        ensure(reaches(ada, to), format!("Ada does not reach {to:?}"))?;
    }
    ensure(is_cut_off(ada, (at::WEB, 81)), "a port that the group denies")?;
    ensure(!pings(ada, at::WEB, NEVER)?, "what Bob's own list names")?;
    ensure(pings(bob, at::WEB, SOON)?, "what his own list names")?;
    ensure(is_cut_off(bob, (at::WORKER, 80)) && is_cut_off(bob, (INSIDE, 22)), "what Ada's own list names")
}

fn origin() -> Result {
    let world = world()?;
    let _laptop = [80, 81].map(|port| Reflector::tcp(world.laptop(), (Ipv4Addr::UNSPECIFIED, port)));
    let _office = [80, 81].map(|port| Reflector::tcp(world.server(), (Ipv4Addr::UNSPECIFIED, port)));
    // Without lists: private hosts reach the range behind Bob, and neither Bob nor Ada.
    let office = Office::open(&world, "wi-origin", "", "", "")?;
    let web = world.web();
    ensure(reaches(web, (OFFICE_HOST, 80)), "the range behind a peer without lists")?;
    ensure(is_cut_off(web, (ADA, 80)) && is_cut_off(web, (BOB, 80)), "peers without lists")?;
    // With a list of what they reach, nobody reaches them, not even what is behind them.
    office.change("", "reach = [\"private\"]\n", "reach = [\"private\"]\n")?;
    ensure(is_cut_off(web, (OFFICE_HOST, 80)), "the range behind a peer with lists")?;
    ensure(is_cut_off(web, (ADA, 80)), "a peer with lists")?;
    // What they list is let in, also to their devices.
    office.change("", "from = [\"10.0.0.4:tcp/80\"]\n", "reach = [\"private\"]\nfrom = [\"10.0.0.0/24:tcp/81\"]\n")?;
    ensure(reaches(web, (ADA, 80)), "the port that Ada's list names")?;
    ensure(is_cut_off(web, (ADA, 81)), "another port of Ada")?;
    ensure(is_cut_off(world.worker(), (ADA, 80)), "another host")?;
    ensure(reaches(web, (OFFICE_HOST, 81)) && reaches(web, (BOB, 81)), "the port that Bob's list names")?;
    ensure(is_cut_off(web, (OFFICE_HOST, 80)), "another port behind Bob")?;
    // A list of origins alone limits nothing that she opens.
    let _web = Reflector::tcp(world.web(), (at::WEB, 443))?;
    ensure(reaches(world.laptop(), (at::WEB, 443)), "what Ada reaches")
}

fn between() -> Result {
    let world = world()?;
    let _laptop = Reflector::tcp(world.laptop(), (Ipv4Addr::UNSPECIFIED, 80))?;
    let _office = [80, 81].map(|port| Reflector::tcp(world.server(), (Ipv4Addr::UNSPECIFIED, port)));
    let (ada, bob) = (world.laptop(), world.server());
    let office = Office::open(&world, "wi-between", "", "reach = [\"peers:tcp/80\"]\n", "")?;
    ensure(reaches(ada, (BOB, 80)) && reaches(ada, (OFFICE_HOST, 80)), "Bob has no lists")?;
    ensure(is_cut_off(ada, (BOB, 81)), "another port")?;
    ensure(is_cut_off(bob, (ADA, 80)), "Bob's lists name no peers")?;
    office.change("", "reach = [\"peers:tcp/80\"]\n", "from = [\"10.0.0.0/16\"]\n")?;
    ensure(is_cut_off(ada, (BOB, 80)) && is_cut_off(ada, (OFFICE_HOST, 80)), "Bob's list does not name Ada")?;
    office.change("", "reach = [\"peers:tcp/80\"]\n", "from = [\"10.100.0.2:tcp\"]\n")?;
    ensure(reaches(ada, (BOB, 80)), "Bob's list names Ada")?;
    ensure(is_cut_off(ada, (BOB, 81)), "Ada's list does not name that port")
}

fn forwards() -> Result {
    let world = world()?;
    let floating = Ipv4Addr::new(198, 51, 100, 50);
    world.add_public_address(floating)?;
    let _web = [80, 81].map(|port| Reflector::tcp(world.web(), (at::WEB, port)));
    let forward = |port: u16| format!("[[nat.forward]]\nport = 80{port}\nto = \"10.0.0.4\"\nto_port = {port}\n");
    let more = format!("{}{}", forward(80), forward(81));
    let ranges = "10.100.0.0/24,10.0.0.0/16,198.51.100.50/32";
    let (installation, daemon, ada) = with_laptop(&world, "wi-fw-acl", &more, ranges)?;
    let through = |port: u16| traffic::tcp_connects(world.laptop(), (floating, port), SOON).is_ok();
    ensure(through(8080) && through(8081), "without lists both forwards work")?;
    let before = generation(&world)?;
    let text = format!("{more}{}reach = [\"10.0.0.4:tcp/80\"]\n", ada.block("ada", ""));
    installation.write_config(&tunnel("wi-fw-acl", &text))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("the rules are new", SOON, || Ok(generation(&world)? != before))?;
    ensure(through(8080), "the list names where the forward leads")?;
    ensure(is_cut_off(world.laptop(), (floating, 8081)), "the list does not name where this forward leads")
}

fn internet() -> Result {
    let world = world()?;
    let server = Server::start(&world)?;
    let interface = "wi-net-acl";
    let full = "full_tunnel = true\n";
    let (installation, daemon, ada) = with_laptop(&world, interface, full, EVERYTHING)?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let laptop = world.laptop();
    wait_for("the internet is reached", SOON, || Ok(egress(laptop, &server, SOON)? == open()))?;
    let change = |reach: &str| -> Result {
        let before = generation(&world)?;
        let text = format!("{full}{}reach = [{reach}]\n", ada.block("ada", ""));
        installation.write_config(&tunnel(interface, &text))?;
        daemon.signal(Signal::SIGHUP)?;
        wait_for("the rules are new", SOON, || Ok(generation(&world)? != before))?;
        Ok(())
    };
    change("\"private\"")?;
    ensure(is_shut(&egress(laptop, &server, NEVER)?), "the list does not name the internet")?;
    ensure(reaches(laptop, (at::WEB, 80)), "the list names the networks")?;
    change("\"internet\"")?;
    ensure_eq(egress(laptop, &server, SOON)?, open())?;
    ensure(is_cut_off(laptop, (at::WEB, 80)), "a private host is no part of the internet")?;
    ensure(traffic::tcp_connects(laptop, (at::METADATA, 80), NEVER).is_err(), "the metadata service")
}

fn nothing() -> Result {
    let world = world()?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let _ssh = Reflector::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 22))?;
    let none = "default_reach = []\n";
    let office = Office::open(&world, "wi-nothing", none, "", "reach = [\"private\"]\n")?;
    let (ada, bob) = (world.laptop(), world.server());
    ensure(is_cut_off(ada, (at::WEB, 80)) && is_cut_off(ada, (INSIDE, 22)), "Ada has no list")?;
    ensure(!pings(ada, at::WEB, NEVER)?, "Ada has no list")?;
    ensure(reaches(bob, (at::WEB, 80)), "Bob has a list")?;
    office.change("default_reach = [\"10.0.0.4:tcp/80\", \"bastion:ssh\"]\n", "", "reach = []\n")?;
    ensure(reaches(ada, (at::WEB, 80)) && reaches(ada, (INSIDE, 22)), "what the default names")?;
    ensure(!pings(ada, at::WEB, NEVER)?, "what the default does not name")?;
    ensure(is_cut_off(bob, (at::WEB, 80)), "Bob's list is empty")
}

/// Waits until a download has had no byte for half a second.
fn comes_to_an_end(download: &ContinuousDownload) -> Result {
    let silence = Duration::from_millis(500);
    wait_for("nothing passes any more", SOON, || {
        let before = download.received();
        std::thread::sleep(silence);
        Ok(download.received() == before)
    })?;
    Ok(())
}

fn live() -> Result {
    let world = world()?;
    let [allowed, removed] = [(at::WEB, 80), (at::WEB, 81)].map(|at| DownloadServer::start(world.web(), at));
    let (allowed, removed) = (allowed?, removed?);
    let office = Office::open(&world, "wi-live", "", "reach = [\"10.0.0.4:tcp/80-81\"]\n", "")?;
    let intranet = Reflector::tcp(world.server(), (OFFICE_HOST, 80))?;
    let (ada, bob) = (world.laptop(), world.server());
    let start = |from: &Namespace, server: &DownloadServer| {
        ContinuousDownload::start(from, server.address(), 10 * SOON).map_err(|error| format!("{error:?}"))
    };
    let [of_ada, of_bob, losing] = [start(ada, &allowed)?, start(bob, &removed)?, start(ada, &removed)?];
    // A flow that a private host has opened to what is behind Bob.
    let mut into_office = HeldConnection::open(world.web(), intranet.address(), SOON)?;
    wait_for("all of them receive", SOON, || Ok([&of_ada, &of_bob, &losing].iter().all(|one| one.received() > 0)))?;
    office.change("", "reach = [\"10.0.0.4:tcp/80\"]\n", "")?;
    comes_to_an_end(&losing)?;
    let [ada_had, bob_had] = [of_ada.received(), of_bob.received()];
    wait_for("the others go on", SOON, || Ok(of_ada.received() > ada_had && of_bob.received() > bob_had))?;
    into_office.exchange(SOON)?;
    // Now nobody reaches Bob or what is behind him, and what he has opened goes on.
    office.change("", "reach = [\"10.0.0.4:tcp/80\"]\n", "from = []\n")?;
    wait_for("the flow to the office ends", SOON, || Ok(into_office.exchange(NEVER).is_err()))?;
    let bob_had = of_bob.received();
    wait_for("Bob's download goes on", SOON, || Ok(of_bob.received() > bob_had))?;
    for download in [of_ada, of_bob] {
        let report = download.stop().map_err(|error| format!("{error:?}"))?;
        ensure(report.intact, "every byte has come, once and in order")?;
    }
    Ok(())
}

fn named() -> Result {
    let world = world()?;
    let office = Office::open(&world, "wi-named", "", "reach = []\n", "from = [\"10.0.0.4:udp\"]\n")?;
    ensure(is_cut_off(world.laptop(), (at::WEB, 80)), "Ada's list is empty")?;
    let line = |words: [&str; 2]| {
        let log = office.daemon.log();
        log.lines().any(|line| line.contains("dropped_access") && words.iter().all(|word| line.contains(word)))
    };
    wait_for("Ada's packet is in the log", SOON, || Ok(line(["10.100.0.2", "of peer \"ada\""])))?;
    ensure(is_cut_off(world.web(), (OFFICE_HOST, 80)), "Bob's list names UDP only")?;
    wait_for("the packet to the office is in the log", SOON, || Ok(line(["192.168.77.9", "of peer \"bob\""])))?;
    let refused = report(&office.installation)?.firewall.ok_or("no firewall in the report")?.refused_peers.busiest;
    let mut names: Vec<_> = refused.iter().filter_map(|source| source.name.clone()).collect();
    names.sort();
    ensure_eq(names, vec!["ada".to_owned(), "bob".to_owned()])?;
    ensure(refused.iter().all(|source| source.packets > 0), format!("{refused:?}"))?;
    let shown = text(&office.installation.ctl(&["status"])?.stdout);
    ensure(shown.contains("a peer whose lists do not allow them"), shown)
}
