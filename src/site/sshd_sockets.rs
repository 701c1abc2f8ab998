//! Asks the kernel on which ports SSH servers listen, however they were started.
//!
//! Everybody may read which ports are listened on (`/proc/net/tcp`); whose socket one is shows in `/proc/PID/fd`, which
//! only root may read, and what has `CAP_SYS_PTRACE`. So the daemon itself finds nothing, and uses what
//! `bastiond ssh-ports` records.

use std::collections::BTreeSet;
use std::path::Path;

use crate::regular_file;

/// Programs that are SSH servers, by the kernel's name of the process (`comm`, proc(5)).
const PROGRAMS: [&str; 2] = ["sshd", "dropbear"];
/// The most bytes that are read of a list of sockets: a line has 150.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// `TCP_LISTEN` in a line of that list (the kernel's `tcp_states.h`).
const LISTEN: &str = "0A";

/// The TCP ports on which SSH servers of this network namespace listen, as far as this process may see whose sockets
/// they are. `proc` is `/proc`.
pub(super) fn listening_ports(proc: &Path) -> BTreeSet<u16> {
    let sockets = sockets_of_servers(proc);
    if sockets.is_empty() {
        return BTreeSet::new();
    }
    let lists = ["self/net/tcp", "self/net/tcp6"].map(|list| regular_file::read_text(&proc.join(list), MAX_BYTES));
    let lines = lists.iter().flatten().flat_map(|list| list.lines());
    lines.filter_map(listener).filter(|(_, inode)| sockets.contains(inode)).map(|(port, _)| port).collect()
}

/// The numbers of the sockets that SSH servers have open.
fn sockets_of_servers(proc: &Path) -> BTreeSet<u64> {
    let processes = std::fs::read_dir(proc).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_process =
        |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let is_server = |path: &Path| {
        let name = regular_file::read_text(&path.join("comm"), 64);
        name.is_ok_and(|name| PROGRAMS.contains(&name.trim()))
    };
    let servers = processes.filter(|path| is_process(path) && is_server(path));
    // One that ends meanwhile has no descriptors.
    let descriptors = servers.flat_map(|path| std::fs::read_dir(path.join("fd")).into_iter().flatten().flatten());
    descriptors.filter_map(|entry| socket(&std::fs::read_link(entry.path()).ok()?)).collect()
}

/// The number in `socket:[NUMBER]`.
fn socket(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The port and the socket's number in a line of `/proc/net/tcp`, if it is a listener.
fn listener(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    (state == LISTEN).then_some((u16::from_str_radix(port, 16).ok()?, inode))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_line_of_the_kernels_list_is_read() {
        let listens = "   0: 00000000:0898 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        \
        0 18061 1 \
                       0000000000000000 100 0 0 10 0";
        assert_eq!(listener(listens), Some((2200, 18061)));
        let v6 = "   1: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A \
                  00000000:00000000 00:00000000 00000000     0        0 18063 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listener(v6), Some((22, 18063)));
        assert_eq!(listener(&listens.replace(" 0A ", " 01 ")), None, "an open connection is no listener");
        for other in ["", "  sl  local_address rem_address   st tx_queue", "0: x:y z 0A"] {
            assert_eq!(listener(other), None);
        }
    }

    #[test]
    fn only_sockets_of_ssh_servers_count() {
        // A listener of this process, in a /proc in which the process has another name.
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listening.local_addr().unwrap().port();
        let proc = tempfile::tempdir().unwrap();
        let process = proc.path().join("4711");
        std::fs::create_dir_all(process.join("fd")).unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&listening);
        let link = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).unwrap();
        std::os::unix::fs::symlink(link, process.join("fd/3")).unwrap();
        std::os::unix::fs::symlink("/proc/self", proc.path().join("self")).unwrap();
        for (name, expected) in [("sshd\n", true), ("nginx\n", false), ("sshd-other\n", false)] {
            std::fs::write(process.join("comm"), name).unwrap();
            assert_eq!(listening_ports(proc.path()).contains(&port), expected, "{name:?}");
        }
    }
}
