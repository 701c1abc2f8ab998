//! Requests of `bastionctl`.
//!
//! What takes its time is answered beside the loop: after a large attack nft needs a second to list all sources, and
//! nothing may delay the repair of a rule.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::descriptors::forget_descriptors;
use super::planning::complete_plan;
use super::waits::{MIN_INTERVAL, SETTLE, tick};
use super::{Daemon, loading};
use crate::config::{self, Config};
use crate::control::{Request, Response};
use crate::error::chain;
use crate::nat;
use crate::outcome::Problem;
use crate::printable::printable;
use crate::report::Report;
use crate::site::MetadataView;
use crate::site::metadata::Watcher;

/// How long a plan waits for a metadata service that the daemon does not ask itself.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

impl Daemon {
    /// Answers at once, or when the work is done. When the next pass is due, if there was one.
    pub(super) async fn answer(&mut self, request: Request, answer: oneshot::Sender<Response>) -> Option<Instant> {
        match request {
            Request::Status {} | Request::Down {} => {
                self.gateway.refresh().await;
                let paths = self.prober.reports().borrow().clone();
                self.gateway.learn_paths(paths);
                answer_report(self.gateway.report().clone(), answer);
                None
            }
            Request::Peers {} => {
                self.gateway.refresh_tunnel().await;
                let tunnel = self.gateway.report().tunnel.clone().map(Box::new);
                let way_in = self.gateway.way_in(&self.config);
                // Err, here and below: the client has gone.
                let _ = answer.send(Response::Peers { tunnel, way_in });
                None
            }
            Request::WhoCanReach { place, protocol, port } => {
                let found = self.gateway.who_can_reach(&self.config, &place, protocol, port);
                let _ = answer.send(match found {
                    Ok(reachers) => Response::Reachers { reachers },
                    Err(reason) => Response::Refused { reason },
                });
                None
            }
            Request::Reload { path } => self.answer_reload(&path, answer).await,
            Request::Plan { candidate } => {
                let path = candidate.as_ref().map_or(self.path.as_path(), |bundle| bundle.path()).to_owned();
                let config = match candidate {
                    Some(bundle) => loading::check(*bundle, &self.environment).await,
                    None => loading::load(&self.path, &self.environment).await.map(|(config, _)| config),
                };
                match config {
                    Ok(config) => self.answer_plan(path, config, answer).await,
                    Err(error) => answer_wrong_configuration(&error, answer),
                }
                None
            }
            Request::Unban { address } => {
                answer_unban(address, answer);
                None
            }
            Request::Reconcile {} => {
                self.operators.push(answer);
                let soonest = self.operators_passed.map_or_else(Instant::now, |passed| passed + MIN_INTERVAL);
                self.operators_due = self.operators_due.or(Some(soonest));
                None
            }
        }
    }

    async fn answer_plan(&mut self, path: PathBuf, config: Config, answer: oneshot::Sender<Response>) {
        let changes = config::difference(&self.written, &config);
        let config = config.at(SystemTime::now());
        let view = self.metadata_for(&config).await;
        let preview = self.gateway.preview(&config, &view).await;
        let state_directory = self.environment.state_directory();
        tokio::spawn(async move {
            let plan = complete_plan(&path, &state_directory, &config, Some(changes), preview).await;
            let _ = answer.send(Response::Plan(plan));
        });
    }

    async fn answer_reload(&mut self, path: &Path, answer: oneshot::Sender<Response>) -> Option<Instant> {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if real(path) != real(&self.path) {
            let reason = format!(
                "the daemon runs with {}, and not with {}",
                self.path.display(),
                printable(&path.to_string_lossy())
            );
            let _ = answer.send(Response::Refused { reason });
            return None;
        }
        match self.reload().await {
            Ok(next_pass) => {
                let (way_in, obstacles) = (self.gateway.way_in(&self.config), self.gateway.obstacles_of_peers());
                let _ = answer.send(Response::Reloaded { way_in, obstacles });
                Some(next_pass)
            }
            Err(error) => {
                answer_wrong_configuration(&error, answer);
                None
            }
        }
    }

