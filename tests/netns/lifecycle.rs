//! Start, stop, reload, kill and down, by the service manager and the operator.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bastiond::internals::outcome::{ComponentName, State};
use bastiond::internals::report::Health;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::cloud::{Fault, Injection, Matching, Times};
use sandbox::traffic::{Flood, HeldConnection, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{
    FAST, NEVER, Result, SOON, Server, component, egress, ensure, ensure_eq, gateways, healthy, installation, is_shut,
    open, report, table, text, trial, wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_daemon_is_ready_when_traffic_is_forwarded_and_the_status_says_so", readiness),
        trial("the_status_waits_for_the_clouds_component_before_it_is_healthy", before_the_cloud),
        trial("the_loop_notifies_the_watchdog", watchdog),
        trial("a_killed_daemon_leaves_traffic_flowing_and_its_successor_changes_nothing", killed),
        trial("a_daemon_killed_at_any_moment_loses_no_packet", killed_at_any_moment),
        trial("sigterm_does_not_change_the_data_path", terminated),
        trial("a_reload_of_a_wrong_configuration_keeps_the_old_one_and_reports_why", wrong_reload),
        trial("down_removes_everything_and_restores_the_settings", || down(true)),
        trial("down_works_without_a_daemon", || down(false)),
        trial("plan_shows_the_changes_and_makes_none", plan),
        trial("reconcile_waits_for_the_pass_and_shows_its_result", reconcile),
        trial("reconciles_at_the_same_time_share_their_passes", shared_passes),
        trial("a_private_neighbour_cannot_become_the_bastions_router", no_router),
        trial("a_second_daemon_is_refused", second_daemon),
        trial("two_reloads_at_once_end_in_the_newest_configuration", two_reloads),
        trial("down_retries_while_the_api_has_errors", down_under_trouble),
        trial("down_without_saved_values_leaves_no_open_router", down_without_memory),
        trial("an_idle_daemon_sleeps", idle),
        trial("invalid_requests_on_the_control_socket_are_harmless", nonsense),
    ]
}

fn readiness() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    ensure(
        daemon
            .wait_for_notification_matching(
                |line| line.starts_with("STATUS=healthy; public eth0 198.51.100.2; private eth1"),
                SOON,
            )
            .is_some()
            || report(&installation)?.status_line().starts_with("healthy; public eth0 198.51.100.2; private eth1"),
        format!("the status line is: {}", report(&installation)?.status_line()),
    )?;
    let report = report(&installation)?;
    ensure_eq((report.health, report.server_id.map(|id| id.0)), (Health::Healthy, Some(world.bastion_id().0)))
}

fn before_the_cloud() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let hold = Duration::from_secs(15);
    world.cloud().inject(Injection {
        matching: Matching::any(),
        fault: Fault::Timeout { applied: false, hold },
        times: Times::Next(1),
    });
    let _daemon = installation.start()?;
    wait_for("the rules stand and paths are proven", SOON, || {
        let Ok(report) = report(&installation) else { return Ok(false) };
        let is_ok = |name| report.components.get(&name).is_some_and(|component| component.state == State::Ok);
        Ok(is_ok(ComponentName::Nat) && is_ok(ComponentName::Forwarding))
    })?;
    let waiting = report(&installation)?;
    ensure_eq(waiting.health, Health::Waiting)?;
    ensure(waiting.status_line().contains("hcloud waiting: the first pass is not over"), waiting.status_line())?;
    ensure_eq(installation.ctl(&["status"])?.status.code(), Some(1))?;
    // The request is given up, and repeated.
    wait_for("the gateway is healthy", Duration::from_secs(60), || {
        Ok(report(&installation)?.health == Health::Healthy)
    })?;
    ensure_eq(installation.ctl(&["status"])?.status.code(), Some(0))
}

fn watchdog() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?.env("WATCHDOG_USEC", "200000");
    let mut daemon = healthy(&installation)?;
    for _ in 0..5 {
        ensure(daemon.wait_for_notification("WATCHDOG=1", SOON).is_some(), "the watchdog is not notified")?;
    }
    Ok(())
}

