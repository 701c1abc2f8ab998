//! Entering a namespace: only threads do, never the process.

use std::fs::File;
use std::panic::resume_unwind;
use std::thread;

use nix::sched::{CloneFlags, setns};

/// Runs `task` on a new thread in the namespace of `handle` and waits for it. A panic in `task` is passed to the
/// caller.
pub(super) fn run_in<T: Send>(handle: &File, task: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        setns(handle, CloneFlags::CLONE_NEWNET)
            .expect("an isolated process has the capabilities to enter its namespaces");
        task()
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
}