    /// The metadata as this configuration would see it. A candidate may ask another service than the daemon does.
    async fn metadata_for(&self, config: &Config) -> MetadataView {
        let wanted = config.site.metadata_to_query();
        if wanted == self.config.site.metadata_to_query() {
            return self.metadata.view().borrow().clone();
        }
        let watcher = Watcher::start_without_memory(wanted);
        let mut view = watcher.view();
        let settled = tokio::time::timeout(METADATA_TIMEOUT, view.wait_for(|view| view.settled)).await;
        settled.ok().and_then(Result::ok).map(|view| view.clone()).unwrap_or_default()
    }

    /// Takes everything down, answers, and ends. It may take a minute; the watchdog is served meanwhile.
    pub(super) async fn down(self, answer: oneshot::Sender<Response>, mut watchdog: Option<tokio::time::Interval>) {
        let Self { config, mut gateway, cloud, mut notifier, prober, .. } = self;
        notifier.status("going down");
        drop(prober);
        let work = async {
            let mut hcloud = cloud.end().await;
            let site = gateway.site().clone();
            gateway.down(&config, &site, &mut *hcloud).await
        };
        let (steps, problems) = {
            let mut work = std::pin::pin!(work);
            loop {
                tokio::select! {
                    done = &mut work => break done,
                    () = tick(&mut watchdog) => notifier.alive(),
                }
            }
        };
        forget_descriptors(&mut gateway, &notifier);
        tracing::info!("down: {}", steps.join("; "));
        let _ = answer.send(Response::Steps { steps, problems });
        // A task of its own sends the answer to the client.
        tokio::time::sleep(SETTLE).await;
        notifier.stopping();
    }
}

/// Sends the report, with what the rules have dropped.
pub(super) fn answer_report(mut report: Report, answer: oneshot::Sender<Response>) {
    tokio::spawn(async move {
        report.firewall = nat::firewall_report().await;
        name_refused_peers(&mut report);
        let _ = answer.send(Response::Report { report: Box::new(report) });
    });
}

/// Says by name whose packets lists refused.
fn name_refused_peers(report: &mut Report) {
    let Some((firewall, tunnel)) = report.firewall.as_mut().zip(report.tunnel.as_ref()) else { return };
    for source in &mut firewall.refused_peers.busiest {
        let ranges = tunnel.peers.iter().flat_map(|peer| peer.allowed_ips.iter().map(move |range| (peer, range)));
        let of_source = ranges.filter(|(_, range)| range.contains(&source.address));
        let narrowest = of_source.max_by_key(|(_, range)| range.prefix_len());
        source.name = narrowest.map(|(peer, _)| peer.name.clone().unwrap_or_else(|| peer.public_key.to_string()));
    }
}

/// There is nothing to plan: a reload would be refused.
fn answer_wrong_configuration(error: &config::Error, answer: oneshot::Sender<Response>) {
    let problems = error.diagnostics().iter().map(ToString::to_string).collect();
    let _ = answer.send(Response::WrongConfiguration { reason: chain(error), problems });
}

fn answer_unban(address: IpAddr, answer: oneshot::Sender<Response>) {
    tokio::spawn(async move {
        let _ = answer.send(describe_unban(address, nat::unban(address).await));
    });
}

fn describe_unban(address: IpAddr, done: Result<bool, nat::Error>) -> Response {
    match done {
        Ok(true) => {
            tracing::info!(component = "nat", source = %address, "an operator lifted the ban of {address}");
            Response::Steps { steps: vec![format!("{address} is no longer banned")], problems: Vec::new() }
        }
        Ok(false) => Response::Refused { reason: format!("{address} is not banned") },
        Err(error) => {
            let problem = Problem::from_error(&error);
            Response::Steps { steps: Vec::new(), problems: vec![problem] }
        }
    }
}
