//! `bastiond`, the daemon.
fn main() {}
