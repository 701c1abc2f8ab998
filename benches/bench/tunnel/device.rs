//! A program that runs as an interface, and what it costs.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sandbox::namespace::Namespace;

use super::program::Program;
use crate::Result;

/// Where all of them listen. The isolation has an own /run, so no interface of the machine can be meant.
const SOCKETS: &str = "/var/run/wireguard";
/// For an interface to be there.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);
/// The unit of times in `/proc/PID/stat` is 1/100 s wherever this runs (time(7), `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// It is killed when dropped, and its interface is gone then.
#[derive(Debug)]
pub(super) struct Device {
    interface: String,
    child: Child,
    log: PathBuf,
}

impl Device {
    /// Starts the program as `interface`, on one core if that is said, and waits until it can be spoken to.
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
        // taskset becomes the program, so the process number is the program's.
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
            self.check()?;
            if start.elapsed() > PATIENCE {
                return Err(self.complaint("has no socket"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        Path::new(SOCKETS).join(format!("{}.sock", self.interface))
    }

    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    /// Fails if the process has ended.
    pub(super) fn check(&mut self) -> Result {
        match self.child.try_wait()? {
            Some(status) => Err(self.complaint(&format!("died ({status})"))),
            None => Ok(()),
        }
    }

    fn complaint(&self, what: &str) -> Box<dyn std::error::Error> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
        format!("{} {what}; its last words:\n  {last}", self.interface).into()
    }

    /// Seconds on a core, of all its threads, in its own code and in the kernel's.
    pub(super) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is a name in brackets, which may hold anything; the times are fields 14 and 15 (proc(5)).
        let (_, fields) = stat.rsplit_once(") ").ok_or("a strange /proc/PID/stat")?;
        let ticks: Vec<f64> =
            fields.split(' ').skip(11).take(2).map(str::parse).collect::<std::result::Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
    }

    /// MiB.
    pub(super) fn resident(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        // `12345 kB`, and means kibibytes (proc(5)). A process that has ended has no such line.
        let kibibytes = line.ok_or("a process without memory")?.trim().trim_end_matches(" kB");
        Ok(kibibytes.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // It has ended, or ends now; a socket that it leaves behind must not be taken for its successor's.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.socket());
    }
}
