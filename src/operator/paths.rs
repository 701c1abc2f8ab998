//! What probes prove, for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::CellAlignment::{Left, Right};

use super::table::{Column, format_span, format_table};
use crate::health::{PathReport, PathState};

/// A line for each path.
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
    let rows = paths.iter().map(|report| {
        let since = now.duration_since(UNIX_EPOCH + Duration::from_secs(report.since_unix));
        let since = format_span(since.map_or(0, |since| since.as_secs()));
        let round_trip = report.round_trip_us.map_or_else(String::new, format_round_trip);
        [report.path.to_string(), report.state.to_string(), since, round_trip, describe(report)]
    });
    format!("\n{}", format_table(&columns, rows.collect()))
}

fn describe(report: &PathReport) -> String {
    match (report.state, report.detail.is_empty()) {
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
            path("198.51.100.2", PathState::Ok, Some(310), ""),
            path("198.51.100.3", PathState::Lost, None, "no answer from 185.12.64.1"),
            path("198.51.100.4", PathState::Unproven, None, ""),
        ];
        let expected = "
PATH                             STATE      SINCE     ROUND TRIP  DETAIL
nat 10.0.0.0/16 by 198.51.100.2  ok         5 min         0.4 ms
nat 10.0.0.0/16 by 198.51.100.3  lost       5 min                 no answer from 185.12.64.1
nat 10.0.0.0/16 by 198.51.100.4  unproven   5 min                 not probed yet
";
        assert_eq!(format_paths(&paths, UNIX_EPOCH + Duration::from_secs(400)), expected);
        assert_eq!(format_paths(&[], UNIX_EPOCH), "");
    }

    #[test]
    fn a_round_trip_is_shown_in_milliseconds() {
        assert_eq!([90, 1_250, 99_900, 123_456].map(format_round_trip), ["0.1 ms", "1.3 ms", "99.9 ms", "123 ms"]);
    }
}
