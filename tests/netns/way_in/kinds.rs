//! Other kinds of tunnels: from a wg file, in the kernel, with ten thousand peers; and conflicts.

use std::net::Ipv4Addr;
use std::process::Output;
use std::time::{Duration, Instant};

use bastiond::internals::outcome::{ComponentName, State};
use bastiond_tunnel::key::PublicKey;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::traffic::Reflector;
use sandbox::world::addresses as at;

use super::{ADA, INSIDE, seen, serving, tunnel, with_laptop, world};
use crate::gateway::{
    FAST, Result, SOON, component, ensure, ensure_eq, installation, lone_trial, our_routes, report, text, trial,
    wait_for, wait_until_ok,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_existing_wg_file_is_used_unchanged", wg_file),
        trial("the_kernels_wireguard_is_used_if_available_and_its_absence_is_reported", kernel),
        lone_trial("ten_thousand_peers_are_served_and_adding_one_is_a_small_change", crowd),
        trial("a_foreign_interface_is_not_changed", foreign_interface),
        trial("a_port_in_use_is_reported_and_used_once_it_is_free", port_in_use),
    ]
}

/// The example of wg(8), used unchanged and printed by `wg showconf`.
fn wg_file() -> Result {
    let world = world()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("wi-file.conf");
    std::fs::write(&file, include_str!("../../data/wireguard/wg-example.conf"))?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[wireguard]\nfile = \"{}\"\n", file.display()))?;
    let installation = installation.env("RES_OPTIONS", "timeout:1 attempts:1");
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let shown = || -> Result<String> {
        let Output { stdout, .. } = world.bastion().command("wg").args(["showconf", "wi-file"]).output()?;
        Ok(text(&stdout))
    };
    wait_for("the tunnel runs", SOON, || Ok(shown()?.contains("ListenPort = 51820")))?;
    let shown = shown()?;
    for line in [
        "PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
        "AllowedIPs = 10.192.122.3/32, 10.192.124.0/24",
        "Endpoint = 192.95.5.67:1234",
        "AllowedIPs = 10.192.122.4/32, 192.168.0.0/16",
        "Endpoint = [2607:5300:60:6b0::c05f:543]:2468",
        "AllowedIPs = 10.10.10.230/32",
    ] {
        ensure(shown.contains(line), format!("no {line:?} in {shown}"))?;
    }
    // There is no DNS here, which is reported; everything else works.
    wait_for("the name is reported", Duration::from_secs(15), || {
        let report = component(&installation, ComponentName::Wireguard)?;
        Ok(report.state == State::Waiting && report.problems[0].what.starts_with("test.wireguard.com does not resolve"))
    })?;
    let routes = our_routes(&world)?;
    for range in ["10.192.122.3", "10.192.124.0/24", "10.192.122.4", "192.168.0.0/16", "10.10.10.230"] {
        ensure(routes.contains(&format!("{range} dev wi-file")), format!("no {range} in {routes}"))?;
    }
    Ok(())
}

fn kernel() -> Result {
    let world = world()?;
    let made = world.bastion().command("ip").args(["link", "add", "wi-probe", "type", "wireguard"]).output()?;
    let has_wireguard = made.status.success();
    if has_wireguard {
        world.bastion().ip("link del wi-probe")?;
    }
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let (installation, daemon, _ada) =
        with_laptop(&world, "wi-kernel", "backend = \"auto\"\n", "10.100.0.0/24,10.0.0.0/16")?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    let data_plane = || -> Result<Option<String>> {
        Ok(report(&installation)?.tunnel.and_then(|tunnel| tunnel.data_plane.into_iter().next()))
    };
    ensure_eq(data_plane()?, Some(if has_wireguard { "kernel" } else { "userspace" }.to_owned()))?;
    if has_wireguard {
        // The tunnel continues without a daemon, and the next one recognises it.
        drop(daemon);
        ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
        let (_daemon, _) = serving(&installation)?;
        ensure_eq(data_plane()?, Some("kernel".to_owned()))?;
        return ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()));
    }
    let config = std::fs::read_to_string(installation.config_path())?;
    installation.write_config(&config.replace("\"auto\"", "\"kernel\""))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for(
        "it is reported",
        SOON,
        || Ok(component(&installation, ComponentName::Wireguard)?.state == State::Failed),
    )?;
    let problem = component(&installation, ComponentName::Wireguard)?.problems.remove(0);
    ensure_eq(problem.what.as_str(), "this kernel has no WireGuard")?;
    ensure(problem.advice.contains("modprobe wireguard"), problem.advice)?;
    // A running tunnel is not replaced by one that cannot run, nor by one with a foreign interface's name.
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    installation.write_config(&config.replace("wi-kernel\"", "lo2\""))?;
    world.bastion().ip("tuntap add lo2 mode tun")?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("it is reported", SOON, || {
        Ok(component(&installation, ComponentName::Wireguard)?
            .problems
            .iter()
            .any(|problem| problem.what.contains("interface lo2 already")))
    })?;
    ensure_eq(report(&installation)?.tunnel.map(|tunnel| tunnel.interface.to_string()), Some("wi-kernel".to_owned()))
}

