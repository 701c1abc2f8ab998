//! Small packets: throughput and round-trip time.

use std::net::SocketAddrV4;
use std::time::Duration;

use sandbox::traffic::{DeliveredLoad, OfferedLoad, offer_load};

use super::pair::{End, INSIDE, Pair};
use crate::case::median;
use crate::run::Result;

/// Bytes of data in a datagram.
const SIZE: usize = 64;
/// The share that may be lost.
const LOSS: f64 = 0.01;
/// A share of losses above which a rate is not tried again.
const CLEARLY: f64 = 0.05;
/// The lowest rate of the search, in datagrams per second.
const LEAST: f64 = 10_000.0;
/// The highest rate of the search, in datagrams per second.
const MOST: f64 = 1_000_000.0;
/// The number of steps of the binary search, the last of which changes the rate by 2 %.
const STEPS: u32 = 8;
/// The duration of one try.
const DURATION: Duration = Duration::from_millis(400);
/// The discard port (RFC 863).
const DISCARD: u16 = 9;

/// The number of echo requests.
const PINGS: usize = 400;
const INTERVAL: &str = "0.005";
const PING_SECONDS: &str = "8";

/// The highest rate in datagrams per second with at most [`LOSS`].
pub(super) fn throughput(pair: &mut Pair<'_>) -> Result<f64> {
    let (mut passed, mut failed, mut best) = (LEAST, MOST, 0.0_f64);
    for _ in 0..STEPS {
        let rate = (passed * failed).sqrt();
        let delivered = twice_if_close(pair, rate)?;
        pair.check_running()?;
        if delivered.loss() <= LOSS {
            passed = rate;
            // A sender that did not keep up has sent less than the offered rate.
            best = best.max(delivered.rate());
        } else {
            failed = rate;
        }
    }
    if best == 0.0 {
        return Err(format!("more than {LOSS} is lost of {LEAST} datagrams a second").into());
    }
    Ok(best)
}

fn twice_if_close(pair: &Pair<'_>, rate: f64) -> Result<DeliveredLoad> {
    let first = try_rate(pair, rate)?;
    let close = first.loss() > LOSS && first.loss() < CLEARLY;
    if close { try_rate(pair, rate) } else { Ok(first) }
}

fn try_rate(pair: &Pair<'_>, rate: f64) -> Result<DeliveredLoad> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between LEAST and MOST")]
    let offered = OfferedLoad { rate: rate as u32, size: SIZE, duration: DURATION };
    let target = SocketAddrV4::new(INSIDE[1], DISCARD);
    Ok(offer_load(pair.namespace(End::Near), pair.namespace(End::Far), target, offered)?)
}

/// The median and the 99th percentile of the round-trip time of an idle tunnel in milliseconds.
pub(super) fn round_trips(pair: &mut Pair<'_>) -> Result<(f64, f64)> {
    let count = PINGS.to_string();
    let words = ["-n", "-c", &count, "-i", INTERVAL, "-w", PING_SECONDS, &INSIDE[1].to_string()];
    let output = pair.namespace(End::Near).command("ping").env("LC_ALL", "C").args(words).output()?;
    pair.check_running()?;
    let output_text = String::from_utf8_lossy(&output.stdout);
    // `64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.236 ms`
    let times = output_text.lines().filter_map(|line| line.split_once(" time=")?.1.strip_suffix(" ms")?.parse().ok());
    let mut times: Vec<f64> = times.collect();
    if times.len() < PINGS * 99 / 100 {
        return Err(format!("only {} of {PINGS} echo requests were answered", times.len()).into());
    }
    times.sort_by(f64::total_cmp);
    Ok((median(times.iter().copied()), times[times.len() * 99 / 100]))
}
