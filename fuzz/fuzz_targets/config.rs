//! Any text is a configuration, or is refused with errors on clean single lines.
#![no_main]

use bastiond::internals::config::{Environment, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Err(problems) = parse(text, &Environment::default()) else { return };
    assert!(!problems.is_empty(), "refused without a reason");
    // Those of one key are in natural order.
    assert!(problems.is_sorted_by_key(|problem| &problem.key), "{problems:?}");
    for problem in &problems {
        assert!(!problem.key.is_empty() && !problem.reason.is_empty(), "{problem:?}");
        assert!(!problem.to_string().contains(|c: char| c.is_control()), "{problem:?}");
    }
});
