use super::*;

fn path() -> Path {
    Path::Nat { network: "10.0.0.0/16".parse().unwrap(), egress: Some("198.51.100.2".parse().unwrap()) }
}

fn wanted(cannot: Option<&str>) -> Vec<WantedPath> {
    let cannot = cannot.map(str::to_owned);
    vec![WantedPath { path: path(), cannot, is_expected: true, takes_turns: false }]
}

fn passed() -> Outcome {
    Outcome::Passed { round_trip: Duration::from_micros(400), note: String::new() }
}

fn missed() -> Outcome {
    Outcome::Missed { reason: "no answer".to_owned() }
}

/// An engine with one path, and a clock.
struct Bench {
    engine: Engine,
    start: Instant,
    now: Now,
}

impl Bench {
    fn new(proven: Proven) -> Self {
        let start = Instant::now();
        let now = Now { at: start, unix: 1000 };
        let mut engine = Engine::new(proven);
        engine.follow(&wanted(None), now);
        Self { engine, start, now }
    }

    /// Waits for the next round, which takes `takes`; what changed, and how many milliseconds after the start.
    fn round(&mut self, outcome: Outcome, takes: Duration) -> (Option<Change>, u128) {
        self.wait(self.engine.next_due().unwrap());
        assert_eq!(self.engine.start_due(self.now), [path()]);
        assert_eq!(self.engine.next_due(), None, "no second round begins while one runs");
        self.wait(self.now.at + takes);
        (self.engine.finish(&path(), outcome, self.now), self.now.at.duration_since(self.start).as_millis())
    }

    fn wait(&mut self, until: Instant) {
        self.now.at = self.now.at.max(until);
        self.now.unix = 1000 + self.now.at.duration_since(self.start).as_secs();
    }

    fn state(&self) -> (PathState, u64) {
        let report = &self.engine.reports()[0];
        (report.state, report.since_unix)
    }
}

const QUICK: Duration = Duration::from_millis(1);

#[test]
fn a_path_that_dies_is_lost_after_three_misses_and_within_seven_seconds() {
    let mut bench = Bench::new(Proven::default());
    assert_eq!(bench.round(passed(), QUICK).0.map(|change| change.to), Some(PathState::Ok));
    // The path dies right after a round that passed.
    let died = bench.now.at;
    assert_eq!(bench.round(missed(), ROUND_TIMEOUT).0, None);
    assert_eq!(bench.round(missed(), ROUND_TIMEOUT).0, None);
    let (change, _) = bench.round(missed(), ROUND_TIMEOUT);
    let change = change.unwrap();
    assert_eq!((change.from, change.to, change.detail.as_str()), (PathState::Ok, PathState::Lost, "no answer"));
    assert!(bench.now.at.duration_since(died) < Duration::from_secs(7));
    assert_eq!(bench.engine.reports()[0].round_trip_us, None);
}

#[test]
fn two_misses_and_a_pass_change_nothing() {
    let mut bench = Bench::new(Proven::default());
    bench.round(passed(), QUICK);
    for _ in 0..5 {
        for outcome in [missed(), missed(), passed()] {
            assert_eq!(bench.round(outcome, ROUND_TIMEOUT).0, None);
        }
    }
    assert_eq!(bench.state(), (PathState::Ok, 1000));
}

#[test]
fn a_path_that_lives_again_is_ok_within_one_interval() {
    let mut bench = Bench::new(Proven::default());
    bench.round(passed(), QUICK);
    for _ in 0..10 {
        bench.round(missed(), ROUND_TIMEOUT);
    }
    let lives = bench.now.at;
    let (change, _) = bench.round(passed(), QUICK);
    assert_eq!(change.map(|change| (change.from, change.to)), Some((PathState::Lost, PathState::Ok)));
    assert!(bench.now.at.duration_since(lives) <= INTERVAL);
}

#[test]
fn a_path_that_never_passed_is_unproven_and_one_that_passed_in_an_earlier_life_is_lost() {
    let mut bench = Bench::new(Proven::default());
    for _ in 0..10 {
        assert_eq!(bench.round(missed(), ROUND_TIMEOUT).0, None);
    }
    assert_eq!(bench.state(), (PathState::Unproven, 1000));
    assert_eq!(bench.engine.reports()[0].detail, "no answer");
    let mut proven = Proven::default();
    proven.add(&path());
    let mut bench = Bench::new(proven);
    assert_eq!(bench.state().0, PathState::Unproven);
    let changes: Vec<_> = (0..4).filter_map(|_| bench.round(missed(), ROUND_TIMEOUT).0).collect();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].from, changes[0].to), (PathState::Unproven, PathState::Lost));
}

