//! The descriptors of the tunnel that a daemon of version 0.1.0 had the service manager store.

use crate::reconcile::Gateway;
use crate::systemd::Notifier;

/// Has the service manager close what the tunnel's process has by now, or nobody needs.
pub(super) fn forget_descriptors(gateway: &mut Gateway, notifier: &Notifier) {
    let mut names = gateway.unused_descriptors();
    names.sort();
    names.dedup();
    for name in names {
        notifier.forget(&name);
    }
}
