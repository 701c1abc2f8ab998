//! Protocols beside TCP, UDP and ICMP: forwards, services and access lists of SCTP and of protocols without ports.

use std::net::Ipv4Addr;

use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use sandbox::traffic::{ProbeFailure, RawReflector, raw_probe, sctp_associate, sctp_server};
use sandbox::world::{Laptop, Settings, World, addresses as at};

use super::{assign, contents, counted, gateway, reload};
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, trial, wait_for};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_forward_of_a_protocol_without_ports_leads_it_to_its_host_and_back", whole_protocols),
        trial("an_sctp_association_is_opened_through_a_forward", associations),
        trial("a_service_without_ports_is_open_to_its_sources_and_no_others", services),
        trial("access_lists_name_any_protocol", access_lists),
    ]
}

const GRE: u8 = 47;
const ESP: u8 = 50;
const AH: u8 = 51;
const VRRP: u8 = 112;
/// Of no protocol: for experiments (RFC 3692).
const EXPERIMENTAL: u8 = 253;
/// A floating IP of the bastion, or the static address of a host.
const FLOATING: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);

/// A packet of a protocol: a GRE header without a key (RFC 2784) suits the others too.
const PACKET: &[u8] = &[0, 0, 0x88, 0x0b, 1, 2, 3, 4, 5, 6, 7, 8];

fn sends(from: &Namespace, protocol: u8, to: Ipv4Addr) -> std::result::Result<(), ProbeFailure> {
    raw_probe(from, protocol, to, PACKET, SOON)
}

/// None of them gets an answer. They run at once, because each waits for its time-out.
fn silent<const N: usize>(attempts: [(&Namespace, u8, Ipv4Addr); N]) -> Result {
    let attempt = |(from, protocol, to): (&Namespace, u8, Ipv4Addr)| {
        let met = raw_probe(from, protocol, to, PACKET, NEVER);
        let name = from.name();
        let as_expected = matches!(met, Err(ProbeFailure::Timeout));
        if as_expected { Ok(()) } else { Err(format!("{name} got {met:?} of protocol {protocol} from {to}")) }
    };
    std::thread::scope(|scope| {
        let waiting = attempts.map(|one| scope.spawn(move || attempt(one)));
        waiting.into_iter().try_for_each(|one| one.join().expect("a probe does not panic"))
    })?;
    Ok(())
}

