//! The descriptors of the tunnel outlive the daemon.

use crate::reconcile::Gateway;
use crate::systemd::Notifier;

/// Has the service manager keep the tunnel's descriptors for the next daemon.
pub(super) fn store_descriptors(gateway: &mut Gateway, notifier: &Notifier) {
    let Some(handover) = gateway.handover() else { return };
    for name in &handover.forget {
        notifier.forget(name);
    }
    for (name, descriptors) in handover.keep {
        notifier.keep(&name, descriptors);
    }
}
