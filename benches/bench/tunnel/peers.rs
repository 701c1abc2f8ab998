//! Ten thousand peers: how long it takes to tell, and what they weigh.

use std::io::Write as _;
use std::time::Duration;

use super::config;
use super::pair::{End, Pair};
use super::program::Program;
use super::tcp::{Direction, transfer};
use crate::Result;
use crate::case::median;
use crate::units::milliseconds;

const PEERS: usize = 10_000;
/// Peers that are added one by one, because most of such a time is the start of `wg`.
const ADDED: usize = 9;
/// What the start itself set in motion is over.
const SETTLED: Duration = Duration::from_secs(1);

/// In the order in which they are measured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    /// `wg setconf`, in milliseconds.
    Setconf,
    /// MiB without traffic ...
    Idle,
    /// ... and with four streams.
    Load,
    /// `wg set` with one peer more; the median of [`ADDED`] times.
    Add,
    /// `wg syncconf` of what is there already.
    Sync,
}

/// Fills in what can be measured until something fails.
pub(super) fn measure(program: &Program, values: &mut [f64]) -> Result {
    let mut fill = |value: Value, number: f64| values[value as usize] = number;
    let mut pair = Pair::lay(program, PEERS)?;
    pair.start()?;
    fill(Value::Setconf, milliseconds(pair.configure(End::Near)?));
    pair.configure(End::Far)?;
    pair.prime()?;
    std::thread::sleep(SETTLED);
    fill(Value::Idle, pair.device(End::Near)?.resident()?);
    fill(Value::Load, transfer(&mut pair, 4, Direction::Forth)?.resident);
    let mut random = fastrand::Rng::with_seed(13);
    let newcomers: Vec<_> = config::strangers(&mut random).skip(PEERS).take(ADDED).collect();
    let (mut took, mut text) = (Vec::new(), String::new());
    for (key, address) in &newcomers {
        let words = ["peer", &config::encoded(key), "allowed-ips", &format!("{address}/32")];
        took.push(milliseconds(pair.wg(End::Near, "set", &words)?));
        config::add_peer(&mut text, key, *address, None);
    }
    fill(Value::Add, median(took.into_iter()));
    // With the newcomers too: the same as is there.
    let path = pair.config(End::Near).clone();
    std::fs::OpenOptions::new().append(true).open(&path)?.write_all(text.as_bytes())?;
    fill(Value::Sync, milliseconds(pair.wg(End::Near, "syncconf", &[&path.to_string_lossy()])?));
    Ok(())
}
