//! TCP streams and round trips through a test bed.

use std::net::{SocketAddrV4, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sandbox::namespace::Namespace;
use sandbox::traffic::{Reflector, flush_conntrack};

use super::addresses::{CLIENT, SERVER};
use super::testbed::Testbed;
use crate::case::median;
use crate::iperf::{self, Direction, Report};
use crate::run::Result;

/// The duration of a transfer, the least that iperf3 takes.
const SECONDS: u16 = 1;
/// The time limit of a transfer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Round trips in one run.
const TRIPS: u16 = 4000;
/// The echo port (RFC 862).
const ECHO: u16 = 7;

/// One stream of large segments, as links with offloads take them, from the client.
pub(super) fn one_out(testbed: &Testbed) -> Result<f64> {
    transfer(testbed, 1, Direction::Upload, "on")
}

/// The same to the client.
pub(super) fn one_back(testbed: &Testbed) -> Result<f64> {
    transfer(testbed, 1, Direction::Download, "on")
}

pub(super) fn eight_out(testbed: &Testbed) -> Result<f64> {
    transfer(testbed, 8, Direction::Upload, "on")
}

pub(super) fn eight_back(testbed: &Testbed) -> Result<f64> {
    transfer(testbed, 8, Direction::Download, "on")
}

/// One stream of packets of 1500 bytes, from the client.
pub(super) fn one_out_small(testbed: &Testbed) -> Result<f64> {
    transfer(testbed, 1, Direction::Upload, "off")
}

pub(super) fn one_back_small(testbed: &Testbed) -> Result<f64> {
    transfer(testbed, 1, Direction::Download, "off")
}

pub(super) fn eight_out_small(testbed: &Testbed) -> Result<f64> {
    transfer(testbed, 8, Direction::Upload, "off")
}

pub(super) fn eight_back_small(testbed: &Testbed) -> Result<f64> {
    transfer(testbed, 8, Direction::Download, "off")
}

/// Gigabytes for each second of processor time of sender and receiver.
fn transfer(testbed: &Testbed, streams: usize, direction: Direction, offloads: &str) -> Result<f64> {
    for host in [testbed.client(), testbed.server()] {
        set_offloads(host, offloads)?;
    }
    let server = iperf::serve_once(testbed.server(), SERVER)?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("iperf3.json");
    let wanted = iperf::Transfer { seconds: SECONDS, streams, direction };
    let mut client = iperf::connect(testbed.client(), SERVER, wanted, &path)?;
    let start = Instant::now();
    while client.0.try_wait()?.is_none() {
        if start.elapsed() > TIMEOUT {
            return Err(format!("iperf3 has not ended after {} s", TIMEOUT.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    drop((client, server));
    let report = Report::read(&path)?;
    flush_conntrack(testbed.bastion())?;
    for host in [testbed.client(), testbed.server()] {
        set_offloads(host, "on")?;
    }
    Ok(report.gigabytes()? / report.processor_seconds()?)
}

fn set_offloads(host: &Namespace, to: &str) -> Result {
    let words = ["-K", "eth0", "tso", to, "gso", to];
    let output = host.command("ethtool").args(words).stdin(Stdio::null()).output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

/// Round trips of a datagram in a second, by the median of many.
pub(super) fn round_trips(testbed: &Testbed) -> Result<f64> {
    let server = Reflector::udp(testbed.server(), SocketAddrV4::new(SERVER, ECHO))?;
    let socket: UdpSocket = testbed.client().bind_udp(SocketAddrV4::new(CLIENT, 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect(server.address())?;
    let mut seconds = Vec::with_capacity(TRIPS.into());
    for _ in 0..TRIPS {
        let start = Instant::now();
        socket.send(b"there and back")?;
        socket.recv(&mut [0; 64])?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    flush_conntrack(testbed.bastion())?;
    Ok(1.0 / median(seconds.into_iter()))
}
