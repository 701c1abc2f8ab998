//! Whether the state directory is this server's own.
//!
//! A server that is made from another one's snapshot has its state directory, with the tunnel's private key. Two
//! servers with one key take each other's peers away, and both want the same cloud routes. So the server's number is
//! remembered.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::model::Site;
use crate::error::chain;
use crate::net::ServerId;
use crate::outcome::Problem;
use crate::state;

/// The file in the state directory.
const FILE: &str = "server.json";

/// The content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    server_id: ServerId,
}

/// What to do with a server's number that is not remembered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstSight {
    /// It is written to the state directory.
    Remember,
    /// Nothing: this is only a preview.
    Look,
}

/// Compares the server's number with the remembered one, and completes the site. Which server keeps the key is a
/// person's decision, so nothing but the first number is ever written.
pub(crate) fn check(state_directory: &Path, site: &mut Site, first_sight: FirstSight) {
    let Some(server_id) = site.server_id else { return };
    let path = state_directory.join(FILE);
    match state::read_json::<Remembered>(&path) {
        Some(known) if known.server_id == server_id => {}
        Some(known) => {
            let state = state_directory.display();
            site.state_of = Some(known.server_id);
            site.problems.push(Problem::new(
                "state-of-other-server",
                format!(
                    "this is server {server_id}, but its state directory is that of server {}: both have the same \
                     WireGuard key",
                    known.server_id
                ),
                format!(
                    "if it was made from the other one's snapshot and replaces it, keep the key: rm {state}/{FILE}; if \
                     both go on, make a key of its own: rm {state}/{FILE} {state}/wireguard.key && systemctl restart \
                     bastiond; until then no route that leads to another server is replaced"
                ),
            ));
        }
        None if first_sight == FirstSight::Look => {}
        None => {
            if let Err(error) = state::write_json(&path, &Remembered { server_id }) {
                tracing::debug!(component = "site", error = %chain(&error), "the server's number is not remembered");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(directory: &Path, number: Option<u64>, first_sight: FirstSight) -> Site {
        let mut site = Site { server_id: number.map(ServerId), ..Site::default() };
        check(directory, &mut site, first_sight);
        site
    }

    #[test]
    fn the_state_of_another_server_is_noticed_until_a_person_decides() {
        let directory = tempfile::tempdir().unwrap();
        let checked = |number, first_sight| checked(directory.path(), number, first_sight);
        let plain = |number| Site { server_id: Some(ServerId(number)), ..Site::default() };
        assert_eq!(checked(Some(2), FirstSight::Look), plain(2));
        assert_eq!(checked(None, FirstSight::Remember), Site::default());
        assert_eq!(checked(Some(1), FirstSight::Remember), plain(1));
        assert_eq!(checked(Some(1), FirstSight::Remember), plain(1));
        for _ in 0..2 {
            let site = checked(Some(2), FirstSight::Remember);
            assert_eq!((site.state_of, site.problems.len()), (Some(ServerId(1)), 1));
            let text = site.problems[0].to_string();
            assert!(text.contains("this is server 2,") && text.contains("that of server 1:"), "{text}");
        }
        std::fs::remove_file(directory.path().join(FILE)).unwrap();
        assert_eq!(checked(Some(2), FirstSight::Remember), plain(2));
        assert_eq!(checked(Some(1), FirstSight::Look).state_of, Some(ServerId(2)));
    }
}
