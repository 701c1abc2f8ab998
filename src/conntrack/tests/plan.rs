//! Which flows a change ends.

use super::*;
use crate::config::Config;

/// Why flows end when the configuration changes.
fn ends(change: impl FnOnce(&mut Config), flows: &[Flow]) -> Vec<Option<Reason>> {
    let old = config();
    let mut new = config();
    change(&mut new);
    let (old, new) = (policy_of(&old), policy_of(&new));
    let (old, new) = (Judge::of(&old), Judge::of(&new));
    flows.iter().map(|flow| end(&old, &new, flow)).collect()
}

fn web() -> Flow {
    redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.0.0.4:8443")
}

#[test]
fn a_forward_that_goes_takes_its_flows_along_and_no_others() {
    let others = [
        redirected("udp 192.0.2.9:4000 198.51.100.2:30000", "10.0.0.5:30000"),
        masqueraded("tcp 10.0.0.4:4000 203.0.113.9:443", "198.51.100.2:5000"),
        flow("tcp 203.0.113.9:4000 198.51.100.2:22"),
        // Somebody else's, to the same port of another address.
        redirected("tcp 192.0.2.9:4000 198.51.100.9:443", "10.0.0.4:8443"),
    ];
    let flows = [&[web()], &others[..]].concat();
    let ended = [Some(Reason::Forward), None, None, None, None];
    assert_eq!(ends(|config| drop(config.nat.forwards.remove(0)), &flows), ended);
}

#[test]
fn a_forward_that_leads_elsewhere_or_is_for_fewer_ends_the_flows_that_it_had() {
    let to = |host: &str, port| {
        let host = read(host);
        move |config: &mut Config| (config.nat.forwards[0].to, config.nat.forwards[0].to_port) = (host, Some(port))
    };
    assert_eq!(ends(to("10.0.0.9", 8443), &[web()]), [Some(Reason::Forward)]);
    assert_eq!(ends(to("10.0.0.4", 443), &[web()]), [Some(Reason::Forward)]);
    let known = redirected("tcp 203.0.113.9:4000 198.51.100.2:443", "10.0.0.4:8443");
    let narrower = |config: &mut Config| config.nat.forwards[0].from = nets(&["203.0.113.0/24"]);
    assert_eq!(ends(narrower, &[web(), known]), [Some(Reason::Forward), None]);
}

#[test]
fn what_only_looks_different_ends_nothing() {
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
    let said_otherwise = |config: &mut Config| config.nat.forwards[0].public = vec![read("198.51.100.2")];
    assert_eq!(ends(said_otherwise, &flows), nothing);
    // The range now has a forward of its own for one of its ports, which leads where it led.
    let cut_out = |config: &mut Config| {
        let forwards = &mut config.nat.forwards;
        forwards[1].ports = ports(30001, 30100);
        let single = Forward { ports: ports(30000, 30000), ..forwards[1].clone() };
        forwards.push(single);
    };
    assert_eq!(ends(cut_out, &flows), nothing);
    let drained = |config: &mut Config| {
        config.nat.egress_addresses = vec![read("198.51.100.2"), read("203.0.113.50")];
        config.nat.drain = [read("198.51.100.2")].into();
    };
    assert_eq!(ends(drained, &flows), nothing);
    let limited = |config: &mut Config| config.egress.max_flows = Some(1);
    assert_eq!(ends(limited, &flows), nothing);
}

#[test]
fn lists_end_what_they_no_longer_allow() {
    let flows = [
        masqueraded("tcp 10.0.0.4:4000 203.0.113.9:443", "198.51.100.2:5000"),
        masqueraded("tcp 10.0.0.4:4000 203.0.113.10:443", "198.51.100.2:5001"),
        // A network with lists of its own.
        masqueraded("udp 10.2.0.4:4000 203.0.113.9:53", "198.51.100.2:5002"),
    ];
    let deny = |config: &mut Config| config.egress.lists.deny[0].to = nets(&["203.0.113.9/32"]);
    assert_eq!(ends(deny, &flows), [Some(Reason::Egress), None, None]);
    let allow = |config: &mut Config| config.networks[0].lists.allow = Some(Vec::new());
    assert_eq!(ends(allow, &flows), [None, None, Some(Reason::Egress)]);
    let own_lists = |config: &mut Config| config.networks.clear();
    assert_eq!(ends(own_lists, &flows), [None, None, None]);
}

