//! Which paths have passed on this server, over restarts of the daemon and reboots.
//!
//! The file decides one thing only: whether a path that does not pass is `lost` or `unproven`. So a file that is lost,
//! damaged or made up can at worst exchange these two.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::path::Path;
use crate::net::ServerId;

/// How many paths are remembered; the oldest are forgotten first. A server has a few, and one for each of its
/// addresses: no more than there are sources for probes of these.
const MAX_PATHS: usize = 4500;

/// The paths that have passed on one server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The server: a copy of its disk on another server has proven nothing there. `None`: not known.
    server: Option<ServerId>,
    /// The oldest first.
    paths: VecDeque<Path>,
}

impl Proven {
    /// What a file says about this server: nothing if it is another server's.
    #[must_use]
    pub fn on(self, server: Option<ServerId>) -> Self {
        let mut proven =
            if self.server.is_some() && server.is_some() && self.server != server { Self::default() } else { self };
        proven.server = server.or(proven.server);
        while proven.paths.len() > MAX_PATHS {
            proven.paths.pop_front();
        }
        proven
    }

    /// Whether the path has passed on this server.
    pub fn contains(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }

    /// Records that the path has passed.
    pub fn add(&mut self, path: &Path) {
        if !self.contains(path) {
            if self.paths.len() == MAX_PATHS {
                self.paths.pop_front();
            }
            self.paths.push_back(path.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: usize) -> Path {
        let network = format!("10.{}.{}.0/24", number / 256, number % 256).parse().unwrap();
        Path::Private { network }
    }

    #[test]
    fn what_passed_is_remembered_for_the_same_server_only() {
        let mut proven = Proven::default().on(Some(ServerId(7)));
        proven.add(&path(1));
        let file = serde_json::to_string(&proven).unwrap();
        let read = |server| serde_json::from_str::<Proven>(&file).unwrap().on(server);
        assert!(read(Some(ServerId(7))).contains(&path(1)));
        assert!(read(None).contains(&path(1)), "the server's number is not known yet");
        assert!(!read(Some(ServerId(8))).contains(&path(1)));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut proven = Proven::default();
        for number in 0..MAX_PATHS + 10 {
            proven.add(&path(number));
            proven.add(&path(number));
        }
        assert_eq!(proven.paths.len(), MAX_PATHS);
        assert!(!proven.contains(&path(0)) && proven.contains(&path(MAX_PATHS + 9)));
        let long = Proven { server: None, paths: (0..10 * MAX_PATHS).map(path).collect() };
        assert_eq!(long.on(None).paths.len(), MAX_PATHS);
    }
}
