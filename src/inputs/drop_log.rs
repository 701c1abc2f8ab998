//! Where dropped packets are logged: the rules write there, and the daemon reads what goes to its own group.

use crate::config::LogDrops;

/// The nflog group that the daemon listens to. Ulogd's examples use 0 to 2.
pub const JOURNAL_GROUP: u16 = 5178;

/// The nflog group that the rules log dropped packets to; `None`: they are counted only.
pub(crate) fn nflog_group(log_drops: LogDrops) -> Option<u16> {
    match log_drops {
        LogDrops::Journal => Some(JOURNAL_GROUP),
        LogDrops::Group(group) => Some(group),
        LogDrops::Off => None,
    }
}
