//! Conversion to the units of the tables.

use std::time::Duration;

use sandbox::daemon::Daemon;

use crate::run::Result;

/// A field of `/proc/PID/status` in MiB. The kernel writes `12345 kB` and means kibibytes (proc(5)).
pub(crate) fn mebibytes(daemon: &Daemon, field: &str) -> Result<f64> {
    let text = daemon.status_field(field)?;
    Ok(text.trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
