//! The account that `plan` and `down` work as when root runs them without a daemon.
//!
//! They read and write the daemon's own directories, where the daemon's account may have put anything. So they take on
//! that account, and keep the one capability that it has for the network. What only root may read (the configuration,
//! the API token) is read before that.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::config::Environment;

/// For nft, netlink and the settings below `/proc/sys/net`.
const NEEDED: [Capability; 1] = [Capability::CAP_NET_ADMIN];

/// Why the account could not be taken on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The kernel refuses a step.
    #[error("cannot take on the account of the daemon (user {uid}, group {gid}): {step}")]
    Refused {
        /// The owner of the state directory.
        uid: u32,
        /// Its group.
        gid: u32,
        /// What was tried.
        step: &'static str,
        /// The answer.
        source: io::Error,
    },
}

/// Takes on the account that owns the state directory, or else the runtime directory. Nothing changes if this process
/// is not root's, or if these directories are root's or are not there. It holds for this thread and those that it
/// starts, so it has to be called before others are.
pub(super) fn take_on(environment: &Environment) -> Result<(), Error> {
    let owner = || {
        let directories = [environment.state_directory(), environment.runtime_directory()];
        directories.iter().find_map(|directory| owner_of(directory))
    };
    let Some((uid, gid)) = owner().filter(|(uid, _)| Uid::effective().is_root() && *uid != 0) else { return Ok(()) };
    let refused = |step: &'static str| move |source: io::Error| Error::Refused { uid, gid, step, source };
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    prctl::set_keepcaps(true).map_err(|errno| refused("to keep capabilities")(errno.into()))?;
    setgroups(&[group]).map_err(|errno| refused("to leave root's groups")(errno.into()))?;
    setresgid(group, group, group).map_err(|errno| refused("to change the group")(errno.into()))?;
    setresuid(user, user, user).map_err(|errno| refused("to change the user")(errno.into()))?;
    let needed: CapsHashSet = NEEDED.into_iter().collect();
    // In this order: a set may only hold what the set before it holds (capabilities(7)).
    for (set, step) in [
        (CapSet::Effective, "to limit the effective capabilities"),
        (CapSet::Permitted, "to limit the permitted capabilities"),
        (CapSet::Inheritable, "to limit the inheritable capabilities"),
        (CapSet::Ambient, "to hand capabilities to nft"),
    ] {
        caps::set(None, set, &needed).map_err(|error| refused(step)(io::Error::other(error)))?;
    }
    Ok(())
}

fn owner_of(directory: &Path) -> Option<(u32, u32)> {
    directory.symlink_metadata().ok().map(|metadata| (metadata.uid(), metadata.gid()))
}
