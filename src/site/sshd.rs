//! Reads the ports that sshd listens on from its own configuration, and from the socket unit that may listen in its
//! place. An operator who moved SSH to another port must not be locked out by installing a firewall.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::regular_file;

/// sshd(8)'s own default.
const DEFAULT_PORT: u16 = 22;
/// The depth to which sshd itself follows `Include` (OpenSSH servconf.c).
const MAX_DEPTH: usize = 16;
/// The most files that are read; real configurations have fewer.
const MAX_FILES: usize = 256;
/// The largest file that is read, in bytes; real ones have some thousand.
const MAX_BYTES: u64 = 1024 * 1024;

/// The directories of systemd's units (systemd.unit(5)). Ubuntu's `sshd-socket-generator` writes into the last one.
pub(super) const UNIT_DIRECTORIES: [&str; 4] =
    ["/usr/lib/systemd/system", "/etc/systemd/system", "/run/systemd/system", "/run/systemd/generator"];

/// The ports in sshd's configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SshdPorts {
    /// Port 22, every port in sshd's file and the files that it includes, and every port that `ssh.socket` listens on.
    pub(super) ports: BTreeSet<u16>,
    /// Files and directories without read permission. cloud-init and Debian's installer write some that only root can
    /// read.
    pub(super) unreadable: BTreeSet<PathBuf>,
}

impl SshdPorts {
    /// The content if it can be read. A file without permission is noted in `unreadable`; a missing file is ignored.
    pub(super) fn read<T>(&mut self, path: &Path, read: io::Result<T>) -> Option<T> {
        if matches!(&read, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
            self.unreadable.insert(path.to_owned());
        }
        read.ok()
    }
}

/// Reads sshd's configuration at `path`, and the socket units.
pub(super) fn read_ports(path: &Path, unit_directories: &[&Path]) -> SshdPorts {
    let mut found = SshdPorts { ports: BTreeSet::from([DEFAULT_PORT]), ..SshdPorts::default() };
    for directory in unit_directories {
        socket_ports(directory, &mut found);
    }
    add_file(path, &mut found);
    found
}

fn collect(path: &Path, directory: &Path, depth: usize, left: &mut usize, found: &mut SshdPorts) {
    if depth > MAX_DEPTH || *left == 0 {
        return;
    }
    *left -= 1;
    let Some(bytes) = found.read(path, read_file(path)) else { return };
    // A comment in Latin-1 must not make the other lines unreadable.
    for line in String::from_utf8_lossy(&bytes).lines() {
        let Some((keyword, value)) = directive(line) else { continue };
        if keyword != "include" {
            add_line(line, found);
            continue;
        }
        for pattern in arguments(value) {
            for included in expand(directory, &pattern, found) {
                collect(&included, directory, depth + 1, left, found);
            }
        }
    }
}

/// Adds the port that a line of sshd's configuration names, if it is one of those that name ports.
pub(super) fn add_line(line: &str, found: &mut SshdPorts) {
    let Some((keyword, value)) = directive(line) else { return };
    let arguments = arguments(value);
    let value = arguments.first();
    match keyword {
        "port" => found.ports.extend(value.and_then(|value| port(value))),
        "listenaddress" => found.ports.extend(value.and_then(|value| listen_port(value))),
        _ => {}
    }
}

/// Adds the ports that a configuration of sshd and the files that it includes name.
pub(super) fn add_file(path: &Path, found: &mut SshdPorts) {
    let mut left = MAX_FILES;
    // A relative `Include` is relative to sshd's own directory, in included files too (sshd_config(5)).
    let directory = path.parent().unwrap_or(Path::new("/"));
    collect(path, directory, 0, &mut left, found);
}

/// The ports of `ssh.socket` (Debian, Ubuntu) or `sshd.socket`, with its drop-ins. A port that a later file removes
/// with an empty `ListenStream=` counts too: an open port without a listener is harmless.
fn socket_ports(directory: &Path, found: &mut SshdPorts) {
    for unit in ["ssh.socket", "sshd.socket"] {
        let drop_ins = expand(directory, &format!("{unit}.d/*.conf"), found);
        for file in [vec![directory.join(unit)], drop_ins].concat() {
            let Some(bytes) = found.read(&file, read_file(&file)) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            // systemd ignores white space around the `=` (systemd.syntax(7)).
            let values = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("ListenStream")?.trim_start().strip_prefix('='))
                .map(str::trim);
            found.ports.extend(values.filter_map(|value| port(value).or_else(|| listen_port(value))));
        }
    }
}

/// The bytes of a file, if it is a regular one of a sensible size. Others are ignored.
pub(super) fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    regular_file::read(path, MAX_BYTES).map(|content| content.bytes).map_err(regular_file::Error::into_io)
}

