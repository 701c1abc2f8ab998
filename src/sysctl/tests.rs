use std::collections::BTreeMap;

use tokio::time::Instant;

use super::apply;
use super::forwarding::RulesStand;
use super::model::Need;
use super::plan::Write;
use super::saved_values::{UnknownOrigin, is_our_forwarding, restore, stop_forwarding};
use super::*;
use crate::component;
use crate::config::{self, Config, Fastpath};
use crate::outcome::State;
use crate::site::{PrivateLink, PublicLink, Site};

fn site() -> Site {
    Site {
        public: Some(PublicLink::example("eth0", &[])),
        private: vec![PrivateLink::example("eth0.7", "10.0.0.2", "10.0.0.0/16")],
        ..Site::default()
    }
}

/// A `/proc/sys` in a temporary directory, as a fresh Debian has it.
fn fresh() -> (tempfile::TempDir, SysctlPaths) {
    let directory = tempfile::tempdir().unwrap();
    let paths = SysctlPaths { root: directory.path().join("sys"), saved_values: directory.path().join("sysctl.json") };
    let files = [
        ("ip_forward", "0\n"),
        ("conf/all/rp_filter", "0\n"),
        ("conf/all/send_redirects", "1\n"),
        ("conf/all/accept_redirects", "1\n"),
        ("conf/all/accept_source_route", "0\n"),
        ("conf/eth0/forwarding", "0\n"),
        ("conf/eth0.7/forwarding", "0\n"),
        ("conf/eth0/rp_filter", "1\n"),
        ("conf/eth0/send_redirects", "1\n"),
        ("conf/eth0.7/rp_filter", "2\n"),
        ("conf/eth0.7/send_redirects", "0\n"),
    ];
    for (path, value) in files {
        let path = paths.root.join("net/ipv4").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }
    (directory, paths)
}

/// Every setting that the components want, as it is now.
fn values(paths: &SysctlPaths) -> BTreeMap<String, String> {
    let (config, site) = (config(), site());
    let (inputs, machine) = (inputs(&config, &site), observe::machine(&paths.root));
    let everything = [desired::hardening(&inputs, machine), desired::forwarding(&inputs, machine)].concat();
    Settings::new(paths.clone()).observe(&inputs, everything).values
}

fn config() -> Config {
    config::parse("", &config::Environment::default()).unwrap()
}

fn inputs<'a>(config: &'a Config, site: &'a Site) -> Inputs<'a> {
    Inputs { config, site, tunnel: None, now: Instant::now() }
}

fn forwarding(paths: &SysctlPaths) -> Forwarding {
    Forwarding::new(paths.clone(), || Ok(true))
}

/// Both components, as one daemon has them.
struct Both {
    sysctl: Sysctl,
    forwarding: Forwarding,
}

impl Both {
    fn new(paths: &SysctlPaths) -> Self {
        Self { sysctl: Sysctl::new(paths.clone()), forwarding: forwarding(paths) }
    }

    /// One pass of both: all that they changed.
    fn pass(&mut self) -> Vec<String> {
        [pass(&mut self.sysctl).changes, pass(&mut self.forwarding).changes].concat()
    }
}