#[test]
fn a_path_that_is_not_expected_to_pass_is_ok_or_unproven() {
    let mut bench = Bench::new(Proven::default());
    bench.round(passed(), QUICK);
    let unexpected = wanted(None).into_iter().map(|path| WantedPath { is_expected: false, ..path });
    bench.engine.follow(&unexpected.collect::<Vec<_>>(), bench.now);
    let changes: Vec<_> = (0..5).filter_map(|_| bench.round(missed(), ROUND_TIMEOUT).0).collect();
    assert_eq!(changes.iter().map(|change| change.to).collect::<Vec<_>>(), [PathState::Unproven]);
    bench.engine.follow(&wanted(None), bench.now);
    assert_eq!(bench.round(missed(), ROUND_TIMEOUT).0.map(|change| change.to), Some(PathState::Lost));
}

#[test]
fn a_change_brings_the_next_round_forward_but_rounds_stay_a_second_apart() {
    let mut bench = Bench::new(Proven::default());
    bench.round(passed(), QUICK);
    bench.engine.probe_soon(bench.now);
    let (_, first) = bench.round(passed(), QUICK);
    assert_eq!(first, 1001);
    // Many changes while a round runs: one more round.
    bench.wait(bench.engine.next_due().unwrap());
    bench.engine.start_due(bench.now);
    for _ in 0..100 {
        bench.engine.probe_soon(bench.now);
    }
    bench.engine.finish(&path(), passed(), bench.now);
    assert_eq!(bench.engine.next_due().unwrap().duration_since(bench.now.at), RETRY_INTERVAL);
    // A path that was quiet for a while is probed at once.
    bench.round(passed(), QUICK);
    bench.wait(bench.now.at + RETRY_INTERVAL * 2);
    bench.engine.probe_soon(bench.now);
    assert_eq!(bench.engine.next_due(), Some(bench.now.at));
}

#[test]
fn an_hour_of_constant_changes_costs_at_most_3600_rounds() {
    let mut bench = Bench::new(Proven::default());
    let mut rounds = 0;
    while bench.now.at.duration_since(bench.start) < Duration::from_secs(3600) {
        bench.engine.probe_soon(bench.now);
        bench.round(if rounds % 2 == 0 { missed() } else { passed() }, QUICK);
        rounds += 1;
    }
    assert!(rounds <= 3601, "{rounds}");
}

#[test]
fn a_path_on_which_nothing_can_be_sent_is_not_probed_until_that_ends() {
    let mut bench = Bench::new(Proven::default());
    bench.round(passed(), QUICK);
    bench.engine.follow(&wanted(Some("the list forbids it")), bench.now);
    assert_eq!((bench.state().0, bench.engine.next_due()), (PathState::Cannot, None));
    bench.engine.probe_soon(bench.now);
    assert_eq!(bench.engine.next_due(), None);
    assert_eq!(bench.engine.finish(&path(), missed(), bench.now), None, "a late result");
    bench.engine.follow(&wanted(None), bench.now);
    assert_eq!((bench.state().0, bench.engine.next_due()), (PathState::Unproven, Some(bench.now.at)));
}

#[test]
fn a_round_that_could_send_nothing_says_nothing_about_the_path_and_is_tried_again() {
    let mut bench = Bench::new(Proven::default());
    bench.round(passed(), QUICK);
    let cannot = Outcome::Cannot { reason: "no interface".to_owned() };
    let (change, _) = bench.round(cannot, QUICK);
    assert_eq!(change.map(|change| change.to), Some(PathState::Cannot));
    bench.engine.follow(&wanted(None), bench.now);
    let (change, _) = bench.round(passed(), QUICK);
    assert_eq!(change.map(|change| (change.from, change.to)), Some((PathState::Cannot, PathState::Ok)));
}

#[test]
fn a_path_that_goes_is_forgotten_and_one_that_stays_keeps_its_state() {
    let mut bench = Bench::new(Proven::default());
    bench.round(passed(), QUICK);
    bench.wait(bench.now.at + Duration::from_secs(2));
    bench.engine.follow(&wanted(None), bench.now);
    assert_eq!(bench.state(), (PathState::Ok, 1000));
    bench.engine.follow(&[], bench.now);
    assert_eq!(bench.engine.reports(), []);
    assert_eq!(bench.engine.finish(&path(), passed(), bench.now), None);
}