/// The keyword, if it is one of the three that name ports or files, and the rest of the line. sshd accepts `Key value`
/// and `Key=value`.
fn directive(line: &str) -> Option<(&'static str, &str)> {
    let line = line.trim();
    let end = line.find(|c: char| c.is_whitespace() || c == '=')?;
    let keyword =
        ["port", "listenaddress", "include"].into_iter().find(|known| line[..end].eq_ignore_ascii_case(known))?;
    Some((keyword, line[end..].trim_start_matches(|c: char| c.is_whitespace() || c == '=')))
}

/// The words of a line, up to a comment. A word with spaces is in quotes (`sshd_config(5)`).
pub(super) fn arguments(value: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut rest = value.trim_start();
    while let Some(first) = rest.chars().next().filter(|&c| c != '#') {
        let (word, after) = if matches!(first, '"' | '\'') {
            rest[1..].split_once(first).unwrap_or((&rest[1..], ""))
        } else {
            rest.split_once(char::is_whitespace).unwrap_or((rest, ""))
        };
        arguments.push(word.to_owned());
        rest = after.trim_start();
    }
    arguments
}

pub(super) fn port(value: &str) -> Option<u16> {
    value.parse().ok().filter(|&port| port > 0)
}

/// The port of `host:port` or `[v6]:port`; `None` for an address without a port, and for one that only this machine
/// itself reaches.
fn listen_port(value: &str) -> Option<u16> {
    let (host, after) = match value.rsplit_once("]:") {
        Some((host, after)) => (host.trim_start_matches('['), after),
        None => value.rsplit_once(':').filter(|(host, _)| !host.contains(':'))?,
    };
    let is_loopback = host.parse::<IpAddr>().map_or(host == "localhost", |host| host.is_loopback());
    if is_loopback { None } else { port(after) }
}

/// The files of an `Include` pattern. Supports `*` in the last component only, as in the files that distributions ship.
/// A glob crate would hide which directories cannot be read.
pub(super) fn expand(directory: &Path, pattern: &str, found: &mut SshdPorts) -> Vec<PathBuf> {
    let path = directory.join(pattern);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.contains('*') {
        return vec![path];
    }
    let entries = path.parent().and_then(|parent| found.read(parent, std::fs::read_dir(parent)));
    let is_match =
        |file: &Path| file.file_name().and_then(|file| file.to_str()).is_some_and(|file| matches(name, file));
    let mut files: Vec<PathBuf> =
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).filter(|file| is_match(file)).collect();
    files.sort();
    files
}