/// One pass of a component.
fn pass(component: &mut impl Component) -> Outcome {
    block_on(component::reconcile(component, &inputs(&config(), &site())))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn only_what_differs_is_written_and_a_second_pass_writes_nothing() {
    let (_directory, paths) = fresh();
    let mut sysctl = Sysctl::new(paths);
    assert_eq!(
        pass(&mut sysctl).changes,
        [
            "net/ipv4/conf/all/send_redirects: 1 -> 0",
            "net/ipv4/conf/all/accept_redirects: 1 -> 0",
            "net/ipv4/conf/eth0/rp_filter: 1 -> 0",
            "net/ipv4/conf/eth0/send_redirects: 1 -> 0",
            "net/ipv4/conf/eth0.7/rp_filter: 2 -> 0",
        ]
    );
    let again = pass(&mut sysctl);
    assert_eq!((again.changes, again.repaired, again.state), (vec![], false, State::Ok));
}

#[test]
fn a_setting_that_another_program_changed_is_repaired() {
    let (_directory, paths) = fresh();
    let mut sysctl = Sysctl::new(paths.clone());
    assert!(!pass(&mut sysctl).repaired);
    std::fs::write(paths.root.join("net/ipv4/conf/eth0/rp_filter"), "1\n").unwrap();
    let outcome = pass(&mut sysctl);
    assert_eq!(
        (outcome.changes.as_slice(), outcome.repaired),
        (&["net/ipv4/conf/eth0/rp_filter: 1 -> 0".to_owned()][..], true)
    );
}

#[test]
fn a_setting_of_an_interface_that_is_new_is_set_up_and_not_repaired() {
    let (_directory, paths) = fresh();
    let link = paths.root.join("net/ipv4/conf/eth0");
    let kept = paths.root.join("kept");
    std::fs::rename(&link, &kept).unwrap();
    let mut sysctl = Sysctl::new(paths.clone());
    pass(&mut sysctl);
    std::fs::rename(&kept, &link).unwrap();
    let outcome = pass(&mut sysctl);
    assert!(!outcome.changes.is_empty() && !outcome.repaired, "{outcome:?}");
}

#[test]
fn where_all_interfaces_are_strict_ours_are_loose() {
    let (_directory, paths) = fresh();
    std::fs::write(paths.root.join("net/ipv4/conf/all/rp_filter"), "1\n").unwrap();
    let changes = pass(&mut Sysctl::new(paths.clone())).changes;
    let filters: Vec<String> = changes.into_iter().filter(|change| change.contains("rp_filter")).collect();
    assert_eq!(filters, ["net/ipv4/conf/eth0/rp_filter: 1 -> 2"]);
    assert_eq!(std::fs::read_to_string(paths.root.join("net/ipv4/conf/all/rp_filter")).unwrap(), "1\n");
}

#[test]
fn only_the_forwarding_component_switches_forwarding_on() {
    let (_directory, paths) = fresh();
    pass(&mut Sysctl::new(paths.clone()));
    assert_eq!(values(&paths)["net/ipv4/ip_forward"], "0");
    let outcome = pass(&mut forwarding(&paths));
    assert_eq!(
        outcome.changes,
        [
            "net/ipv4/ip_forward: 0 -> 1",
            "net/ipv4/conf/eth0/forwarding: 0 -> 1",
            "net/ipv4/conf/eth0.7/forwarding: 0 -> 1",
        ]
    );
    assert_eq!(outcome.detail, "forwarding on, 3 settings held");
}

#[test]
fn without_rules_our_own_forwarding_is_switched_off_and_with_rules_it_stays() {
    let (_directory, paths) = fresh();
    Both::new(&paths).pass();
    let hold_back = |rules_stand: RulesStand| {
        let mut forwarding = Forwarding::new(paths.clone(), rules_stand);
        block_on(Component::hold_back(&mut forwarding, &inputs(&config(), &site()), ComponentName::Nat))
    };
    for rules_stand in [(|| Ok(true)) as RulesStand, || Err(std::io::ErrorKind::PermissionDenied.into())] {
        let outcome = hold_back(rules_stand);
        assert_eq!((outcome.state, outcome.detail.as_str()), (State::HeldBack, "waits for nat"));
        assert_eq!(values(&paths)["net/ipv4/ip_forward"], "1");
    }
    assert_eq!(hold_back(|| Ok(false)).changes, ["net/ipv4/ip_forward: 1 -> 0"]);
    assert_eq!(values(&paths)["net/ipv4/ip_forward"], "0");
}

#[test]
fn down_restores_the_saved_values_unless_another_program_changed_them() {
    let (_directory, paths) = fresh();
    let before = values(&paths);
    let mut both = Both::new(&paths);
    both.pass();
    std::fs::write(paths.root.join("net/ipv4/ip_forward"), "0").unwrap();
    both.pass();
    std::fs::write(paths.root.join("net/ipv4/conf/eth0/rp_filter"), "1").unwrap();
    let stopped = stop_forwarding(&paths, UnknownOrigin::LeaveOn);
    assert_eq!(stopped, (vec!["net/ipv4/ip_forward: 1 -> 0".to_owned()], vec![]));
    restore(&paths);
    assert_eq!(values(&paths), before);
    assert!(!is_our_forwarding(&paths));
    assert!(!paths.saved_values.exists());
}

#[test]
fn an_interface_that_was_just_removed_is_no_failure() {
    let (_directory, paths) = fresh();
    std::fs::remove_dir_all(paths.root.join("net/ipv4/conf/eth0.7")).unwrap();
    let mut both = Both::new(&paths);
    assert_eq!([pass(&mut both.sysctl).state, pass(&mut both.forwarding).state], [State::Ok; 2]);
}

#[test]
fn a_setting_that_cannot_be_written_is_named_and_the_others_are_written() {
    let (_directory, paths) = fresh();
    let path = paths.root.join("net/ipv4/ip_forward");
    std::fs::remove_file(&path).unwrap();
    // A directory in its place: neither readable nor writable as a file, for root as well.
    std::fs::create_dir(&path).unwrap();
    let outcome = pass(&mut forwarding(&paths));
    assert_eq!(outcome.state, State::Failed);
    assert_eq!(outcome.changes.len(), 2);
    let what = &outcome.problems[0].what;
    assert!(what.starts_with("cannot read the setting net/ipv4/ip_forward"), "{what}");
}

#[test]
fn forwarding_that_was_on_before_is_not_ours_to_stop() {
    let (_directory, paths) = fresh();
    std::fs::write(paths.root.join("net/ipv4/ip_forward"), "1").unwrap();
    Both::new(&paths).pass();
    assert_eq!(stop_forwarding(&paths, UnknownOrigin::LeaveOn), (vec![], vec![]));
    restore(&paths);
    assert_eq!(values(&paths)["net/ipv4/ip_forward"], "1");
}

#[test]
fn values_of_another_boot_are_void() {
    let (_directory, paths) = fresh();
    let boot_id = paths.root.join("kernel/random/boot_id");
    std::fs::create_dir_all(boot_id.parent().unwrap()).unwrap();
    std::fs::write(&boot_id, "one").unwrap();
    Both::new(&paths).pass();
    assert!(is_our_forwarding(&paths));
    std::fs::write(&boot_id, "two").unwrap();
    assert!(!is_our_forwarding(&paths));
    assert_eq!(restore(&paths), (vec![], vec![]));
}

#[test]
fn values_that_version_0_1_0_saved_are_restored() {
    let (_directory, paths) = fresh();
    let saved = r#"{"boot":"","settings":{"net/ipv4/conf/eth0/rp_filter":{"was":"1","became":"0"}}}"#;
    std::fs::write(&paths.saved_values, saved).unwrap();
    std::fs::write(paths.root.join("net/ipv4/conf/eth0/rp_filter"), "0\n").unwrap();
    assert_eq!(restore(&paths), (vec!["net/ipv4/conf/eth0/rp_filter: 0 -> 1".to_owned()], vec![]));
}

#[test]
fn forwarding_of_unknown_origin_is_switched_off_only_where_our_rules_stand() {
    let (_directory, paths) = fresh();
    Both::new(&paths).pass();
    std::fs::remove_file(&paths.saved_values).unwrap();
    assert_eq!(stop_forwarding(&paths, UnknownOrigin::LeaveOn), (vec![], vec![]));
    let stopped = stop_forwarding(&paths, UnknownOrigin::SwitchOff);
    assert_eq!(stopped, (vec!["net/ipv4/ip_forward: 1 -> 0".to_owned()], vec![]));
    assert_eq!(stop_forwarding(&paths, UnknownOrigin::SwitchOff), (vec![], vec![]));
}

#[test]
fn our_own_values_are_not_saved_as_former_ones_when_the_file_is_lost() {
    let (_directory, paths) = fresh();
    let mut both = Both::new(&paths);
    both.pass();
    std::fs::remove_file(&paths.saved_values).unwrap();
    // Any event starts a pass, which finds everything as the one before left it.
    both.pass();
    let stopped = stop_forwarding(&paths, UnknownOrigin::SwitchOff);
    assert_eq!(stopped, (vec!["net/ipv4/ip_forward: 1 -> 0".to_owned()], vec![]));
}

/// Adds what the connection tracking module brings, on a machine with 4 GB.
fn with_flow_table(paths: &SysctlPaths, max: &str) {
    let directory = paths.root.join("net/netfilter");
    std::fs::create_dir_all(&directory).unwrap();
    let values = [
        ("buckets", "65536"),
        ("max", max),
        ("tcp_timeout_established", "432000"),
        ("tcp_timeout_close_wait", "60"),
        ("tcp_timeout_time_wait", "120"),
        ("udp_timeout", "30"),
        ("udp_timeout_stream", "120"),
    ];
    for (name, value) in values {
        std::fs::write(directory.join(format!("nf_conntrack_{name}")), value).unwrap();
    }
    std::fs::write(paths.root.with_file_name("meminfo"), "MemTotal:        3911684 kB\nMemFree: 1 kB\n").unwrap();
}

#[test]
fn the_flow_table_is_tuned_once_its_module_is_loaded_and_restored() {
    let (_directory, paths) = fresh();
    let mut forwarding = forwarding(&paths);
    assert_eq!(pass(&mut forwarding).detail, "forwarding on, 3 settings held");
    with_flow_table(&paths, "65536");
    let before = values(&paths);
    let outcome = pass(&mut forwarding);
    assert_eq!(
        outcome.changes,
        [
            "net/netfilter/nf_conntrack_buckets: 65536 -> 524288",
            "net/netfilter/nf_conntrack_max: 65536 -> 524288",
            "net/netfilter/nf_conntrack_tcp_timeout_established: 432000 -> 7440",
            "net/netfilter/nf_conntrack_tcp_timeout_time_wait: 120 -> 30",
            "net/netfilter/nf_conntrack_udp_timeout_stream: 120 -> 180",
        ]
    );
    assert_eq!((outcome.state, outcome.detail.as_str()), (State::Ok, "forwarding on, 10 settings held"));
    assert_eq!(pass(&mut forwarding).changes, Vec::<String>::new());
    restore(&paths);
    let of_flow_table = |values: &BTreeMap<String, String>| -> Vec<_> {
        let settings = values.iter().filter(|(path, _)| path.contains("conntrack"));
        settings.map(|(path, value)| (path.clone(), value.clone())).collect()
    };
    assert_eq!(of_flow_table(&values(&paths)), of_flow_table(&before));
}

#[test]
fn tracking_is_liberal_with_the_flow_cache_only_and_until_down() {
    let (_directory, paths) = fresh();
    with_flow_table(&paths, "65536");
    let names = ["tcp_be_liberal", "tcp_ignore_invalid_rst"].map(|name| format!("net/netfilter/nf_conntrack_{name}"));
    for name in &names {
        std::fs::write(paths.root.join(name), "0").unwrap();
    }
    let of_names = || names.clone().map(|name| std::fs::read_to_string(paths.root.join(name)).unwrap());
    let mut forwarding = forwarding(&paths);
    let (mut config, site) = (config(), site());
    let mut choose = |fastpath| {
        config.nat.fastpath = fastpath;
        block_on(component::reconcile(&mut forwarding, &inputs(&config, &site)));
    };
    for fastpath in [Fastpath::Auto, Fastpath::Flowtable, Fastpath::Off] {
        choose(fastpath);
        assert_eq!(of_names(), ["0", "0"], "{fastpath:?}");
    }
    choose(Fastpath::Bpf);
    assert_eq!(of_names(), ["1", "1"]);
    // Connections that are open still need it.
    choose(Fastpath::Auto);
    assert_eq!(of_names(), ["1", "1"]);
    restore(&paths);
    assert_eq!(of_names(), ["0", "0"]);
}

#[test]
fn a_larger_flow_table_is_kept_now_and_by_down() {
    let (_directory, paths) = fresh();
    with_flow_table(&paths, "2000000");
    let mut forwarding = forwarding(&paths);
    let changes = pass(&mut forwarding).changes;
    assert!(!changes.iter().any(|change| change.contains("_max")), "{changes:?}");
    let max = paths.root.join("net/netfilter/nf_conntrack_max");
    std::fs::write(&max, "3000000").unwrap();
    assert_eq!(pass(&mut forwarding).changes, Vec::<String>::new());
    restore(&paths);
    assert_eq!(std::fs::read_to_string(&max).unwrap(), "3000000");
}

#[test]
fn a_size_that_only_the_whole_machine_may_set_is_no_failure_and_is_shown() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, paths) = fresh();
    with_flow_table(&paths, "65536");
    for name in ["buckets", "max"] {
        let path = paths.root.join(format!("net/netfilter/nf_conntrack_{name}"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444)).unwrap();
    }
    let mut forwarding = forwarding(&paths);
    let outcome = pass(&mut forwarding);
    assert_eq!(outcome.detail, "forwarding on, 8 settings held, 2 not ours to set here");
    assert_eq!((outcome.state, outcome.problems), (State::Ok, Vec::new()));
    let (config, site) = (config(), site());
    assert_eq!(block_on(component::preview(&mut forwarding, &inputs(&config, &site))), Ok((vec![], vec![])));
}

