//! Answers that take their time, given beside the loop: the sources of a great attack take nft a second to list, and nothing may
//! keep a rule from being mended.

use std::net::IpAddr;
use std::path::Path;

use tokio::sync::oneshot;

use crate::component::Error as _;
use crate::config;
use crate::control::Response;
use crate::error::chain;
use crate::nat;
use crate::outcome::Problem;
use crate::report::Report;

/// The report, with what the rules have dropped.
pub(super) fn report(mut report: Report, answer: oneshot::Sender<Response>) {
    tokio::spawn(async move {
        report.firewall = nat::firewall_report().await;
        // Err, here and below: whoever asked has gone.
        let _ = answer.send(Response::Report { report: Box::new(report) });
    });
}

/// There is nothing to plan: a reload would be refused.
pub(super) fn wrong_configuration(path: &Path, error: &config::Error, answer: oneshot::Sender<Response>) {
    let problems = error.diagnostics().iter().map(|problem| format!("\n  {problem}"));
    let reason =
        format!("a reload would change nothing: {}: {}{}", path.display(), chain(error), problems.collect::<String>());
    let _ = answer.send(Response::Refused { reason });
}

/// Lets a source log in again.
pub(super) fn unban(address: IpAddr, answer: oneshot::Sender<Response>) {
    tokio::spawn(async move {
        let _ = answer.send(unbanned(address, nat::unban(address).await));
    });
}

fn unbanned(address: IpAddr, done: Result<bool, nat::Error>) -> Response {
    match done {
        Ok(true) => {
            tracing::info!(component = "nat", source = %address, "{address} is no longer banned: an operator wanted it so");
            Response::Steps { steps: vec![format!("{address} is no longer banned")], problems: Vec::new() }
        }
        Ok(false) => Response::Refused { reason: format!("{address} is not banned") },
        Err(error) => {
            let problem = Problem::new(chain(&error), error.advice());
            Response::Steps { steps: Vec::new(), problems: vec![problem] }
        }
    }
}