fn killed() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let held_by = Reflector::tcp(world.server(), (at::SERVER, 9000))?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    let mut connection = HeldConnection::open(world.web(), held_by.address(), SOON)?;
    drop(daemon);
    connection.exchange(SOON)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    let before = table(&world, "inet bastiond")?;
    world.cloud().forget_requests();
    let _daemon = healthy(&installation)?;
    for (component, report) in report(&installation)?.components {
        ensure(report.totals.changes == 0, format!("{component} changed {:?}", report.last_changes))?;
    }
    let writes = world.cloud().requests().iter().filter(|call| call.method != "GET").count();
    ensure_eq(writes, 0)?;
    ensure_eq(table(&world, "inet bastiond")?, before)?;
    connection.exchange(SOON)?;
    Ok(())
}

fn killed_at_any_moment() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    drop(healthy(&installation)?);
    let flood = Flood::start(world.web(), server.udp.address(), 1000)?;
    for kill in 0..12 {
        // Every start has changes to make, so that the kill can happen during any of them.
        let options = if kill % 2 == 0 { "[nat]\nrandom_ports = false" } else { "" };
        installation.write_config(&format!("{FAST}{options}"))?;
        let daemon = installation.start()?;
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..80)));
        drop(daemon);
    }
    let flood = flood.stop();
    ensure(flood.sent > 100, format!("{flood:?}"))?;
    ensure_eq(flood.lost, vec![])?;
    drop(healthy(&installation)?);
    let _daemon = healthy(&installation)?;
    ensure_eq(component(&installation, ComponentName::Nat)?.totals.changes, 0)
}

fn terminated() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let mut daemon = healthy(&installation)?;
    let before = table(&world, "inet bastiond")?;
    daemon.signal(Signal::SIGTERM)?;
    ensure(daemon.wait_for_notification("STOPPING=1", SOON).is_some(), "systemd is not notified")?;
    let status = daemon.wait_for_exit(SOON)?.ok_or("the daemon does not end")?;
    ensure_eq(status.code(), Some(0))?;
    ensure_eq(table(&world, "inet bastiond")?, before)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    ensure(!installation.runtime_directory().join("control.sock").exists(), "the socket is left")
}

fn wrong_reload() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let mut daemon = healthy(&installation)?;
    let before = table(&world, "inet bastiond")?;
    installation.write_config("[firewall]\nssh_form = [\"10.0.0.0/8\"]\nwireguard_port = 0\n")?;
    daemon.signal(Signal::SIGHUP)?;
    ensure(daemon.wait_for_notification("RELOADING=1", SOON).is_some(), "systemd is not notified of the reload")?;
    ensure(
        daemon.wait_for_notification_matching(|line| line.starts_with("MONOTONIC_USEC="), SOON).is_some(),
        "the notification of the reload has no time",
    )?;
    ensure(
        daemon.wait_for_notification("READY=1", SOON).is_some(),
        "systemd is not notified of the end of the reload",
    )?;
    let refused = report(&installation)?.refused_configuration;
    ensure(
        refused.iter().any(|reason| reason.contains("firewall.ssh_form: unknown key"))
            && refused.iter().any(|reason| reason.contains("firewall.wireguard_port:")),
        format!("{refused:?}"),
    )?;
    ensure_eq(table(&world, "inet bastiond")?, before)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    installation.write_config(FAST)?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("the refusal is forgotten", SOON, || Ok(report(&installation)?.refused_configuration.is_empty()))?;
    Ok(())
}

fn down(with_daemon: bool) -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let settings = [
        "ip_forward",
        "conf.all.send_redirects",
        "conf.all.accept_redirects",
        "conf.eth0.rp_filter",
        "conf.eth1.rp_filter",
    ];
    let read = || -> Result<Vec<String>> {
        settings.iter().map(|key| Ok(world.bastion().read_sysctl(&format!("net.ipv4.{key}"))?)).collect()
    };
    if !with_daemon {
        // A hardened image has it off already. Changing ip_forward would set it.
        world.bastion().sysctl("net.ipv4.conf.all.accept_redirects", "0")?;
    }
    // An error means that the kernel's module is not loaded before the first rules.
    let tcp_timeout = || world.bastion().read_sysctl("net.netfilter.nf_conntrack_tcp_timeout_established").ok();
    let (before, timeout_before) = (read()?, tcp_timeout());
    let installation = installation(&world)?;
    let mut daemon = healthy(&installation)?;
    ensure(read()? != before, "no setting was changed")?;
    ensure_eq(tcp_timeout(), Some("7440".to_owned()))?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    if !with_daemon {
        drop(daemon);
        daemon = installation.start()?;
        drop(daemon);
        daemon = installation.start()?;
        daemon.signal(Signal::SIGKILL)?;
        daemon.wait_for_exit(SOON)?;
    }
    let output = installation.ctl(&["down"])?;
    ensure(output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))?;
    if with_daemon {
        ensure_eq(daemon.wait_for_exit(SOON)?.and_then(|status| status.code()), Some(0))?;
    }
    ensure_eq(world.cloud().routes(world.private_network_id()).len(), 0)?;
    ensure_eq(world.cloud().routes(world.second_network_id()).len(), 0)?;
    ensure_eq(table(&world, "inet bastiond")?, String::new())?;
    ensure_eq(read()?, before)?;
    ensure(timeout_before.is_none_or(|before| tcp_timeout() == Some(before)), format!("{:?}", tcp_timeout()))?;
    ensure(is_shut(&egress(world.web(), &server, NEVER)?), "something passes after down")
}

