//! `bastiond boot`: it loads rules before there is a network.

use std::collections::BTreeSet;
use std::process::Output;

use libtest_mimic::Trial;
use sandbox::daemon::Installation;
use sandbox::namespace::Namespace;
use sandbox::traffic::Reflector;
use sandbox::world::{Settings, World, addresses as at};

use super::Attempt::Tcp;
use super::{gateway, silent, tcp};
use crate::gateway::{
    NEVER, Result, SOON, Server, egress, ensure, ensure_eq, healthy, is_shut, open, programs, table, text, trial,
};
use crate::table::listed;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("boot_loads_the_last_good_rules_before_there_is_a_link", last_good),
        trial("boot_without_saved_rules_drops_everything_but_ssh", closed),
        trial("boot_with_a_wrong_configuration_reports_it_and_drops_everything_but_ssh", wrong),
        trial("boot_with_a_wrong_configuration_opens_ssh_that_only_the_tunnel_reached", by_tunnel_only),
        trial("boot_does_not_change_an_existing_table", stood),
        trial("saved_rules_that_cannot_be_loaded_are_replaced_by_dropping_everything_but_ssh", unreadable),
    ]
}

const FORWARD: &str =
    "[[nat.forward]]\nport = 443\nto = \"10.0.0.4\"\nto_port = 8443\n[firewall]\nssh_ports = [2222]\n";

/// Runs `bastiond boot`, as the unit bastiond-boot does before the network is up.
fn boot(place: &Namespace, installation: &Installation<'_>) -> Result<Output> {
    let program = programs().join("bastiond");
    let command = place.command(&program.to_string_lossy()).arg("--config").arg(installation.config_path()).arg("boot");
    let command = command.env("RUNTIME_DIRECTORY", installation.runtime_directory());
    Ok(command.env("STATE_DIRECTORY", installation.state_directory()).output()?)
}

fn succeeds(place: &Namespace, installation: &Installation<'_>) -> Result {
    let output = boot(place, installation)?;
    ensure(output.status.code() == Some(0), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// The table forwards nothing and accepts SSH on this port.
fn is_closed(host: &Namespace, ssh: u16) -> Result {
    let table = listed(host, &["-s"])?;
    let has = |words: &str| table.contains(words);
    let shut = has("priority filter - 5; policy drop")
        && !has("dnat ip to")
        && !has("snat ip to")
        && !has("masquerade")
        && !has("goto egress");
    ensure(shut && has(&format!("elements = {{ {ssh} }}")), table)
}

/// The chains of a listing, sorted: nft lists them in the order of their creation, and some are created again when the
/// fast path is switched on or off. The rules of the fast path are left out: the daemon adds them once the links exist.
fn rules(listing: &str) -> BTreeSet<String> {
    let chains = listing.find("\tchain ").map_or("", |at| &listing[at..]);
    let is_compared = |line: &&str| !line.ends_with("flow add @fastpath");
    let chain =
        |text: &str| text.trim_end_matches(['}', '\n']).lines().filter(is_compared).collect::<Vec<_>>().join("\n");
    chains.split("\n\n").map(chain).collect()
}

fn last_good() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let (installation, daemon) = gateway(&world, FORWARD)?;
    let before = table(&world, "inet bastiond")?;
    drop(daemon);
    // A server that has just started: it has no link but the loopback.
    let fresh = Namespace::create(&format!("{}-fresh", world.bastion().name()))?;
    succeeds(&fresh, &installation)?;
    ensure_eq(rules(&listed(&fresh, &["-s"])?), rules(&before))?;
    // With links, packets pass as before.
    world.bastion().nft("delete table inet bastiond")?;
    succeeds(world.bastion(), &installation)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    ensure_eq(tcp(world.server(), (at::BASTION, 443)), Ok(at::SERVER.into()))?;
    silent([Tcp(world.server(), (at::WEB, 8443)), Tcp(world.server(), (at::BASTION, 22))])?;
    // The daemon that starts then has the same rules.
    let _daemon = healthy(&installation)?;
    ensure_eq(rules(&table(&world, "inet bastiond")?), rules(&before))?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())
}

