//! The paths of traffic as the account has them: what probes prove, and what the tunnel's peers tell.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::Ipv4Net;
use tokio::time::Instant;

use super::Gateway;
use crate::config::Config;
use crate::error::chain;
use crate::health::{Orders, Path, PathReport, PathState};
use crate::inputs::tunnel;
use crate::nat;
use crate::state;

/// The file in the state directory of the tunnel's paths that have passed on this server.
pub(super) const TUNNEL_FILE: &str = "tunnel-paths.json";

impl Gateway {
    /// Checks the tunnel's peers between passes. Whether a path has another state now.
    pub(crate) async fn check_peers(&mut self) -> bool {
        let Some(seen) = self.wireguard.check_peers(Instant::now()).await else { return false };
        let before = self.tunnel_paths.proven().clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.tunnel_paths.update(&seen, nat::tunnel_port_count(), self.site.server_id, now);
        if *self.tunnel_paths.proven() != before {
            let file = self.state_directory.join(TUNNEL_FILE);
            if let Err(error) = state::write_json(&file, self.tunnel_paths.proven()) {
                let error = chain(&error);
                tracing::warn!(component = "health", error, "a path that passes may count as unproven later");
            }
        }
        self.show_paths().1
    }

    /// Takes over what is known about the probed paths; whether one of them has been lost now.
    pub(crate) fn learn_paths(&mut self, paths: Vec<PathReport>) -> bool {
        self.probed_paths = paths;
        self.show_paths().0
    }

    /// Without a tunnel nothing is known of its paths.
    pub(super) fn forget_tunnel_paths(&mut self) {
        self.tunnel_paths.clear();
        self.show_paths();
    }

    /// Shows all paths. Whether one has been lost now, and whether one has another state now.
    fn show_paths(&mut self) -> (bool, bool) {
        let mut paths = self.probed_paths.clone();
        paths.extend(self.tunnel_paths.reports());
        let known: BTreeMap<&Path, PathState> =
            self.report.paths.iter().map(|report| (&report.path, report.state)).collect();
        let (mut is_lost, mut is_news) = (false, false);
        for PathReport { path, state, detail, .. } in &paths {
            let before = known.get(path).copied();
            let why = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            is_news |= before != Some(*state);
            match (state, before) {
                (state, Some(before)) if *state == before => {}
                // The tunnel itself tells of peers.
                (_, _) if !path.is_ours() => {}
                // Nothing is known of a path before its first probe.
                (PathState::Unproven, None) => {}
                (PathState::Lost, _) => {
                    is_lost = true;
                    tracing::warn!(component = "health", %path, %state, "{path} is lost{why}");
                }
                _ => tracing::info!(component = "health", %path, %state, "{path} is {state}{why}"),
            }
        }
        self.report.learn_paths(paths);
        (is_lost, is_news)
    }

    /// What is to be probed now.
    pub(crate) fn probe_orders(&self, config: &Config) -> Orders {
        let tunnel = tunnel(config, &self.site, &self.seen_return_routes);
        Orders::new(config, &self.site, tunnel.as_ref(), self.obstacles_to_probes(config))
    }

    /// By private network: what drops probes although it lets private hosts pass.
    pub(crate) fn obstacles_to_probes(&self, config: &Config) -> BTreeMap<Ipv4Net, String> {
        self.nat.obstacles_to_probes(config, &self.site)
    }
}