fn plan() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let output = installation.ctl(&["plan"])?;
    let network = world.private_network_id();
    let steps = text(&output.stdout);
    for step in [
        "set net/ipv4/ip_forward: 0 -> 1".to_owned(),
        "replace the rules of table inet bastiond: table inet bastiond loaded".to_owned(),
        format!("add route 0.0.0.0/0 via 10.0.0.2 to network {network} (private)"),
    ] {
        ensure(
            steps.lines().any(|line| line == step),
            format!("`{step}` is not in the plan:\n{steps}{}", text(&output.stderr)),
        )?;
    }
    ensure_eq(table(&world, "inet bastiond")?, String::new())?;
    ensure_eq(world.bastion().read_sysctl("net.ipv4.ip_forward")?, "0".to_owned())?;
    ensure_eq(world.cloud().routes(network).len(), 0)?;
    let _daemon = healthy(&installation)?;
    ensure_eq(text(&installation.ctl(&["plan"])?.stdout), "nothing to do\n".to_owned())?;
    // The changes that a reload of the file would make.
    let good = std::fs::read_to_string(installation.config_path())?;
    let listing = table(&world, "inet bastiond")?;
    std::fs::write(installation.config_path(), format!("{good}\n[[firewall.service]]\nports = [9100]\n"))?;
    let planned = text(&installation.ctl(&["plan"])?.stdout);
    let expected = "+ service tcp 9100\n\nreplace the rules of table inet bastiond: ";
    ensure(planned.starts_with(expected), planned)?;
    std::fs::write(installation.config_path(), format!("{good}\n[firewall]\nssh_form = []\n"))?;
    let output = installation.ctl(&["plan"])?;
    let said = text(&output.stderr);
    ensure(said.contains("firewall.ssh_form: unknown key"), said)?;
    ensure_eq(output.status.code(), Some(78))?;
    std::fs::write(installation.config_path(), good)?;
    ensure_eq(table(&world, "inet bastiond")?, listing)?;
    world.remove_route("0.0.0.0/0".parse()?);
    let json: serde_json::Value = serde_json::from_slice(&installation.ctl(&["plan", "--json"])?.stdout)?;
    // The next poll may have been earlier.
    ensure(
        json["steps"]
            == serde_json::json!([format!("add route 0.0.0.0/0 via 10.0.0.2 to network {network} (private)")])
            || json["steps"] == serde_json::json!([]),
        json.to_string(),
    )
}

fn reconcile() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    installation.write_config("[hcloud]\npoll_interval = \"1h\"")?;
    let _daemon = healthy(&installation)?;
    world.remove_route("0.0.0.0/0".parse()?);
    let output = installation.ctl(&["reconcile"])?;
    ensure(output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))?;
    ensure(text(&output.stdout).starts_with("bastiond "), text(&output.stdout))?;
    ensure_eq(component(&installation, ComponentName::Hcloud)?.totals.repairs, 1)?;
    ensure_eq(gateways(&world), vec![at::BASTION_PRIVATE])
}

fn second_daemon() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let mut second = installation.start()?;
    ensure_eq(second.wait_for_exit(SOON)?.and_then(|status| status.code()), Some(1))?;
    ensure(second.log().contains("another bastiond holds"), second.log())?;
    ensure(report(&installation).is_ok(), "the first one no longer answers")
}

