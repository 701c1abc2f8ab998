//! Any bytes are a configuration of wg(8) and wg-quick(8), or are refused with errors on clean single lines.
#![no_main]

use std::collections::HashSet;

use bastiond_tunnel::file::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match parse(bytes) {
    Ok(file) => {
        let (mut keys, mut nets) = (HashSet::new(), HashSet::new());
        for peer in &file.peers {
            assert!(keys.insert(peer.public_key), "{file:?}");
            for &net in &peer.allowed_ips {
                assert!(net == net.trunc() && nets.insert(net), "{file:?}");
            }
        }
    }
    Err(problems) => {
        assert!(!problems.is_empty(), "refused without a reason");
        assert!(problems.is_sorted_by_key(|problem| problem.line), "{problems:?}");
        for problem in &problems {
            assert!(problem.line > 0 && !problem.reason.is_empty(), "{problem:?}");
            assert!(!problem.to_string().contains(|c: char| c.is_control()), "{problem:?}");
        }
    }
});
