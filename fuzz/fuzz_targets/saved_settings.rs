//! Any bytes as the file of former kernel settings: no line names what is not a setting of this daemon, or holds more
//! than a number.
#![no_main]

use bastiond::internals::sysctl::saved_settings_of;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for line in saved_settings_of(bytes).iter().flat_map(|lines| lines.lines()) {
        let [path, was, became] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("not three words: {line:?}") };
        // An interface may be called `..eth0`, but not `..`.
        let leads_elsewhere = path.split('/').any(|part| matches!(part, "" | "." | ".."));
        assert!(path.starts_with("net/") && !leads_elsewhere, "{line:?}");
        for value in [was, became] {
            assert!(!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()), "{line:?}");
        }
    }
});
