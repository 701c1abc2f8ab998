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
    let everything = desired(&site(), None, Forwarding::On);
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
            "net/ipv4/conf/eth0/rp_filter: 1 -> 2",
            "net/ipv4/conf/eth0/send_redirects: 1 -> 0",
        ]
    );
    let again = reconcile(&place, &site(), None, Forwarding::Leave, true);
    assert_eq!((again.changes, again.repaired, again.state), (vec![], false, State::Ok));
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
    assert_eq!(outcome.changes.len(), 6);
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
