//! Laws that hold for any two configurations and any flow.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

/// The configuration without some of its parts, and with some of them changed.
fn any_config() -> impl Strategy<Value = Config> {
    let whole = config();
    let peers = whole.wireguard.as_ref().unwrap().peers.clone();
    let parts = (
        subsequence(whole.nat.forwards.clone(), 0..=3),
        subsequence(whole.nat.statics.clone(), 0..=1),
        subsequence(whole.tenants.clone(), 0..=1),
        subsequence(whole.networks.clone(), 0..=1),
        subsequence(whole.firewall.services.clone(), 0..=1),
        prop::option::of(subsequence(peers, 0..=2)),
    );
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), select(vec!["10.0.0.4", "10.0.0.5"]));
    (parts, switches).prop_map(move |((forwards, statics, tenants, networks, services, peers), switches)| {
        let (guard, full, blocked, to) = switches;
        let mut config = whole.clone();
        (config.nat.forwards, config.nat.statics) = (forwards, statics);
        (config.tenants, config.networks, config.firewall.services) = (tenants, networks, services);
        config.egress.guard = guard;
        config.wireguard = config.wireguard.zip(peers).map(|(wireguard, peers)| crate::config::Wireguard {
            peers,
            full_tunnel: full,
            ..wireguard
        });
        if blocked {
            config.firewall.blocklist.push(read("192.0.2.0/24"));
        }
        config.nat.forwards.iter_mut().for_each(|forward| forward.to = read(to));
        config
    })
}

/// Flows between few addresses and ports, so that they often match a configuration.
fn any_flow() -> impl Strategy<Value = Flow> {
    let addresses = [
        "10.0.0.2",
        "10.0.0.4",
        "10.0.0.5",
        "10.0.0.7",
        "10.2.0.4",
        "10.100.0.1",
        "10.100.0.2",
        "192.168.178.9",
        "192.0.2.9",
        "198.51.100.2",
        "203.0.113.9",
        "203.0.113.51",
        "172.17.0.2",
        "169.254.169.254",
    ];
    let address = || select(addresses.map(read::<Ipv4Addr>).to_vec());
    let port = || select(vec![22_u16, 25, 53, 443, 5432, 8022, 8443, 9100, 30000, 51820, 40000]);
    let tuple = move || {
        (address(), address(), select(vec![ICMP, TCP, UDP]), port(), port()).prop_map(
            |(source, destination, protocol, from, to)| Tuple {
                source,
                destination,
                protocol,
                layer4: if protocol == ICMP {
                    Layer4::Icmp { id: 1, kind: 8, code: 0 }
                } else {
                    Layer4::Ports { source: from, destination: to }
                },
                zone: None,
            },
        )
    };
    let status = select(vec![Status::CONFIRMED, Status::SRC_NAT, Status::DST_NAT, Status::SRC_NAT | Status::DST_NAT]);
    (tuple(), tuple(), status, select(vec![0, 0, 0, 5])).prop_map(|(original, reply, status, zone)| Flow {
        original,
        reply,
        status,
        mark: 0,
        id: None,
        zone,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_same_policy_ends_no_flow(config in any_config(), flow in any_flow()) {
        let policy = policy_of(&config);
        let evaluator = PolicyEvaluator::new(&policy);
        prop_assert_eq!(end_reason(&evaluator, &evaluator, &flow), None);
    }

    #[test]
    fn a_flow_ends_only_if_it_loses_its_permission_or_bypasses_a_new_forward(
        old in any_config(), new in any_config(), flow in any_flow(),
    ) {
        let (old, new) = (policy_of(&old), policy_of(&new));
        let (old, new) = (PolicyEvaluator::new(&old), PolicyEvaluator::new(&new));
        let allowed = |permission: Permission| !matches!(permission, Permission::Blocked(_) | Permission::Unknown);
        match end_reason(&old, &new, &flow) {
            Some(EndReason::Bypass) => {
                let is_new = new.redirect_target(&flow).is_some() && old.redirect_target(&flow).is_none();
                prop_assert!(!flow.is_redirected() && is_new);
            }
            Some(_) => {
                let other_peer = old.peers_of(&flow) != new.peers_of(&flow);
                let differs = old.permission(&flow) != new.permission(&flow) || other_peer;
                prop_assert!(allowed(old.permission(&flow)) && differs);
            }
            None => {
                let lost = allowed(old.permission(&flow)) && old.permission(&flow) != new.permission(&flow);
                prop_assert!(!lost || new.is_operator_access(&flow));
            }
        }
    }

    #[test]
    fn ssh_to_the_bastion_and_flows_in_zones_never_end(old in any_config(), new in any_config(), flow in any_flow()) {
        let ssh = flow.original.protocol == TCP && flow.original.destination_port() == Some(22);
        let own = ["198.51.100.2", "10.0.0.2"].map(read::<Ipv4Addr>).contains(&flow.original.destination);
        let (old, new) = (policy_of(&old), policy_of(&new));
        let ended = end_reason(&PolicyEvaluator::new(&old), &PolicyEvaluator::new(&new), &flow);
        if flow.zone != 0 || ssh && own && !flow.is_redirected() {
            prop_assert_eq!(ended, None);
        }
    }

    #[test]
    fn a_policy_read_from_its_file_gives_the_same_permissions(config in any_config(), flow in any_flow()) {
        let policy = policy_of(&config);
        let read: Policy = serde_json::from_slice(&serde_json::to_vec(&policy).unwrap()).unwrap();
        prop_assert_eq!(&read, &policy);
        prop_assert_eq!(PolicyEvaluator::new(&read).permission(&flow), PolicyEvaluator::new(&policy).permission(&flow));
    }
}

#[test]
fn a_hundred_thousand_flows_are_evaluated_by_ten_thousand_lines_and_forwards_in_seconds() {
    let mut large = config();
    let host = |number: u32| Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 112, 0).to_bits() + number);
    large.egress.lists.deny =
        (0..10_000).map(|number| Acl { to: vec![host(number).into()], ..Acl::default() }).collect();
    large.tenants = large.egress.lists.deny.clone();
    large.nat.forwards =
        (0..10_000).map(|port| forward(ports(port + 20_000, port + 20_000), "10.0.0.4", Some(80))).collect();
    let mut other = large.clone();
    other.egress.lists.deny.truncate(5000);
    let began = Instant::now();
    let (old, new) = (policy_of(&large), policy_of(&other));
    let (old, new) = (PolicyEvaluator::new(&new), PolicyEvaluator::new(&old));
    let ended = (0..100_000_u32).filter(|number| {
        let mut one = masqueraded("tcp 10.0.0.4:4000 203.0.113.9:443", "198.51.100.2:5000");
        one.original.destination = host(number % 20_000);
        end_reason(&old, &new, &one).is_some()
    });
    assert_eq!(ended.count(), 25_000);
    // Two seconds without optimisation on one slow core; walking the list instead of looking it up takes minutes.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
