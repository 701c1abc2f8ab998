//! Whatever nftables answers to the question about our counters.
#![no_main]

use bastiond::internals::nat::counters_in;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(counters) = counters_in(bytes) {
        assert!(counters.len() <= bytes.len() / 16, "more counters than messages: {counters:?}");
    }
});
