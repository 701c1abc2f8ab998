//! What probes prove, for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::CellAlignment::{Left, Right};

use super::table::{Column, format_span, format_table};
use crate::health::{PathReport, PathState};

/// So many paths of one kind and state have a line each; of more, those that are ok have one line together.
const MAX_OK: usize = 8;
/// So many paths of one kind that are not ok have a line each, and the others one together.
const MAX_OTHERS: usize = 32;

/// A line for each path, unless there are very many.
pub(super) fn format_paths(paths: &[PathReport], now: SystemTime) -> String {
    if paths.is_empty() {
        return String::new();
    }
    let columns = [
        Column("PATH", Left, 0),
        Column("STATE", Left, 9),
        Column("SINCE", Left, 8),
        Column("ROUND TRIP", Right, 10),
        Column("DETAIL", Left, 0),
    ];
    let row = |report: &PathReport| {
        let since = now.duration_since(UNIX_EPOCH + Duration::from_secs(report.since_unix));
        let since = format_span(since.map_or(0, |since| since.as_secs()));
        let round_trip = report.round_trip_us.map_or_else(String::new, format_round_trip);
        [report.path.to_string(), report.state.to_string(), since, round_trip, describe(report)]
    };
    let mut rows = Vec::new();
    for of_kind in paths.chunk_by(|one, next| one.path.kind() == next.path.kind()) {
        for state in [PathState::Lost, PathState::Unproven, PathState::Cannot, PathState::Ok] {
            let in_state: Vec<&PathReport> = of_kind.iter().filter(|report| report.state == state).collect();
            let listed = match (state, in_state.len()) {
                (PathState::Ok, ..=MAX_OK) => in_state.len(),
                (PathState::Ok, _) => 0,
                (_, count) => count.min(MAX_OTHERS),
            };
            rows.extend(in_state[..listed].iter().map(|report| row(report)));
            if let further @ 1.. = in_state.len() - listed {
                let more = if listed > 0 { "more " } else { "" };
                let what = format!("{further} {more}of kind {}", of_kind[0].path.kind());
                rows.push([what, state.to_string(), String::new(), String::new(), String::new()]);
            }
        }
    }
    format!("\n{}", format_table(&columns, rows))
}

fn describe(report: &PathReport) -> String {
    match (report.state, report.detail.is_empty()) {
        (PathState::Unproven, true) if report.path.kind() == "tunnel" => "no peer was heard yet".to_owned(),
        (PathState::Unproven, true) => "not probed yet".to_owned(),
        (PathState::Unproven, false) => format!("it has never passed on this server; {}", report.detail),
        (_, _) => report.detail.clone(),
    }
}

/// Milliseconds, with a tenth below a hundred.
fn format_round_trip(microseconds: u64) -> String {
    let tenths = microseconds.div_ceil(100);
    if tenths < 1000 { format!("{}.{} ms", tenths / 10, tenths % 10) } else { format!("{} ms", tenths / 10) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Path;

    #[test]
    fn each_path_has_a_line_with_its_state_and_the_reason() {
        let path = |egress: &str, state, round_trip_us, detail: &str| PathReport {
            path: Path::Nat { network: "10.0.0.0/16".parse().unwrap(), egress: Some(egress.parse().unwrap()) },
            state,
            since_unix: 100,
            round_trip_us,
            detail: detail.to_owned(),
        };
        let paths = [
            path("198.51.100.2", PathState::Lost, None, "no answer from 185.12.64.1"),
            path("198.51.100.3", PathState::Unproven, None, ""),
            path("198.51.100.4", PathState::Ok, Some(310), ""),
        ];
        let expected = "
PATH                             STATE      SINCE     ROUND TRIP  DETAIL
nat 10.0.0.0/16 by 198.51.100.2  lost       5 min                 no answer from 185.12.64.1
nat 10.0.0.0/16 by 198.51.100.3  unproven   5 min                 not probed yet
nat 10.0.0.0/16 by 198.51.100.4  ok         5 min         0.4 ms
";
        assert_eq!(format_paths(&paths, UNIX_EPOCH + Duration::from_secs(400)), expected);
        assert_eq!(format_paths(&[], UNIX_EPOCH), "");
    }

    #[test]
    fn of_very_many_addresses_the_lost_ones_are_listed_and_the_others_counted() {
        let path = |number: u16, state| PathReport {
            path: Path::Static {
                network: "10.0.0.0/16".parse().unwrap(),
                host: std::net::Ipv4Addr::from(0x0a00_0000 + u32::from(number)),
                egress: std::net::Ipv4Addr::from(0xc633_6400 + u32::from(number)),
            },
            state,
            since_unix: 100,
            round_trip_us: None,
            detail: String::new(),
        };
        let one_lost = (0..300).map(|number| path(number, if number == 7 { PathState::Lost } else { PathState::Ok }));
        let shown = format_paths(&one_lost.collect::<Vec<_>>(), UNIX_EPOCH + Duration::from_secs(400));
        let expected = "
PATH                             STATE      SINCE     ROUND TRIP  DETAIL
static 10.0.0.7 by 198.51.100.7  lost       5 min
299 of kind static               ok
";
        assert_eq!(shown, expected);
        let all_lost: Vec<PathReport> = (0..300).map(|number| path(number, PathState::Lost)).collect();
        let shown = format_paths(&all_lost, UNIX_EPOCH + Duration::from_secs(400));
        assert_eq!(shown.lines().count(), 2 + MAX_OTHERS + 1);
        assert!(shown.contains("\n268 more of kind static "), "{shown}");
    }

    #[test]
    fn a_round_trip_is_shown_in_milliseconds() {
        assert_eq!([90, 1_250, 99_900, 123_456].map(format_round_trip), ["0.1 ms", "1.3 ms", "99.9 ms", "123 ms"]);
    }
}
