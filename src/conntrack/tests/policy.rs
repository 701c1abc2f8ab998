//! The policy of a configuration on a server whose picture is not always whole.

use super::*;

#[test]
fn without_an_address_of_the_public_link_nothing_is_judged() {
    let mut site = site();
    if let Some(link) = &mut site.public {
        link.addresses.clear();
    }
    assert_eq!(policy_at(&config(), &site, None), None);
    site.public = None;
    assert_eq!(policy_at(&config(), &site, None), None);
}

#[test]
fn a_network_that_is_missing_for_the_moment_keeps_its_flows_and_one_that_is_gone_does_not() {
    let before = policy_of(&config());
    let flows = [
        masqueraded("tcp 10.0.0.4:4000 203.0.113.9:443", "198.51.100.2:5000"),
        flow("tcp 10.0.0.4:4000 10.2.0.4:5432"),
        flow("tcp 10.100.0.2:4000 10.0.0.4:80"),
        flow("tcp 10.0.0.4:4000 10.0.0.2:9100"),
    ];
    let ended = |site: &Site| -> Vec<_> {
        let now = policy_at(&config(), site, Some(&before)).unwrap();
        let (old, new) = (Judge::of(&before), Judge::of(&now));
        flows.iter().map(|flow| end(&old, &new, flow)).collect()
    };
    let mut site = site();
    site.private.clear();
    site.problems = vec![Problem::new("the metadata service does not answer", "")];
    assert_eq!(ended(&site), [None; 4]);
    site.problems.clear();
    let gone = [Reason::Egress, Reason::Tenant, Reason::Tunnel, Reason::Service].map(Some);
    assert_eq!(ended(&site), gone);
}

#[test]
fn an_address_that_is_missing_for_the_moment_keeps_its_forwards_flows() {
    let mut site = site();
    if let Some(link) = &mut site.public {
        link.addresses.push(read("203.0.113.50"));
    }
    let before = policy_at(&config(), &site, None).unwrap();
    let floating = redirected("tcp 192.0.2.9:4000 203.0.113.50:443", "10.0.0.4:8443");
    let now = policy_at(&config(), &super::site(), Some(&before)).unwrap();
    assert_eq!(end(&Judge::of(&before), &Judge::of(&now), &floating), None);
    let mut without = config();
    without.nat.forwards.clear();
    let now = policy_at(&without, &super::site(), Some(&before)).unwrap();
    assert_eq!(end(&Judge::of(&before), &Judge::of(&now), &floating), Some(Reason::Forward));
}

#[test]
fn the_same_configuration_makes_the_same_policy_and_it_is_read_as_it_was_written() {
    let policy = policy_of(&config());
    assert_eq!(policy_at(&config(), &site(), Some(&policy)), Some(policy.clone()));
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
}

#[tokio::test]
async fn a_first_policy_without_forwards_is_remembered_without_a_look_at_the_flows() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config();
    config.nat.forwards.clear();
    config.nat.statics.clear();
    let site = site();
    let mut room = Conntrack::remembered_in(directory.path());
    let outcome = room.follow(&config, &site, None).await;
    assert_eq!((outcome.state, outcome.changes), (State::Ok, Vec::new()));
    let kept = Conntrack::remembered_in(directory.path()).memory;
    assert_eq!(kept, Policy::of(&config, &site, None, None));
    assert_eq!(room.remove(), (Vec::new(), Vec::new()));
    assert_eq!(Conntrack::remembered_in(directory.path()).memory, None);
}