#[test]
fn what_is_closed_between_networks_at_static_addresses_and_of_services_ends() {
    let tenant = [flow("tcp 10.0.0.4:4000 10.2.0.4:5432")];
    assert_eq!(ends(|config| config.tenants.clear(), &tenant), [Some(Reason::Tenant)]);
    let mail = [redirected("tcp 192.0.2.9:4000 203.0.113.51:25", "10.0.0.7:25")];
    assert_eq!(ends(|config| drop(config.nat.statics[0].open.remove(0)), &mail), [Some(Reason::Static)]);
    assert_eq!(ends(|config| config.nat.statics.clear(), &mail), [Some(Reason::Static)]);
    assert_eq!(ends(|config| config.nat.statics[0].private = read("10.0.0.8"), &mail), [Some(Reason::Static)]);
    let exporter = [flow("tcp 10.0.0.4:4000 10.0.0.2:9100")];
    assert_eq!(ends(|config| config.firewall.services.clear(), &exporter), [Some(Reason::Service)]);
    // Who is on the blocklist is not heard from outside.
    let block = |config: &mut Config| config.firewall.blocklist.push(read("0.0.0.0/0"));
    assert_eq!(ends(block, &[web(), exporter[0]]), [Some(Reason::Forward), None]);
}

#[test]
fn a_peer_that_goes_or_is_replaced_takes_its_flows_along() {
    let flows = [
        flow("tcp 10.100.0.2:4000 10.0.0.4:80"),
        flow("tcp 10.100.0.3:4000 10.0.0.4:80"),
        flow("tcp 10.0.0.4:4000 192.168.178.9:80"),
        flow("tcp 192.168.178.9:4000 10.0.0.4:80"),
        redirected("tcp 10.100.0.2:4000 198.51.100.2:443", "10.0.0.4:8443"),
    ];
    let tunnel = Some(Reason::Tunnel);
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
fn a_new_forward_ends_what_would_go_on_past_it() {
    let flows = [
        flow("udp 192.0.2.9:4000 198.51.100.2:5060"),
        flow("tcp 192.0.2.9:4000 198.51.100.2:5060"),
        flow("udp 203.0.113.9:4000 198.51.100.2:5060"),
        // The bastion's own, to a port of its own address.
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
    assert_eq!(ends(new, &flows), [Some(Reason::Bypass), None, None, None, None]);
    let address = |config: &mut Config| {
        config.nat.forwards.clear();
        config.nat.statics[0].public = read("198.51.100.3");
    };
    // It is open for TCP ports 25 and 8000 to 8100, and ICMP.
    let open = [flow("tcp 192.0.2.9:4000 198.51.100.3:8000"), flow("icmp 192.0.2.9 198.51.100.3")];
    assert_eq!(
        ends(address, &[&open[..], &flows[..2]].concat()),
        [Some(Reason::Bypass), Some(Reason::Bypass), None, None]
    );
    // The server's own first address stays its own.
    let own = |config: &mut Config| {
        config.nat.forwards.clear();
        config.nat.statics[0].public = read("198.51.100.2");
    };
    assert_eq!(ends(own, &[flow("tcp 192.0.2.9:4000 198.51.100.2:8000")]), [None]);
}

#[test]
fn ssh_to_the_bastion_and_the_tunnel_itself_live_through_everything() {
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
    // Another port of sshd: the session by the old one stays.
    assert_eq!(ends(|config| config.firewall.ssh_ports = Some([2222].into()), &flows), [None; 4]);
    // But a private host's SSH is not the bastion's.
    let ada = [flow("tcp 10.100.0.2:4000 10.0.0.4:22")];
    assert_eq!(ends(|config| config.wireguard = None, &ada), [Some(Reason::Tunnel)]);
}

#[test]
fn the_first_policy_ends_only_what_would_bypass_it() {
    let (nothing, policy) = (Policy::default(), policy_of(&config()));
    let (old, new) = (Judge::of(&nothing), Judge::of(&policy));
    assert_eq!(end(&old, &new, &flow("tcp 192.0.2.9:4000 198.51.100.2:443")), Some(Reason::Bypass));
    for alive in
        ["tcp 10.0.0.4:4000 192.0.2.9:443", "tcp 203.0.113.9:4000 198.51.100.2:22", "tcp 10.2.0.4:1 10.0.0.4:2"]
    {
        assert_eq!(end(&old, &new, &flow(alive)), None, "{alive}");
    }
}
