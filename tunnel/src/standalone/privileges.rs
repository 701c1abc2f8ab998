//! Gives up what the process may do besides what its descriptors allow. Under systemd the unit has taken it already.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

/// Drops every capability, for good, and leaves the session of the caller. No other thread may run yet: a thread's
/// capabilities are its own.
pub(super) fn give_up() -> io::Result<()> {
    // Err: it leads a session already.
    let _ = nix::unistd::setsid();
    set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    if capabilities(None)? == (CapabilitySets { effective: none, permitted: none, inheritable: none }) {
        return Ok(());
    }
    // What is not permitted is not ambient either (capabilities(7)).
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
