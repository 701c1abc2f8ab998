//! Requests of `bastionctl`.
//!
//! What takes its time is answered beside the loop: after a large attack nft needs a second to list all sources, and
//! nothing may delay the repair of a rule.

use std::net::IpAddr;
use std::path::Path;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Daemon;
use super::descriptors::store_descriptors;
use super::waits::{SETTLE, tick};
use crate::component::{Steps, preview};
use crate::config::{self, Config};
use crate::control::{Request, Response};
use crate::error::chain;
use crate::hcloud::Hcloud;
use crate::inputs::Inputs;
use crate::nat;
use crate::outcome::Problem;
use crate::report::{Report, Trigger};
use crate::site::Site;

impl Daemon {
    /// Answers at once, or when the work is done. When the next pass is due, if there was one.
    pub(super) async fn answer(&mut self, request: Request, answer: oneshot::Sender<Response>) -> Option<Instant> {
        match request {
            Request::Status {} | Request::Down {} => {
                self.gateway.refresh().await;
                answer_report(self.gateway.report().clone(), answer);
                None
            }
            Request::Plan {} => {
                match config::load(&self.path, &self.environment) {
                    Ok(config) => self.answer_plan(config, answer).await,
                    Err(error) => answer_wrong_configuration(&self.path, &error, answer),
                }
                None
            }
            Request::Unban { address } => {
                answer_unban(address, answer);
                None
            }
            Request::Reconcile {} => {
                self.cloud_waiters.push(answer);
                Some(self.pass(Trigger::Operator).await)
            }
        }
    }

    async fn answer_plan(&mut self, config: Config, answer: oneshot::Sender<Response>) {
        let view = self.metadata.view().borrow().clone();
        let (site, steps) = self.gateway.preview(&config, &view).await;
        tokio::spawn(async move {
            let (steps, problems) = with_cloud_preview(steps, &config, &site).await;
            // Err, here and below: the client has gone.
            let _ = answer.send(Response::Steps { steps, problems });
        });
    }

    /// Takes everything down, answers, and ends. It may take a minute; the watchdog is served meanwhile.
    pub(super) async fn down(self, answer: oneshot::Sender<Response>, mut watchdog: Option<tokio::time::Interval>) {
        let Self { config, mut gateway, cloud, mut notifier, .. } = self;
        notifier.status("going down");
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
        store_descriptors(&mut gateway, &notifier);
        tracing::info!("down: {}", steps.join("; "));
        let _ = answer.send(Response::Steps { steps, problems });
        // A task of its own sends the answer to the client.
        tokio::time::sleep(SETTLE).await;
        notifier.stopping();
    }
}

/// Adds what the cloud's component would do to a preview of the pass.
pub(crate) async fn with_cloud_preview(steps: Steps, config: &Config, site: &Site) -> Steps {
    let (mut steps, mut problems) = steps;
    let inputs = Inputs { config, site, tunnel: None, now: Instant::now() };
    match preview(&mut Hcloud::default(), &inputs).await {
        Ok((more, obstacles)) => {
            steps.extend(more);
            problems.extend(obstacles);
        }
        Err(problem) => problems.push(problem),
    }
    (steps, problems)
}

/// Sends the report, with what the rules have dropped.
pub(super) fn answer_report(mut report: Report, answer: oneshot::Sender<Response>) {
    tokio::spawn(async move {
        report.firewall = nat::firewall_report().await;
        let _ = answer.send(Response::Report { report: Box::new(report) });
    });
}

/// There is nothing to plan: a reload would be refused.
fn answer_wrong_configuration(path: &Path, error: &config::Error, answer: oneshot::Sender<Response>) {
    let problems = error.diagnostics().iter().map(|problem| format!("\n  {problem}"));
    let reason =
        format!("a reload would change nothing: {}: {}{}", path.display(), chain(error), problems.collect::<String>());
    let _ = answer.send(Response::Refused { reason });
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
