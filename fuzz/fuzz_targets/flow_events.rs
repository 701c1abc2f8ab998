//! Whatever the kernel says of flows that are born and that end: events are counted or left out, and no source has more
//! flows than its events stand for.
#![no_main]

use bastiond::internals::conntrack::count_events;
use libfuzzer_sys::fuzz_target;

/// The most flows that one event stands for: three bits of a mark hold the logarithm plus one.
const MOST: u64 = 64;

fuzz_target!(|bytes: &[u8]| {
    let (events, flows) = count_events(bytes);
    let counted: u64 = flows.iter().map(|(_, flows)| u64::from(*flows)).sum();
    assert!(counted <= events * MOST, "{counted} flows of {events} events");
});
