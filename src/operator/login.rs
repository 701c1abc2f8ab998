//! The SSH connection that the caller is logged in by, and whether a configuration would let it in again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::config::{Config, Wireguard};
use crate::regular_file;

/// The most bytes of a process' environment (the kernel's own limit for one argument is 128 KiB).
const MAX_ENVIRONMENT: u64 = 4 * 1024 * 1024;
/// The most parents that are asked.
const MAX_PARENTS: usize = 64;

/// The two ends of an SSH connection that a configuration decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connection {
    /// Where the caller comes from.
    client: IpAddr,
    /// The port of this server.
    port: u16,
}

impl Connection {
    /// From `SSH_CONNECTION`: `client port server port` (ssh(1)).
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_whitespace();
        // A link-local address comes with its interface: `fe80::1%eth0`.
        let client = fields.next()?.split('%').next()?;
        let (client, port) = (client.parse().ok()?, fields.nth(2)?.parse().ok()?);
        Some(Self { client, port })
    }
}

/// The caller's connection; `None` if it is not logged in by SSH. sudo takes the variable away, so the processes are
/// asked that this one was started by.
pub(super) fn find_connection() -> Option<Connection> {
    let own = std::env::var("SSH_CONNECTION").ok();
    own.and_then(|text| Connection::parse(&text)).or_else(|| of_parents(Path::new("/proc"), "self"))
}

fn of_parents(proc: &Path, process: &str) -> Option<Connection> {
    let mut process = process.to_owned();
    for _ in 0..MAX_PARENTS {
        process = parent(proc, &process)?;
        let environment = regular_file::read(&proc.join(&process).join("environ"), MAX_ENVIRONMENT);
        // Err: it is another user's, and its own parent may be the caller's again.
        let Ok(environment) = environment else { continue };
        let variables = environment.bytes.split(|byte| *byte == 0);
        let mut values =
            variables.filter_map(|variable| std::str::from_utf8(variable).ok()?.strip_prefix("SSH_CONNECTION="));
        if let Some(found) = values.find_map(Connection::parse) {
            return Some(found);
        }
    }
    None
}

/// The process that started this one; `None` for the first of all.
fn parent(proc: &Path, process: &str) -> Option<String> {
    let status = regular_file::read_text(&proc.join(process).join("status"), MAX_ENVIRONMENT).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
    (parent != "0").then_some(parent)
}

