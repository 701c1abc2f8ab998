//! Asks the kernel on which ports SSH servers listen, however they were started.
//!
//! Everybody may read which ports are listened on (`/proc/net/tcp`); whose socket one is shows in `/proc/PID/fd`, which
//! only root may read, and what has `CAP_SYS_PTRACE`. So the daemon itself finds nothing, and uses what
//! `bastiond ssh-ports` records.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use crate::regular_file;

/// Programs that are SSH servers, by the kernel's name of the process or by the file that it runs (`comm` and `exe`,
/// proc(5)): a second server is often started by a link with another name.
const PROGRAMS: [&str; 3] = ["sshd", "dropbear", "tinysshd"];
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
        let program = std::fs::read_link(path.join("exe")).ok();
        let program = program.as_deref().and_then(Path::file_name).and_then(OsStr::to_str);
        name.is_ok_and(|name| PROGRAMS.contains(&name.trim())) || program.is_some_and(|name| PROGRAMS.contains(&name))
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

/// The port and the socket's number in a line of `/proc/net/tcp`, if it is a listener that others can reach.
fn listener(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    (state == LISTEN && !is_loopback(address)).then_some((u16::from_str_radix(port, 16).ok()?, inode))
}

/// Whether an address in that list is one of this machine to itself: words of 32 bits in the machine's byte order.
fn is_loopback(address: &str) -> bool {
    let word = |text: &[u8]| u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok().map(u32::to_ne_bytes);
    let words: Option<Vec<[u8; 4]>> = address.as_bytes().chunks(8).map(word).collect();
    let address = match words.as_deref() {
        Some([v4]) => Some(IpAddr::from(*v4)),
        Some(words) => words.concat().try_into().ok().map(|bytes: [u8; 16]| Ipv6Addr::from(bytes).to_canonical()),
        None => None,
    };
    address.is_some_and(|address| address.is_loopback())
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
        let v4 = |address: &str| listens.replace("00000000:0898", &format!("{address}:0898"));
        let in_order = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        assert_eq!(listener(&v4(&in_order([127, 0, 0, 1]))), None, "nobody else reaches it");
        assert_eq!(listener(&v4(&in_order([10, 0, 0, 127]))), Some((2200, 18061)));
        let zero = in_order([0; 4]);
        let one = in_order([0, 0, 0, 1]);
        let mapped = in_order([0, 0, 0xff, 0xff]);
        let long =
            |words: [&str; 4]| v6.replace(&format!("{}:0016", "0".repeat(32)), &format!("{}:0016", words.concat()));
        assert_eq!(listener(&long([&zero, &zero, &zero, &one])), None);
        assert_eq!(listener(&long([&zero, &zero, &mapped, &in_order([127, 0, 0, 53])])), None);
        assert_eq!(listener(&long([&one, &zero, &zero, &one])), Some((22, 18063)));
        for other in ["", "  sl  local_address rem_address   st tx_queue", "0: x:y z 0A"] {
            assert_eq!(listener(other), None);
        }
    }

    #[test]
    fn only_sockets_of_ssh_servers_count() {
        // A listener of this process, in a /proc in which the process has another name.
        let listening = TcpListener::bind("0.0.0.0:0").unwrap();
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
        std::os::unix::fs::symlink("/usr/sbin/sshd", process.join("exe")).unwrap();
        assert!(listening_ports(proc.path()).contains(&port), "by a link of another name");
    }
}
