//! What a machine lacks, and how its owner can change that.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// Why this process cannot be isolated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Programs that the sandbox needs are not installed.
    #[error("missing programs: {}\ninstall them: apt install {}", list(.0), packages(.0))]
    MissingPrograms(Vec<Program>),

    /// Debian's sysctl on older kernels forbids user namespaces.
    #[error(
        "kernel.unprivileged_userns_clone = 0: only root may create user namespaces on this machine\n\
         run as root, or: sysctl -w kernel.unprivileged_userns_clone=1"
    )]
    UserNamespacesForRootOnly,

    /// The kernel's limit is reached; nested namespaces count too.
    #[error(
        "user.max_user_namespaces = {limit}: no further user namespace can be created\n\
         run as root, or raise it: sysctl -w user.max_user_namespaces=16384"
    )]
    UserNamespacesUsedUp {
        /// The value of the sysctl.
        limit: String,
    },

    /// Ubuntu's restriction since 23.10: the namespace is created, but without capabilities.
    #[error(
        "kernel.apparmor_restrict_unprivileged_userns = 1: AppArmor denies capabilities in a user namespace\n\
         run as root, or: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    )]
    AppArmor {
        /// The kernel's error.
        source: Errno,
    },

    /// Root lacks capabilities, usually in a container.
    #[error(
        "root cannot create namespaces: it lacks CAP_SYS_ADMIN, or a seccomp filter forbids it\n\
         in a container, start it with: --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined \
         --security-opt apparmor=unconfined, or --privileged"
    )]
    RootWithoutCapabilities {
        /// The kernel's error.
        source: Errno,
    },

    /// A user namespace is refused, and none of the known settings explains it.
    #[error(
        "the kernel refuses a user namespace although no known setting forbids it (a seccomp filter? a chroot?)\n\
         run as root"
    )]
    UserNamespaceRefused {
        /// The kernel's error.
        source: Errno,
    },

    /// [`enter`](super::enter) was called too late.
    #[error("threads are running already: call enter() first in main")]
    ThreadsRunning,

    /// The user and group of the new namespace could not be mapped.
    #[error("failed to write {path}")]
    Map {
        /// The path of the map.
        path: &'static str,
        /// The kernel's error.
        source: Errno,
    },

    /// A mount inside failed.
    #[error("failed to mount {what}\nin a container, start it with: --privileged")]
    Mount {
        /// The file system and its mount point.
        what: &'static str,
        /// The kernel's error.
        source: Errno,
    },

    /// `/proc/sys` is read-only, as in an ordinary container.
    #[error("{path} is read-only, but a gateway must write it\nin a container, start it with: --privileged")]
    SysctlReadOnly {
        /// The sysctl's path.
        path: &'static str,
        /// The kernel's error.
        source: io::Error,
    },

    /// `CAP_NET_ADMIN` is missing, or the loopback interface.
    #[error("failed to set the loopback link up\nip: {stderr}")]
    NetAdmin {
        /// The standard error of `ip`.
        stderr: String,
    },

    /// The kernel has no veth interfaces.
    #[error(
        "the kernel cannot create veth interfaces: load the module (modprobe veth), or install \
         a kernel with it\nip: {stderr}"
    )]
    NoVeth {
        /// The standard error of `ip`.
        stderr: String,
    },

    /// The kernel has no nftables, or lacks features of it.
    #[error(
        "the kernel does not support nftables rules with NAT, connection tracking and fib: load the modules \
         (modprobe -a nf_tables nft_masq nft_ct nft_fib_inet), or install a kernel with them\nnft: {stderr}"
    )]
    NoNftables {
        /// The standard error of `nft`.
        stderr: String,
    },

    /// A program failed to start.
    #[error("failed to start {program}")]
    Start {
        /// The program or file.
        program: String,
        /// The cause.
        source: io::Error,
    },

    /// A process could not be waited for, signalled, or tied to its parent.
    #[error("failed to {operation}")]
    Process {
        /// The operation that failed.
        operation: &'static str,
        /// The kernel's error.
        source: Errno,
    },

    /// A file of the kernel could not be read.
    #[error("failed to read {path}")]
    Read {
        /// The program or file.
        path: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// A program that the sandbox needs, and the Debian and Ubuntu package that contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// The name of the command.
    pub name: &'static str,
    /// The name of the package, the same in Debian 12 and 13 and Ubuntu 24.04.
    pub package: &'static str,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn list(programs: &[Program]) -> String {
    programs.iter().map(|p| p.name).collect::<Vec<_>>().join(", ")
}

fn packages(programs: &[Program]) -> String {
    programs.iter().map(|p| p.package).collect::<Vec<_>>().join(" ")
}

/// The error and its causes, one per line.
pub(super) fn chain(error: &Error) -> String {
    let mut lines = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        lines.push_str("\nthe cause: ");
        lines.push_str(&next.to_string());
        cause = next.source();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_name_the_packages_to_install() {
        let error = Error::MissingPrograms(vec![
            Program { name: "ip", package: "iproute2" },
            Program { name: "nft", package: "nftables" },
        ]);
        assert_eq!(chain(&error), "missing programs: ip, nft\ninstall them: apt install iproute2 nftables");
    }

    #[test]
    fn a_refusal_by_the_kernel_keeps_its_cause() {
        let error = Error::Map { path: "/proc/self/uid_map", source: Errno::EPERM };
        assert_eq!(chain(&error), "failed to write /proc/self/uid_map\nthe cause: EPERM: Operation not permitted");
    }
}
