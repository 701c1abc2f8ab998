//! Rules of other programs that translate, or keep packets out of connection tracking: they do not get around ours.

use std::net::Ipv4Addr;

use bastiond::internals::report::Report;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::traffic::{self, Fragmentation, Reflector, Sniffer};
use sandbox::world::{Laptop, Settings, World, addresses as at};

use super::Attempt::{Tcp, Udp};
use super::{assign, counted, gateway, pings, silent, tcp, udp};
use crate::coexistence::{nat, reconciled, run, without_api};
use crate::gateway::{
    NEVER, REPAIR, Result, SOON, Server, egress, ensure, ensure_eq, open, table, text, trial, wait_for,
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("rules_of_iptables_change_no_translation_of_ours_and_are_named", || {
            own_translation_wins(&IPTABLES, "chain POSTROUTING of table ip nat (rules of iptables)", "ip nat")
        }),
        trial("rules_of_the_old_iptables_change_no_translation_of_ours_and_are_named", || {
            own_translation_wins(
                &IPTABLES.map(|command| command.replace("iptables ", "iptables-legacy ")),
                "chain POSTROUTING of table nat of the old iptables (rules of iptables)",
                "ip none",
            )
        }),
        trial("another_table_that_translates_first_is_overtaken_and_named", || {
            own_translation_wins(&[FIRST_NAT], "chain leave of table ip theirs", "ip theirs")
        }),
        trial("a_contest_for_the_first_place_ends_and_is_reported", contest),
        trial("a_flow_that_another_program_translates_passes_only_where_the_configuration_allows_it", foreign_flows),
        trial("a_private_source_does_not_leave_when_another_program_stops_tracking", untracked),
        trial("a_private_source_that_another_program_writes_does_not_leave", written_source),
        trial("a_flow_that_began_without_rules_does_not_go_on_with_its_private_source", began_without_rules),
    ]
}

/// The public address of the host web.
const STATIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);
const SECTIONS: &str = "[[nat.static]]
    public = \"198.51.100.50\"
    private = \"10.0.0.4\"
    [[nat.forward]]
    port = 8443
    to = \"10.0.0.4\"
    to_port = 443
    from = [\"192.0.2.7\"]";
const IPTABLES: [&str; 2] = [
    "iptables -t nat -A POSTROUTING -s 10.0.0.0/16 -o eth0 -j SNAT --to-source 198.51.100.2",
    "iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 8443 -j DNAT --to-destination 10.0.1.5:443",
];
/// At the lowest priority that the kernel takes, registered after ours.
const FIRST_NAT: &str = "nft -f - <<'END'
table ip theirs {
    chain arrive {
        type nat hook prerouting priority -199
        iifname eth0 tcp dport 8443 dnat to 10.0.1.5:443
    }
    chain leave {
        type nat hook postrouting priority -199
        ip saddr 10.0.0.0/16 masquerade
    }
}
END";

fn own_translation_wins<T: AsRef<str>>(commands: &[T], named: &str, shows: &str) -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    assign(&world, STATIC)?;
    let server = Server::start(&world)?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 443))?;
    let worker = Reflector::tcp(world.worker(), (at::WORKER, 443))?;
    let (installation, _daemon) = gateway(&world, SECTIONS)?;
    for command in commands {
        run(&world, command.as_ref())?;
    }
    let theirs = table(&world, shows)?;
    let report = reconciled(&installation)?;
    let holds = |when: &str| -> Result {
        let wrong = |what: &str| format!("{when}: {what}");
        let web = egress(world.web(), &server, SOON)?;
        ensure_eq((web.tcp, web.udp), (Ok(STATIC.into()), Ok(STATIC.into())))
            .map_err(|_| wrong("web leaves by another"))?;
        ensure_eq(egress(world.worker(), &server, SOON)?, open())?;
        // The host sees the client, not the bastion.
        ensure_eq(tcp(world.laptop(), (at::BASTION, 8443)), Ok(at::HOME.into()))?;
        silent([Tcp(world.server(), (at::BASTION, 8443))])?;
        ensure(worker.seen().is_empty(), wrong("the flow reached worker"))
    };
    holds("beside the foreign rules")?;
    let hints = &nat(&report)?.hints;
    let hint = hints.iter().find(|hint| hint.what.contains(named));
    let hint = hint.ok_or_else(|| format!("nothing is said of {named}: {hints:?}"))?;
    let destination = hints.iter().find(|hint| hint.code == "foreign-destination-nat");
    let destination = destination.ok_or_else(|| format!("nothing is said of the new destination: {hints:?}"))?;
    ensure(destination.what.contains("10.0.1.5"), &destination.what)?;
    ensure(text(&installation.ctl(&["status"])?.stdout).contains(&hint.what), "the status does not show it")?;
    ensure_eq(table(&world, shows)?, theirs)?;
    // Somebody flushes all tables, and loads that one again.
    world.bastion().nft("flush ruleset")?;
    for command in commands.iter().filter(|_| shows != "ip none") {
        run(&world, command.as_ref())?;
    }
    wait_for("the table is back", REPAIR, || Ok(table(&world, "inet bastiond")?.contains("chain postrouting")))?;
    let report = reconciled(&installation)?;
    holds("after a flush")?;
    let removals = nat(&report)?.hints.iter().filter_map(|hint| hint.advice.split_once(": "));
    let removals: Vec<String> = removals.map(|(_, command)| command.to_owned()).collect();
    ensure_eq(removals.len(), 2)?;
    removals.iter().try_for_each(|command| run(&world, command))?;
    ensure_eq(&nat(&reconciled(&installation)?)?.hints, &vec![])
}

