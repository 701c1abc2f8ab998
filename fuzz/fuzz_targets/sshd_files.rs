//! Any text as sshd's configuration or options: what is found are ports, and a pattern of `Include` means what glob(3)
//! makes of it.
#![no_main]

use bastiond::internals::site::{sshd_includes, sshd_ports_in};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for port in sshd_ports_in(text) {
        assert!(port > 0 && text.contains(&port.to_string()), "{port} is not in {text:?}");
    }
    let mut lines = text.lines();
    if let (Some(pattern), Some(name)) = (lines.next(), lines.next()) {
        if pattern.contains('*') && pattern.len() + name.len() < 64 {
            let is_hidden = pattern.starts_with('*') && name.starts_with('.');
            let expected = !is_hidden && is_match(pattern.as_bytes(), name.as_bytes());
            assert_eq!(sshd_includes(pattern, name), expected, "{pattern:?} {name:?}");
        }
    }
});

/// The same by comparing every prefix.
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    // Whether the pattern so far matches the first bytes of the name, for each number of them.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for &wanted in pattern {
        let before = reached.clone();
        let mut any = false;
        for length in 0..=name.len() {
            any |= before[length];
            reached[length] =
                if wanted == b'*' { any } else { length > 0 && before[length - 1] && name[length - 1] == wanted };
        }
    }
    reached[name.len()]
}
