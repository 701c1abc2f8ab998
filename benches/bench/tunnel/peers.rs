//! Ten thousand peers: the time to configure them, and the memory that they need.

use std::io::Write as _;
use std::time::Duration;

use super::config;
use super::pair::{End, Pair};
use super::program::Program;
use super::tcp::{Direction, transfer};
use crate::case::median;
use crate::run::Result;
use crate::units::milliseconds;

const PEERS: usize = 10_000;
/// The number of peers that are added one by one. Most of the time of each is the start of `wg`.
const ADDED: usize = 9;
/// How long to wait after the start.
const SETTLED: Duration = Duration::from_secs(1);

/// The measured values in their order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    /// The duration of `wg setconf` in milliseconds.
    Setconf,
    /// The resident memory without traffic in MiB.
    Idle,
    /// The resident memory under four TCP streams in MiB.
    Load,
    /// The median duration of adding one peer with `wg set`, in milliseconds.
    Add,
    /// The duration of `wg syncconf` without changes, in milliseconds.
    Sync,
}

/// Measures all values until one fails.
pub(super) fn measure(program: &Program, values: &mut [f64]) -> Result {
    let mut fill = |value: Value, number: f64| values[value as usize] = number;
    let mut pair = Pair::build(program, PEERS)?;
    pair.start()?;
    fill(Value::Setconf, milliseconds(pair.configure(End::Near)?));
    pair.configure(End::Far)?;
    pair.prime()?;
    std::thread::sleep(SETTLED);
    fill(Value::Idle, pair.device(End::Near)?.resident()?);
    fill(Value::Load, transfer(&mut pair, 4, Direction::Upload)?.resident);
    let mut random = fastrand::Rng::with_seed(13);
    let added_peers: Vec<_> = config::unused_peers(&mut random).skip(PEERS).take(ADDED).collect();
    let (mut took, mut text) = (Vec::new(), String::new());
    for (key, address) in &added_peers {
        let words = ["peer", &config::encoded(key), "allowed-ips", &format!("{address}/32")];
        took.push(milliseconds(pair.wg(End::Near, "set", &words)?));
        config::add_peer(&mut text, key, *address, None);
    }
    fill(Value::Add, median(took.into_iter()));
    // The file includes the added peers, so that nothing changes.
    let path = pair.config(End::Near).clone();
    std::fs::OpenOptions::new().append(true).open(&path)?.write_all(text.as_bytes())?;
    fill(Value::Sync, milliseconds(pair.wg(End::Near, "syncconf", &[&path.to_string_lossy()])?));
    Ok(())
}
