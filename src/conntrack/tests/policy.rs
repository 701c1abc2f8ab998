//! The policy of a configuration on a server, also while parts of the site are unknown.

use super::*;

#[test]
fn without_an_address_of_the_public_link_there_is_no_policy() {
    let mut site = site();
    if let Some(link) = &mut site.public {
        link.addresses.clear();
    }
    assert_eq!(policy_at(&config(), &site, None), None);
    site.public = None;
    assert_eq!(policy_at(&config(), &site, None), None);
}

#[test]
fn flows_of_a_network_that_is_missing_for_a_moment_go_on_and_those_of_a_removed_one_end() {
    let before = policy_of(&config());
    let flows = [
        masqueraded("tcp 10.0.0.4:4000 203.0.113.9:443", "198.51.100.2:5000"),
        flow("tcp 10.0.0.4:4000 10.2.0.4:5432"),
        flow("tcp 10.100.0.2:4000 10.0.0.4:80"),
        flow("tcp 10.0.0.4:4000 10.0.0.2:9100"),
    ];
    let ended = |site: &Site| -> Vec<_> {
        let now = policy_at(&config(), site, Some(&before)).unwrap();
        let (old, new) = (PolicyEvaluator::new(&before), PolicyEvaluator::new(&now));
        flows.iter().map(|flow| end_reason(&old, &new, flow)).collect()
    };
    let mut site = site();
    site.private.clear();
    site.problems = vec![Problem::new("metadata-silent", "the metadata service does not answer", "")];
    assert_eq!(ended(&site), [None; 4]);
    site.problems.clear();
    let gone = [EndReason::Egress, EndReason::Tenant, EndReason::Tunnel, EndReason::Service].map(Some);
    assert_eq!(ended(&site), gone);
}

#[test]
fn flows_of_a_forward_go_on_while_its_public_address_is_missing() {
    let mut site = site();
    if let Some(link) = &mut site.public {
        link.addresses.push(read("203.0.113.50"));
    }
    let before = policy_at(&config(), &site, None).unwrap();
    let floating = redirected("tcp 192.0.2.9:4000 203.0.113.50:443", "10.0.0.4:8443");
    let now = policy_at(&config(), &super::site(), Some(&before)).unwrap();
    assert_eq!(end_reason(&PolicyEvaluator::new(&before), &PolicyEvaluator::new(&now), &floating), None);
    let mut without = config();
    without.nat.forwards.clear();
    let now = policy_at(&without, &super::site(), Some(&before)).unwrap();
    assert_eq!(
        end_reason(&PolicyEvaluator::new(&before), &PolicyEvaluator::new(&now), &floating),
        Some(EndReason::Forward)
    );
}

#[test]
fn the_same_configuration_gives_the_same_policy_and_its_file_reads_back() {
    let policy = policy_of(&config());
    assert_eq!(policy_at(&config(), &site(), Some(&policy)), Some(policy.clone()));
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
}

#[test]
fn the_file_of_version_0_1_0_reads_as_the_policy_of_the_same_configuration() {
    let mut config = config();
    config.nat.forwards.push(Forward {
        public: vec![read("198.51.100.2"), read("198.51.100.4")],
        ..forward(ports(20, 30), "10.0.0.4", None)
    });
    let directory = tempfile::tempdir().unwrap();
    let file = include_str!("../../../tests/data/conntrack/flows-0.1.0.json");
    std::fs::write(directory.path().join("flows.json"), file).unwrap();
    let expected = Policy { wireguard_port: None, ..policy_of(&config) };
    assert_eq!(Conntrack::load(directory.path()).followed, Some(expected));
    // A daemon of version 0.1.0 that comes back can read what this one writes.
    let mut written = serde_json::to_value(policy_of(&config)).unwrap();
    assert_eq!(written.as_object_mut().unwrap().remove("wireguard_port"), Some(51820.into()));
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(file).unwrap());
}

/// What a pass is given, without a tunnel.
fn inputs<'a>(config: &'a Config, site: &'a Site) -> Inputs<'a> {
    Inputs { config, site, tunnel: None, now: Instant::now() }
}

#[tokio::test]
async fn a_first_policy_without_forwards_is_remembered_without_listing_the_flows() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config();
    config.nat.forwards.clear();
    config.nat.statics.clear();
    let site = site();
    let mut conntrack = Conntrack::load(directory.path());
    let outcome = component::reconcile(&mut conntrack, &inputs(&config, &site)).await;
    assert_eq!((outcome.state, outcome.changes), (State::Ok, Vec::new()));
    let kept = Conntrack::load(directory.path()).followed;
    assert_eq!(kept, Policy::new(&config, &site, None, None));
    assert_eq!(conntrack.down(&inputs(&config, &site)).await, (Vec::new(), Vec::new()));
    assert_eq!(Conntrack::load(directory.path()).followed, None);
}

#[test]
fn a_plan_compares_prints_and_counts_the_flows_that_end() {
    let directory = tempfile::tempdir().unwrap();
    let (config, site) = (config(), site());
    let mut conntrack = Conntrack::load(directory.path());
    conntrack.followed = Policy::new(&config, &site, None, None);
    let mut without = config.clone();
    without.nat.forwards.clear();
    let policy = Policy::new(&without, &site, None, conntrack.followed.as_ref());
    let mut losing = FlowCounts::default();
    for reason in [EndReason::Egress, EndReason::Forward, EndReason::Egress] {
        losing.add(reason);
    }
    let plan = |losing| conntrack.plan(&inputs(&without, &site), &Observed { policy: policy.clone(), losing });
    assert_eq!(plan(losing.clone()).steps(), ["end live flows: 1 of port forwards, 2 to the internet"]);
    assert_eq!(plan(losing.clone()), plan(losing.clone()));
    assert_ne!(plan(losing), plan(FlowCounts::default()));
    // A policy that ends no flow is followed, which is no step.
    let quiet = plan(FlowCounts::default());
    assert!(matches!(quiet.action, Action::Follow(_)) && quiet.steps().is_empty());
    let same = Observed { policy: conntrack.followed.clone(), losing: FlowCounts::default() };
    assert_eq!(conntrack.plan(&inputs(&config, &site), &same).action, Action::Keep);
    let unknown = Observed { policy: None, losing: FlowCounts::default() };
    assert_eq!(conntrack.plan(&inputs(&config, &site), &unknown).action, Action::Wait);
}
