//! What is sent through a line, and what arrives.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use sandbox::traffic::{EchoServer, Flow, PacketGenerator, Reflector, Sink, churn, flush_conntrack};

use super::addresses::{BASTION_MAC, CLIENT, SERVER};
use super::line::Line;
use crate::Result;

/// Of one run.
const DURATION: Duration = Duration::from_millis(400);
/// For a single answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where datagrams go: discard (RFC 863).
const DISCARD: u16 = 9;
/// New flows of one run; the kernel's table of flows must hold them all (`nf_conntrack_max`, 65 536 and more).
const BURST: u16 = 40_000;
/// Services to which new flows go. Translation has to find a free port for each service anew.
const SERVICES: u16 = 64;
/// Clients and server threads of [`connections`]: enough that no core waits.
const CLIENTS: usize = 4;
const SERVERS: usize = 2;
const WEB: SocketAddrV4 = SocketAddrV4::new(SERVER, 80);

pub(super) fn one_flow(line: &Line) -> Result<f64> {
    established(line, 1)
}

pub(super) fn many_flows(line: &Line) -> Result<f64> {
    established(line, 256)
}

/// Packets a second that arrive, of flows that have been answered before.
fn established(line: &Line, count: u16) -> Result<f64> {
    let sink = Sink::install(line.server(), "eth0")?;
    // HeldConnection open: an answer to nobody would be answered by an ICMP error.
    let _sockets = open_flows(line, count)?;
    let flows: Vec<Flow> = (0..count).map(|number| flow(20_000 + number, DISCARD)).collect();
    let blaster = PacketGenerator::open(line.client(), "eth0", BASTION_MAC)?;
    let before = sink.frames()?;
    let sent = blaster.repeat(&flows, DURATION)?;
    let arrived = sink.settled_frames()? - before;
    flush_conntrack(line.bastion())?;
    Ok(rate(arrived, sent.elapsed))
}

/// Sends and gets a datagram on each flow, so that the bastion knows it as established.
fn open_flows(line: &Line, count: u16) -> Result<Vec<UdpSocket>> {
    let server = Reflector::udp(line.server(), SocketAddrV4::new(SERVER, DISCARD))?;
    (0..count)
        .map(|number| {
            let socket = line.client().bind_udp(SocketAddrV4::new(CLIENT, 20_000 + number))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(server.address())?;
            socket.send(b"open")?;
            socket.recv(&mut [0; 64])?;
            Ok(socket)
        })
        .collect()
}

/// Packets a second that arrive, each the first of its flow.
pub(super) fn new_flows(line: &Line) -> Result<f64> {
    burst(line, 0, BURST)
}

/// The same for a source that has no other flows.
pub(super) fn first_flows(line: &Line) -> Result<f64> {
    repeated(line, 0)
}

/// The same for a source that has almost as many as it may by default.
pub(super) fn further_flows(line: &Line) -> Result<f64> {
    repeated(line, 7000)
}

fn repeated(line: &Line, before: u16) -> Result<f64> {
    const TIMES: u16 = 20;
    let rates = (0..TIMES).map(|_| burst(line, before, 1000)).collect::<Result<Vec<_>>>()?;
    Ok(rates.iter().sum::<f64>() / f64::from(TIMES))
}

/// So many new flows, by a source that has opened others before.
fn burst(line: &Line, before: u16, flows: u16) -> Result<f64> {
    let sink = Sink::install(line.server(), "eth0")?;
    let blaster = PacketGenerator::open(line.client(), "eth0", BASTION_MAC)?;
    let nth = |number| flow(20_000 + number, 1024 + number % SERVICES);
    blaster.once((0..before).map(nth))?;
    let others = sink.settled_frames()?;
    let sent = blaster.once((before..before + flows).map(nth))?;
    let arrived = sink.settled_frames()? - others;
    // All namespaces share one hash table: what is left in it would slow the next one down.
    flush_conntrack(line.bastion())?;
    Ok(rate(arrived, sent.elapsed))
}

/// Connections a second that carried a byte there and back.
pub(super) fn connections(line: &Line) -> Result<f64> {
    let _server = EchoServer::start(line.server(), WEB, SERVERS)?;
    let churned = churn(line.client(), WEB, CLIENTS, DURATION);
    flush_conntrack(line.bastion())?;
    // On a busy machine one in ten thousand may time out; more would mean that something else is measured than speed.
    if churned.failed * 1000 > churned.completed {
        return Err(format!("{} of {} connections failed", churned.failed, churned.failed + churned.completed).into());
    }
    Ok(rate(churned.completed, churned.elapsed))
}

fn flow(source: u16, target: u16) -> Flow {
    Flow { source: SocketAddrV4::new(CLIENT, source), target: SocketAddrV4::new(SERVER, target) }
}

#[expect(clippy::cast_precision_loss, reason = "2^52 packets take a century")]
fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}
