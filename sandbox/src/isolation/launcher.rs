//! The process outside: creates the namespaces, starts `init` in them, and waits.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::process::{Child, ExitStatus};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, Uid, getgid, getuid};

use super::error::Error;
use super::network_namespace::NetworkNamespaceId;
use super::stage::Stage;

/// Creates the namespaces and exits with the code of the isolated program. It returns only if that fails.
pub(super) fn run() -> Result<Infallible, Error> {
    let machine = NetworkNamespaceId::of_this_thread()?;
    unshare_namespaces()?;
    let signals = handled_signals();
    signals.thread_block().map_err(|source| Error::Process { operation: "block signals", source })?;
    let mut command = Stage::Init { machine }.command()?;
    command.env("PATH", search_path());
    let init = command
        .spawn()
        .map_err(|source| Error::Start { program: command.get_program().to_string_lossy().into_owned(), source })?;
    let status = wait(init, &signals)?;
    std::process::exit(exit_code(status))
}

/// The signals that the waiting processes handle. They ignore SIGINT: at a terminal the isolated program gets it too,
/// because it is in the same process group.
pub(super) fn handled_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT])
}

/// The search path with the sbin directories, which Debian omits for ordinary users although `nft` and `ip` are there.
fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

fn wait(mut init: Child, signals: &SigSet) -> Result<ExitStatus, Error> {
    let pid = Pid::from_raw(i32::try_from(init.id()).expect("a process id fits pid_t"));
    loop {
        let ended =
            init.try_wait().map_err(|error| Error::Process { operation: "wait for init", source: errno(&error) })?;
        if let Some(status) = ended {
            return Ok(status);
        }
        let signal = signals.wait().map_err(|source| Error::Process { operation: "wait for a signal", source })?;
        if matches!(signal, Signal::SIGTERM | Signal::SIGHUP) {
            kill(pid, signal).map_err(|source| Error::Process { operation: "pass on a signal", source })?;
        }
    }
}

/// The exit code as a shell computes it.
fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// Leaves the machine's namespaces: with the capabilities of root if it has them, otherwise with a user namespace.
fn unshare_namespaces() -> Result<(), Error> {
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    let root = getuid().is_root();
    if root && unshare(namespaces).is_ok() {
        return Ok(());
    }
    // Mapped to root inside, for programs that check their user id.
    let (user, group) = (getuid(), getgid());
    unshare(namespaces | CloneFlags::CLONE_NEWUSER).map_err(|errno| unshare_error(user, errno))?;
    for (path, text) in [
        // The kernel requires this before an unprivileged process may write gid_map (user_namespaces(7)).
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ] {
        fs::write(path, text).map_err(|error| map_error(user, path, errno(&error)))?;
    }
    Ok(())
}

/// The error for a refused user namespace, by the known settings that can refuse it.
fn unshare_error(user: Uid, errno: Errno) -> Error {
    match errno {
        Errno::EINVAL => Error::ThreadsRunning,
        Errno::ENOSPC | Errno::EUSERS => Error::UserNamespacesUsedUp { limit: max_user_namespaces() },
        _ if max_user_namespaces() == "0" => Error::UserNamespacesUsedUp { limit: "0".to_owned() },
        source if user.is_root() => Error::RootWithoutCapabilities { source },
        _ if read_setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") => {
            Error::UserNamespacesForRootOnly
        }
        source if is_restricted_by_apparmor() => Error::AppArmor { source },
        source => Error::UserNamespaceRefused { source },
    }
}

fn map_error(user: Uid, path: &'static str, source: Errno) -> Error {
    match source {
        // Root without CAP_SETFCAP can create a user namespace but cannot be root in it (user_namespaces(7)).
        source if user.is_root() => Error::RootWithoutCapabilities { source },
        source if is_restricted_by_apparmor() => Error::AppArmor { source },
        source => Error::Map { path, source },
    }
}

/// Whether Ubuntu's restriction of unprivileged user namespaces is on.
pub(super) fn is_restricted_by_apparmor() -> bool {
    read_setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1")
}

fn max_user_namespaces() -> String {
    read_setting("/proc/sys/user/max_user_namespaces").unwrap_or_else(|| "unknown".to_owned())
}

fn read_setting(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The error number of an I/O error.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}