fn contest() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, daemon) = gateway(&world, "")?;
    let command =
        FIRST_NAT.replacen("table ip theirs", "add table ip theirs\ndelete table ip theirs\ntable ip theirs", 1);
    for _ in 0..8 {
        run(&world, &command)?;
        reconciled(&installation)?;
    }
    let problems = nat(&reconciled(&installation)?)?.problems.clone();
    let codes: Vec<&str> = problems.iter().map(|problem| problem.code.as_ref()).collect();
    ensure(codes == ["nat-contested"], format!("{problems:?}\n{}", daemon.log()))
}

fn problem_codes(report: &Report) -> Result<Vec<String>> {
    Ok(nat(report)?.problems.iter().map(|problem| problem.code.to_string()).collect())
}

/// Another program translates a destination: to a port that is closed, to one that a forward opens for others, and to
/// one that tenants may reach.
fn foreign_flows() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    assign(&world, STATIC)?;
    let web = Reflector::tcp(world.web(), (at::WEB, 443))?;
    let closed = Reflector::tcp(world.worker(), (at::WORKER, 443))?;
    let tenants = Reflector::tcp(world.worker(), (at::WORKER, 80))?;
    let _ranged = [30_001, 22].map(|port| Reflector::udp(world.worker(), (at::WORKER, port)));
    let sections = format!(
        "{SECTIONS}
         open = []
         [[nat.forward]]
         protocol = \"udp\"
         port = \"30000-30010\"
         to = \"10.0.1.5\"
         [tenants]
         allow = [{{ from = [\"10.2.0.0/16\"], to = [\"10.0.0.0/16\"], protocol = \"tcp\", ports = [80] }}]"
    )
    .replace("open = []", "");
    let (_installation, _daemon) = gateway(&world, &sections)?;
    // Port 8444 leads where our forward leads; 8443 is ours, for the laptop only; 30001 of UDP is ours.
    world.bastion().nft(
        "table ip theirs {
            chain arrive {
                type nat hook prerouting priority dstnat
                tcp dport { 8443, 8444 } dnat to 10.0.0.4:443
                ip daddr 198.51.100.50 tcp dport 443 dnat to 10.0.0.4
                tcp dport 9443 dnat to 10.0.1.5:443
                tcp dport 9080 dnat to 10.0.1.5:80
                udp dport 40001 dnat to 10.0.1.5:30001
                udp dport 30022 dnat to 10.0.1.5:22
            }
        }",
    )?;
    let before = counted(&world, "dropped_forward")?;
    silent([8443, 8444, 9443, 9080].map(|port| Tcp(world.server(), (at::BASTION, port))))?;
    silent([Tcp(world.server(), (STATIC, 443)), Tcp(world.tenant(), (at::BASTION, 9443))])?;
    silent([40_001, 30_022].map(|port| Udp(world.server(), (at::BASTION, port))))?;
    ensure(counted(&world, "dropped_forward")? >= before + 7, "dropped flows are not counted")?;
    ensure((web.seen(), closed.seen(), tenants.seen()) == (vec![], vec![], vec![]), "a flow arrived")?;
    ensure_eq(tcp(world.laptop(), (at::BASTION, 8443)), Ok(at::HOME.into()))?;
    ensure_eq(udp(world.server(), (at::BASTION, 30_001)), Ok(at::SERVER.into()))?;
    // By its real addresses this flow is one between tenants, which the configuration allows.
    tcp(world.tenant(), (at::BASTION, 9080)).map(drop).map_err(|failed| format!("{failed:?}").into())
}

/// Packets with a private source on the public link.
fn private_sources(world: &World) -> Result<Sniffer> {
    Ok(Sniffer::start(world.internet(), "bastion", |packet| {
        packet.ip().is_some_and(|ip| matches!(ip.source, std::net::IpAddr::V4(source) if source.octets()[0] == 10))
    })?)
}

fn untracked() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let (installation, _daemon) = gateway(&world, "")?;
    let leaked = private_sources(&world)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    let before = counted(&world, "dropped_untranslated")?;
    // For DNS alone, and with iptables.
    run(&world, "iptables -t raw -A PREROUTING -i eth1 -p udp --dport 53 -j CT --notrack")?;
    silent([Udp(world.web(), (at::SERVER, 53))])?;
    ensure_eq(problem_codes(&reconciled(&installation)?)?, vec!["foreign-notrack".to_owned()])?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    run(&world, "iptables -t raw -F PREROUTING")?;
    // For everything that arrives, and for what the bastion itself sends with a private source.
    world.bastion().nft(
        "table inet theirs {
            chain arrive { type filter hook prerouting priority raw; iifname { eth1, eth2 } notrack; }
            chain send { type filter hook output priority raw; ip saddr 10.0.0.0/8 notrack; }
        }",
    )?;
    let tracked = traffic::udp_probe_from(world.bastion(), (at::BASTION_PRIVATE, 0), server.udp.address(), NEVER);
    ensure(tracked.is_err(), "an untracked datagram of the bastion is answered")?;
    silent([Udp(world.tenant(), (at::SERVER, 53)), Tcp(world.web(), (at::SERVER, 80))])?;
    ensure(!pings(world.web(), at::SERVER, NEVER)?, "an untracked ping is answered")?;
    // Larger than the link.
    let large =
        traffic::Ping { size: 4000, fragmentation: Fragmentation::Allowed, timeout: NEVER, ..traffic::Ping::default() };
    ensure(traffic::ping(world.worker(), at::SERVER, large)?.replies.is_empty(), "an untracked fragment is answered")?;
    let dropped = counted(&world, "dropped_untranslated")? - before;
    ensure(dropped >= 6, format!("{dropped} dropped packets are counted"))?;
    ensure_eq(problem_codes(&reconciled(&installation)?)?, vec!["foreign-notrack".to_owned(); 2])?;
    ensure_eq(leaked.stop().len(), 0)?;
    run(&world, "nft delete table inet theirs")?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    ensure_eq(problem_codes(&reconciled(&installation)?)?, vec![])
}