fn whole_protocols() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    assign(&world, FLOATING)?;
    let (gre, esp) = (RawReflector::echo(world.web(), GRE)?, RawReflector::echo(world.worker(), ESP)?);
    let experiment = RawReflector::echo(world.tenant(), EXPERIMENTAL)?;
    let _closed = [RawReflector::echo(world.web(), AH)?, RawReflector::echo(world.worker(), AH)?];
    let forwards = "[[nat.forward]]\nprotocol = \"gre\"\nto = \"10.0.0.4\"\n";
    let others = "[[nat.forward]]\nprotocol = \"esp\"\nto = \"10.0.1.5\"\nfrom = [\"203.0.113.0/24\", \"10.2.0.0/16\"]
         [[nat.forward]]\nprotocol = 253\npublic = [\"198.51.100.50\"]\nto = \"10.2.0.4\"\n";
    let (installation, mut daemon) = gateway(&world, &format!("{forwards}{others}"))?;
    ensure_eq(sends(world.server(), GRE, at::BASTION), Ok(()))?;
    ensure_eq(sends(world.laptop(), GRE, FLOATING), Ok(()))?;
    ensure_eq(gre.seen(), vec![at::SERVER, at::HOME])?;
    // Without ports, all packets from a source to the host are one flow: a second public address is another flow with
    // the same answers, which the kernel refuses.
    silent([(world.server(), GRE, FLOATING)])?;
    ensure_eq(sends(world.server(), ESP, at::BASTION), Ok(()))?;
    ensure_eq(sends(world.server(), EXPERIMENTAL, FLOATING), Ok(()))?;
    ensure_eq(experiment.seen(), vec![at::SERVER])?;
    // Private hosts use the public address too, and see the bastion answer.
    ensure_eq(sends(world.tenant(), GRE, at::BASTION), Ok(()))?;
    ensure_eq(sends(world.tenant(), ESP, at::BASTION), Ok(()))?;
    ensure_eq(gre.seen().last(), Some(&at::BASTION_PRIVATE))?;
    ensure_eq(esp.seen(), vec![at::SERVER, at::BASTION_PRIVATE])?;
    ensure(counted(&world, "published_flows")? >= 6, "flows to forwards are not counted")?;
    silent([
        (world.laptop(), ESP, at::BASTION),
        (world.web(), ESP, at::BASTION),
        (world.server(), EXPERIMENTAL, at::BASTION),
        (world.server(), AH, at::BASTION),
        (world.server(), GRE, at::WEB),
    ])?;
    // What private hosts send in these protocols leaves as before; the host of a forward answers in the peer's flow.
    let (peer, other) = (RawReflector::echo(world.server(), ESP)?, RawReflector::echo(world.server(), EXPERIMENTAL)?);
    ensure_eq(sends(world.worker(), ESP, at::SERVER), Ok(()))?;
    ensure_eq(sends(world.web(), EXPERIMENTAL, at::SERVER), Ok(()))?;
    ensure_eq((peer.seen(), other.seen()), (vec![at::BASTION], vec![at::BASTION]))?;
    drop((peer, other));
    // A table that another program changed is the same again.
    world.bastion().nft("flush map inet bastiond forward_protocols")?;
    let restored = || Ok(contents(&world, "map", "forward_protocols")?.contains("198.51.100.50"));
    wait_for("the forwards are restored", SOON, restored)?;
    // The flows of a removed forward end, although their packets do not pause.
    reload(&installation, &mut daemon, forwards)?;
    silent([(world.server(), ESP, at::BASTION), (world.server(), EXPERIMENTAL, FLOATING)])?;
    ensure_eq(sends(world.server(), GRE, at::BASTION), Ok(()))?;
    reload(&installation, &mut daemon, "")?;
    silent([(world.server(), GRE, at::BASTION), (world.tenant(), GRE, at::BASTION)])?;
    let maps = world.bastion().nft("list maps inet")?;
    ensure(!maps.contains("forward_protocols"), maps)
}

fn associate(from: &Namespace, to: (Ipv4Addr, u16)) -> std::result::Result<(), ProbeFailure> {
    sctp_associate(from, to, SOON)
}

fn associations() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    let (web, worker) = (sctp_server(world.web())?, sctp_server(world.worker())?);
    let kept = "[[nat.forward]]\nprotocol = \"sctp\"\nport = 3868\nto = \"10.0.0.4\"\nto_port = 13868\n";
    let others = "[[nat.forward]]\nprotocol = \"sctp\"\nport = \"36000-36100\"\nto = \"10.0.1.5\"
         [[nat.forward]]\nprotocol = 132\nport = 2905\nto = \"10.0.1.5\"\nfrom = [\"203.0.113.0/24\"]
         [[firewall.service]]\nprotocol = \"sctp\"\nports = [2944]\nfrom = [\"203.0.113.10\"]\n";
    let (installation, mut daemon) = gateway(&world, &format!("{kept}{others}"))?;
    ensure_eq(associate(world.server(), (at::BASTION, 3868)), Ok(()))?;
    ensure_eq(associate(world.laptop(), (at::BASTION, 3868)), Ok(()))?;
    ensure_eq(web.seen(), vec![at::SERVER, at::SERVER, at::HOME, at::HOME])?;
    for port in [2905, 36_000, 36_100] {
        ensure_eq(associate(world.server(), (at::BASTION, port)), Ok(()))?;
    }
    ensure_eq(worker.seen(), vec![at::SERVER; 6])?;
    // A private host by the public address.
    ensure_eq(associate(world.tenant(), (at::BASTION, 3868)), Ok(()))?;
    {
        let _own = sctp_server(world.bastion())?;
        ensure_eq(associate(world.server(), (at::BASTION, 2944)), Ok(()))?;
        let closed =
            [(world.laptop(), 2905), (world.laptop(), 2944), (world.server(), 36_101), (world.server(), 13_868)];
        refused(&closed)?;
    }
    reload(&installation, &mut daemon, kept)?;
    refused(&[(world.server(), 2905), (world.server(), 36_000)])?;
    ensure_eq(associate(world.server(), (at::BASTION, 3868)), Ok(()))
}

