//! The programs of the fast path, loaded for tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use sandbox::daemon::Installation;

use crate::gateway::{Result, ensure, text};

/// With this variable set, all gateways of the tests have the fast path in BPF that say nothing else, and the tests of
/// what passes a gateway run only.
pub(crate) const EVERYWHERE: &str = "BASTIOND_TEST_FASTPATH";

/// Where the BPF file system of the tests is mounted: a directory of the sandbox's own `/run`.
const BPFFS: &str = "/run/bpf";

/// The life of an entry of the flow cache, and a little more.
const FORGETS: Duration = Duration::from_millis(1100);

/// Whether all gateways have the fast path.
pub(crate) fn is_everywhere() -> bool {
    std::env::var_os(EVERYWHERE).is_some()
}

/// Waits until a change that others made, or a test itself, holds for the flows of all gateways: with the fast path at
/// most a second, without it at once. What the daemon changes holds at once in any case.
pub(crate) fn let_foreign_change_hold() {
    if is_everywhere() {
        std::thread::sleep(FORGETS);
    }
}

/// Whether tests that need the programs are ignored, because this process may not load them: that takes root of the
/// machine, not of a user namespace. In CI they fail then.
pub(crate) fn are_ignored() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let may_load = nix::unistd::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"]);
    !may_load && std::env::var_os("BASTIOND_REQUIRE_BPF").is_none()
}

/// The directory of one test.
pub(crate) fn directory(test: &str) -> PathBuf {
    Path::new(BPFFS).join(test)
}

/// The directory of one test, with the programs loaded.
pub(crate) fn loaded(test: &str) -> Result<PathBuf> {
    static MOUNTED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let mounted = MOUNTED.get_or_init(|| {
        std::fs::create_dir_all(BPFFS).map_err(|error| error.to_string())?;
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(|error| error.to_string())
    });
    mounted.clone()?;
    let directory = directory(test);
    load(&directory, &[])?;
    Ok(directory)
}

/// Loads the programs into a directory of the BPF file system, with these further arguments.
pub(crate) fn load(directory: &Path, arguments: &[&str]) -> Result {
    let program = env!("CARGO_BIN_EXE_bastiond-fastpath");
    let output = Command::new(program).arg("--directory").arg(directory).args(arguments).output()?;
    ensure(output.status.success(), text(&output.stderr))
}

/// The installation with the fast path, if all gateways have it.
pub(crate) fn if_everywhere(installation: Installation<'_>) -> Result<Installation<'_>> {
    static INSTALLATIONS: AtomicU32 = AtomicU32::new(0);
    if !is_everywhere() {
        return Ok(installation);
    }
    let directory = loaded(&format!("everywhere-{}", INSTALLATIONS.fetch_add(1, Ordering::Relaxed)))?;
    Ok(installation.env("BASTIOND_BPF_DIRECTORY", &directory.to_string_lossy()).with_fast_path("bpf"))
}
