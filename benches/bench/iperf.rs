//! iperf3, which others wrote and everybody knows, as the source of TCP streams.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sandbox::namespace::Namespace;
use serde_json::Value;

use crate::run::Result;

/// Its default port.
const PORT: u16 = 5201;
/// The time limit for the server to listen.
const TIMEOUT: Duration = Duration::from_secs(12);

/// The direction of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The client sends.
    Upload,
    /// The server sends.
    Download,
}

/// One transfer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) seconds: u16,
    pub(crate) streams: usize,
    pub(crate) direction: Direction,
}

/// A process that is killed when the value is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server for one transfer, and waits until it listens, by the table of sockets: a test connection would be the
/// one that it accepts.
pub(crate) fn serve_once(namespace: &Namespace, address: Ipv4Addr) -> Result<Running> {
    let server = Running(
        namespace
            .command("iperf3")
            .args(["--server", "--one-off", "--bind", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start iperf3: {error}"))?,
    );
    // The local port, then any remote address, then the state: 0A is LISTEN (proc_net_tcp in the kernel's
    // documentation).
    let listening = format!(":{PORT:04X} 00000000:0000 0A");
    let start = Instant::now();
    while start.elapsed() < TIMEOUT {
        let sockets = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))?;
        if sockets.contains(&listening) {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err("iperf3 does not listen".into())
}

/// Starts the client of a transfer to such a server. It writes its report to a file.
pub(crate) fn connect(namespace: &Namespace, server: Ipv4Addr, transfer: Transfer, report: &Path) -> Result<Running> {
    let command = namespace.command("iperf3").args(["--client", &server.to_string()]);
    let command = command.args(["--json", "--connect-timeout", "3000", "--time", &transfer.seconds.to_string()]);
    let command = command.args(["--parallel", &transfer.streams.to_string()]);
    let command = if transfer.direction == Direction::Download { command.arg("--reverse") } else { command };
    Ok(Running(command.stdin(Stdio::null()).stdout(File::create(report)?).spawn()?))
}

/// What the client reported.
pub(crate) struct Report(Value);

impl Report {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let report: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        match report["error"].as_str() {
            Some(error) => Err(format!("iperf3: {error}").into()),
            None => Ok(Self(report)),
        }
    }

    /// Gigabytes that the receiver got.
    pub(crate) fn gigabytes(&self) -> Result<f64> {
        Ok(number(&self.0["end"]["sum_received"]["bytes"])? / 1e9)
    }

    /// Gbit/s at the receiver.
    pub(crate) fn rate(&self) -> Result<f64> {
        Ok(number(&self.0["end"]["sum_received"]["bits_per_second"])? / 1e9)
    }

    /// Processor seconds of both processes, in which most of the packets between them are forwarded too.
    pub(crate) fn processor_seconds(&self) -> Result<f64> {
        let used = &self.0["end"]["cpu_utilization_percent"];
        let per_cent = number(&used["host_total"])? + number(&used["remote_total"])?;
        Ok(per_cent / 100.0 * number(&self.0["end"]["sum_sent"]["seconds"])?)
    }
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().ok_or_else(|| "iperf3 reported nothing".into())
}
