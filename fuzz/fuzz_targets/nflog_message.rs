//! Any nflog message: its packets are described on one line each or left out.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for dropped in bastiond::internals::drops::read(bytes) {
        let line = dropped.to_string();
        assert!(line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{line:?}");
        assert!(line.len() < 256, "{line:?}");
    }
});
