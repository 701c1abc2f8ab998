//! How often one source may start a handshake while the interface is under load.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Handshakes a second and source (kernel: `PACKETS_PER_SECOND`, drivers/net/wireguard/ratelimiter.c).
const PER_SECOND: u32 = 20;
/// Handshakes at once (kernel: `PACKETS_BURSTABLE`).
const BURST: u32 = 5;
/// The most sources in the table. If it is full, no new source is admitted until old ones are removed, which takes a
/// second.
const SOURCES: usize = 8192;
/// The shortest time between two searches for old sources (kernel: `wg_ratelimiter_gc_entries`, each second).
const FORGET_INTERVAL: Duration = Duration::from_secs(1);
const COST: Duration = Duration::from_nanos(1_000_000_000 / PER_SECOND as u64);

/// Limits handshakes by source: an IPv4 address, or an IPv6 network of 64 bits, since a host has all addresses of its
/// network.
#[derive(Debug, Default)]
pub(super) struct SourceLimiter {
    /// For each, when its bucket will be full again (the generic cell rate algorithm).
    full_at: HashMap<IpAddr, Duration>,
    forgotten_at: Duration,
}

impl SourceLimiter {
    /// Without any source.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Whether one more handshake of this source is admitted; it is counted if so.
    pub(super) fn admit(&mut self, address: IpAddr, now: Duration) -> bool {
        let source = source(address);
        if self.full_at.len() >= SOURCES && !self.full_at.contains_key(&source) {
            // At most once a second, since it reads the whole table.
            if now < self.forgotten_at + FORGET_INTERVAL {
                return false;
            }
            self.forget_old(now);
            if self.full_at.len() >= SOURCES {
                return false;
            }
        }
        let full_at = self.full_at.entry(source).or_insert(now);
        let next = (*full_at).max(now) + COST;
        let admitted = next <= now + COST * BURST;
        if admitted {
            *full_at = next;
        }
        admitted
    }

    /// Removes sources whose bucket is full.
    pub(super) fn forget_old(&mut self, now: Duration) {
        self.forgotten_at = now;
        self.full_at.retain(|_, full_at| *full_at > now);
    }
}

fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(sources: &mut SourceLimiter, address: &str, times: usize, now: Duration) -> usize {
        (0..times).filter(|_| sources.admit(address.parse().unwrap(), now)).count()
    }

    #[test]
    fn a_source_gets_five_at_once_and_twenty_a_second() {
        let mut sources = SourceLimiter::new();
        let start = Duration::from_secs(9);
        assert_eq!(admitted(&mut sources, "203.0.113.9", 100, start), 5);
        assert_eq!(admitted(&mut sources, "203.0.113.10", 100, start), 5);
        let second: usize = (1..=100)
            .map(|step| admitted(&mut sources, "203.0.113.9", 10, start + Duration::from_millis(step * 10)))
            .sum();
        assert_eq!(second, 20);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let mut sources = SourceLimiter::new();
        let total: usize =
            (0..50).map(|host| admitted(&mut sources, &format!("2001:db8::{host:x}"), 1, Duration::ZERO)).sum();
        assert_eq!(total, 5);
        assert_eq!(admitted(&mut sources, "2001:db8:0:1::1", 1, Duration::ZERO), 1);
    }

    #[test]
    fn a_flood_of_addresses_does_not_exceed_the_size_of_the_table() {
        let mut sources = SourceLimiter::new();
        for host in 0..20_000_u32 {
            sources.admit(IpAddr::V4((0x0b00_0000 + host).into()), Duration::ZERO);
        }
        assert_eq!(sources.full_at.len(), SOURCES);
        sources.forget_old(Duration::from_secs(1));
        assert_eq!(sources.full_at.len(), 0);
        assert_eq!(admitted(&mut sources, "203.0.113.9", 1, Duration::from_secs(1)), 1);
    }

    #[test]
    fn a_full_table_makes_space_by_removing_old_sources() {
        let mut sources = SourceLimiter::new();
        for host in 0..20_000_u32 {
            sources.admit(IpAddr::V4((0x0b00_0000 + host).into()), Duration::ZERO);
        }
        assert_eq!(admitted(&mut sources, "203.0.113.9", 1, Duration::ZERO), 0);
        assert_eq!(admitted(&mut sources, "203.0.113.9", 1, Duration::from_secs(2)), 1);
    }
}
