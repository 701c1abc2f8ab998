use std::collections::BTreeMap;

use super::originals::we_forward;
use super::*;
use crate::site::{PrivateLink, PublicLink};

fn site() -> Site {
    Site {
        public: Some(PublicLink { interface: "eth0".parse().unwrap(), mtu: 1500, addresses: vec![] }),
        private: vec![PrivateLink {
            interface: "eth0.7".parse().unwrap(),
            mtu: 1450,
            address: "10.0.0.2".parse().unwrap(),
            address_present: true,
            aliases: std::collections::BTreeSet::new(),
            network: "10.0.0.0/16".parse().unwrap(),
            network_id: None,
            network_name: None,
        }],
        ..Site::default()
    }
}

/// A `/proc/sys` in a temporary directory, as a fresh Debian has it.
fn fresh_place() -> (tempfile::TempDir, Place) {
    let directory = tempfile::tempdir().unwrap();
    let place = Place { root: directory.path().join("sys"), memory: directory.path().join("sysctl.json") };
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
        let path = place.root.join("net/ipv4").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }
    (directory, place)
}

fn values(place: &Place) -> BTreeMap<String, String> {
    let everything = desired(&site(), None, Forwarding::On, Machine::default());
    observe::observe(&place.root, &everything).values
}

#[test]
fn only_what_differs_is_written_and_a_second_pass_writes_nothing() {
    let (_directory, place) = fresh_place();
    let outcome = reconcile(&place, &site(), None, Forwarding::Leave, false);
    assert_eq!(
        outcome.changes,
        [
            "net/ipv4/conf/all/send_redirects: 1 -> 0",
            "net/ipv4/conf/all/accept_redirects: 1 -> 0",
            "net/ipv4/conf/eth0/rp_filter: 1 -> 0",
            "net/ipv4/conf/eth0/send_redirects: 1 -> 0",
            "net/ipv4/conf/eth0.7/rp_filter: 2 -> 0",
        ]
    );
    let again = reconcile(&place, &site(), None, Forwarding::Leave, true);
    assert_eq!((again.changes, again.repaired, again.state), (vec![], false, State::Ok));
}

#[test]
fn where_all_interfaces_are_strict_ours_are_loose() {
    let (_directory, place) = fresh_place();
    std::fs::write(place.root.join("net/ipv4/conf/all/rp_filter"), "1\n").unwrap();
    let filters = |changes: Vec<String>| changes.into_iter().filter(|change| change.contains("rp_filter")).collect();
    let changes: Vec<String> = filters(reconcile(&place, &site(), None, Forwarding::Leave, false).changes);
    assert_eq!(changes, ["net/ipv4/conf/eth0/rp_filter: 1 -> 2"]);
    assert_eq!(std::fs::read_to_string(place.root.join("net/ipv4/conf/all/rp_filter")).unwrap(), "1\n");
}

#[test]
fn forwarding_is_switched_on_only_when_told() {
    let (_directory, place) = fresh_place();
    reconcile(&place, &site(), None, Forwarding::Leave, false);
    assert_eq!(values(&place)["net/ipv4/ip_forward"], "0");
    let outcome = reconcile(&place, &site(), None, Forwarding::On, false);
    assert_eq!(
        outcome.changes,
        [
            "net/ipv4/ip_forward: 0 -> 1",
            "net/ipv4/conf/eth0/forwarding: 0 -> 1",
            "net/ipv4/conf/eth0.7/forwarding: 0 -> 1",
        ]
    );
}

#[test]
fn what_is_put_back_is_what_was_there_first_unless_somebody_changed_it_since() {
    let (_directory, place) = fresh_place();
    let before = values(&place);
    reconcile(&place, &site(), None, Forwarding::On, false);
    std::fs::write(place.root.join("net/ipv4/ip_forward"), "0").unwrap();
    reconcile(&place, &site(), None, Forwarding::On, true);
    std::fs::write(place.root.join("net/ipv4/conf/eth0/rp_filter"), "1").unwrap();
    let (forwarding, problems) = stop_forwarding(&place, Doubt::Leave);
    assert_eq!((forwarding, problems), (vec!["net/ipv4/ip_forward: 1 -> 0".to_owned()], vec![]));
    restore(&place);
    assert_eq!(values(&place), before);
    assert!(!we_forward(&place));
    assert!(!place.memory.exists());
}

#[test]
fn an_interface_that_just_went_is_no_failure() {
    let (_directory, place) = fresh_place();
    std::fs::remove_dir_all(place.root.join("net/ipv4/conf/eth0.7")).unwrap();
    assert_eq!(reconcile(&place, &site(), None, Forwarding::On, false).state, State::Ok);
}

#[test]
fn a_setting_that_cannot_be_written_is_named_and_the_others_go_on() {
    let (_directory, place) = fresh_place();
    let path = place.root.join("net/ipv4/ip_forward");
    std::fs::remove_file(&path).unwrap();
    // A directory in its place: neither readable nor writable as a file, for root as well.
    std::fs::create_dir(&path).unwrap();
    let outcome = reconcile(&place, &site(), None, Forwarding::On, false);
    assert_eq!(outcome.state, State::Failed);
    assert_eq!(outcome.changes.len(), 7);
    assert!(
        outcome.problems[0].what.starts_with("cannot read the setting net/ipv4/ip_forward"),
        "{:?}",
        outcome.problems
    );
}

