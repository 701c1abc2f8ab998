//! `sandbox`: opens the world for a person.
fn main() {}
