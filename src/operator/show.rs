//! Reports and plans as a person likes to read them.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::outcome::Problem;
use crate::report::{Report, Totals};

/// Widest detail that keeps a row on one line of a usual terminal; longer ones go on below.
const DETAIL_WIDTH: usize = 76;

/// As wide as the longest name of a room, but for the tunnel's.
const ROOM_WIDTH: usize = 8;

/// Indented JSON.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("our own types have string keys only, which JSON can hold")
}

/// The status table.
pub(super) fn report(report: &Report, now: SystemTime) -> String {
    let mut text = String::new();
    let server = report.server_id.map_or_else(String::new, |id| format!(" on server {id}"));
    let finished = UNIX_EPOCH + Duration::from_secs(report.finished_unix);
    let ago = now.duration_since(finished).map_or(0, |since| since.as_secs());
    line(&mut text, format_args!("bastiond {}{server}: {}", report.version, report.health));
    line(&mut text, format_args!("pass {} ended {ago} s ago ({})", report.passes, report.trigger));
    line(&mut text, format_args!(""));
    // A gateway without a tunnel has short names only.
    let width = report.components.keys().map(|room| room.to_string().len()).fold(ROOM_WIDTH, usize::max);
    line(
        &mut text,
        format_args!("{:<width$} {:<10} {:>7} {:>7} {:>8}  DETAIL", "ROOM", "STATE", "CHANGES", "REPAIRS", "FAILURES"),
    );
    for (room, state) in &report.components {
        let Totals { changes, repairs, failures } = state.totals;
        let mut parts = wrapped(&state.detail).into_iter();
        let first = parts.next().unwrap_or_default();
        line(
            &mut text,
            format_args!(
                "{:<width$} {:<10} {changes:>7} {repairs:>7} {failures:>8}  {first}",
                room.to_string(),
                state.state.to_string()
            ),
        );
        for part in parts {
            line(&mut text, format_args!("{:1$}{part}", "", width + 38));
        }
    }
    if let Some(tunnel) = &report.tunnel {
        text.push_str(&super::tunnel::table(tunnel, now));
    }
    if let Some(flows) = &report.flows {
        text.push_str(&super::flows::table(flows));
    }
    if let Some(firewall) = &report.firewall {
        text.push_str(&super::firewall::table(firewall));
    }
    let problems =
        report.components.iter().flat_map(|(room, state)| state.problems.iter().map(move |problem| (room, problem)));
    let problems: Vec<_> = problems.collect();
    if !problems.is_empty() || !report.refused_configuration.is_empty() {
        line(&mut text, format_args!("\nPROBLEMS"));
    }
    for reason in &report.refused_configuration {
        line(
            &mut text,
            format_args!("{:<width$} the last reload was refused, the old configuration is kept: {reason}", "config"),
        );
    }
    for (room, problem) in problems {
        line(&mut text, format_args!("{:<width$} {}", room.to_string(), problem.what));
        line(&mut text, format_args!("{:width$} -> {}", "", problem.advice));
    }
    let hints = report.components.iter().flat_map(|(room, state)| state.hints.iter().map(move |hint| (room, hint)));
    for (index, (room, hint)) in hints.enumerate() {
        if index == 0 {
            line(&mut text, format_args!("\nHINTS"));
        }
        line(&mut text, format_args!("{:<width$} {}", room.to_string(), hint.what));
        line(&mut text, format_args!("{:width$} -> {}", "", hint.advice));
    }
    text
}

/// A plan, or what `down` did.
pub(super) fn steps(steps: &[String], problems: &[Problem]) -> String {
    let mut text = String::new();
    if steps.is_empty() {
        line(&mut text, format_args!("nothing to do"));
    }
    for step in steps {
        line(&mut text, format_args!("{step}"));
    }
    for problem in problems {
        line(&mut text, format_args!("problem: {}\n      -> {}", problem.what, problem.advice));
    }
    text
}

/// Seconds, as people say it.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}

/// The details of a room are parted by `; `: as many to a line as fit.
fn wrapped(detail: &str) -> Vec<String> {
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

    #[test]
    fn the_table_says_what_is_wrong_and_what_to_do() {
        let mut r = Report {
            version: "0.1.0".to_owned(),
            server_id: Some(ServerId(42)),
            finished_unix: 100,
            passes: 7,
            ..Report::new()
        };
        r.record(ComponentName::Nat, Outcome::unchanged(State::Ok, "table inet bastiond stands"));
        r.record(
            ComponentName::Hcloud,
            Outcome {
                problems: vec![Problem::new("there is no API token", "put one into hcloud.token_file")],
                ..Outcome::unchanged(State::Waiting, "no API token")
            },
        );
        let expected = "\
bastiond 0.1.0 on server 42: waiting
pass 7 ended 3 s ago (start)

ROOM     STATE      CHANGES REPAIRS FAILURES  DETAIL
nat      ok               0       0        0  table inet bastiond stands
hcloud   waiting          0       0        0  no API token

PROBLEMS
hcloud   there is no API token
         -> put one into hcloud.token_file
";
        assert_eq!(report(&r, UNIX_EPOCH + Duration::from_secs(103)), expected);
    }

    #[test]
    fn a_long_detail_goes_on_below() {
        let detail =
            ["public eth0 198.51.100.2", "private eth1 10.0.0.2 in 10.0.0.0/16 (network 1)", "private eth2"].join("; ");
        assert_eq!(
            wrapped(&detail),
            ["public eth0 198.51.100.2; private eth1 10.0.0.2 in 10.0.0.0/16 (network 1)", "private eth2"]
        );
    }
}
