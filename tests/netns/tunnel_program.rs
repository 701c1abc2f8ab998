//! The program `bastiond-tunnel`. It is of another package of the workspace, which `cargo test -p bastiond` does not
//! build.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::gateway::programs;

/// Where it is: beside `bastiond`.
pub(crate) fn path() -> PathBuf {
    programs().join("bastiond-tunnel")
}

/// Builds it, unless it is newer than its sources, or there are none: the machines of `scripts/test-vm` have programs
/// only. Call this before the process enters its namespaces.
///
/// # Panics
/// If it cannot be built.
pub(crate) fn build_if_outdated() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tunnel");
    let changed = newest(&sources.join("src")).and_then(|time| Ok(time.max(modified(&sources.join("Cargo.toml"))?)));
    match (modified(&path()), changed) {
        (Ok(built), Ok(changed)) if built > changed => return,
        (Ok(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => return,
        _ => {}
    }
    let profile = match programs().file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    command.args(["build", "--quiet", "--locked", "--package", "bastiond-tunnel", "--bins", "--profile", profile]);
    command.arg("--target-dir").arg(programs().parent().expect("programs are in a directory of the target directory"));
    let built = command.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(
        built.as_ref().is_ok_and(std::process::ExitStatus::success) && path().exists(),
        "cannot build {}, which the tests of the tunnel start ({command:?}: {built:?})",
        path().display()
    );
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

/// When a file below the directory was changed last.
fn newest(directory: &Path) -> io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        newest = newest.max(if entry.file_type()?.is_dir() { self::newest(&path)? } else { modified(&path)? });
    }
    Ok(newest)
}
