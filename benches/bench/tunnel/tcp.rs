//! TCP throughput of the tunnel, measured with iperf3.

use std::time::{Duration, Instant};

use super::pair::{End, INSIDE, Pair};
pub(super) use crate::iperf::Direction;
use crate::iperf::{self, Report, Running};
use crate::run::Result;

/// The duration of one run.
const SECONDS: u16 = 2;
/// The time limit of one run, including at most 3 s for the connection.
const TIMEOUT: Duration = Duration::from_secs(12);
/// The interval between two samples of the memory.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

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

/// Runs one transfer with so many streams. The near end is the client.
pub(super) fn transfer(pair: &mut Pair<'_>, streams: usize, direction: Direction) -> Result<Transfer> {
    let server = iperf::serve_once(pair.namespace(End::Far), INSIDE[1])?;
    let path = pair.directory().join("iperf3.json");
    let before = cpu(pair)?;
    let wanted = iperf::Transfer { seconds: SECONDS, streams, direction };
    let mut client = iperf::connect(pair.namespace(End::Near), INSIDE[1], wanted, &path)?;
    let resident = wait_and_sample_memory(pair, &mut client)?;
    let after = cpu(pair)?;
    drop((client, server));
    pair.check_running()?;
    let report = Report::read(&path)?;
    let gigabytes = report.gigabytes()?;
    Ok(Transfer {
        rate: report.rate()?,
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
