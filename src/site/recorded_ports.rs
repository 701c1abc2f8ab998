//! The ports that sshd listens on, recorded by a unit that can read all of sshd's configuration.
//!
//! The daemon is not root and cannot read every file of that configuration. A `Port` in a file that only root can read
//! must not lock anyone out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::sshd::{self, SshdPorts};
use super::{sshd_options, sshd_sockets};
use crate::outcome::Problem;
use crate::state;

/// The record, in the runtime directory.
const FILE: &str = "ssh-ports.json";
/// sshd's own configuration.
const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";

/// Why the ports are not recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Part of sshd's configuration cannot be read. An incomplete record would be worse than none.
    #[error("cannot read {} (start bastiond-ssh-ports.service, or run this as root)", path.display())]
    Unreadable {
        /// The first file that cannot be read.
        path: PathBuf,
    },
    /// The record cannot be written.
    #[error(transparent)]
    State(#[from] state::Error),
}

/// Records the ports that sshd listens on, and returns them.
pub fn record(runtime_directory: &Path) -> Result<BTreeSet<u16>, Error> {
    let (mut found, is_seen) = read_sshd_config();
    if !is_seen {
        // sshd is starting again: what it listened on before counts until it is seen.
        found.ports.extend(recorded(runtime_directory).unwrap_or_default());
    }
    write(found, runtime_directory)
}

fn recorded(runtime_directory: &Path) -> Option<BTreeSet<u16>> {
    state::read_json(&runtime_directory.join(FILE))
}

fn write(SshdPorts { ports, unreadable }: SshdPorts, runtime_directory: &Path) -> Result<BTreeSet<u16>, Error> {
    if let Some(path) = unreadable.into_iter().next() {
        return Err(Error::Unreadable { path });
    }
    state::write_json(&runtime_directory.join(FILE), &ports)?;
    Ok(ports)
}

/// The ports that sshd listens on, as far as the daemon can know them, and a hint if some may be missing.
pub(crate) fn sshd_ports(runtime_directory: &Path) -> (BTreeSet<u16>, Vec<Problem>) {
    add_recorded(read_sshd_config().0, runtime_directory)
}

fn add_recorded(
    SshdPorts { mut ports, unreadable }: SshdPorts,
    runtime_directory: &Path,
) -> (BTreeSet<u16>, Vec<Problem>) {
    // Used even if everything can be read: a port without a listener is harmless, but a missing port locks the operator
    // out.
    let recorded = recorded(runtime_directory);
    let hints = match (&recorded, unreadable.first()) {
        (None, Some(path)) => vec![Problem::new(
            "sshd-configuration-unreadable",
            format!("bastiond cannot read {}: an SSH port in it stays closed", path.display()),
            "run `systemctl start bastiond-ssh-ports`, which records the ports; or run `chmod 644` on the file, or set \
             firewall.ssh_ports",
        )],
        _ => Vec::new(),
    };
    ports.extend(recorded.unwrap_or_default());
    (ports, hints)
}

/// What the files say and what the kernel shows, and whether this process sees an SSH server that listens.
fn read_sshd_config() -> (SshdPorts, bool) {
    let unit_directories = sshd::UNIT_DIRECTORIES.map(Path::new);
    let mut found = sshd::read_ports(Path::new(SSHD_CONFIG), &unit_directories);
    sshd_options::add_ports(&sshd_options::DEFAULTS.map(Path::new), &unit_directories, &mut found);
    let listening = sshd_sockets::listening_ports(Path::new("/proc"));
    let is_seen = !listening.is_empty();
    found.ports.extend(listening);
    (found, is_seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ports: &[u16], unreadable: &[&str]) -> SshdPorts {
        let unreadable = unreadable.iter().map(PathBuf::from).collect();
        SshdPorts { ports: ports.iter().copied().collect(), unreadable }
    }

    #[test]
    fn a_port_in_a_file_that_the_daemon_cannot_read_is_known_from_the_record() {
        let runtime = tempfile::tempdir().unwrap();
        let root_sees = found(&[22, 2222], &[]);
        assert_eq!(write(root_sees, runtime.path()).unwrap(), BTreeSet::from([22, 2222]));
        let daemon_sees = || found(&[22], &["/etc/ssh/sshd_config.d/50-cloud-init.conf"]);
        assert_eq!(add_recorded(daemon_sees(), runtime.path()), (BTreeSet::from([22, 2222]), Vec::new()));
        // A new record replaces the old one.
        write(found(&[22, 2200], &[]), runtime.path()).unwrap();
        assert_eq!(add_recorded(daemon_sees(), runtime.path()).0, BTreeSet::from([22, 2200]));
    }

    #[test]
    fn an_unreadable_file_gives_a_hint_only_if_there_is_no_record() {
        let runtime = tempfile::tempdir().unwrap();
        let (ports, hints) = add_recorded(found(&[22], &["/etc/ssh/sshd_config.d/50-cloud-init.conf"]), runtime.path());
        assert_eq!(ports, BTreeSet::from([22]));
        assert_eq!(hints.len(), 1);
        assert!(hints[0].what.contains("50-cloud-init.conf") && hints[0].advice.contains("firewall.ssh_ports"));
        assert_eq!(add_recorded(found(&[22, 9], &[]), runtime.path()), (BTreeSet::from([22, 9]), Vec::new()));
    }

    #[test]
    fn an_incomplete_result_is_not_recorded_and_the_old_record_stays() {
        let runtime = tempfile::tempdir().unwrap();
        write(found(&[22, 2222], &[]), runtime.path()).unwrap();
        let error = write(found(&[22], &["/etc/ssh/sshd_config"]), runtime.path()).unwrap_err();
        assert!(error.to_string().contains("/etc/ssh/sshd_config"), "{error}");
        assert_eq!(add_recorded(found(&[22], &[]), runtime.path()).0, BTreeSet::from([22, 2222]));
    }
}
