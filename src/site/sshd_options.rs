//! Reads the ports in the options that sshd is started with: `SSHD_OPTS` of Debian's `/etc/default/ssh`, and the
//! command lines of its units.

use std::collections::BTreeSet;
use std::path::Path;

use super::sshd::{self, SshdPorts};

/// Debian's and Fedora's files of variables for the unit.
pub(super) const DEFAULTS: [&str; 3] = ["/etc/default/ssh", "/etc/default/sshd", "/etc/sysconfig/sshd"];
/// The units of the daemon; a connection of `ssh.socket` has one of the latter two.
const UNITS: [&str; 4] = ["ssh.service", "sshd.service", "ssh@.service", "sshd@.service"];
/// The options of sshd(8) that take a value.
const WITH_VALUE: &str = "CEbcfghkoptu";

/// Adds the ports that the options name. Those of a file that a later one replaces count too: an open port without a
/// listener is harmless.
pub(super) fn add_ports(defaults: &[&Path], unit_directories: &[&Path], found: &mut SshdPorts) {
    for path in defaults {
        for line in lines(path, found) {
            // `SSHD_OPTS="-p 2200"`, whatever the variable is called.
            if let Some((_, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                add_options(unquoted(value.trim()), found);
            }
        }
    }
    for directory in unit_directories {
        for unit in UNITS {
            let drop_ins = sshd::expand(directory, &format!("{unit}.d/*.conf"), found);
            for file in [vec![directory.join(unit)], drop_ins].concat() {
                for line in lines(&file, found) {
                    let command = line.strip_prefix("ExecStart").and_then(|rest| rest.trim_start().strip_prefix('='));
                    let options = command.and_then(|command| command.trim().split_once(char::is_whitespace));
                    if let Some((_, options)) = options {
                        add_options(options, found);
                    }
                    // `Environment=SSHD_OPTS=-p\ 2200` or with the whole assignment in quotes.
                    let assigned =
                        line.strip_prefix("Environment").and_then(|rest| rest.trim_start().strip_prefix('='));
                    let value = assigned.and_then(|text| unquoted(text.trim()).split_once('='));
                    if let Some((_, value)) = value {
                        add_options(unquoted(value), found);
                    }
                }
            }
        }
    }
}

fn lines(path: &Path, found: &mut SshdPorts) -> Vec<String> {
    let Some(bytes) = found.read(path, sshd::read_file(path)) else { return Vec::new() };
    // A line that ends with a backslash continues on the next one.
    let text = String::from_utf8_lossy(&bytes).replace("\\\n", " ");
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn unquoted(text: &str) -> &str {
    let inside = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(text)
}

/// Adds what a command line names, by the rules of getopt(3).
fn add_options(options: &str, found: &mut SshdPorts) {
    let mut words = sshd::arguments(options).into_iter();
    while let Some(word) = words.next() {
        let Some(letters) = word.strip_prefix('-') else { continue };
        let Some((at, letter)) = letters.char_indices().find(|(_, letter)| WITH_VALUE.contains(*letter)) else {
            continue;
        };
        let attached = &letters[at + letter.len_utf8()..];
        let value = if attached.is_empty() { words.next().unwrap_or_default() } else { attached.to_owned() };
        match letter {
            'p' => found.ports.extend(sshd::port(unquoted(&value))),
            // `-o Port=2200`, as a line of the file.
            'o' => sshd::add_line(unquoted(&value), found),
            'f' => sshd::add_file(Path::new(unquoted(&value)), found),
            _ => {}
        }
    }
}

/// The ports that the lines of a text name as sshd's configuration, without files that it includes, and as its options,
/// without files that they name.
pub fn ports_in(text: &str) -> BTreeSet<u16> {
    let mut found = SshdPorts::default();
    for line in text.lines() {
        sshd::add_line(line, &mut found);
        if !line.contains('f') {
            add_options(unquoted(line), &mut found);
        }
    }
    found.ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports_of(options: &str) -> Vec<u16> {
        let mut found = SshdPorts::default();
        add_options(options, &mut found);
        found.ports.into_iter().collect()
    }

    #[test]
    fn a_port_is_found_in_every_form_of_an_option() {
        for options in [
            "-p 2200",
            "-p2200",
            "-D -p 2200",
            "-Dp 2200",
            "-Dp2200 -e",
            "-o Port=2200",
            "-oPort=2200",
            "-o \"Port 2200\"",
            "-o ListenAddress=0.0.0.0:2200",
            "-E /var/log/p -p 2200 $SSHD_OPTS",
        ] {
            assert_eq!(ports_of(options), [2200], "{options}");
        }
        assert_eq!(ports_of("-p 2200 -p 2201"), [2200, 2201]);
        for options in ["", "-D", "-p", "-p x", "-E -p", "-o PermitRootLogin=no", "2200", "-u 2200"] {
            assert_eq!(ports_of(options), Vec::<u16>::new(), "{options}");
        }
    }

    #[test]
    fn variables_command_lines_and_other_files_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("ssh.service.d")).unwrap();
        std::fs::write(at("default"), "# SSHD_OPTS=\"-p 9\"\nSSHD_OPTS=\"-p 2201\"\nOTHER='-p2202'\n").unwrap();
        std::fs::write(at("other_config"), "Port 2203\n").unwrap();
        std::fs::write(at("ssh.service"), "[Service]\nExecStart=/usr/sbin/sshd -D $SSHD_OPTS\n").unwrap();
        let drop_in = format!(
            "[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D \\\n -f {}\nEnvironment=\"SSHD_OPTS=-p 2204\"\n",
            at("other_config").display()
        );
        std::fs::write(at("ssh.service.d/port.conf"), drop_in).unwrap();
        let mut found = SshdPorts::default();
        add_ports(&[&at("default"), &at("missing")], &[directory.path()], &mut found);
        assert_eq!(found.ports, BTreeSet::from([2201, 2202, 2203, 2204]));
    }
}
