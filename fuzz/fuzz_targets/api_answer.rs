//! Whatever the API, or something in its place, answers: it is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Either is fine; what is read has been checked by its types.
    let _ = bastiond::internals::hcloud::api::parse_network(bytes);
    if let Some(error) = bastiond::internals::hcloud::api::parse_error_body(bytes) {
        assert!(!error.code.is_empty() || !error.message.is_empty());
    }
});
