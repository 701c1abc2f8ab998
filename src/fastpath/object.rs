//! The compiled programs, and what they are called.
//!
//! `bpf/fastpath.o` is made from `bpf/fastpath.c` by `scripts/build-fastpath-object`, and `make check` makes it again
//! and compares every byte. So nobody needs a compiler for BPF to build this program.

/// The object file.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("bpf/fastpath.o");

/// The program at the ingress of links, which carries packets.
pub(super) const FORWARD: &str = "forward";
/// The program at their egress, which learns.
pub(super) const LEARN: &str = "learn";
/// The map of the flows, which no file stands for: the programs alone use it.
pub(super) const FLOWS: &str = "flows";
/// The map of the generation.
pub(super) const CONTROL: &str = "control";
/// The map of the counters.
pub(super) const COUNTERS: &str = "counters";

/// Raised when the loader gives the same object other constants.
const LOADER: u64 = 1;

/// The name of what is pinned, by content: programs of another version are replaced.
pub(super) fn version() -> String {
    // FNV-1a. It tells versions apart and proves nothing.
    let digest = OBJECT.iter().fold(0xcbf2_9ce4_8422_2325_u64 ^ LOADER, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{digest:016x}")
}
