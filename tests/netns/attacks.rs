//! Attacks, each by a program in the sandbox that does what an attacker would do. `docs/security.md` says who may
//! attack and which test shows what holds.

mod answers;
mod metadata;
mod monitors;
mod neighbours;
mod packets;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [answers::trials(), metadata::trials(), monitors::trials(), neighbours::trials(), packets::trials()]
        .into_iter()
        .flatten()
        .collect()
}
