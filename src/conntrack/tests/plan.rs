//! Which flows a change of the configuration ends, and what the component makes of it.

use super::*;
use crate::config::Config;

/// Why flows end when the configuration changes.
fn ends(change: impl FnOnce(&mut Config), flows: &[Flow]) -> Vec<Option<EndReason>> {
    let old = config();
    let mut new = config();
    change(&mut new);
    let (old, new) = (policy_of(&old), policy_of(&new));
    let (old, new) = (PolicyEvaluator::new(&old), PolicyEvaluator::new(&new));
    flows.iter().map(|flow| end_reason(&old, &new, flow)).collect()
}

fn web() -> Flow {
    redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.0.0.4:8443")
}

#[test]
fn a_removed_forward_ends_its_own_flows_and_no_others() {
    let others = [
        redirected("udp 192.0.2.9:4000 198.51.100.2:30000", "10.0.0.5:30000"),
        masqueraded("tcp 10.0.0.4:4000 203.0.113.9:443", "198.51.100.2:5000"),
        flow("tcp 203.0.113.9:4000 198.51.100.2:22"),
        // Redirected by another program, to the same port of another address.
        redirected("tcp 192.0.2.9:4000 198.51.100.9:443", "10.0.0.4:8443"),
    ];
    let flows = [&[web()], &others[..]].concat();
    let ended = [Some(EndReason::Forward), None, None, None, None];
    assert_eq!(ends(|config| drop(config.nat.forwards.remove(0)), &flows), ended);
}

#[test]
fn a_forward_with_another_target_or_fewer_sources_ends_the_flows_that_lose_it() {
    let to = |host: &str, port| {
        let host = read(host);
        move |config: &mut Config| (config.nat.forwards[0].to, config.nat.forwards[0].to_port) = (host, Some(port))
    };
    assert_eq!(ends(to("10.0.0.9", 8443), &[web()]), [Some(EndReason::Forward)]);
    assert_eq!(ends(to("10.0.0.4", 443), &[web()]), [Some(EndReason::Forward)]);
    let known = redirected("tcp 203.0.113.9:4000 198.51.100.2:443", "10.0.0.4:8443");
    let narrower = |config: &mut Config| config.nat.forwards[0].from = nets(&["203.0.113.0/24"]);
    assert_eq!(ends(narrower, &[web(), known]), [Some(EndReason::Forward), None]);
}

#[test]
fn a_removed_line_of_tenants_ends_what_another_program_translated_by_it() {
    let translated = redirected("tcp 10.0.0.4:4000 10.0.0.2:15432", "10.2.0.4:5432");
    assert_eq!(ends(|config| config.tenants.clear(), &[translated]), [Some(EndReason::Tenant)]);
    assert_eq!(ends(|config| config.nat.forwards.clear(), &[translated]), [None]);
}

#[test]
fn a_change_that_allows_the_same_flows_ends_none() {
    let flows = [
        web(),
        redirected("udp 192.0.2.9:4000 198.51.100.2:30000", "10.0.0.5:30000"),
        redirected("tcp 192.0.2.9:4000 203.0.113.51:25", "10.0.0.7:25"),
        masqueraded("tcp 10.0.0.4:4000 203.0.113.9:443", "198.51.100.2:5000"),
        flow("tcp 10.0.0.4:4000 10.2.0.4:5432"),
        flow("tcp 10.100.0.2:4000 10.0.0.4:80"),
        flow("tcp 10.0.0.4:4000 10.0.0.2:9100"),
    ];
    let nothing = vec![None; flows.len()];
    let another_order = |config: &mut Config| config.nat.forwards.reverse();
    assert_eq!(ends(another_order, &flows), nothing);
    let same_address_named = |config: &mut Config| config.nat.forwards[0].public = vec![read("198.51.100.2")];
    assert_eq!(ends(same_address_named, &flows), nothing);
    // One port of the range now has a forward of its own, with the same target.
    let split = |config: &mut Config| {
        let forwards = &mut config.nat.forwards;
        forwards[1].ports = ports(30001, 30100);
        let single = Forward { ports: ports(30000, 30000), ..forwards[1].clone() };
        forwards.push(single);
    };
    assert_eq!(ends(split, &flows), nothing);
    let drained = |config: &mut Config| {
        config.nat.egress_addresses = vec![read("198.51.100.2"), read("203.0.113.50")];
        config.nat.drain = [read("198.51.100.2")].into();
    };
    assert_eq!(ends(drained, &flows), nothing);
    let limited = |config: &mut Config| config.egress.max_flows = Some(1);
    assert_eq!(ends(limited, &flows), nothing);
}

