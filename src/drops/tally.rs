//! Which interfaces packets that no rule lets pass come in by, or would leave by. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long an interface is remembered after its last packet.
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// So many logged packets are no accident. The rules log five a second at most.
const ENOUGH: u32 = 5;
/// How many interfaces are remembered.
const REMEMBERED: usize = 32;
/// The counter of what no rule of the chain `forward` lets pass.
const REASON: &str = "dropped_forward";

/// The interfaces, with how many of their packets were logged and when the last one was.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<String, (u32, Instant)>);

impl Tally {
    /// Takes over a packet that was dropped on its way from one interface to another.
    pub(super) fn add(&mut self, reason: &str, from: &str, to: &str, now: Instant) {
        if reason != REASON || from == to {
            return;
        }
        self.0.retain(|_, (_, last)| now.saturating_duration_since(*last) < WINDOW);
        for name in [from, to] {
            if self.0.len() < REMEMBERED || self.0.contains_key(name) {
                let (count, last) = self.0.entry(name.to_owned()).or_insert((0, now));
                (*count, *last) = (count.saturating_add(1), now);
            }
        }
    }

    /// Those of which enough packets were dropped lately.
    pub(super) fn interfaces(&self, now: Instant) -> Vec<String> {
        let is_now = |(count, last): &(u32, Instant)| *count >= ENOUGH && now.saturating_duration_since(*last) < WINDOW;
        self.0.iter().filter(|(_, entry)| is_now(entry)).map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_counts_after_five_packets_and_until_ten_minutes_after_the_last_one() {
        let (mut tally, start) = (Tally::default(), Instant::now());
        for second in 0..5 {
            assert_eq!(tally.interfaces(start), Vec::<String>::new());
            tally.add("dropped_forward", "wg1", "eth1", start + Duration::from_secs(second));
        }
        assert_eq!(tally.interfaces(start), ["eth1", "wg1"]);
        assert_eq!(tally.interfaces(start + Duration::from_secs(603)), ["eth1", "wg1"]);
        assert_eq!(tally.interfaces(start + Duration::from_secs(604)), Vec::<String>::new());
        // A forgotten interface starts at zero again.
        tally.add("dropped_forward", "wg1", "eth1", start + Duration::from_secs(605));
        assert_eq!(tally.interfaces(start + Duration::from_secs(605)), Vec::<String>::new());
    }

    #[test]
    fn other_reasons_and_packets_that_would_leave_where_they_came_in_do_not_count() {
        let (mut tally, now) = (Tally::default(), Instant::now());
        for _ in 0..9 {
            tally.add("dropped_tenant", "wg1", "eth1", now);
            tally.add("dropped_forward", "eth0", "eth0", now);
        }
        assert_eq!(tally.interfaces(now), Vec::<String>::new());
    }

    #[test]
    fn thirty_two_interfaces_are_remembered_and_no_more() {
        let (mut tally, now) = (Tally::default(), Instant::now());
        for number in 0..1000 {
            for _ in 0..ENOUGH {
                tally.add("dropped_forward", &format!("tap{number}"), "eth0", now);
            }
        }
        assert_eq!(tally.interfaces(now).len(), REMEMBERED);
    }
}
