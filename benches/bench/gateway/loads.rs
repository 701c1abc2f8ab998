//! The loads: packets and connections through a test bed.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use sandbox::traffic::{EchoServer, Flow, PacketGenerator, Reflector, Sink, churn, flush_conntrack};

use super::addresses::{BASTION_MAC, CLIENT, SERVER};
use super::testbed::Testbed;
use crate::run::Result;

/// The duration of one run.
const DURATION: Duration = Duration::from_millis(400);
/// The time limit of a single answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than the flow cache in BPF remembers a flow, which the next run opens again.
const FORGOTTEN: Duration = Duration::from_millis(1100);
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

pub(super) fn very_many_flows(testbed: &Testbed) -> Result<f64> {
    established(testbed, 4096)
}

/// Packets that arrive for each second of processor time, for established flows.
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
    if testbed.rules().has_bpf() {
        std::thread::sleep(FORGOTTEN);
    }
    Ok(rate(arrived, sent.processor_time))
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

/// Packets that arrive for each second of processor time, each the first of its flow.
pub(super) fn new_flows(testbed: &Testbed) -> Result<f64> {
    burst(testbed, 0, BURST)
}

/// New flows for each second of processor time for a source without other flows.
pub(super) fn first_flows(testbed: &Testbed) -> Result<f64> {
    repeated(testbed, 0)
}

/// New flows for each second of processor time for a source that is close to the default limit.
pub(super) fn further_flows(testbed: &Testbed) -> Result<f64> {
    repeated(testbed, 7000)
}

/// New flows for each second of processor time for ten sources that have two thousand each.
pub(super) fn flows_of_ten(testbed: &Testbed) -> Result<f64> {
    const SOURCES: u16 = 10;
    let nth = |number: u16| {
        let [a, b, c, d] = CLIENT.octets();
        let host = u8::try_from(number % SOURCES).expect("ten sources");
        let source = SocketAddrV4::new([a, b, c, d + host].into(), 20_000 + number / SOURCES);
        Flow { source, ..nth_flow(number) }
    };
    mean(|| burst_of(testbed, 2000 * SOURCES, 1000, nth))
}

/// New flows for each second of processor time for one source while as many others are limited, and have a limit of
/// their own, as the sets hold.
pub(super) fn flows_with_full_sets(testbed: &Testbed) -> Result<f64> {
    fill_sets(testbed)?;
    mean(|| burst(testbed, 0, 1000))
}

/// Fills the sets of sources with others; what is there stays.
fn fill_sets(testbed: &Testbed) -> Result {
    const ELEMENTS: u32 = 65_000;
    let first = u32::from(Ipv4Addr::new(203, 0, 0, 0));
    let mut elements = String::new();
    for address in (first..first + ELEMENTS).map(Ipv4Addr::from) {
        let _ = write!(elements, "{address} timeout 1h,");
    }
    testbed.bastion().nft(&format!(
        "add element inet bastiond limited4 {{ {elements} }}\nadd element inet bastiond inside_flows {{ {elements} }}"
    ))?;
    Ok(())
}

fn repeated(testbed: &Testbed, before: u16) -> Result<f64> {
    mean(|| burst(testbed, before, 1000))
}

/// The mean of twenty short runs.
fn mean(run: impl Fn() -> Result<f64>) -> Result<f64> {
    const TIMES: u16 = 20;
    let rates = (0..TIMES).map(|_| run()).collect::<Result<Vec<_>>>()?;
    Ok(rates.iter().sum::<f64>() / f64::from(TIMES))
}

/// New flows for each second of processor time for a source that has opened others before.
fn burst(testbed: &Testbed, before: u16, flows: u16) -> Result<f64> {
    burst_of(testbed, before, flows, nth_flow)
}

fn burst_of(testbed: &Testbed, before: u16, flows: u16, nth: impl Fn(u16) -> Flow) -> Result<f64> {
    let sink = Sink::install(testbed.server(), "eth0")?;
    let generator = PacketGenerator::open(testbed.client(), "eth0", BASTION_MAC)?;
    generator.once((0..before).map(&nth))?;
    let others = sink.settled_frames()?;
    let sent = generator.once((before..before + flows).map(&nth))?;
    let arrived = sink.settled_frames()? - others;
    // All namespaces share one hash table, and entries that are left in it would slow down the next run.
    flush_conntrack(testbed.bastion())?;
    Ok(rate(arrived, sent.processor_time))
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

fn nth_flow(number: u16) -> Flow {
    flow(20_000 + number, 1024 + number % SERVICES)
}

fn flow(source: u16, target: u16) -> Flow {
    Flow { source: SocketAddrV4::new(CLIENT, source), target: SocketAddrV4::new(SERVER, target) }
}

#[expect(clippy::cast_precision_loss, reason = "2^52 packets take a century")]
fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}
