//! `bastionctl plan`.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::{offline, show};
use crate::cli::Bastionctl;
use crate::config::{self, Environment};
use crate::control::client::{self, Error};
use crate::control::{MAX_REQUEST, Plan, Request, Response};
use crate::exit;

/// The exit code of `--exit-code` for a plan with changes, as of terraform's `-detailed-exitcode`.
const CHANGES: u8 = 2;

/// Has the daemon plan the file of `--config`, which only the caller may be able to read, or the file that the daemon
/// was started with. Without a daemon, the plan is made in this process.
pub(super) fn ask(socket: &Path, arguments: &Bastionctl, environment: &Environment) -> Result<Response, ExitCode> {
    let wrong = |error: config::Error| exit::wrong_configuration(&error);
    let loaded = match &arguments.config {
        Some(path) => Some(config::load_with_texts(path, environment).map_err(wrong)?),
        None => None,
    };
    let (candidate, bundle) = loaded.unzip();
    if bundle.as_ref().is_some_and(|bundle| bundle.size() > MAX_REQUEST / 2) {
        let error = std::io::Error::other(format!("the files have more than {} bytes together", MAX_REQUEST / 2));
        return Err(exit::failure(&error));
    }
    match client::call(socket, &Request::Plan { candidate: bundle.map(Box::new) }) {
        Err(Error::NotRunning { .. }) => {
            let path = arguments.config_path();
            let config = candidate.map_or_else(|| config::load(path, environment).map_err(wrong), Ok)?;
            offline::plan(path, config, environment).map_err(|error| exit::failure(&error))
        }
        answer => answer.map_err(|error| exit::no_daemon(&error)),
    }
}

/// Prints the plan. `exit_code`: the exit code says whether there is something to do, and not whether there are
/// problems.
pub(super) fn print(answer: Response, json: bool, exit_code: bool) -> ExitCode {
    let plan = match answer {
        Response::Plan(plan) => plan,
        other => return super::show(Ok(other), json),
    };
    if json {
        println!("{}", show::format_json(&as_json(&plan)));
    } else {
        print!("{}", format_plan(&plan));
    }
    code(&plan, exit_code)
}

fn code(plan: &Plan, exit_code: bool) -> ExitCode {
    let succeeds = if exit_code { plan.is_complete } else { plan.problems.is_empty() };
    match (succeeds, exit_code && !plan.is_empty()) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(CHANGES),
        (true, false) => ExitCode::SUCCESS,
    }
}

fn as_json(plan: &Plan) -> serde_json::Value {
    let Plan { path, changes, steps, problems, warnings, is_complete } = plan;
    json!({
        "path": path,
        "changes": changes,
        "steps": steps,
        "problems": problems,
        "warnings": warnings,
        "complete": is_complete,
    })
}

/// First what differs in the configuration, then what would be done, then what would be wrong.
fn format_plan(plan: &Plan) -> String {
    let mut text = String::new();
    text.extend(plan.changes.iter().flatten().map(|change| format!("{change}\n")));
    if !text.is_empty() && !plan.steps.is_empty() {
        text.push('\n');
    }
    if plan.is_empty() {
        text.push_str(if plan.is_complete { "nothing to do\n" } else { "nothing to do, as far as can be seen\n" });
    }
    text.extend(plan.steps.iter().map(|step| format!("{step}\n")));
    text.extend(plan.warnings.iter().map(|warning| format!("warning: {warning}\n")));
    text.push_str(&show::format_problems(&plan.problems));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Change, ChangeKind};
    use crate::outcome::Problem;

    fn plan() -> Plan {
        let what = "forward tcp 443 -> 10.9.0.4 \"web\"".to_owned();
        Plan {
            path: "/etc/bastiond/config.toml".into(),
            changes: Some(vec![Change { kind: ChangeKind::Added, what, was: None }]),
            steps: vec!["replace the rules".to_owned()],
            problems: vec![Problem::new(
                "host-outside-networks",
                "10.9.0.4 is in no private network",
                "name a host of 10.0.0.0/16",
            )],
            warnings: vec!["firewall.ssh_from: is open to everyone".to_owned()],
            is_complete: true,
        }
    }

    #[test]
    fn the_configurations_words_come_first_and_the_problems_last() {
        let expected = "\
+ forward tcp 443 -> 10.9.0.4 \"web\"

replace the rules
warning: firewall.ssh_from: is open to everyone
problem: 10.9.0.4 is in no private network
      -> name a host of 10.0.0.0/16
";
        assert_eq!(format_plan(&plan()), expected);
        assert_eq!(format_plan(&Plan { is_complete: true, ..Plan::default() }), "nothing to do\n");
        assert_eq!(format_plan(&Plan::default()), "nothing to do, as far as can be seen\n");
    }

    #[test]
    fn the_exit_code_tells_a_script_whether_there_is_something_to_do() {
        let text = |code: ExitCode| format!("{code:?}");
        let is = |plan: &Plan, exit_code, expected: u8| {
            assert_eq!(text(code(plan, exit_code)), text(ExitCode::from(expected)), "{plan:?}");
        };
        let nothing = Plan { is_complete: true, changes: Some(Vec::new()), ..Plan::default() };
        is(&nothing, true, 0);
        is(&nothing, false, 0);
        is(&plan(), true, 2);
        is(&plan(), false, 1);
        is(&Plan { problems: Vec::new(), ..plan() }, false, 0);
        is(&Plan { problems: plan().problems, ..nothing.clone() }, true, 0);
        is(&Plan { changes: None, ..plan() }, true, 2);
        is(&Plan { is_complete: false, ..plan() }, true, 1);
        is(&Plan { is_complete: false, ..nothing }, true, 1);
    }

    #[test]
    fn json_has_every_difference() {
        let json = as_json(&plan());
        let what = "forward tcp 443 -> 10.9.0.4 \"web\"";
        assert_eq!(json["changes"], json!([{"kind": "added", "what": what}]));
        assert_eq!((&json["complete"], &json["steps"]), (&json!(true), &json!(["replace the rules"])));
    }
}