fn closed() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let _listeners = [22, 2222, 8080].map(|port| Reflector::tcp(world.bastion(), (at::BASTION, port)));
    // A router without rules.
    world.bastion().sysctl("net.ipv4.ip_forward", "1")?;
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    world.bastion().nft("table ip other { chain out { type nat hook postrouting priority 100; masquerade; }; }")?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    let installation = crate::gateway::installation(&world)?;
    installation.write_config(FORWARD)?;
    succeeds(world.bastion(), &installation)?;
    is_closed(world.bastion(), 2222)?;
    ensure(is_shut(&egress(world.web(), &server, NEVER)?), "packets are forwarded without saved rules")?;
    ensure_eq(tcp(world.server(), (at::BASTION, 2222)), Ok(at::SERVER.into()))?;
    silent([22, 8080].map(|port| Tcp(world.server(), (at::BASTION, port))))
}

fn wrong() -> Result {
    let host = Namespace::create("boot-wrong")?;
    let installation = Installation::new(&host, programs())?;
    installation.write_config("[firewall]\nssh_form = [\"10.0.0.0/8\"]")?;
    let output = boot(&host, &installation)?;
    ensure_eq(output.status.code(), Some(78))?;
    ensure(text(&output.stderr).contains("firewall.ssh_form: unknown key"), text(&output.stderr))?;
    is_closed(&host, 22)?;
    // A missing file has the same effect.
    host.nft("delete table inet bastiond")?;
    std::fs::remove_file(installation.config_path())?;
    ensure_eq(boot(&host, &installation)?.status.code(), Some(78))?;
    is_closed(&host, 22)
}

fn by_tunnel_only() -> Result {
    let world = World::start(Settings::default())?;
    let _sshd = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    let config = r#"
[firewall]
ssh_only_by_tunnel = true
[wireguard]
# The control sockets of all tests are in one directory.
interface = "wg-boot"
addresses = ["10.100.0.1/24"]
[[wireguard.peer]]
public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
allowed_ips = ["10.100.0.2"]
"#;
    let (installation, daemon) = gateway(&world, config)?;
    silent([Tcp(world.server(), (at::BASTION, 22))])?;
    let good = std::fs::read_to_string(installation.config_path())?;
    drop(daemon);
    // The saved rules hold, because a daemon with the tunnel will follow.
    world.bastion().nft("delete table inet bastiond")?;
    succeeds(world.bastion(), &installation)?;
    silent([Tcp(world.server(), (at::BASTION, 22))])?;
    // With a wrong file too: the daemon runs the configuration that was applied last, and brings the tunnel back.
    world.bastion().nft("delete table inet bastiond")?;
    std::fs::write(installation.config_path(), "[firewall]\nssh_form = []\n")?;
    let output = boot(world.bastion(), &installation)?;
    ensure_eq(output.status.code(), Some(0))?;
    ensure(text(&output.stderr).contains("firewall.ssh_form: unknown key"), text(&output.stderr))?;
    silent([Tcp(world.server(), (at::BASTION, 22))])?;
    // Without that one no daemon follows, so SSH is open for the person who corrects the file.
    std::fs::remove_file(installation.state_directory().join("last-good.json"))?;
    world.bastion().nft("delete table inet bastiond")?;
    ensure_eq(boot(world.bastion(), &installation)?.status.code(), Some(78))?;
    ensure_eq(tcp(world.server(), (at::BASTION, 22)), Ok(at::SERVER.into()))?;
    std::fs::write(installation.config_path(), good)?;
    let _daemon = healthy(&installation)?;
    silent([Tcp(world.server(), (at::BASTION, 22))])
}

fn stood() -> Result {
    let host = Namespace::create("boot-stood")?;
    let installation = Installation::new(&host, programs())?;
    host.nft(
        "table inet bastiond {
            counter mine { packets 7 bytes 9 }
            chain forward { type filter hook forward priority 0; }
            chain input { type filter hook input priority 0; }
        }",
    )?;
    let handles = || listed(&host, &["-a"]);
    let before = handles()?;
    succeeds(&host, &installation)?;
    ensure_eq(handles()?, before)
}

fn unreadable() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, daemon) = gateway(&world, FORWARD)?;
    drop(daemon);
    let kept = installation.state_directory().join("rules.json");
    let good = std::fs::read_to_string(&kept)?;
    for bad in [
        String::new(),
        good[..good.len() / 2].to_owned(),
        good.replace("10.0.0.0/16", "10.0.0.0/61"),
        good.replace("10.0.0.0/16", "0.0.0.0/0"),
        good.replace("\"format\":2", "\"format\":77"),
    ] {
        ensure(bad != good, "the file is unchanged, so the test proves nothing")?;
        std::fs::write(&kept, bad)?;
        let fresh = Namespace::create(&format!("{}-fresh", world.bastion().name()))?;
        succeeds(&fresh, &installation)?;
        is_closed(&fresh, 2222)?;
    }
    Ok(())
}
