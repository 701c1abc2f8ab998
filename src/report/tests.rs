use super::*;
use crate::health::Path;

#[test]
fn a_repair_counts_as_a_change_and_the_first_set_up_is_no_repair() {
    let mut report = Report::new();
    let changed =
        |repaired| Outcome { changes: vec!["table loaded".to_owned()], repaired, ..Outcome::unchanged(State::Ok, "") };
    report.record(ComponentName::Nat, changed(false));
    report.record(ComponentName::Nat, Outcome::unchanged(State::Ok, ""));
    report.record(ComponentName::Nat, changed(true));
    assert_eq!(report.components[&ComponentName::Nat].totals, Totals { changes: 2, repairs: 1, failures: 0 });
    assert_eq!(report.components[&ComponentName::Nat].last_changes, ["table loaded"]);
}

#[test]
fn the_status_says_which_configuration_runs_in_place_of_the_files() {
    let mut report = Report::new();
    report.record(ComponentName::Nat, Outcome::unchanged(State::Ok, "stands"));
    report.refuse_configuration(vec!["colour: unknown key".to_owned()]);
    assert_eq!(report.status_line(), "degraded; the last reload was refused, the old configuration is kept");
    report.fallback = Some(ConfigurationFallback { applied_unix: Some(1_000_000_000) });
    assert_eq!(report.status_line(), "degraded; running the configuration of 2001-09-09T01:46:40Z, the file is wrong");
    report.fallback = Some(ConfigurationFallback { applied_unix: None });
    assert_eq!(report.status_line(), "degraded; running with an empty configuration, there is no file");
}

#[test]
fn the_gateway_is_degraded_while_a_component_fails() {
    let mut report = Report::new();
    report.record(ComponentName::Nat, Outcome::unchanged(State::Ok, "stands"));
    assert_eq!(report.health, Health::Healthy);
    report.record(ComponentName::Hcloud, Outcome::unchanged(State::Waiting, "no token"));
    assert_eq!(report.health, Health::Waiting);
    report.record(ComponentName::Nat, Outcome::unchanged(State::Failed, "nft is missing"));
    assert_eq!(report.health, Health::Degraded);
    assert_eq!(report.status_line(), "degraded; nat failed: nft is missing; hcloud waiting: no token");
    report.record(ComponentName::Nat, Outcome::unchanged(State::Ok, "stands"));
    report.record(ComponentName::Hcloud, Outcome::unchanged(State::Off, "off"));
    assert_eq!(report.health, Health::Healthy);
}

#[test]
fn a_lost_path_makes_the_gateway_degraded_and_an_unproven_one_does_not() {
    let mut report = Report::new();
    report.record(ComponentName::Nat, Outcome::unchanged(State::Ok, "stands"));
    let path = |state| PathReport {
        path: Path::Nat { network: "10.0.0.0/16".parse().unwrap(), egress: None },
        state,
        since_unix: 0,
        round_trip_us: None,
        detail: "no answer from 185.12.64.1".to_owned(),
    };
    for state in [PathState::Ok, PathState::Unproven, PathState::Cannot] {
        report.learn_paths(vec![path(state)]);
        assert_eq!(report.health, Health::Healthy, "{state}");
    }
    let site = Path::Tunnel { interface: "wg0".parse().unwrap(), peer: Some("office".to_owned()) };
    report.learn_paths(vec![PathReport { path: site, ..path(PathState::Lost) }]);
    assert_eq!(report.health, Health::Healthy, "the site may be down by itself");
    report.learn_paths(vec![path(PathState::Lost)]);
    assert_eq!(report.health, Health::Degraded);
    assert_eq!(report.status_line(), "degraded; nat 10.0.0.0/16 lost: no answer from 185.12.64.1");
    report.learn_paths(vec![path(PathState::Lost); 300]);
    let line = report.status_line();
    assert!(line.ends_with("; 296 more paths lost") && line.len() < 400, "{line}");
}

#[test]
fn a_problem_of_a_working_component_makes_the_gateway_wait_and_a_hint_does_not() {
    let problem = Problem::new("foreign-chain-drops", "another program drops our packets", "let them pass");
    let mut report = Report::new();
    let hint = Outcome { hints: vec![problem.clone()], ..Outcome::unchanged(State::Ok, "stands") };
    report.record(ComponentName::Nat, hint);
    assert_eq!(report.health, Health::Healthy);
    report.record(ComponentName::Nat, Outcome { problems: vec![problem], ..Outcome::unchanged(State::Ok, "stands") });
    assert_eq!(report.health, Health::Waiting);
    assert_eq!(report.status_line(), "waiting; nat ok: another program drops our packets");
    assert_eq!(report.state(ComponentName::Nat), Some(State::Ok), "forwarding depends on the state only");
}