/// Whether a file's name matches a pattern with `*`. A pattern does not match hidden files, as in glob(3).
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last) && !(first.is_empty() && name.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports_of(main: impl AsRef<[u8]>, included: &[(&str, &str)]) -> Vec<u16> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sshd_config.d")).unwrap();
        for (name, text) in included {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let path = directory.path().join("sshd_config");
        std::fs::write(&path, main).unwrap();
        read_ports(&path, &[]).ports.into_iter().collect()
    }

    #[test]
    fn port_22_is_always_included() {
        assert_eq!(ports_of("# Port 4444\nPermitRootLogin no\n", &[]), [22]);
        let only_22 = SshdPorts { ports: BTreeSet::from([22]), unreadable: BTreeSet::new() };
        assert_eq!(read_ports(Path::new("/nonexistent/sshd_config"), &[]), only_22);
        assert_eq!(read_ports(Path::new("/"), &[]), only_22);
    }

    #[test]
    fn a_port_is_found_in_every_spelling_that_sshd_accepts() {
        for (line, port) in [
            ("Port 2222", 2222),
            ("\tPORT\t2222\t", 2222),
            ("port=2222", 2222),
            ("port = 2222", 2222),
            ("Port 2222 # moved", 2222),
            ("Port 2222\r", 2222),
            ("Port \"2222\"", 2222),
            ("Port '2222'", 2222),
            ("ListenAddress 0.0.0.0:2222", 2222),
            ("ListenAddress \"0.0.0.0:2222\"", 2222),
            ("ListenAddress [::]:2222 rdomain vrf1", 2222),
            ("ListenAddress bastion.example.org:2222", 2222),
            ("ListenAddress 127.0.0.1:2222", 22),
            ("ListenAddress [::1]:2222", 22),
            ("ListenAddress localhost:2222", 22),
            ("ListenAddress ::1", 22),
            ("ListenAddress 0.0.0.0", 22),
            ("ListenAddress fe80::1:2222", 22),
            ("Port 0", 22),
            ("Port 65536", 22),
            ("Port -1", 22),
            ("Port", 22),
            ("Port #2222", 22),
            ("Port \"", 22),
            ("Ports 2222", 22),
            ("GatewayPorts 2222", 22),
        ] {
            let expected: Vec<u16> = BTreeSet::from([22, port]).into_iter().collect();
            assert_eq!(ports_of(line, &[]), expected, "{line:?}");
        }
        assert_eq!(ports_of(b"# Dom\xe4ne\nPort 2222\n", &[]), [22, 2222], "a comment in Latin-1");
    }

    #[test]
    fn includes_are_followed_as_sshd_follows_them() {
        let main = "Include sshd_config.d/*.conf \"a file\"\nInclude=missing.conf\nInclude 1*2*.x # no more\n";
        let included = [
            ("sshd_config.d/10-port.conf", "Port 2201\nInclude beside-the-main-file.conf\n"),
            ("sshd_config.d/20-off.conf.disabled", "Port 9\n"),
            ("sshd_config.d/.hidden.conf", "Port 9\n"),
            ("sshd_config.d/beside-the-main-file.conf.not", "Port 9\n"),
            ("sshd_config.d/30.conf", "Port none\nPort 2202\n"),
            ("beside-the-main-file.conf", "Port 2203\n"),
            ("a file", "Port 2204\n"),
            ("1a2b.x", "Port 2205\n"),
            ("12.x", "Port 2206\n"),
            ("1.x", "Port 9\n"),
            ("no", "Port 9\n"),
            ("more", "Port 9\n"),
        ];
        assert_eq!(ports_of(main, &included), [22, 2201, 2202, 2203, 2204, 2205, 2206]);
    }

    #[test]
    fn circular_includes_do_not_loop_forever() {
        assert_eq!(ports_of("Include sshd_config\nInclude sshd_config\nPort 2200\n", &[]), [22, 2200]);
        let each_other = [("a", "Include b\nPort 2201\n"), ("b", "Include a b\nPort 2202\n")];
        assert_eq!(ports_of("Include a\n", &each_other), [22, 2201, 2202]);
    }

    proptest! {
        #[test]
        fn no_line_breaks_the_parser(
            text in "(?s).{0,100}",
            line in "(port|listenaddress|Include)[ =\"'#:*\\]\\[0-9ä]{0,20}",
        ) {
            for line in [text.as_str(), line.as_str(), line.trim_start_matches(char::is_alphabetic)] {
                if let Some((_, value)) = directive(line) {
                    prop_assert!(arguments(value).iter().all(|argument| line.contains(argument.as_str())));
                }
                prop_assert!(port(line).is_none_or(|port| port > 0));
                prop_assert!(listen_port(line).is_none_or(|port| port > 0));
            }
            prop_assert!(matches("*", &text) != text.starts_with('.'));
            prop_assert!(matches(&text, &text) || text.contains('*'));
        }

        #[test]
        fn a_port_is_found_among_any_other_lines(
            before in "(?s).{0,60}",
            port in 1..=65535_u16,
            after in "(?s).{0,60}",
        ) {
            let found = ports_of(format!("{before}\nPort {port}\n{after}"), &[]);
            prop_assert!(found.contains(&port) && found.contains(&22), "{found:?}");
        }
    }

    #[test]
    fn a_file_without_permission_is_noted_and_a_missing_file_is_not() {
        let mut found = SshdPorts::default();
        let denied = |path: &str, found: &mut SshdPorts| {
            found.read::<Vec<u8>>(Path::new(path), Err(io::ErrorKind::PermissionDenied.into()))
        };
        assert_eq!(denied("/etc/ssh/sshd_config.d/50-cloud-init.conf", &mut found), None);
        let missing = found.read::<Vec<u8>>(Path::new("/etc/ssh/other"), Err(io::ErrorKind::NotFound.into()));
        assert_eq!(missing, None);
        assert_eq!(found.read(Path::new("/etc/ssh/sshd_config"), Ok(1)), Some(1));
        assert_eq!(found.unreadable, BTreeSet::from(["/etc/ssh/sshd_config.d/50-cloud-init.conf".into()]));
    }

    #[test]
    fn the_ports_of_a_socket_unit_are_included() {
        let directory = tempfile::tempdir().unwrap();
        let drop_ins = directory.path().join("ssh.socket.d");
        std::fs::create_dir(&drop_ins).unwrap();
        std::fs::write(directory.path().join("ssh.socket"), "[Socket]\nListenStream=22\nAccept=no\n").unwrap();
        std::fs::write(
            drop_ins.join("port.conf"),
            "[Socket]\nListenStream=\nListenStream=0.0.0.0:2201\nListenStream=[::]:2202\n",
        )
        .unwrap();
        std::fs::write(
            directory.path().join("sshd.socket"),
            "[Socket]\nListenStream = 2204\nListenStream=2203\nListenStreams=5\n",
        )
        .unwrap();
        let found = read_ports(Path::new("/nonexistent/sshd_config"), &[directory.path(), Path::new("/nonexistent")]);
        assert_eq!(found.ports, BTreeSet::from([22, 2201, 2202, 2203, 2204]));
    }
}
