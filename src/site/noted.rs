//! The ports that sshd listens on, noted by a unit that may read all of sshd's configuration, for a daemon that may not: a
//! `Port` in a file for root alone must not lock anybody out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::sshd::{self, Found};
use crate::outcome::Problem;
use crate::state;

/// In the runtime directory.
const FILE: &str = "ssh-ports.json";
/// sshd's own configuration.
const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";

/// Why the ports are not noted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A note that lacks a port would be worse than none.
    #[error("cannot read {} (run this by bastiond-ssh-ports.service, or as root)", path.display())]
    Hidden {
        /// The first such file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error(transparent)]
    State(#[from] state::Error),
}

/// Notes which ports sshd listens on.
pub fn note(runtime_directory: &Path) -> Result<BTreeSet<u16>, Error> {
    keep(look(), runtime_directory)
}

fn keep(Found { ports, hidden }: Found, runtime_directory: &Path) -> Result<BTreeSet<u16>, Error> {
    if let Some(path) = hidden.into_iter().next() {
        return Err(Error::Hidden { path });
    }
    state::write_json(&runtime_directory.join(FILE), &ports)?;
    Ok(ports)
}

/// The ports that sshd listens on, as far as they can be known here, and what has to be said of the rest.
pub(super) fn ports(runtime_directory: &Path) -> (BTreeSet<u16>, Vec<Problem>) {
    together(look(), runtime_directory)
}

fn together(Found { mut ports, hidden }: Found, runtime_directory: &Path) -> (BTreeSet<u16>, Vec<Problem>) {
    // Read even when nothing is hidden: a port too many is open for nobody, one too few shuts the operator out.
    let noted: Option<BTreeSet<u16>> = state::read_json(&runtime_directory.join(FILE));
    let hints = match (&noted, hidden.first()) {
        (None, Some(path)) => vec![Problem::new(
            format!("{} may be read by others only: a port of sshd in it stays shut", path.display()),
            "`systemctl start bastiond-ssh-ports` notes the ports; or chmod 644 it, or write firewall.ssh_ports",
        )],
        _ => Vec::new(),
    };
    ports.extend(noted.unwrap_or_default());
    (ports, hints)
}

fn look() -> Found {
    sshd::look(Path::new(SSHD_CONFIG), &sshd::UNIT_DIRECTORIES.map(Path::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ports: &[u16], hidden: &[&str]) -> Found {
        Found { ports: ports.iter().copied().collect(), hidden: hidden.iter().map(PathBuf::from).collect() }
    }

    #[test]
    fn a_port_in_a_file_that_the_daemon_may_not_read_is_known_by_the_note() {
        let runtime = tempfile::tempdir().unwrap();
        let root_sees = found(&[22, 2222], &[]);
        assert_eq!(keep(root_sees, runtime.path()).unwrap(), BTreeSet::from([22, 2222]));
        let daemon_sees = || found(&[22], &["/etc/ssh/sshd_config.d/50-cloud-init.conf"]);
        assert_eq!(together(daemon_sees(), runtime.path()), (BTreeSet::from([22, 2222]), Vec::new()));
        // A new note takes the place of the old one.
        keep(found(&[22, 2200], &[]), runtime.path()).unwrap();
        assert_eq!(together(daemon_sees(), runtime.path()).0, BTreeSet::from([22, 2200]));
    }

    #[test]
    fn without_a_note_a_hidden_file_is_told_and_without_hidden_files_nothing_is() {
        let runtime = tempfile::tempdir().unwrap();
        let (ports, hints) = together(found(&[22], &["/etc/ssh/sshd_config.d/50-cloud-init.conf"]), runtime.path());
        assert_eq!(ports, BTreeSet::from([22]));
        assert_eq!(hints.len(), 1);
        assert!(hints[0].what.contains("50-cloud-init.conf") && hints[0].advice.contains("firewall.ssh_ports"));
        assert_eq!(together(found(&[22, 9], &[]), runtime.path()), (BTreeSet::from([22, 9]), Vec::new()));
    }

    #[test]
    fn what_could_not_be_read_whole_is_not_noted_and_an_older_note_stays() {
        let runtime = tempfile::tempdir().unwrap();
        keep(found(&[22, 2222], &[]), runtime.path()).unwrap();
        let error = keep(found(&[22], &["/etc/ssh/sshd_config"]), runtime.path()).unwrap_err();
        assert!(error.to_string().contains("/etc/ssh/sshd_config"), "{error}");
        assert_eq!(together(found(&[22], &[]), runtime.path()).0, BTreeSet::from([22, 2222]));
    }
}
