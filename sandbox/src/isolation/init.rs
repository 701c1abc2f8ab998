//! PID 1 of the isolation: mounts file systems of its own, then reaps processes until the program ends.

use std::convert::Infallible;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::error::Error;
use super::launcher;
use super::network_namespace::NetworkNamespaceId;
use super::stage::Stage;

/// Prepares the mounts, runs the program, and exits with its code. It returns only if that fails.
///
/// When this process exits, the kernel kills all others of its PID namespace.
pub(super) fn run(machine: NetworkNamespaceId) -> Result<Infallible, Error> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|source| Error::Process { operation: "tie init to its parent", source })?;
    prepare_mounts()?;
    let signals = launcher::handled_signals();
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
            // An error means that the program has just ended; the next iteration reaps it.
            let _ = kill(program, signal);
        }
    }
}

/// Reaps ended processes, and returns the exit code of `program` once it has ended.
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
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|source| mount_error("/ as private", source))?;
    // A new /run has /run/netns for `ip netns`; /run/wireguard and /run/xtables.lock are writable without privileges
    // there, and no daemon of the machine can be reached by accident.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
        .map_err(|source| mount_error("a tmpfs on /run", source))?;
    std::fs::create_dir("/run/netns").map_err(|error| mount_error("a tmpfs on /run", launcher::errno(&error)))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("proc"), "/proc", Some("proc"), flags, none) {
        // A container that hides parts of its /proc cannot mount a new one (mount_namespaces(7)). The old one works
        // too: it shows more processes, but /proc/self and the network sysctls are those of the reader.
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(source) => Err(mount_error("proc on /proc", source)),
    }
}

fn mount_error(what: &'static str, source: Errno) -> Error {
    if matches!(source, Errno::EPERM | Errno::EACCES) && launcher::is_restricted_by_apparmor() {
        return Error::AppArmor { source };
    }
    Error::Mount { what, source }
}
