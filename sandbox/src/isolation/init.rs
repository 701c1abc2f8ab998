//! PID 1 of the isolation: mounts what must not be the machine's, then reaps until the program proper ends.

use std::convert::Infallible;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::stage::Stage;
use super::{Error, NetworkNamespaceId, launcher};

/// Prepares the place, runs the program inside it, and exits with its code; returns only if that is impossible.
///
/// When this process exits, the kernel kills all others of its PID namespace.
pub(super) fn run(machine: NetworkNamespaceId) -> Result<Infallible, Error> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|source| Error::Process { operation: "tie init to its parent", source })?;
    prepare_mounts()?;
    let signals = launcher::watched();
    signals.thread_block().map_err(|source| Error::Process { operation: "block signals", source })?;
    let mut command = Stage::Inside { machine }.command()?;
    let program = command
        .spawn()
        .map_err(|source| Error::Start { program: command.get_program().to_string_lossy().into_owned(), source })?;
    let program = Pid::from_raw(i32::try_from(program.id()).expect("a process id fits pid_t"));
    loop {
        if let Some(code) = reap(program)? {
            std::process::exit(code);
        }
        let signal = signals.wait().map_err(|source| Error::Process { operation: "wait for a signal", source })?;
        if matches!(signal, Signal::SIGTERM | Signal::SIGHUP) {
            // It may have ended this very moment; the next round reaps it.
            let _ = kill(program, signal);
        }
    }
}

/// Buries the dead, and gives the exit code of `program` once it is among them.
fn reap(program: Pid) -> Result<Option<i32>, Error> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => return Ok(Some(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => return Ok(Some(128 + signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(source) => return Err(Error::Process { operation: "wait for the program inside", source }),
        }
    }
}

fn prepare_mounts() -> Result<(), Error> {
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(|source| mount_refusal("/ as private", source))?;
    // An own /run: /run/netns for `ip netns`, /run/wireguard and /run/xtables.lock, which an ordinary user could not
    // write, and no daemon of the machine to be reached by accident.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
        .map_err(|source| mount_refusal("a tmpfs on /run", source))?;
    std::fs::create_dir("/run/netns").map_err(|error| mount_refusal("a tmpfs on /run", launcher::errno(&error)))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("proc"), "/proc", Some("proc"), flags, nothing) {
        // A container that hides parts of its /proc gets no new one (mount_namespaces(7)). The old one serves: it shows
        // more processes, but /proc/self and the sysctls of the network are the reader's own there too.
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(source) => Err(mount_refusal("proc on /proc", source)),
    }
}

fn mount_refusal(what: &'static str, source: Errno) -> Error {
    if matches!(source, Errno::EPERM | Errno::EACCES) && launcher::restricted_by_apparmor() {
        return Error::AppArmor { source };
    }
    Error::Mount { what, source }
}
