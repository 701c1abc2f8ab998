//! The kernel's table of flows: how large it is, and how long a silent flow stays in it. Sources: the kernel's
//! `Documentation/networking/nf_conntrack-sysctl.rst`, and RFC 5382 and RFC 4787 for what NATs owe TCP and UDP.
//!
//! The table belongs to the connection tracking module, which comes with the first rules that ask for a flow's state:
//! before that none of these settings exists. The size belongs to the whole machine: in a container's network namespace
//! it can only be read.

use super::model::{Need, Setting};

/// Fewest entries, however little memory there is: the default of kernels since 5.15 on machines with 1 to 4 GiB.
const MIN_ENTRIES: u64 = 65_536;
/// Most entries. Ports run out earlier: sixteen addresses to one destination, or sixteen busy destinations of one
/// address.
const MAX_ENTRIES: u64 = 1_048_576;
const GIB: u64 = 1 << 30;
/// An entry takes 256 bytes, with its extensions and its share of the buckets some 400. So a full table takes 5 % of
/// the memory.
const BYTES_PER_ENTRY: u64 = 8192;

/// How long a flow may be silent before the kernel forgets it, in seconds.
const TIMEOUTS: [(&str, u32); 5] = [
    // RFC 5382 REQ-5: at least 2 h 4 min, just longer than the 2 h after which TCP's keepalive asks (RFC 1122 section
    // 4.2.3.6). The kernel's default of 5 days lets dead connections occupy a NAT's scarce ports.
    ("tcp_timeout_established", 7440),
    // The kernel's default: one side has closed, the other is silent.
    ("tcp_timeout_close_wait", 60),
    // Both sides have closed. The kernel's default of 120 s would occupy a port of busy clients four times as long; it
    // is the host in TIME_WAIT that has to recognise stray segments (RFC 9293 section 3.6.1).
    ("tcp_timeout_time_wait", 30),
    // The kernel's default, for questions without an answer. RFC 4787 REQ-5 wants two minutes, and allows less for
    // well-known ports, to which most such questions go (DNS, NTP).
    ("udp_timeout", 30),
    // RFC 4787 REQ-5: at least two minutes once packets go both ways; with room for a keepalive that is lost or late.
    ("udp_timeout_stream", 180),
];

/// The kernel's default: a packet from the middle of an unknown connection begins a flow. Without it such a packet is
/// invalid: its sender would get no reset, and untranslated connections would not survive a reboot of the gateway.
const LOOSE: (&str, u32) = ("tcp_loose", 1);

/// The kernel reports only the flows that the rules choose, and those also if nobody listened when they began. With its
/// default, 2, such a flow would never report its end, and would be counted for ever; with 1 all flows are prepared for
/// reports, which makes a new one 5 % dearer (measured). Set before the rules.
pub(super) const EVENTS: (&str, &str) = ("events", "0");

/// What the fast path needs: connection tracking does not see most packets of a flow that takes it, so it cannot judge
/// whether the sequence numbers of the others are right, and would find the end of a connection invalid. They stay
/// until `bastionctl down` or a reboot: connections that are open when the fast path is switched off still need them.
const UNSEEN_PACKETS: [&str; 2] = ["tcp_be_liberal", "tcp_ignore_invalid_rst"];

/// What the names of the table's settings begin with, below `net/netfilter`.
pub(super) const PREFIX: &str = "nf_conntrack_";
/// What follows in the names of those that are written.
pub(super) const SETTINGS: [&str; 11] = [
    EVENTS.0,
    "buckets",
    "max",
    TIMEOUTS[0].0,
    TIMEOUTS[1].0,
    TIMEOUTS[2].0,
    TIMEOUTS[3].0,
    TIMEOUTS[4].0,
    LOOSE.0,
    UNSEEN_PACKETS[0],
    UNSEEN_PACKETS[1],
];

/// The setting of [`EVENTS`].
pub(super) fn events() -> Setting {
    setting(EVENTS.0, EVENTS.1.to_owned(), Need::Tuned)
}

/// The settings of [`UNSEEN_PACKETS`].
pub(super) fn unseen_packets() -> impl Iterator<Item = Setting> {
    UNSEEN_PACKETS.into_iter().map(|name| setting(name, "1".to_owned(), Need::Tuned))
}

fn setting(name: &str, value: String, need: Need) -> Setting {
    Setting { path: format!("net/netfilter/{PREFIX}{name}"), value, need }
}

pub(super) fn desired(memory: Option<u64>) -> Vec<Setting> {
    let entries = memory.map(entries).into_iter();
    // As many buckets as entries, as kernels since 5.15 have it: each entry is in two of them, so chains are two long.
    // First the buckets, so that the table is never larger than they bear.
    let sizes =
        entries.flat_map(|entries| ["buckets", "max"].map(|name| setting(name, entries.to_string(), Need::AtLeast)));
    let tuned = TIMEOUTS.into_iter().chain([LOOSE]);
    sizes.chain(tuned.map(|(name, value)| setting(name, value.to_string(), Need::Tuned))).collect()
}

/// Entries for this many bytes of memory. The kernel reports less than a machine is sold with, so memory counts in full
/// GiB, rounded up; with one or less the table stays small.
fn entries(memory: u64) -> u64 {
    let gib = memory.div_ceil(GIB);
    if gib <= 1 {
        return MIN_ENTRIES;
    }
    // A power of two, since the kernel rounds the number of buckets up to whole pages.
    gib.next_power_of_two().saturating_mul(GIB / BYTES_PER_ENTRY).clamp(MIN_ENTRIES, MAX_ENTRIES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_grows_with_the_memory_up_to_a_million() {
        let mib = |mib: u64| entries(mib << 20);
        // What is left of 512 MB, 1, 2, 4, 8 and 16 GB after the kernel took its own.
        assert_eq!(
            [mib(460), mib(960), mib(1930), mib(3820), mib(7750), mib(15_600)].map(|entries| entries / 1024),
            [64, 64, 256, 512, 1024, 1024]
        );
    }

    #[test]
    fn without_known_memory_only_the_times_are_set() {
        assert_eq!(desired(None).len(), TIMEOUTS.len() + 1);
        let sizes: Vec<Setting> = desired(Some(4 * GIB)).into_iter().take(2).collect();
        let size = |name: &str| Setting {
            path: format!("net/netfilter/nf_conntrack_{name}"),
            value: "524288".to_owned(),
            need: Need::AtLeast,
        };
        assert_eq!(sizes, [size("buckets"), size("max")]);
    }

    proptest! {
        #[test]
        fn more_memory_never_means_a_smaller_table_and_a_full_one_never_takes_a_tenth(
            memory in 1_u64..1 << 45, more in 0_u64..1 << 40,
        ) {
            prop_assert!(entries(memory + more) >= entries(memory));
            prop_assert!(entries(memory).is_power_of_two());
            prop_assert!(memory < GIB / 2 || entries(memory) * 400 <= memory / 10);
        }
    }
}
