//! Which ports sshd listens on, by its own configuration: whoever moved SSH to another port must not be locked out by
//! installing a firewall.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// sshd(8)'s own default.
const DEFAULT_PORT: u16 = 22;
/// As deep as sshd itself follows `Include` (OpenSSH servconf.c).
const MAX_DEPTH: usize = 16;
/// More files than anybody has.
const MAX_FILES: usize = 256;

/// Port 22 and every port that the file, or a file it includes, names. What cannot be read adds nothing.
pub(super) fn ports(path: &Path) -> BTreeSet<u16> {
    let mut ports = BTreeSet::from([DEFAULT_PORT]);
    let mut left = MAX_FILES;
    collect(path, 0, &mut left, &mut ports);
    ports
}

fn collect(path: &Path, depth: usize, left: &mut usize, ports: &mut BTreeSet<u16>) {
    if depth > MAX_DEPTH || *left == 0 {
        return;
    }
    *left -= 1;
    let Ok(text) = std::fs::read_to_string(path) else { return };
    for line in text.lines() {
        match directive(line) {
            Some(("port", value)) => ports.extend(value.parse::<u16>().ok()),
            Some(("listenaddress", value)) => ports.extend(listen_port(value)),
            Some(("include", patterns)) => {
                let directory = path.parent().unwrap_or(Path::new("/"));
                for included in patterns.split_whitespace().flat_map(|pattern| expand(directory, pattern)) {
                    collect(&included, depth + 1, left, ports);
                }
            }
            _ => {}
        }
    }
}

/// Keyword in lower case, and its arguments. sshd takes `Key value` and `Key=value`.
fn directive(line: &str) -> Option<(&'static str, &str)> {
    let line = line.trim();
    let end = line.find(|c: char| c.is_whitespace() || c == '=')?;
    let keyword =
        ["port", "listenaddress", "include"].into_iter().find(|known| line[..end].eq_ignore_ascii_case(known))?;
    let value = line[end..].trim_start_matches(|c: char| c.is_whitespace() || c == '=');
    Some((keyword, value.split('#').next().unwrap_or_default().trim()))
}

/// The port of `host:port`, `[v6]:port`; a bare address has none.
fn listen_port(value: &str) -> Option<u16> {
    let value = value.split_whitespace().next()?;
    if let Some((_, port)) = value.rsplit_once("]:") {
        return port.parse().ok();
    }
    let (host, port) = value.rsplit_once(':')?;
    if host.contains(':') { None } else { port.parse().ok() }
}

/// The files of an `Include` pattern; `*` in the last component only, which is what distributions ship.
fn expand(directory: &Path, pattern: &str) -> Vec<PathBuf> {
    let path = directory.join(pattern.trim_matches('"'));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((prefix, suffix)) = name.split_once('*') else { return vec![path] };
    let entries = path.parent().and_then(|parent| std::fs::read_dir(parent).ok());
    let matches = |file: &Path| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.len() >= prefix.len() + suffix.len() && name.starts_with(prefix) && name.ends_with(suffix)
    };
    let mut files: Vec<PathBuf> =
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).filter(|file| matches(file)).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports_of(main: &str, included: &[(&str, &str)]) -> Vec<u16> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sshd_config.d")).unwrap();
        for (name, text) in included {
            std::fs::write(directory.path().join("sshd_config.d").join(name), text).unwrap();
        }
        let path = directory.path().join("sshd_config");
        std::fs::write(&path, main).unwrap();
        ports(&path).into_iter().collect()
    }

    #[test]
    fn port_22_is_always_among_them() {
        assert_eq!(ports_of("# Port 4444\nPermitRootLogin no\n", &[]), [22]);
        assert_eq!(ports(Path::new("/nonexistent/sshd_config")), BTreeSet::from([22]));
    }

    #[test]
    fn every_port_that_sshd_is_told_is_found() {
        let main = "Port 2222\nport=2223 # second\nListenAddress 0.0.0.0:2224\nListenAddress [::]:2225\nListenAddress ::1\n\
                    Include sshd_config.d/*.conf\n";
        let included =
            [("10-port.conf", "Port 2226\n"), ("20-off.conf.disabled", "Port 9\n"), ("30.conf", "Port none\n")];
        assert_eq!(ports_of(main, &included), [22, 2222, 2223, 2224, 2225, 2226]);
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        assert_eq!(ports_of("Include sshd_config\nPort 2200\n", &[]), [22, 2200]);
    }
}
