//! Flows without an entry in connection tracking: a private host gets a TCP reset at once, an internet host no answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sandbox::traffic::{Direction, HeldConnection, ProbeFailure, Reflector, Sniffer, flush_conntrack};
use sandbox::world::{Settings, World, addresses as at};

use super::{counted, gateway, reload, tcp};
use crate::bpf;
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_private_hosts_flow_without_an_entry_is_reset_at_once", from_inside),
        trial("a_private_hosts_flow_to_a_removed_forward_is_reset_at_once", hairpin),
        trial("an_internet_hosts_flow_without_an_entry_gets_no_answer", from_outside),
    ]
}

fn from_inside() -> Result {
    let world = World::start(Settings::default())?;
    let held_by = Reflector::tcp(world.server(), (at::SERVER, 9000))?;
    let (_installation, _daemon) = gateway(&world, "")?;
    let mut held = HeldConnection::open(world.web(), held_by.address(), SOON)?;
    held.exchange(SOON)?;
    flush_conntrack(world.bastion())?;
    bpf::let_foreign_change_hold();
    let start = Instant::now();
    ensure_eq(held.exchange(SOON), Err(ProbeFailure::Disconnected))?;
    ensure(start.elapsed() < Duration::from_millis(200), format!("it took {:?}", start.elapsed()))?;
    ensure_eq(counted(&world, "reset_flows")?, 1)?;
    // A new connection is a new flow.
    ensure_eq(tcp(world.web(), (at::SERVER, 9000)), Ok(at::BASTION.into()))
}

fn hairpin() -> Result {
    let world = World::start(Settings::default())?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let forward = "[[nat.forward]]\nport = 443\nto = \"10.0.0.4\"\nto_port = 8443";
    let (installation, mut daemon) = gateway(&world, forward)?;
    let mut held = HeldConnection::open(world.worker(), (at::BASTION, 443), SOON)?;
    held.exchange(SOON)?;
    // Without the forward the daemon ends the flow.
    reload(&installation, &mut daemon, "")?;
    let start = Instant::now();
    ensure_eq(held.exchange(SOON), Err(ProbeFailure::Disconnected))?;
    ensure(start.elapsed() < Duration::from_millis(200), format!("it took {:?}", start.elapsed()))
}

fn from_outside() -> Result {
    let world = World::start(Settings::default())?;
    let listener = world.server().listen_tcp((at::SERVER, 9000))?;
    let (_installation, _daemon) = gateway(&world, "")?;
    let target = SocketAddr::from((at::SERVER, 9000));
    let mut inside = world.web().run(|| TcpStream::connect_timeout(&target, SOON))?;
    let (mut outside, peer) = listener.accept()?;
    ensure_eq(peer.ip(), at::BASTION.into())?;
    flush_conntrack(world.bastion())?;
    bpf::let_foreign_change_hold();
    let answers = Sniffer::start(world.bastion(), "eth0", move |packet| {
        packet.direction == Direction::Out && packet.tcp().is_some_and(|tcp| tcp.destination == 9000)
    })?;
    let before = counted(&world, "dropped_input")?;
    outside.write_all(b"are you there?")?;
    outside.set_read_timeout(Some(NEVER))?;
    let met = outside.read(&mut [0; 16]);
    ensure(
        met.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
        format!("the internet host got {met:?}"),
    )?;
    ensure_eq(answers.stop().len(), 0)?;
    ensure(counted(&world, "dropped_input")? > before, "the packet is not counted")?;
    // The private host gets its reset when it sends.
    inside.set_read_timeout(Some(SOON))?;
    inside.write_all(b"hello")?;
    let met = inside.read(&mut [0; 16]);
    ensure(
        met.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
        format!("the private host got {met:?}"),
    )
}
