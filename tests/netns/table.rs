//! The table as nft lists it, compared with golden files and with the listing in the documentation.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use bastiond::internals::component;
use bastiond::internals::config::{Config, Environment, Fastpath, parse};
use bastiond::internals::inputs::{Inputs, SeenReturnRoutes, tunnel};
use bastiond::internals::nat::{LoadedRules, Nat, load_boot_rules};
use bastiond::internals::net::NetworkId;
use bastiond::internals::outcome::Outcome;
use bastiond::internals::site::{PrivateLink, PublicLink, Site};
use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use serde_json::Value;

use crate::gateway::{Result, ensure, ensure_eq, lone_trial, text, trial};
use crate::routes::inside;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_table_with_one_network_equals_the_golden_one", || golden("one-network")),
        trial("the_table_with_a_hetzner_network_equals_the_golden_one_and_the_documented_one", || {
            golden("hetzner-network")
        }),
        trial("the_table_with_a_tunnel_equals_the_golden_one", || golden("tunnel")),
        trial("the_table_with_lists_of_peers_equals_the_golden_one", || golden("access")),
        trial("the_table_with_everything_equals_the_golden_one", || golden("everything")),
        trial("the_table_with_other_protocols_equals_the_golden_one", || golden("protocols")),
        lone_trial("the_lists_of_ten_thousand_peers_load_and_change_in_place", crowd),
        trial("removing_the_tunnel_removes_all_its_rules", tunnel_goes),
        trial("boot_replaces_a_table_that_does_not_filter", half_a_table),
        trial("boot_opens_the_current_port_of_sshd", sshd_moved),
    ]
}

fn link(interface: &str, address: &str, network: &str) -> Result<PrivateLink> {
    Ok(PrivateLink {
        interface: interface.parse()?,
        mtu: 1450,
        address: address.parse()?,
        address_present: true,
        aliases: std::collections::BTreeSet::new(),
        network: network.parse()?,
        network_id: None,
        network_name: None,
        gateway: None,
        behind: Vec::new(),
        is_local: false,
    })
}

/// The site: one private network, which is one of Hetzner's with that name; or three of Hetzner's and four public
/// addresses for the table with everything.
pub(crate) fn site(name: &str) -> Result<Site> {
    let mut addresses = vec!["198.51.100.2".parse()?];
    let mut private = vec![link("eth1", "10.0.0.2", "10.0.0.0/16")?];
    if name == "everything" {
        addresses.extend([50, 51, 52].map(|host| Ipv4Addr::new(203, 0, 113, host)));
        private.extend([link("eth2", "10.2.0.2", "10.2.0.0/16")?, link("ens10.7", "10.3.0.2", "10.3.0.0/16")?]);
    }
    if ["hetzner-network", "everything"].contains(&name) {
        for (link, number) in private.iter_mut().zip(1_000_004..) {
            link.network_id = Some(NetworkId(number));
        }
    }
    let public = Some(PublicLink { interface: "eth0".parse()?, mtu: 1500, addresses });
    Ok(Site { public, private, ..Site::default() })
}

fn data(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tables").join(file)
}

/// Without a fast path, which needs existing links and not every kernel supports.
fn config(name: &str) -> Result<Config> {
    let mut config = config_with_fast_path(name)?;
    config.nat.fastpath = Fastpath::Off;
    Ok(config)
}

pub(crate) fn config_with_fast_path(name: &str) -> Result<Config> {
    let path = data(&format!("{name}.toml"));
    let config = parse(&std::fs::read_to_string(path)?, &Environment::default());
    Ok(config.map_err(|problems| format!("{name}: {problems:?}"))?)
}

pub(crate) fn reconcile(host: &Namespace, nat: &mut Nat, config: &Config, site: &Site) -> Outcome {
    let tunnel = tunnel(config, site, &SeenReturnRoutes::new());
    let inputs = Inputs { config, site, tunnel: tunnel.as_ref(), now: tokio::time::Instant::now() };
    inside(host, component::reconcile(nat, &inputs))
}

/// nft's listing, with these arguments before the table's name.
pub(crate) fn listed(host: &Namespace, arguments: &[&str]) -> Result<String> {
    let output = host.command("nft").args(arguments).args(["list", "table", "inet", "bastiond"]).output()?;
    Ok(text(&output.stdout))
}

