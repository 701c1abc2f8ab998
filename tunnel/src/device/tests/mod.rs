//! Whole devices over a pretended wire: `talk` needs no clock, `time` turns one by hand.

mod odd;
mod refused;
mod talk;
#[cfg(feature = "virtual-clock")]
mod time;
mod world;
