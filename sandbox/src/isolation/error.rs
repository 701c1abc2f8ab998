//! What a machine may lack, and what its owner can do about it.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// Why this process cannot have an isolation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Programs that the world is built with.
    #[error("missing programs: {}\ninstall them: apt install {}", list(.0), packages(.0))]
    MissingPrograms(Vec<Program>),

    /// Debian's switch, on older kernels.
    #[error(
        "kernel.unprivileged_userns_clone = 0: only root may make user namespaces here\n\
         run as root, or: sysctl -w kernel.unprivileged_userns_clone=1"
    )]
    UserNamespacesForRootOnly,

    /// The kernel's limit, nested namespaces counted.
    #[error(
        "user.max_user_namespaces = {limit}: no further user namespace may be made\n\
         run as root, or raise it: sysctl -w user.max_user_namespaces=16384"
    )]
    UserNamespacesUsedUp {
        /// What the sysctl says.
        limit: String,
    },

    /// Ubuntu's restriction since 23.10: the namespace is made, but gives no capabilities.
    #[error(
        "kernel.apparmor_restrict_unprivileged_userns = 1: AppArmor leaves a user namespace without capabilities\n\
         run as root, or: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    )]
    AppArmor {
        /// How the kernel refused.
        source: Errno,
    },

    /// Root of a container, typically.
    #[error(
        "this root may not make namespaces: it lacks CAP_SYS_ADMIN, or a seccomp filter forbids it\n\
         in a container, start it with: --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined \
         --security-opt apparmor=unconfined, or --privileged"
    )]
    RootWithoutCapabilities {
        /// How the kernel refused.
        source: Errno,
    },

    /// Refused for a reason that none of the known switches explains.
    #[error(
        "the kernel refuses a user namespace, though no known switch forbids it (a seccomp filter? a chroot?)\n\
         run as root"
    )]
    UserNamespaceRefused {
        /// How the kernel refused.
        source: Errno,
    },

    /// [`enter`](super::enter) was called too late.
    #[error("threads are running already: enter() must come first thing in main")]
    ThreadsRunning,

    /// The user and group of the new namespace could not be mapped.
    #[error("failed to write {path}")]
    Map {
        /// Which map.
        path: &'static str,
        /// How the kernel refused.
        source: Errno,
    },

    /// A mount inside failed.
    #[error("failed to mount {what}\nin a container, start it with: --privileged")]
    Mount {
        /// What was to be mounted, and where.
        what: &'static str,
        /// How the kernel refused.
        source: Errno,
    },

    /// `/proc/sys` is there for reading only, as in an ordinary container.
    #[error("{path} cannot be written, and a gateway must\nin a container, start it with: --privileged")]
    SysctlReadOnly {
        /// The key tried.
        path: &'static str,
        /// How the kernel refused.
        source: io::Error,
    },

    /// No capability over the network inside, or no loopback.
    #[error("failed to set the loopback link up\nip: {stderr}")]
    NetAdmin {
        /// What `ip` said.
        stderr: String,
    },

    /// The kernel has no virtual Ethernet.
    #[error(
        "the kernel makes no veth links: load the module (modprobe veth), or install a kernel with it\nip: {stderr}"
    )]
    NoVeth {
        /// What `ip` said.
        stderr: String,
    },

    /// The kernel has no nftables, or not the parts needed.
    #[error(
        "the kernel takes no nftables rules with NAT, connection tracking and fib: load the modules \
         (modprobe -a nf_tables nft_masq nft_ct nft_fib_inet), or install a kernel with them\nnft: {stderr}"
    )]
    NoNftables {
        /// What `nft` said.
        stderr: String,
    },

    /// A program failed to start.
    #[error("failed to start {program}")]
    Start {
        /// Which one.
        program: String,
        /// Why.
        source: io::Error,
    },

    /// A process could not be waited for, signalled, or tied to its parent.
    #[error("failed to {operation}")]
    Process {
        /// What was tried.
        operation: &'static str,
        /// How the kernel refused.
        source: Errno,
    },

    /// A file of the kernel could not be read.
    #[error("failed to read {path}")]
    Read {
        /// Which one.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A program that the world needs, and the Debian and Ubuntu package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// The command's name.
    pub name: &'static str,
    /// The package's name, the same in Debian 12 and 13 and Ubuntu 24.04.
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

/// The error and its causes, one a line.
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