fn crowd() -> Result {
    let world = world()?;
    let installation = installation(&world)?;
    let block = |number: u32| {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let address = Ipv4Addr::from(u32::from(INSIDE) + 255 + number);
        format!("[[wireguard.peer]]\npublic_key = \"{}\"\nallowed_ips = [\"{address}\"]\n", PublicKey(key))
    };
    let peers = (0..10_000).map(block).collect::<Vec<_>>().concat();
    let config = tunnel("wi-crowd", &peers).replace("/24", "/16");
    installation.write_config(&config)?;
    let started = Instant::now();
    let (daemon, _) = serving(&installation)?;
    let (ready, started) = (started.elapsed(), Instant::now());
    installation.write_config(&format!("{config}{}", block(10_000)))?;
    daemon.signal(Signal::SIGHUP)?;
    let count = || -> Result<usize> { Ok(report(&installation)?.tunnel.map_or(0, |tunnel| tunnel.peers.len())) };
    wait_for("the new one exists", Duration::from_secs(10), || Ok(count()? == 10_001))?;
    let changes = component(&installation, ComponentName::Wireguard)?.last_changes;
    ensure(changes.len() == 1 && changes[0].ends_with(" added"), format!("{changes:?}"))?;
    println!(
        "10 000 peers: ready after {ready:?}, one more after {:?}; {}",
        started.elapsed(),
        daemon.status_field("VmRSS")?
    );
    Ok(())
}

fn foreign_interface() -> Result {
    let world = world()?;
    world
        .bastion()
        .ip("tuntap add wi-foreign mode tun\naddr add 10.9.9.1/24 dev wi-foreign\nlink set wi-foreign up")?;
    let installation = installation(&world)?;
    installation.write_config(&tunnel("wi-foreign", ""))?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let report = component(&installation, ComponentName::Wireguard)?;
    ensure_eq(report.state, State::Failed)?;
    ensure_eq(
        report.problems[0].what.as_str(),
        "there is an interface wi-foreign already (a tun one), which is not bastiond's",
    )?;
    ensure_eq(component(&installation, ComponentName::Routes)?.state, State::HeldBack)?;
    let addresses = world.bastion().ip("addr show dev wi-foreign")?;
    ensure(addresses.contains("10.9.9.1/24") && !addresses.contains("10.100.0.1"), addresses)?;
    // The rest of the gateway works, and the tunnel is created once the name is free.
    ensure_eq(component(&installation, ComponentName::Hcloud)?.state, State::Ok)?;
    world.bastion().ip("link del wi-foreign")?;
    wait_until_ok("the tunnel is created", Duration::from_secs(4), &installation)?;
    Ok(())
}

fn port_in_use() -> Result {
    let world = world()?;
    let other = world.bastion().bind_udp((Ipv4Addr::UNSPECIFIED, 51820))?;
    let installation = installation(&world)?;
    installation.write_config(&tunnel("wi-port", ""))?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let report = component(&installation, ComponentName::Wireguard)?;
    ensure_eq(report.state, State::Failed)?;
    let problem = &report.problems[0];
    ensure(problem.what.contains("cannot bind UDP port 51820"), problem.what.clone())?;
    ensure(problem.advice.contains("ss -ulnp"), problem.advice.clone())?;
    drop(other);
    wait_until_ok("the tunnel is created", Duration::from_secs(4), &installation)?;
    Ok(())
}
