//! Whatever comes in by the control socket: it is one of the requests or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = bastiond::internals::control::parse_request(bytes) {
        let line = serde_json::to_vec(&request).expect("a request has string keys only");
        assert_eq!(bastiond::internals::control::parse_request(&line).expect("what is written can be read"), request);
    }
});