fn idle() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    installation.write_config("")?;
    let daemon = healthy(&installation)?;
    let wakes = || -> Result<u64> { Ok(daemon.status_field("voluntary_ctxt_switches")?.parse()?) };
    // Wait until the daemon is idle after its start.
    std::thread::sleep(Duration::from_secs(1));
    let before = wakes()?;
    std::thread::sleep(Duration::from_secs(4));
    let woken = wakes()? - before;
    // No timer of an idle daemon has such a short period, but one may end in it by chance.
    ensure(woken <= 3, format!("{woken} wake-ups in 4 s"))
}

fn nonsense() -> Result {
    use std::io::{Read as _, Write as _};
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let path = installation.runtime_directory().join("control.sock");
    let huge = vec![b'x'; 1 << 20];
    for nonsense in [&b""[..], b"\n", b"hello\n", b"{\"request\":\"explode\"}\n", b"\xff\xfe\n", &huge] {
        let mut stream = std::os::unix::net::UnixStream::connect(&path)?;
        // A long line is truncated.
        let _ = stream.write_all(nonsense);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        ensure(answer.is_empty() || answer.contains("\"response\":\"refused\""), answer)?;
    }
    // Twenty silent connections delay the operator at most for their time limit.
    let _silent: Vec<_> = (0..20).map(|_| std::os::unix::net::UnixStream::connect(&path)).collect();
    wait_for("the operator gets an answer", Duration::from_secs(8), || Ok(report(&installation).is_ok()))?;
    ensure_eq(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o660)
}

fn shared_passes() -> Result {
    const CLIENTS: usize = 40;
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let before = report(&installation)?.passes;
    let began = std::time::Instant::now();
    let answered = std::thread::scope(|scope| {
        let client = || installation.ctl(&["reconcile"]).is_ok_and(|output| output.status.success());
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().filter_map(|client| client.join().ok()).filter(|answered| *answered).count()
    });
    ensure_eq(answered, CLIENTS)?;
    // Four passes a second for the operators, and some that events start.
    let most = began.elapsed().as_millis() / 250 + 10;
    let passes = report(&installation)?.passes - before;
    ensure(passes > 0 && u128::from(passes) <= most, format!("{passes} passes, {most} at most"))
}

/// The kernel takes no router advertisement (RFC 4861 section 4.2) from a private link, which any neighbour could send.
fn no_router() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let setting = || world.bastion().read_sysctl("net.ipv6.conf.eth1.accept_ra");
    ensure_eq(setting()?.as_str(), "0")?;
    world.bastion().sysctl("net.ipv6.conf.eth1.accept_ra", "2")?;
    installation.ctl(&["reconcile"])?;
    ensure_eq(setting()?.as_str(), "0")?;
    ensure(world.bastion().read_sysctl("net.ipv6.conf.eth0.accept_ra")? != "0", "the public link has no router either")
}

fn two_reloads() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    for port in [40001, 40002, 40003] {
        installation.write_config(&format!("{FAST}[firewall]\nwireguard_port = {port}"))?;
        daemon.signal(Signal::SIGHUP)?;
    }
    wait_for(
        "the newest rules stand",
        SOON,
        || Ok(table(&world, "inet bastiond")?.contains("udp dport 40003 accept")),
    )?;
    Ok(())
}

fn down_under_trouble() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let mut daemon = healthy(&installation)?;
    let busy = Fault::Api { status: 409, code: "conflict".to_owned(), message: "busy".to_owned() };
    world.cloud().inject(Injection { matching: Matching::post("delete_route"), fault: busy, times: Times::Next(2) });
    let output = installation.ctl(&["down"])?;
    ensure(output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))?;
    ensure_eq(daemon.wait_for_exit(SOON)?.and_then(|status| status.code()), Some(0))?;
    for network in [world.private_network_id(), world.second_network_id()] {
        ensure_eq(world.cloud().routes(network).len(), 0)?;
    }
    Ok(())
}

fn down_without_memory() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    std::fs::remove_file(installation.state_directory().join("sysctl.json"))?;
    // A pass between the loss and the end must not save the current values as the original ones.
    let output = installation.ctl(&["reconcile"])?;
    ensure(output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))?;
    let output = installation.ctl(&["down"])?;
    ensure(output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))?;
    ensure_eq(table(&world, "inet bastiond")?, String::new())?;
    ensure_eq(world.bastion().read_sysctl("net.ipv4.ip_forward")?, "0".to_owned())?;
    ensure(is_shut(&egress(world.web(), &server, NEVER)?), "something passes after down")
}
