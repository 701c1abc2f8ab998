//! The tunnel: who gets where by it, and its data plane among other implementations.

mod allowed;
mod foreign;
mod hostile;
mod lasting;
mod live;
mod outside;
mod queues;
mod roaming;
mod site;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [
        foreign::trials(),
        roaming::trials(),
        allowed::trials(),
        live::trials(),
        queues::trials(),
        outside::trials(),
        hostile::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Those that wait for the protocol's own times, which are minutes.
pub(crate) fn patient_trials() -> Vec<Trial> {
    lasting::trials()
}