/// Why the configuration would refuse a new login like the caller's. `discovered`: the ports of sshd, for a
/// configuration that names none.
pub(super) fn warnings(
    config: &Config,
    Connection { client, port }: Connection,
    discovered: impl FnOnce() -> BTreeSet<u16>,
) -> Vec<String> {
    let firewall = &config.firewall;
    let holds_client = |range: &IpNet| range.contains(&client);
    let refused = "a new login like yours would be refused";
    let mut warnings = Vec::new();
    let (ports, whose) = match &firewall.ssh_ports {
        Some(ports) => (ports.clone(), "firewall.ssh_ports"),
        None => (discovered(), "sshd's configuration"),
    };
    if !ports.contains(&port) {
        warnings.push(format!(
            "{whose} does not name port {port}, at which you are logged in: {refused}; write firewall.ssh_ports = [{port}]"
        ));
    }
    // Peers may always log in, whatever the rest of the section says.
    if config.wireguard.iter().flat_map(Wireguard::networks).any(|range| holds_client(&range)) {
        return warnings;
    }
    let key = if firewall.ssh_only_by_tunnel {
        "firewall.ssh_only_by_tunnel is true, and the tunnel's networks do not contain"
    } else if !firewall.ssh_from.iter().any(holds_client) {
        "firewall.ssh_from does not contain"
    } else if firewall.blocklist.iter().any(holds_client) {
        "firewall.blocklist contains"
    } else {
        return warnings;
    };
    warnings.push(format!("{key} {client}, from where you are logged in: {refused}"));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};

    fn warned(text: &str, connection: &str) -> Vec<String> {
        let config = config::parse(text, &Environment::default()).unwrap();
        warnings(&config, Connection::parse(connection).unwrap(), || BTreeSet::from([22, 2222]))
    }

    #[test]
    fn a_caller_outside_of_ssh_from_is_warned() {
        let narrow = "[firewall]\nssh_from = [\"203.0.113.0/24\"]";
        assert_eq!(
            warned(narrow, "198.51.100.7 50000 198.51.100.2 22"),
            ["firewall.ssh_from does not contain 198.51.100.7, from where you are logged in: a new login like yours \
              would be refused"]
        );
        assert_eq!(warned(narrow, "2001:db8::7 50000 2001:db8::2 22").len(), 1);
        assert_eq!(warned(narrow, "fe80::7%eth1 50000 fe80::2%eth1 22").len(), 1);
        assert_eq!(warned(narrow, "203.0.113.7 50000 198.51.100.2 22"), Vec::<String>::new());
        for text in ["", "x", "203.0.113.7 50000 198.51.100.2", "203.0.113.7 50000 198.51.100.2 99999"] {
            assert_eq!(Connection::parse(text), None);
        }
    }

    #[test]
    fn a_caller_at_a_port_that_would_be_closed_is_warned() {
        assert_eq!(
            warned("", "203.0.113.10 5000 198.51.100.2 2200"),
            ["sshd's configuration does not name port 2200, at which you are logged in: a new login like yours would \
              be refused; write firewall.ssh_ports = [2200]"]
        );
        assert_eq!(warned("", "203.0.113.10 5000 198.51.100.2 2222"), Vec::<String>::new());
        assert_eq!(warned("firewall.ssh_ports = [22]", "203.0.113.10 5000 198.51.100.2 2222").len(), 1);
        assert_eq!(warned("firewall.ssh_ports = [2200]", "203.0.113.10 5000 198.51.100.2 2200").len(), 0);
    }

    #[test]
    fn a_caller_in_the_tunnel_is_not_warned_and_one_on_the_blocklist_is() {
        let tunnel = "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n[[wireguard.peer]]\n\
                      public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nallowed_ips = [\"10.100.0.2\"]\n";
        let warning = |firewall: &str, client: &str| {
            warned(&format!("[firewall]\n{firewall}\n{tunnel}"), &format!("{client} 50000 198.51.100.2 22"))
        };
        let refused = |reason: &str| {
            vec![format!("{reason}, from where you are logged in: a new login like yours would be refused")]
        };
        let only_by_tunnel = "ssh_only_by_tunnel = true";
        assert_eq!(
            warning(only_by_tunnel, "198.51.100.7"),
            refused("firewall.ssh_only_by_tunnel is true, and the tunnel's networks do not contain 198.51.100.7")
        );
        assert_eq!(warning(only_by_tunnel, "10.100.0.2"), Vec::<String>::new());
        assert_eq!(warning("ssh_from = [\"203.0.113.7\"]", "10.100.0.2"), Vec::<String>::new());
        let blocklist = "blocklist = [\"198.51.100.0/24\"]";
        assert_eq!(warning(blocklist, "198.51.100.7"), refused("firewall.blocklist contains 198.51.100.7"));
        assert_eq!(warning(blocklist, "203.0.113.7"), Vec::<String>::new());
    }

    #[test]
    fn the_connection_is_found_beyond_a_program_that_takes_the_variable_away() {
        let proc = tempfile::tempdir().unwrap();
        let process = |id: &str, parent: u32, environment: &[u8]| {
            let path = proc.path().join(id);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("status"), format!("Name:\tx\nPPid:\t{parent}\nTracerPid:\t0\n")).unwrap();
            std::fs::write(path.join("environ"), environment).unwrap();
        };
        process("self", 30, b"");
        process("30", 20, b"SUDO_USER=ada\0TERM=xterm\0");
        process("20", 10, b"TERM=xterm\0SSH_CONNECTION=203.0.113.10 5000 198.51.100.2 2200\0");
        process("10", 1, b"");
        process("1", 0, b"");
        let found = Connection { client: "203.0.113.10".parse().unwrap(), port: 2200 };
        assert_eq!(of_parents(proc.path(), "self"), Some(found));
        assert_eq!(of_parents(proc.path(), "10"), None);
    }
}
