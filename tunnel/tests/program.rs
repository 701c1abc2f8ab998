//! What `bastiond-tunnel` says of itself. Tests with interfaces and packets are among those of bastiond
//! (`tests/netns`).

use std::process::{Command, Output};

fn run(argument: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bastiond-tunnel")).arg(argument).output().expect("the program starts")
}

#[test]
fn bastiond_tunnel_explains_itself() {
    let version = run("--version");
    assert_eq!(
        (version.status.code(), String::from_utf8_lossy(&version.stdout).as_ref()),
        (Some(0), concat!("bastiond-tunnel ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let help = run("--help").stdout;
    let help = String::from_utf8_lossy(&help);
    for word in ["Usage: bastiond-tunnel [OPTIONS] [INTERFACE]", "--foreground", "LOG_LEVEL", "WG_TUN_FD"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    let bad = run("wg/0");
    let message = String::from_utf8_lossy(&bad.stderr);
    assert_eq!(bad.status.code(), Some(1));
    assert!(message.contains("`wg/0` is not an interface name"), "{message}");
}
