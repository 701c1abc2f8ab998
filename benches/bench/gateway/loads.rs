//! The loads: packets and connections through a test bed.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use sandbox::traffic::{EchoServer, Flow, PacketGenerator, Reflector, Sink, churn, flush_conntrack};

use super::addresses::{BASTION_MAC, CLIENT, SERVER};
use super::testbed::Testbed;
use crate::run::Result;

/// The duration of one run.
const DURATION: Duration = Duration::from_millis(400);
/// The time limit of a single answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The discard port (RFC 863).
const DISCARD: u16 = 9;
/// New flows in one run. All must fit into the connection tracking table (`nf_conntrack_max`, at least 65 536).
const BURST: u16 = 40_000;
/// The number of destination ports of new flows. NAT has to find a free source port for each of them.
const SERVICES: u16 = 64;
/// Clients and server threads of [`connections`], enough to keep all cores busy.
const CLIENTS: usize = 4;
const SERVERS: usize = 2;
const WEB: SocketAddrV4 = SocketAddrV4::new(SERVER, 80);

pub(super) fn one_flow(testbed: &Testbed) -> Result<f64> {
    established(testbed, 1)
}

pub(super) fn many_flows(testbed: &Testbed) -> Result<f64> {
    established(testbed, 256)
}

/// Packets per second that arrive, for established flows.
fn established(testbed: &Testbed, count: u16) -> Result<f64> {
    let sink = Sink::install(testbed.server(), "eth0")?;
    // The sockets stay open, because an answer to a closed port would cause an ICMP error.
    let _sockets = open_flows(testbed, count)?;
    let flows: Vec<Flow> = (0..count).map(|number| flow(20_000 + number, DISCARD)).collect();
    let generator = PacketGenerator::open(testbed.client(), "eth0", BASTION_MAC)?;
    let before = sink.frames()?;
    let sent = generator.repeat(&flows, DURATION)?;
    let arrived = sink.settled_frames()? - before;
    flush_conntrack(testbed.bastion())?;
    Ok(rate(arrived, sent.elapsed))
}

/// Exchanges a datagram on each flow, so that the bastion tracks it as established.
fn open_flows(testbed: &Testbed, count: u16) -> Result<Vec<UdpSocket>> {
    let server = Reflector::udp(testbed.server(), SocketAddrV4::new(SERVER, DISCARD))?;
    (0..count)
        .map(|number| {
            let socket = testbed.client().bind_udp(SocketAddrV4::new(CLIENT, 20_000 + number))?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            socket.connect(server.address())?;
            socket.send(b"open")?;
            socket.recv(&mut [0; 64])?;
            Ok(socket)
        })
        .collect()
}

/// Packets per second that arrive, each the first of its flow.
pub(super) fn new_flows(testbed: &Testbed) -> Result<f64> {
    burst(testbed, 0, BURST)
}

/// New flows per second for a source without other flows.
pub(super) fn first_flows(testbed: &Testbed) -> Result<f64> {
    repeated(testbed, 0)
}

/// New flows per second for a source that is close to the default limit.
pub(super) fn further_flows(testbed: &Testbed) -> Result<f64> {
    repeated(testbed, 7000)
}

fn repeated(testbed: &Testbed, before: u16) -> Result<f64> {
    const TIMES: u16 = 20;
    let rates = (0..TIMES).map(|_| burst(testbed, before, 1000)).collect::<Result<Vec<_>>>()?;
    Ok(rates.iter().sum::<f64>() / f64::from(TIMES))
}

/// New flows per second for a source that has opened others before.
fn burst(testbed: &Testbed, before: u16, flows: u16) -> Result<f64> {
    let sink = Sink::install(testbed.server(), "eth0")?;
    let generator = PacketGenerator::open(testbed.client(), "eth0", BASTION_MAC)?;
    let nth = |number| flow(20_000 + number, 1024 + number % SERVICES);
    generator.once((0..before).map(nth))?;
    let others = sink.settled_frames()?;
    let sent = generator.once((before..before + flows).map(nth))?;
    let arrived = sink.settled_frames()? - others;
    // All namespaces share one hash table, and entries that are left in it would slow down the next run.
    flush_conntrack(testbed.bastion())?;
    Ok(rate(arrived, sent.elapsed))
}

/// Connections per second that carried a byte in both directions.
pub(super) fn connections(testbed: &Testbed) -> Result<f64> {
    let _server = EchoServer::start(testbed.server(), WEB, SERVERS)?;
    let report = churn(testbed.client(), WEB, CLIENTS, DURATION);
    flush_conntrack(testbed.bastion())?;
    // On a busy machine a few connections time out. More failures mean that the result is not a speed.
    if report.failed * 1000 > report.completed {
        return Err(format!("{} of {} connections failed", report.failed, report.failed + report.completed).into());
    }
    Ok(rate(report.completed, report.elapsed))
}

fn flow(source: u16, target: u16) -> Flow {
    Flow { source: SocketAddrV4::new(CLIENT, source), target: SocketAddrV4::new(SERVER, target) }
}

#[expect(clippy::cast_precision_loss, reason = "2^52 packets take a century")]
fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}