#[test]
fn a_tuning_that_fails_is_reported_and_stops_nothing_else() {
    let (_directory, paths) = fresh();
    with_flow_table(&paths, "65536");
    let writes = [Write {
        // No file system has such a file.
        path: "net/netfilter/\0".to_owned(),
        from: "1".to_owned(),
        to: "2".to_owned(),
        need: Need::Tuned,
    }];
    let applied = apply::apply(&paths.root, &writes);
    assert_eq!((applied.failed, applied.denied, applied.problems.len()), (false, 0, 1));
}

#[test]
fn every_setting_that_is_wanted_is_known_as_one_that_is_written_here() {
    let (config, site) = (config::parse(TUNNEL, &config::Environment::default()).unwrap(), site());
    let tunnel = crate::inputs::tunnel(&config, &site, &crate::inputs::SeenReturnRoutes::new()).unwrap();
    let inputs = Inputs { config: &config, site: &site, tunnel: Some(&tunnel), now: Instant::now() };
    let machine = model::Machine { memory: Some(8 << 30), strict_sources: true };
    let wanted = [desired::hardening(&inputs, machine), desired::forwarding(&inputs, machine)].concat();
    assert!(wanted.len() > 20, "{wanted:?}");
    for setting in wanted {
        assert!(desired::is_written_here(&setting.path) && desired::is_value(&setting.value), "{setting:?}");
    }
}

