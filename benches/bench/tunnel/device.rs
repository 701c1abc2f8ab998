//! A running WireGuard interface, and its use of CPU and memory.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sandbox::namespace::Namespace;

use super::program::Program;
use crate::run::Result;

/// The directory of the control sockets. The isolation has a /run of its own, so it has no interface of the machine.
const SOCKET_DIRECTORY: &str = "/var/run/wireguard";
/// How long an interface may take to appear.
const TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The times in `/proc/PID/stat` are in 1/100 s on all supported machines (time(7), `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A running interface. Dropping the value kills the process, which removes the interface.
#[derive(Debug)]
pub(super) struct Device {
    interface: String,
    child: Child,
    log: PathBuf,
}

impl Device {
    /// Starts the program as `interface`, on one core if given, and waits until its control socket accepts connections.
    pub(super) fn start(
        namespace: &Namespace,
        program: &Program,
        interface: &str,
        directory: &Path,
        core: Option<usize>,
    ) -> Result<Self> {
        let log = directory.join(format!("{interface}.log"));
        let file = File::create(&log)?;
        let path = program.path.to_string_lossy();
        // taskset executes the program in its own process, so the process id is the program's.
        let command = match core {
            Some(core) => namespace.command("taskset").args(["--cpu-list", &core.to_string(), &path]),
            None => namespace.command(&path),
        };
        let command = command.args(program.arguments()).arg(interface);
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        let child = child.map_err(|error| format!("cannot start {path}: {error}"))?;
        let mut device = Self { interface: interface.to_owned(), child, log };
        device.wait_for_socket()?;
        Ok(device)
    }

    fn wait_for_socket(&mut self) -> Result {
        let start = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            self.check_running()?;
            if start.elapsed() > TIMEOUT {
                return Err(self.failure("has no socket"));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        Path::new(SOCKET_DIRECTORY).join(format!("{}.sock", self.interface))
    }

    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    /// Fails if the process has ended.
    pub(super) fn check_running(&mut self) -> Result {
        match self.child.try_wait()? {
            Some(status) => Err(self.failure(&format!("died ({status})"))),
            None => Ok(()),
        }
    }

    fn failure(&self, what: &str) -> Box<dyn std::error::Error> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
        format!("{} {what}; the end of its log:\n  {last}", self.interface).into()
    }

    /// CPU seconds of all its threads, in user mode and in the kernel.
    pub(super) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is a name in parentheses with any characters. The times are fields 14 and 15 (proc(5)).
        let (_, fields) = stat.rsplit_once(") ").ok_or("cannot parse /proc/PID/stat")?;
        let ticks: Vec<f64> =
            fields.split(' ').skip(11).take(2).map(str::parse).collect::<std::result::Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
    }

    /// The resident memory in MiB.
    pub(super) fn resident(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        // The kernel writes `12345 kB` and means kibibytes (proc(5)). An ended process has no such line.
        let kibibytes = line.ok_or("the process has ended")?.trim().trim_end_matches(" kB");
        Ok(kibibytes.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A socket that the process leaves behind must not look like that of a running interface.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.socket());
    }
}
