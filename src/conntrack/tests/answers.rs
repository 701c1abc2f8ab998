//! Which flows belong to which forward or static address, and how they are selected in the kernel.

use super::super::answers::{Redirect, Redirects, Target};
use super::super::wire::{Selection, select_flows};
use super::*;

fn target(redirect: Redirect, protocol: u8, is_named: bool) -> Target {
    Target { redirect, protocol, is_named }
}

#[test]
fn a_flow_belongs_to_the_forward_or_static_address_that_leads_it_to_its_host() {
    let policy = policy_of(&config());
    let redirects = Redirects::new(&policy);
    let belongs = |first: &str, to: &str| redirects.target(&redirected(first, to));
    let mail = Redirect::Static(read("203.0.113.51"));
    let cases = [
        ("tcp 192.0.2.7:4000 198.51.100.2:443", "10.0.0.4:8443", Some(target(Redirect::Forward(0), TCP, true))),
        ("tcp 10.0.0.9:4000 198.51.100.3:443", "10.0.0.4:8443", Some(target(Redirect::Forward(0), TCP, true))),
        ("udp 192.0.2.7:4000 198.51.100.2:30007", "10.0.0.5:30007", Some(target(Redirect::Forward(1), UDP, false))),
        ("tcp 203.0.113.9:4000 198.51.100.2:8022", "10.0.0.4:22", Some(target(Redirect::Forward(2), TCP, true))),
        ("tcp 192.0.2.7:4000 203.0.113.51:80", "10.0.0.7:80", Some(target(mail, TCP, false))),
        // Another program's, by the host, by the port, by the source that the forward does not allow.
        ("tcp 192.0.2.7:4000 198.51.100.2:443", "10.0.0.9:8443", None),
        ("tcp 192.0.2.7:4000 198.51.100.2:443", "10.0.0.4:443", None),
        ("tcp 192.0.2.7:4000 198.51.100.2:8022", "10.0.0.4:22", None),
        ("tcp 192.0.2.7:4000 203.0.113.51:80", "10.0.0.8:80", None),
        ("tcp 192.0.2.7:4000 198.51.100.2:9000", "10.0.0.4:9000", None),
    ];
    for (first, to, expected) in cases {
        assert_eq!(belongs(first, to), expected, "{first} to {to}");
    }
    assert_eq!(redirects.target(&flow("tcp 192.0.2.7:4000 198.51.100.2:443")), None);
    let answers = |redirect| redirects.answers_from(Target { redirect, protocol: TCP, is_named: true });
    assert_eq!(answers(Redirect::Forward(0)), Some((read("10.0.0.4"), Some(8443))));
    assert_eq!(answers(Redirect::Forward(1)), Some((read("10.0.0.5"), None)));
    assert_eq!(answers(mail), Some((read("10.0.0.7"), None)));
}

#[test]
fn single_ports_of_a_static_address_are_told_apart_from_a_range_and_from_everything() {
    let mut config = config();
    let redirect = Redirect::Static(read("203.0.113.51"));
    let belongs = |config: &Config| {
        let policy = policy_of(config);
        Redirects::new(&policy).target(&redirected("tcp 192.0.2.7:4000 203.0.113.51:25", "10.0.0.7:25"))
    };
    // 25 and 8000 to 8100 in one line.
    assert_eq!(belongs(&config), Some(target(redirect, TCP, false)));
    config.nat.statics[0].open[0].ports = vec![ports(25, 25)];
    assert_eq!(belongs(&config), Some(target(redirect, TCP, true)));
    config.nat.statics[0].open = vec![Acl::default()];
    assert_eq!(belongs(&config), Some(target(redirect, TCP, false)));
}

#[test]
fn a_selection_contains_the_flows_that_the_kernel_is_asked_for() {
    let unanswered = Selection { set: Status::DST_NAT, unset: Status::SEEN_REPLY, answers_from: None };
    let mut web = redirected("tcp 192.0.2.7:4000 198.51.100.2:443", "10.0.0.4:8443");
    assert!(unanswered.contains(&web) && !unanswered.contains(&flow("tcp 192.0.2.7:4000 198.51.100.2:443")));
    web.status = web.status | Status::SEEN_REPLY;
    assert!(!unanswered.contains(&web));
    let answered = |host: &str, protocol, port| Selection {
        set: Status::DST_NAT | Status::SEEN_REPLY,
        unset: Status::default(),
        answers_from: Some((read(host), protocol, port)),
    };
    assert!(answered("10.0.0.4", TCP, Some(8443)).contains(&web) && answered("10.0.0.4", TCP, None).contains(&web));
    assert!(!answered("10.0.0.5", TCP, None).contains(&web) && !answered("10.0.0.4", UDP, None).contains(&web));
    assert!(!answered("10.0.0.4", TCP, Some(443)).contains(&web));
    // CTA_STATUS and CTA_STATUS_MASK of "redirected and never answered".
    let attribute =
        |kind: u16, value: u32| [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes()[..], &value.to_be_bytes()[..]].concat();
    assert_eq!(select_flows(&unanswered), [attribute(3, 0x20), attribute(26, 0x22)].concat());
}
