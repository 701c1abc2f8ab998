//! `bastionctl`, the operator's tool.
fn main() {}