#[test]
fn flows_end_that_the_egress_lists_no_longer_allow() {
    let flows = [
        masqueraded("tcp 10.0.0.4:4000 203.0.113.9:443", "198.51.100.2:5000"),
        masqueraded("tcp 10.0.0.4:4000 203.0.113.10:443", "198.51.100.2:5001"),
        // A network with lists of its own.
        masqueraded("udp 10.2.0.4:4000 203.0.113.9:53", "198.51.100.2:5002"),
    ];
    let deny = |config: &mut Config| config.egress.lists.deny[0].to = nets(&["203.0.113.9/32"]);
    assert_eq!(ends(deny, &flows), [Some(EndReason::Egress), None, None]);
    let allow = |config: &mut Config| config.networks[0].lists.allow = Some(Vec::new());
    assert_eq!(ends(allow, &flows), [None, None, Some(EndReason::Egress)]);
    let own_lists = |config: &mut Config| config.networks.clear();
    assert_eq!(ends(own_lists, &flows), [None, None, None]);
}

#[test]
fn flows_between_networks_to_static_addresses_and_to_services_end_when_they_are_closed() {
    let tenant = [flow("tcp 10.0.0.4:4000 10.2.0.4:5432")];
    assert_eq!(ends(|config| config.tenants.clear(), &tenant), [Some(EndReason::Tenant)]);
    let mail = [redirected("tcp 192.0.2.9:4000 203.0.113.51:25", "10.0.0.7:25")];
    assert_eq!(ends(|config| drop(config.nat.statics[0].open.remove(0)), &mail), [Some(EndReason::Static)]);
    assert_eq!(ends(|config| config.nat.statics.clear(), &mail), [Some(EndReason::Static)]);
    assert_eq!(ends(|config| config.nat.statics[0].private = read("10.0.0.8"), &mail), [Some(EndReason::Static)]);
    let exporter = [flow("tcp 10.0.0.4:4000 10.0.0.2:9100")];
    assert_eq!(ends(|config| config.firewall.services.clear(), &exporter), [Some(EndReason::Service)]);
    // The blocklist holds for addresses on the internet, not for private hosts.
    let block = |config: &mut Config| config.firewall.blocklist.push(read("0.0.0.0/0"));
    assert_eq!(ends(block, &[web(), exporter[0]]), [Some(EndReason::Forward), None]);
}

#[test]
fn a_removed_or_replaced_peer_ends_its_flows() {
    let flows = [
        flow("tcp 10.100.0.2:4000 10.0.0.4:80"),
        flow("tcp 10.100.0.3:4000 10.0.0.4:80"),
        flow("tcp 10.0.0.4:4000 192.168.178.9:80"),
        flow("tcp 192.168.178.9:4000 10.0.0.4:80"),
        redirected("tcp 10.100.0.2:4000 198.51.100.2:443", "10.0.0.4:8443"),
    ];
    let tunnel = Some(EndReason::Tunnel);
    let without = |peer: usize| {
        move |config: &mut Config| {
            if let Some(wireguard) = &mut config.wireguard {
                wireguard.peers.remove(peer);
            }
        }
    };
    assert_eq!(ends(without(0), &flows), [tunnel, None, None, None, tunnel]);
    assert_eq!(ends(without(1), &flows), [None, tunnel, tunnel, tunnel, None]);
    let replaced = |config: &mut Config| {
        if let Some(wireguard) = &mut config.wireguard {
            wireguard.peers[0].public_key = PublicKey([9; 32]);
        }
    };
    assert_eq!(ends(replaced, &flows), [tunnel, None, None, None, tunnel]);
    assert_eq!(ends(|config| config.wireguard = None, &flows), [tunnel; 5]);
    let only_named = |config: &mut Config| {
        if let Some(wireguard) = &mut config.wireguard {
            wireguard.peers[0].name = Some("ada".to_owned());
            wireguard.peers.reverse();
        }
    };
    assert_eq!(ends(only_named, &flows), [None; 5]);
}

