//! The pass, stopped before anything is changed: for `bastionctl plan`.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{Entry, Gateway, PASS};
use crate::component::Steps;
use crate::config::Config;
use crate::inputs::{Inputs, tunnel};
use crate::outcome::{ComponentName, Problem, State};
use crate::site::{FirstSight, MetadataView, Site};

/// What a pass would do.
#[derive(Debug, Default)]
pub(crate) struct Preview {
    /// The server as it was observed.
    pub(crate) site: Site,
    /// What would be done, and what would be wrong.
    pub(crate) steps: Steps,
    /// Whether every component could observe its part of the world.
    pub(crate) is_complete: bool,
}

impl Gateway {
    /// What the next pass would do.
    pub(crate) async fn preview(&mut self, config: &Config, metadata: &MetadataView) -> Preview {
        let site = match self.observe_site(config, metadata, FirstSight::Look).await {
            Ok(site) => site,
            Err(error) => {
                return Preview { steps: (Vec::new(), vec![Problem::from_error(&error)]), ..Preview::default() };
            }
        };
        let tunnel = tunnel(config, &site, &self.seen_return_routes);
        let inputs = Inputs { config, site: &site, tunnel: tunnel.as_ref(), now: Instant::now() };
        let (mut steps, mut problems, mut is_complete) = (Vec::new(), site.problems.clone(), true);
        problems.extend(tunnel.iter().flat_map(|tunnel| tunnel.problems.clone()));
        let tunnel_runs = inputs.tunnel.is_none() || self.wireguard.is_running();
        // What each component is going to be after the pass.
        let mut states = BTreeMap::new();
        for Entry { component, waits_for } in PASS {
            let state = |component| states.get(&component).copied();
            let is_held_back = waits_for.iter().any(|requirement| !requirement.is_met(state, tunnel_runs));
            let component = component(self);
            let name = component.name();
            let preview = if is_held_back {
                component.preview_held_back(&inputs).await
            } else {
                component.preview(&inputs).await
            };
            if name == ComponentName::Nat {
                let needs_every_packet = self.nat.needs_every_packet();
                self.fastpath.note_strangers(needs_every_packet);
            }
            // Without a public link the rules are closed, and nothing is forwarded.
            let is_closed = name == ComponentName::Nat && inputs.site.public.is_none();
            match preview {
                Ok((more, obstacles)) => {
                    states.insert(name, if is_closed { State::Waiting } else { State::Ok });
                    steps.extend(more);
                    problems.extend(obstacles);
                }
                Err(problem) => {
                    states.insert(name, State::Failed);
                    problems.push(problem);
                    is_complete = false;
                }
            }
        }
        Preview { site, steps: (steps, problems), is_complete }
    }
}
