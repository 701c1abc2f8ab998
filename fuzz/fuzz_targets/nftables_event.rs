//! Whatever nftables' netlink group says: it is judged, and a look is not missed for bytes that cannot be read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let concerns = bastiond::internals::nat::concerns_our_table(bytes);
    let changes = bastiond::internals::nat::changes_rules(bytes);
    if bytes.len() < 16 {
        assert!(concerns && changes, "too short to be a message");
    }
});