#[test]
fn a_new_forward_ends_flows_that_would_bypass_it() {
    let flows = [
        flow("udp 192.0.2.9:4000 198.51.100.2:5060"),
        flow("tcp 192.0.2.9:4000 198.51.100.2:5060"),
        flow("udp 203.0.113.9:4000 198.51.100.2:5060"),
        // From the bastion to itself.
        flow("udp 198.51.100.2:4000 198.51.100.2:5060"),
        flow("udp 192.0.2.9:4000 203.0.113.9:5060"),
    ];
    let new = |config: &mut Config| {
        config.nat.forwards.push(Forward {
            transports: Transports::Udp,
            from: nets(&["192.0.2.0/24"]),
            ..forward(ports(5060, 5060), "10.0.0.8", None)
        });
    };
    assert_eq!(ends(new, &flows), [Some(EndReason::Bypass), None, None, None, None]);
    let address = |config: &mut Config| {
        config.nat.forwards.clear();
        config.nat.statics[0].public = read("198.51.100.3");
    };
    // The static address is open for TCP ports 25 and 8000 to 8100, and for ICMP.
    let open = [flow("tcp 192.0.2.9:4000 198.51.100.3:8000"), flow("icmp 192.0.2.9 198.51.100.3")];
    assert_eq!(
        ends(address, &[&open[..], &flows[..2]].concat()),
        [Some(EndReason::Bypass), Some(EndReason::Bypass), None, None]
    );
    // The server's first address cannot be a static one.
    let own = |config: &mut Config| {
        config.nat.forwards.clear();
        config.nat.statics[0].public = read("198.51.100.2");
    };
    assert_eq!(ends(own, &[flow("tcp 192.0.2.9:4000 198.51.100.2:8000")]), [None]);
}

#[test]
fn ssh_to_the_bastion_and_the_tunnels_own_packets_survive_every_change() {
    let flows = [
        flow("tcp 203.0.113.9:4000 198.51.100.2:22"),
        flow("tcp 10.100.0.2:4000 10.100.0.1:22"),
        flow("tcp 10.0.0.4:4000 10.0.0.2:22"),
        flow("udp 203.0.113.9:4000 198.51.100.2:51820"),
    ];
    let everything = |config: &mut Config| {
        config.firewall.blocklist = vec![read("0.0.0.0/0")];
        config.firewall.ssh_from.clear();
        let ssh = forward(ports(22, 22), "10.0.0.4", None);
        config.nat.forwards =
            vec![ssh, Forward { transports: Transports::Udp, ..forward(ports(51820, 51820), "10.0.0.4", None) }];
        config.wireguard = None;
    };
    assert_eq!(ends(everything, &flows), [None; 4]);
    // With another port of sshd, the session on the old port stays.
    assert_eq!(ends(|config| config.firewall.ssh_ports = Some([2222].into()), &flows), [None; 4]);
    // SSH to a private host is not SSH to the bastion.
    let ada = [flow("tcp 10.100.0.2:4000 10.0.0.4:22")];
    assert_eq!(ends(|config| config.wireguard = None, &ada), [Some(EndReason::Tunnel)]);
}

#[test]
fn the_first_policy_ends_only_flows_that_would_bypass_it() {
    let (nothing, policy) = (Policy::default(), policy_of(&config()));
    let (old, new) = (PolicyEvaluator::new(&nothing), PolicyEvaluator::new(&policy));
    assert_eq!(end_reason(&old, &new, &flow("tcp 192.0.2.9:4000 198.51.100.2:443")), Some(EndReason::Bypass));
    for alive in
        ["tcp 10.0.0.4:4000 192.0.2.9:443", "tcp 203.0.113.9:4000 198.51.100.2:22", "tcp 10.2.0.4:1 10.0.0.4:2"]
    {
        assert_eq!(end_reason(&old, &new, &flow(alive)), None, "{alive}");
    }
}

#[test]
fn a_flow_of_a_forward_whose_snat_is_switched_ends_only_while_its_host_has_not_answered() {
    let (before, mut after) = (config(), config());
    after.nat.forwards[0].snat = true;
    let (before, after) = (policy_of(&before), policy_of(&after));
    let (old, new) = (PolicyEvaluator::new(&before), PolicyEvaluator::new(&after));
    let waiting = redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.0.0.4:8443");
    let answered = Flow { status: waiting.status | Status::SEEN_REPLY, ..waiting };
    let other = redirected("udp 192.0.2.9:4000 198.51.100.2:30000", "10.0.0.5:30000");
    for (from, to) in [(&old, &new), (&new, &old)] {
        assert_eq!(end_reason(from, to, &waiting), Some(EndReason::Forward));
        assert_eq!(end_reason(from, to, &answered), None);
        assert_eq!(end_reason(from, to, &other), None);
    }
    assert!(new.hides_source(&waiting) && !new.hides_source(&other) && !old.hides_source(&waiting));
}