const TUNNEL: &str = "[wireguard]\naddresses = [\"10.100.0.1/24\"]";

#[test]
fn saved_values_of_other_files_and_settings_are_not_restored() {
    let (directory, paths) = fresh();
    let boot_id = paths.root.join("kernel/random");
    std::fs::create_dir_all(&boot_id).unwrap();
    std::fs::write(boot_id.join("boot_id"), "this boot\n").unwrap();
    let outside = directory.path().join("cron");
    let other = paths.root.join("kernel/core_pattern");
    let linked = paths.root.join("net/ipv4/conf/eth7");
    std::fs::write(&outside, "# default").unwrap();
    std::fs::write(&other, "core").unwrap();
    std::os::unix::fs::symlink(paths.root.join("net/ipv4/conf/eth0"), linked).unwrap();
    let absolute = outside.display().to_string();
    let mut settings = serde_json::Map::new();
    for (path, was, became) in [
        (absolute.as_str(), "* * * * * root x", "# default"),
        ("net/../kernel/core_pattern", "|/bin/x", "core"),
        ("kernel/core_pattern", "1", "core"),
        ("net/ipv4/conf/../../../../cron", "1", "# default"),
        ("net/ipv4/conf/eth7/send_redirects", "0", "1"),
        ("net/ipv4/conf/eth0/send_redirects", "0\nnet", "1"),
        ("net/ipv4/conf/eth0/rp_filter", "2", "1"),
    ] {
        settings.insert(path.to_owned(), serde_json::json!({"was": was, "became": became}));
    }
    let saved = serde_json::json!({"boot": "this boot", "settings": settings});
    std::fs::write(&paths.saved_values, saved.to_string()).unwrap();
    let (changes, problems) = restore(&paths);
    assert_eq!(changes, ["net/ipv4/conf/eth0/rp_filter: 1 -> 2"]);
    assert_eq!(problems.len(), 1, "a link is not followed: {problems:?}");
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "# default");
    assert_eq!(std::fs::read_to_string(other).unwrap(), "core");
    assert_eq!(std::fs::read_to_string(paths.root.join("net/ipv4/conf/eth0/send_redirects")).unwrap(), "1\n");
}