/// Rules that write a private source into packets, before and after ours, past connection tracking.
fn written_source() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let (installation, _daemon) = without_api(&world)?;
    for rule in [
        "hook prerouting priority -250; iifname eth1 ip saddr set 10.77.0.1",
        "hook prerouting priority -150; iifname eth1 ip saddr set 10.77.0.1",
        "hook forward priority 0; iifname eth1 ip saddr set 10.77.0.1",
        "hook postrouting priority -300; oifname eth0 ip saddr set 10.77.0.1",
        "hook postrouting priority 300; oifname eth0 ip saddr set 10.0.0.4",
    ] {
        world.bastion().nft(&format!("table ip theirs {{\nchain c {{ type filter {rule}\n}}\n}}"))?;
        // The last chain of all stands only while somebody writes addresses, since it costs every packet.
        let stands = || Ok(table(&world, "inet bastiond")?.contains("chain leaving"));
        wait_for("the last chain stands", SOON, stands)?;
        let leaked = private_sources(&world)?;
        let before = counted(&world, "dropped_untranslated")?;
        silent([Udp(world.web(), (at::SERVER, 53)), Tcp(world.web(), (at::SERVER, 80))])?;
        ensure(counted(&world, "dropped_untranslated")? >= before + 2, format!("{rule}: not dropped"))?;
        ensure_eq(problem_codes(&reconciled(&installation)?)?, vec!["foreign-rewrite".to_owned()])?;
        ensure_eq(leaked.stop().len(), 0)?;
        run(&world, "nft delete table ip theirs")?;
        // Nobody has to wait for that.
        reconciled(&installation)?;
        ensure(!stands()?, "the last chain stands for nothing")?;
    }
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn began_without_rules() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let (_installation, daemon) = gateway(&world, "")?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    let send = || traffic::udp_probe_from(world.web(), (at::WEB, 40_001), (at::SERVER, 5300), NEVER);
    daemon.signal(Signal::SIGSTOP)?;
    // Connection tracking goes on, for somebody else's rule.
    world.bastion().nft(
        "table inet theirs {
            chain see {
                type filter hook forward priority 10
                ct state new counter
            }
        }",
    )?;
    world.bastion().nft("delete table inet bastiond")?;
    let leaked = private_sources(&world)?;
    let _ = send();
    ensure(!leaked.stop().is_empty(), "nothing left without rules: this proves nothing")?;
    daemon.signal(Signal::SIGCONT)?;
    wait_for("the table is back", SOON, || Ok(table(&world, "inet bastiond")?.contains("chain postrouting")))?;
    let leaked = private_sources(&world)?;
    let _ = send();
    ensure_eq(leaked.stop().len(), 0)?;
    ensure(counted(&world, "dropped_untranslated")? >= 1, "the packet is not counted")?;
    // A flow of its own is translated.
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}
