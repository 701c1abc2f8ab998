//! TCP throughput of the tunnel, measured with iperf3.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::pair::{End, INSIDE, Pair};
use crate::run::Result;

/// The duration of one run.
const SECONDS: u16 = 2;
/// The time limit of one run, including at most 3 s for the connection.
const TIMEOUT: Duration = Duration::from_secs(12);
/// The default port of iperf3.
const PORT: u16 = 5201;
/// The interval between two samples of the memory.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The direction of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The client at the near end sends.
    Upload,
    /// The server at the far end sends.
    Download,
}

/// The result of a transfer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer {
    /// The rate at the receiver in Gbit/s.
    pub(super) rate: f64,
    /// CPU seconds of the near end's process per 10^9 bytes.
    pub(super) near_cpu: f64,
    /// CPU seconds of the far end's process per 10^9 bytes.
    pub(super) far_cpu: f64,
    /// The highest sample of the resident memory of either process in MiB.
    pub(super) resident: f64,
}

/// Runs one transfer with so many streams.
pub(super) fn transfer(pair: &mut Pair<'_>, streams: usize, direction: Direction) -> Result<Transfer> {
    let server = Running(
        pair.namespace(End::Far)
            .command("iperf3")
            .args(["--server", "--one-off", "--bind", &INSIDE[1].to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start iperf3: {error}"))?,
    );
    wait_for_listener(pair)?;
    let path = pair.directory().join("iperf3.json");
    let command = pair.namespace(End::Near).command("iperf3").args(["--client", &INSIDE[1].to_string()]);
    let command = command.args(["--json", "--connect-timeout", "3000", "--time", &SECONDS.to_string()]);
    let command = command.args(["--parallel", &streams.to_string()]);
    let command = if direction == Direction::Download { command.arg("--reverse") } else { command };
    let before = cpu(pair)?;
    let mut client = Running(command.stdin(Stdio::null()).stdout(File::create(&path)?).spawn()?);
    let resident = wait_and_sample_memory(pair, &mut client)?;
    let after = cpu(pair)?;
    drop((client, server));
    pair.check_running()?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    if let Some(error) = report["error"].as_str() {
        return Err(format!("iperf3: {error}").into());
    }
    let received = &report["end"]["sum_received"];
    let number = |field: &str| received[field].as_f64().ok_or("iperf3 reported nothing");
    let gigabytes = number("bytes")? / 1e9;
    Ok(Transfer {
        rate: number("bits_per_second")? / 1e9,
        near_cpu: (after.0 - before.0) / gigabytes,
        far_cpu: (after.1 - before.1) / gigabytes,
        resident,
    })
}

/// Waits for the end of the client, and returns the highest sample of the memory.
fn wait_and_sample_memory(pair: &mut Pair<'_>, client: &mut Running) -> Result<f64> {
    let (start, mut most) = (Instant::now(), 0.0_f64);
    while client.0.try_wait()?.is_none() {
        pair.check_running()?;
        most = most.max(pair.device(End::Near)?.resident()?).max(pair.device(End::Far)?.resident()?);
        if start.elapsed() > TIMEOUT {
            return Err(format!("iperf3 has not ended after {} s", TIMEOUT.as_secs()).into());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(most)
}

fn cpu(pair: &Pair<'_>) -> Result<(f64, f64)> {
    Ok((pair.device(End::Near)?.cpu()?, pair.device(End::Far)?.cpu()?))
}

/// Waits until iperf3 listens, by the table of sockets: a test connection would be the one that the server accepts.
fn wait_for_listener(pair: &Pair<'_>) -> Result {
    // The local port, then any remote address, then the state: 0A is LISTEN (proc_net_tcp in the kernel's
    // documentation).
    let listening = format!(":{PORT:04X} 00000000:0000 0A");
    let start = Instant::now();
    while start.elapsed() < TIMEOUT {
        let sockets = pair.namespace(End::Far).run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))?;
        if sockets.contains(&listening) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err("iperf3 does not listen".into())
}

/// A process that is killed when the value is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
