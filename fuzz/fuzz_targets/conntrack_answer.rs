//! Whatever connection tracking answers: flows are read or left out, and one that is read is encoded the same.
#![no_main]

use bastiond::internals::conntrack::{encode_flow, parse_flow, read_answer};
use libfuzzer_sys::fuzz_target;

/// The sequence number of the request.
const SEQUENCE: u32 = 1;

fuzz_target!(|bytes: &[u8]| {
    let (flows, _) = read_answer(bytes, SEQUENCE);
    let alone = parse_flow(bytes).ok().flatten();
    for flow in flows.into_iter().chain(alone) {
        let again = parse_flow(&encode_flow(&flow)).expect("what is encoded can be read");
        assert_eq!(again, Some(flow));
    }
});
