//! Reports and plans, for people and as JSON.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::CellAlignment::{Left, Right};
use serde::Serialize;
use serde_json::Value;

use super::table::{Column, format_table};
use super::{firewall, flow_table, paths, tunnel};
use crate::outcome::{ComponentName, Problem};
use crate::report::{ComponentReport, Report, Totals};

/// Widest detail that keeps a row on one line of a usual terminal, in characters; longer ones continue below.
const DETAIL_WIDTH: usize = 76;
/// As wide as the longest name of a component, in characters.
const NAME_WIDTH: usize = 10;

/// Indented JSON.
pub(super) fn format_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("our own types have string keys only, which JSON can hold")
}

/// The report as JSON. `components` were called `rooms` in 0.1.0: both keys are printed until 0.3.0.
pub(super) fn format_report_json(report: &Report) -> String {
    let mut value = serde_json::to_value(report).expect("our own types have string keys only, which JSON can hold");
    if let Value::Object(object) = &mut value {
        if let Some(components) = object.get("components").cloned() {
            object.insert("rooms".to_owned(), components);
        }
    }
    format_json(&value)
}

/// The status: the components, the tunnel, flows and drops, then problems and hints.
pub(super) fn format_report(report: &Report, now: SystemTime) -> String {
    let server = report.server_id.map_or_else(String::new, |id| format!(" on server {id}"));
    let finished = UNIX_EPOCH + Duration::from_secs(report.finished_unix);
    let ago = now.duration_since(finished).map_or(0, |since| since.as_secs());
    let mut text = format!("bastiond {}{server}: {}\n", report.version, report.health);
    line(&mut text, format_args!("pass {} ended {ago} s ago ({})\n", report.passes, report.trigger));
    text.push_str(&format_components(report));
    text.push_str(&paths::format_paths(&report.paths, now));
    if let Some(report) = &report.tunnel {
        text.push_str(&tunnel::format_tunnel(report, now));
    }
    if let Some(flows) = &report.flows {
        text.push_str(&flow_table::format_flows(flows));
    }
    if let Some(report) = &report.firewall {
        text.push_str(&firewall::format_firewall(report));
    }
    let problems: Vec<_> = listed(report, |component| &component.problems).collect();
    if !problems.is_empty() || !report.refused_configuration.is_empty() {
        line(&mut text, format_args!("\nPROBLEMS"));
    }
    for reason in &report.refused_configuration {
        let what = format!("{}: {reason}", report.describe_refusal());
        line(&mut text, format_args!("{:<NAME_WIDTH$} {what}", "config"));
    }
    for (name, problem) in problems {
        format_problem(&mut text, name, problem);
    }
    let hints: Vec<_> = listed(report, |component| &component.hints).collect();
    if !hints.is_empty() || !report.configuration_warnings.is_empty() {
        line(&mut text, format_args!("\nHINTS"));
    }
    for warning in &report.configuration_warnings {
        line(&mut text, format_args!("{:<NAME_WIDTH$} {warning}", "config"));
    }
    for (name, hint) in hints {
        format_problem(&mut text, name, hint);
    }
    text
}

fn format_components(report: &Report) -> String {
    let columns = [
        Column("COMPONENT", Left, NAME_WIDTH),
        Column("STATE", Left, 9),
        Column("CHANGES", Right, 7),
        Column("REPAIRS", Right, 7),
        Column("FAILURES", Right, 8),
        Column("DETAIL", Left, 0),
    ];
    let rows = report.components.iter().map(|(name, component)| {
        let Totals { changes, repairs, failures } = component.totals;
        let counts = [changes, repairs, failures].map(|count| count.to_string());
        let [changes, repairs, failures] = counts;
        let detail = wrap(&component.detail).join("\n");
        [name.to_string(), component.state.to_string(), changes, repairs, failures, detail]
    });
    format_table(&columns, rows.collect())
}

fn listed(
    report: &Report,
    list: impl Fn(&ComponentReport) -> &Vec<Problem>,
) -> impl Iterator<Item = (ComponentName, &Problem)> {
    report.components.iter().flat_map(move |(name, component)| list(component).iter().map(move |it| (*name, it)))
}

fn format_problem(text: &mut String, name: ComponentName, problem: &Problem) {
    line(text, format_args!("{:<NAME_WIDTH$} {}", name.to_string(), problem.what));
    line(text, format_args!("{:NAME_WIDTH$} -> {}", "", problem.advice));
}

/// What `down` or `unban` did.
pub(super) fn format_steps(steps: &[String], problems: &[Problem]) -> String {
    let mut text = String::new();
    if steps.is_empty() {
        line(&mut text, format_args!("nothing to do"));
    }
    for step in steps {
        line(&mut text, format_args!("{step}"));
    }
    text.push_str(&format_problems(problems));
    text
}

/// Problems of a plan or of what was done, two lines each.
pub(super) fn format_problems(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        line(&mut text, format_args!("problem: {}\n      -> {}", problem.what, problem.advice));
    }
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}

/// `; ` separates the parts of a detail: as many on a line as fit.
fn wrap(detail: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in detail.split("; ") {
        match lines.last_mut() {
            Some(last) if last.chars().count() + part.chars().count() + 2 <= DETAIL_WIDTH => {
                last.push_str("; ");
                last.push_str(part);
            }
            _ => lines.push(part.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ServerId;
    use crate::outcome::{ComponentName, Outcome, State};

    fn report() -> Report {
        let mut report = Report {
            version: "0.1.0".to_owned(),
            server_id: Some(ServerId(42)),
            finished_unix: 100,
            passes: 7,
            ..Report::new()
        };
        let standing =
            "table inet bastiond stands: 10.0.0.0/16, 10.2.0.0/16 out by eth0; fast path: flowtable in software";
        report.record(ComponentName::Nat, Outcome::unchanged(State::Ok, standing));
        let problems = vec![Problem::new("no-token", "there is no API token", "put one into hcloud.token_file")];
        report
            .record(ComponentName::Hcloud, Outcome { problems, ..Outcome::unchanged(State::Waiting, "no API token") });
        report
    }

    #[test]
    fn the_table_says_what_is_wrong_and_what_to_do() {
        let expected = "\
bastiond 0.1.0 on server 42: waiting
pass 7 ended 3 s ago (start)

COMPONENT   STATE      CHANGES  REPAIRS  FAILURES  DETAIL
nat         ok               0        0         0  table inet bastiond stands: 10.0.0.0/16, 10.2.0.0/16 out by eth0
                                                   fast path: flowtable in software
hcloud      waiting          0        0         0  no API token

PROBLEMS
hcloud     there is no API token
           -> put one into hcloud.token_file
";
        assert_eq!(format_report(&report(), UNIX_EPOCH + Duration::from_secs(103)), expected);
    }

    #[test]
    fn json_has_the_components_under_their_former_key_as_well() {
        let json: Value = serde_json::from_str(&format_report_json(&report())).unwrap();
        assert_eq!(json["components"]["hcloud"]["state"], "waiting");
        assert_eq!(json["components"], json["rooms"]);
    }

    #[test]
    fn a_long_detail_continues_below() {
        let detail =
            ["public eth0 198.51.100.2", "private eth1 10.0.0.2 in 10.0.0.0/16 (network 1)", "private eth2"].join("; ");
        assert_eq!(
            wrap(&detail),
            ["public eth0 198.51.100.2; private eth1 10.0.0.2 in 10.0.0.0/16 (network 1)", "private eth2"]
        );
    }
}