/// None of them gets an answer from this port of the bastion.
fn refused(attempts: &[(&Namespace, u16)]) -> Result {
    for (from, port) in attempts {
        let met = sctp_associate(from, (at::BASTION, *port), NEVER);
        ensure(met == Err(ProbeFailure::Timeout), format!("{} got {met:?} from port {port}", from.name()))?;
    }
    Ok(())
}

fn services() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    let (vrrp, esp) = (RawReflector::echo(world.bastion(), VRRP)?, RawReflector::echo(world.bastion(), ESP)?);
    let sections = "[[firewall.service]]\nprotocol = \"vrrp\"\nfrom = [\"10.0.0.4\", \"2001:db8::/64\"]
         [[firewall.service]]\nprotocol = \"esp\"\nfrom = [\"203.0.113.0/24\"]\n";
    let (installation, mut daemon) = gateway(&world, "")?;
    let all = [(world.web(), VRRP, at::BASTION_PRIVATE), (world.server(), ESP, at::BASTION)];
    silent(all)?;
    reload(&installation, &mut daemon, sections)?;
    for (from, protocol, to) in all {
        ensure_eq(sends(from, protocol, to), Ok(()))?;
    }
    let before = counted(&world, "dropped_input")?;
    silent([
        (world.worker(), VRRP, at::BASTION_PRIVATE),
        (world.server(), VRRP, at::BASTION),
        (world.laptop(), ESP, at::BASTION),
        (world.web(), ESP, at::BASTION_PRIVATE),
    ])?;
    ensure(counted(&world, "dropped_input")? >= before + 4, "the dropped packets are not counted")?;
    ensure_eq((vrrp.seen(), esp.seen()), (vec![at::WEB], vec![at::SERVER]))?;
    // A flow of a service that is gone ends.
    reload(&installation, &mut daemon, "")?;
    silent(all)
}

fn access_lists() -> Result {
    let world = World::start(Settings::default())?;
    assign(&world, FLOATING)?;
    let hosts = [(world.server(), GRE), (world.server(), ESP), (world.web(), GRE), (world.web(), ESP)];
    let mut reflectors = hosts.map(|(host, protocol)| RawReflector::echo(host, protocol)).into_iter();
    let _reflectors = reflectors.by_ref().collect::<std::io::Result<Vec<_>>>()?;
    let _sctp = sctp_server(world.web())?;
    let sections = "[[nat.static]]\npublic = \"198.51.100.50\"\nprivate = \"10.0.0.4\"
         open = [{ protocol = \"gre\" }, { protocol = \"sctp\", ports = [3868] }]
         [egress]\ndeny = [{ protocol = \"gre\", to = [\"203.0.113.10\"] }]
         [tenants]\nallow = [{ from = [\"10.2.0.0/16\"], to = [\"10.0.0.4\"], protocol = \"esp\" }]\n";
    let (_installation, _daemon) = gateway(&world, sections)?;
    ensure_eq(sends(world.server(), GRE, FLOATING), Ok(()))?;
    ensure_eq(associate(world.server(), (FLOATING, 3868)), Ok(()))?;
    ensure_eq(sends(world.worker(), ESP, at::SERVER), Ok(()))?;
    ensure_eq(sends(world.tenant(), ESP, at::WEB), Ok(()))?;
    let closed = sctp_associate(world.server(), (FLOATING, 3869), NEVER);
    ensure_eq(closed, Err(ProbeFailure::Timeout))?;
    silent([(world.server(), ESP, FLOATING), (world.worker(), GRE, at::SERVER), (world.tenant(), GRE, at::WEB)])
}
