//! How an error is printed: on one line, with its causes.

pub use bastiond_tunnel::error::chain;