/// An engine with so many paths that take turns, all proven, beside one that does not.
fn with_turns(count: u8) -> (Engine, Vec<Path>, Now) {
    let now = Now { at: Instant::now(), unix: 1000 };
    let of = |host: u8| Path::Static {
        network: "10.0.0.0/16".parse().unwrap(),
        host: [10, 0, 0, host].into(),
        egress: [198, 51, 100, host].into(),
    };
    let paths: Vec<Path> = (0..count).map(of).collect();
    let mut proven = Proven::default();
    for path in &paths {
        proven.add(path);
    }
    let mut engine = Engine::new(proven);
    let turns =
        paths.iter().map(|path| WantedPath { path: path.clone(), cannot: None, is_expected: true, takes_turns: true });
    engine.follow(&turns.chain(wanted(None)).collect::<Vec<_>>(), now);
    (engine, paths, now)
}

/// Paths, each with the milliseconds since the beginning.
type Events = Vec<(u128, Path)>;

/// Lets time pass. `ends` says how a round of a path that begins at this time ends. The rounds of paths that take
/// turns, each with its beginning in milliseconds, and when which path was lost.
fn pass_time(
    engine: &mut Engine,
    now: &mut Now,
    time: Duration,
    ends: impl Fn(&Path, Instant) -> Outcome,
) -> (Events, Events) {
    let (start, mut rounds, mut lost) = (now.at, Vec::new(), Vec::new());
    let mut running: Vec<(Instant, Path, Outcome)> = Vec::new();
    while now.at < start + time {
        let ended = running.iter().map(|(at, ..)| *at).min();
        now.at = now.at.max(engine.next_due().into_iter().chain(ended).min().unwrap());
        let since = now.at.duration_since(start).as_millis();
        running.retain(|(at, path, outcome)| {
            if *at <= now.at {
                let change = engine.finish(path, outcome.clone(), *now);
                lost.extend(change.filter(|change| change.to == PathState::Lost).map(|change| (since, change.path)));
            }
            *at > now.at
        });
        for path in engine.start_due(*now) {
            let outcome = ends(&path, now.at);
            let takes = if matches!(outcome, Outcome::Passed { .. }) { QUICK } else { ROUND_TIMEOUT };
            if matches!(path, Path::Static { .. }) {
                rounds.push((since, path.clone()));
            }
            running.push((now.at + takes, path, outcome));
        }
    }
    for (_, path, outcome) in running {
        engine.finish(&path, outcome, *now);
    }
    (rounds, lost)
}

#[test]
fn paths_that_take_turns_begin_a_round_each_quarter_of_a_second_whatever_happens_to_them() {
    let (mut engine, paths, mut now) = with_turns(200);
    for all_dead in [false, true] {
        for _ in 0..60 {
            engine.probe_soon(now);
            let ends = |path: &Path, _| if all_dead && paths.contains(path) { missed() } else { passed() };
            let (rounds, _) = pass_time(&mut engine, &mut now, Duration::from_secs(1), ends);
            assert!(rounds.len() <= 5, "{rounds:?}");
        }
    }
    let (rounds, _) = pass_time(&mut engine, &mut now, Duration::from_secs(120), |_, _| passed());
    for path in &paths {
        let of_path: Vec<u128> = rounds.iter().filter(|(_, other)| other == path).map(|(at, _)| *at).collect();
        assert!((2..=3).contains(&of_path.len()), "{path}: {of_path:?}");
    }
}

#[test]
fn as_many_paths_as_documented_are_noticed_to_be_lost_within_ten_seconds_while_they_take_turns() {
    let (mut engine, paths, mut now) = with_turns(PROMPT_TURNS.try_into().unwrap());
    pass_time(&mut engine, &mut now, Duration::from_secs(20), |_, _| passed());
    for dead in [&paths[3..4], &paths[..]] {
        let ends = |path: &Path, _| if dead.contains(path) { missed() } else { passed() };
        let (_, lost) = pass_time(&mut engine, &mut now, Duration::from_secs(60), ends);
        let limit = if dead.len() == 1 { 10_000 } else { 25_000 };
        assert_eq!(lost.len(), dead.len());
        assert!(lost.iter().all(|(at, _)| *at < limit), "{lost:?}");
        pass_time(&mut engine, &mut now, Duration::from_secs(20), |_, _| passed());
    }
}

#[test]
fn a_path_that_takes_no_turns_does_not_wait_for_those_that_do() {
    let (mut engine, _, mut now) = with_turns(200);
    let alone = path();
    let ends = |path: &Path, _| if *path == alone { missed() } else { passed() };
    pass_time(&mut engine, &mut now, Duration::from_secs(10), |_, _| passed());
    let (_, lost) = pass_time(&mut engine, &mut now, Duration::from_secs(20), ends);
    assert!(matches!(lost.as_slice(), [(at, path)] if *at < 7000 && *path == alone), "{lost:?}");
}