/// The golden file, which is written again if `BASTIOND_BLESS` is set.
fn matches(file: &str, now: &str) -> Result {
    let path = data(file);
    if std::env::var_os("BASTIOND_BLESS").is_some() {
        std::fs::write(&path, now)?;
    }
    let golden = std::fs::read_to_string(&path)?;
    let differs = golden.lines().zip(now.lines()).position(|(golden, now)| golden != now);
    let line = differs.unwrap_or_else(|| golden.lines().count().min(now.lines().count()));
    let message =
        || format!("{file}, line {}: {:?} is now {:?}", line + 1, golden.lines().nth(line), now.lines().nth(line));
    ensure(golden == now, message())
}

/// Removes the handles from nft's JSON: they differ from run to run.
pub(crate) fn remove_handles(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("handle");
            map.values_mut().for_each(remove_handles);
        }
        Value::Array(values) => values.iter_mut().for_each(remove_handles),
        _ => {}
    }
}

/// nft's JSON, indented.
fn object_a_line(json: &str) -> Result<String> {
    let mut document: Value = serde_json::from_str(json)?;
    remove_handles(&mut document);
    let lines: Vec<String> = document["nftables"].as_array().into_iter().flatten().map(Value::to_string).collect();
    Ok(format!("{{\"nftables\": [\n{}\n]}}\n", lines.join(",\n")))
}

fn golden(name: &str) -> Result {
    let host = Namespace::create(&format!("golden-{name}"))?;
    let memory = tempfile::tempdir()?;
    let (config, site) = (config(name)?, site(name)?);
    let mut nat = Nat::load(memory.path(), memory.path());
    let loaded = reconcile(&host, &mut nat, &config, &site);
    ensure_eq((loaded.changes.len(), loaded.problems), (1, Vec::new()))?;
    ensure_eq(reconcile(&host, &mut nat, &config, &site).changes, Vec::new())?;
    // A new daemon recognises it too.
    let mut successor = Nat::load(memory.path(), memory.path());
    ensure_eq(reconcile(&host, &mut successor, &config, &site).changes, Vec::new())?;
    // Other versions of nft list it differently. With them it must load and be kept.
    if text(&host.command("nft").arg("--version").output()?.stdout).contains("v1.0.6 ") {
        let now = listed(&host, &["-s"])?;
        matches(&format!("{name}.nft"), &now)?;
        if name == "one-network" {
            matches("one-network.json", &object_a_line(&listed(&host, &["-j"])?)?)?;
        }
        if name == "hetzner-network" {
            let document = include_str!("../../docs/traffic.md");
            ensure(document.contains(now.trim_end()), "docs/traffic.md lists another table than hetzner-network.nft")?;
        }
    }
    Ok(())
}

/// Ten groups of a thousand hosts, ranges and ranges of ports, and so many peers, each in one of the groups.
fn many_peers(count: u32) -> Result<Config> {
    let mut text = "[nat]\nfastpath = false\n[wireguard]\naddresses = [\"10.100.0.1/16\"]\n".to_owned();
    for group in 0..10 {
        let entry = |n: u32| match n % 3 {
            0 => format!("10.{}.{}.{}:tcp/5432", group + 1, n / 250, n % 250),
            1 => format!("10.{}.{}.{}:tcp/{}-{}", group + 1, n / 250, n % 250, 1000 + n, 1010 + n),
            _ => format!("10.{}.{}.{}/30:udp/53", group + 20, n / 64, n % 64 * 4),
        };
        let reach: Vec<String> = (0..1000).map(entry).collect();
        let _ = writeln!(text, "[[wireguard.group]]\nname = \"group-{group}\"\nreach = {reach:?}");
        text.push_str("from = [\"10.0.0.7\"]\n");
    }
    for number in 0..count {
        let [.., third, fourth] = (number + 256).to_be_bytes();
        let key = bastiond_tunnel::key::PublicKey(std::array::from_fn(|at| [third, fourth][at % 2]));
        let _ = writeln!(text, "[[wireguard.peer]]\npublic_key = \"{key}\"");
        let _ = writeln!(text, "allowed_ips = [\"10.100.{third}.{fourth}\"]\ngroups = [\"group-{}\"]", number % 10);
    }
    Ok(parse(&text, &Environment::default()).map_err(|problems| format!("{:?}", problems.first()))?)
}

