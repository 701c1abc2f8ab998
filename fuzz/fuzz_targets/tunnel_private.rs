//! Any message on the private socket between daemon and tunnel, on either side, and any answer of UAPI to the daemon:
//! it is read or refused, and what was read is sent the same.
#![no_main]

use bastiond_tunnel::internals::{Reader, format_get};
use bastiond_tunnel::private::message::{Answer, Ask, Given, Request, parse};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    is_read_the_same::<Request>(bytes);
    is_read_the_same::<Answer>(bytes);
    is_read_the_same::<Ask>(bytes);
    is_read_the_same::<Given>(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut reader = Reader::default();
    if text.lines().all(|line| reader.line(line).is_some()) {
        let snapshot = reader.snapshot();
        let told = format_get(&snapshot);
        let mut again = Reader::default();
        for line in told.lines().take_while(|line| !line.starts_with("errno=")) {
            again.line(line).expect("what is told can be read");
        }
        assert_eq!(again.snapshot(), snapshot);
    }
});

fn is_read_the_same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = parse::<T>(bytes) {
        let sent = serde_json::to_vec(&message).expect("a message can be sent");
        assert_eq!(parse::<T>(&sent).expect("what was sent can be read"), message);
    }
}