#[test]
fn forwarding_that_was_on_before_us_is_not_ours_to_stop() {
    let (_directory, place) = fresh_place();
    std::fs::write(place.root.join("net/ipv4/ip_forward"), "1").unwrap();
    reconcile(&place, &site(), None, Forwarding::On, false);
    assert_eq!(stop_forwarding(&place, Doubt::Leave), (vec![], vec![]));
    restore(&place);
    assert_eq!(values(&place)["net/ipv4/ip_forward"], "1");
}

#[test]
fn values_of_another_boot_are_void() {
    let (_directory, place) = fresh_place();
    let boot = place.root.join("kernel/random/boot_id");
    std::fs::create_dir_all(boot.parent().unwrap()).unwrap();
    std::fs::write(&boot, "one").unwrap();
    reconcile(&place, &site(), None, Forwarding::On, false);
    assert!(we_forward(&place));
    std::fs::write(&boot, "two").unwrap();
    assert!(!we_forward(&place));
    assert_eq!(restore(&place), (vec![], vec![]));
}

#[test]
fn forwarding_of_which_nothing_is_remembered_is_shut_only_where_our_rules_stand() {
    let (_directory, place) = fresh_place();
    reconcile(&place, &site(), None, Forwarding::On, false);
    std::fs::remove_file(&place.memory).unwrap();
    assert_eq!(stop_forwarding(&place, Doubt::Leave), (vec![], vec![]));
    assert_eq!(stop_forwarding(&place, Doubt::Shut), (vec!["net/ipv4/ip_forward: 1 -> 0".to_owned()], vec![]));
    assert_eq!(stop_forwarding(&place, Doubt::Shut), (vec![], vec![]));
}

#[test]
fn our_own_settings_are_not_noted_as_somebody_elses_when_the_memory_is_lost() {
    let (_directory, place) = fresh_place();
    reconcile(&place, &site(), None, Forwarding::On, false);
    std::fs::remove_file(&place.memory).unwrap();
    // Any event makes a pass, and it finds everything as it made it.
    reconcile(&place, &site(), None, Forwarding::On, true);
    assert_eq!(stop_forwarding(&place, Doubt::Shut), (vec!["net/ipv4/ip_forward: 1 -> 0".to_owned()], vec![]));
}

/// Adds what the connection tracking module brings, on a machine with 4 GB.
fn with_flow_table(place: &Place, max: &str) {
    let directory = place.root.join("net/netfilter");
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
    std::fs::write(place.root.with_file_name("meminfo"), "MemTotal:        3911684 kB\nMemFree: 1 kB\n").unwrap();
}

#[test]
fn the_flow_table_is_tuned_once_its_module_is_there_and_restored() {
    let (_directory, place) = fresh_place();
    let without = reconcile(&place, &site(), None, Forwarding::Leave, false);
    assert_eq!(without.detail, "7 settings held");
    with_flow_table(&place, "65536");
    let before = values(&place);
    let outcome = reconcile(&place, &site(), None, Forwarding::Leave, false);
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
    assert_eq!((outcome.state, outcome.detail.as_str()), (State::Ok, "14 settings held"));
    assert_eq!(reconcile(&place, &site(), None, Forwarding::Leave, true).changes, Vec::<String>::new());
    restore(&place);
    let of_flows = |values: &BTreeMap<String, String>| -> Vec<_> {
        values
            .iter()
            .filter(|(path, _)| path.contains("conntrack"))
            .map(|(path, value)| (path.clone(), value.clone()))
            .collect()
    };
    assert_eq!(of_flows(&values(&place)), of_flows(&before));
}

#[test]
fn a_larger_flow_table_is_left_as_it_is_now_and_by_down() {
    let (_directory, place) = fresh_place();
    with_flow_table(&place, "2000000");
    let outcome = reconcile(&place, &site(), None, Forwarding::Leave, false);
    assert!(!outcome.changes.iter().any(|change| change.contains("_max")), "{:?}", outcome.changes);
    let max = place.root.join("net/netfilter/nf_conntrack_max");
    // Somebody wants still more, and after that less than we do: less is no gateway's size.
    std::fs::write(&max, "3000000").unwrap();
    assert_eq!(reconcile(&place, &site(), None, Forwarding::Leave, true).changes, Vec::<String>::new());
    restore(&place);
    assert_eq!(std::fs::read_to_string(&max).unwrap(), "3000000");
}

#[test]
fn a_size_that_is_the_machines_alone_is_no_failure_and_is_shown() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, place) = fresh_place();
    with_flow_table(&place, "65536");
    for name in ["buckets", "max"] {
        let path = place.root.join(format!("net/netfilter/nf_conntrack_{name}"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444)).unwrap();
    }
    let outcome = reconcile(&place, &site(), None, Forwarding::Leave, false);
    assert_eq!(outcome.detail, "12 settings held, 2 not ours to set here");
    assert_eq!((outcome.state, outcome.problems), (State::Ok, Vec::new()));
    assert!(preview(&place, &site(), None, Forwarding::Leave).is_empty());
}

#[test]
fn a_tuning_that_fails_is_told_and_holds_nothing_up() {
    let (_directory, place) = fresh_place();
    with_flow_table(&place, "65536");
    let steps = [Write {
        // No file system has such a file.
        path: "net/netfilter/\0".to_owned(),
        from: "1".to_owned(),
        to: "2".to_owned(),
        need: Need::Tuned,
    }];
    let applied = apply::apply(&place.root, &steps);
    assert_eq!((applied.failed, applied.denied, applied.problems.len()), (false, 0, 1));
}