fn crowd() -> Result {
    let host = Namespace::create("many-peers")?;
    let memory = tempfile::tempdir()?;
    let site = site("one-network")?;
    let mut nat = Nat::load(memory.path(), memory.path());
    let everybody = many_peers(10_001)?;
    let mut loaded = |count: usize| -> Result {
        let mut config = everybody.clone();
        config.wireguard.as_mut().ok_or("no tunnel")?.peers.truncate(count);
        let outcome = reconcile(&host, &mut nat, &config, &site);
        ensure_eq((outcome.changes.len(), outcome.problems), (1, Vec::new()))
    };
    let leads_to = |address: &str| -> Result<String> {
        let output = host.command("nft").args(["get", "element", "inet", "bastiond", "peer_reach"]);
        let output = output.arg(format!("{{ {address} }}")).output()?;
        Ok(text(&output.stdout))
    };
    loaded(10_000)?;
    ensure(leads_to("10.100.1.7")?.contains("goto reach_group-7"), leads_to("10.100.1.7")?)?;
    ensure(leads_to("10.100.40.15")?.contains("goto reach_group-9"), leads_to("10.100.40.15")?)?;
    ensure(leads_to("10.100.40.16")?.is_empty(), "nobody has that address")?;
    loaded(10_001)?;
    ensure(leads_to("10.100.40.16")?.contains("goto reach_group-0"), leads_to("10.100.40.16")?)?;
    loaded(10)?;
    ensure(leads_to("10.100.40.16")?.is_empty(), "the peer is gone")?;
    ensure(leads_to("10.100.1.7")?.contains("goto reach_group-7"), "this one is not")
}

fn tunnel_goes() -> Result {
    let host = Namespace::create("tunnel-goes")?;
    let memory = tempfile::tempdir()?;
    let mut nat = Nat::load(memory.path(), memory.path());
    reconcile(&host, &mut nat, &config("tunnel")?, &site("tunnel")?);
    ensure(listed(&host, &[])?.contains("wg0"), "there is no tunnel to take away")?;
    let plain = reconcile(&host, &mut nat, &config("one-network")?, &site("one-network")?);
    ensure_eq((plain.changes.len(), plain.problems), (1, Vec::new()))?;
    let listed = listed(&host, &[])?;
    ensure(!listed.contains("tunnel") && !listed.contains("wg0"), listed)
}

fn sshd_moved() -> Result {
    let state = tempfile::tempdir()?;
    let (config, site) = (config("one-network")?, site("one-network")?);
    let host = Namespace::create("sshd-moved")?;
    let mut nat = Nat::load(state.path(), state.path());
    reconcile(&host, &mut nat, &config, &site);
    host.nft("delete table inet bastiond")?;
    let moved = Site { public: None, private: Vec::new(), sshd_ports: [22, 2222].into(), ..site };
    ensure_eq(inside(&host, load_boot_rules(state.path(), None, &config, &moved, false))?, LoadedRules::LastGood)?;
    let ports = host.nft("list set inet bastiond ssh_ports")?;
    ensure(ports.contains("elements = { 22, 2222 }"), ports)
}

fn half_a_table() -> Result {
    let state = tempfile::tempdir()?;
    let (config, site) = (config("one-network")?, site("one-network")?);
    let closed = Site { public: None, private: Vec::new(), ..site.clone() };
    let boot = |host: &Namespace| inside(host, load_boot_rules(state.path(), None, &config, &closed, false));
    // As left by a process that ended between the two transactions of a table.
    let host = Namespace::create("half-a-table")?;
    host.nft("add table inet bastiond")?;
    ensure_eq(boot(&host)?, LoadedRules::Closed)?;
    ensure_eq(boot(&host)?, LoadedRules::Existing)?;
    host.nft("delete table inet bastiond")?;
    // Version 0.1.0 kept nft's text, which nobody reads: an account that is taken over could put anything there.
    let foreign = r#"{"format":1,"skeleton":"include \"/etc/shadow\"","commands":[]}"#;
    for text in [foreign, "", r#"{"format":2}"#] {
        std::fs::write(state.path().join("rules.json"), text)?;
        ensure_eq(boot(&host)?, LoadedRules::Closed)?;
        host.nft("delete table inet bastiond")?;
    }
    // Complete rules.
    let mut nat = Nat::load(state.path(), state.path());
    reconcile(&host, &mut nat, &config, &site);
    let good = listed(&host, &["--stateless"])?;
    host.nft("delete table inet bastiond")?;
    ensure_eq(boot(&host)?, LoadedRules::LastGood)?;
    ensure_eq(listed(&host, &["--stateless"])?, good)
}
