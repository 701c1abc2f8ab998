//! Reloads change the table in place: bans, counters, sets of sources and flow limits stay.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bastiond::internals::nat::Nat;
use bastiond::internals::outcome::{ComponentName, State};
use bastiond::internals::site::Site;
use fastrand::Rng;
use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Flood, HeldConnection, Reflector};
use sandbox::world::{Settings, World, addresses as at};
use serde_json::Value;

use super::random::configuration;
use super::{contents, counted, gateway, reload, tcp};
use crate::gateway::{NEVER, Result, SOON, Server, component, ensure, ensure_eq, lone_trial, trial, wait_for};
use crate::table::{listed, reconcile, remove_handles, site};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_reload_changes_any_configuration_into_any_other_in_place", any_into_any),
        lone_trial("a_reload_that_changes_one_forward_sends_only_that_one_to_the_kernel", one_of_many),
        trial("bans_scanners_counters_and_flow_limits_survive_a_reload", memory_survives),
        lone_trial("twenty_reloads_of_a_thousand_forwards_under_load_lose_no_packet", under_load),
    ]
}

/// The number of random reloads.
const RELOADS: usize = 25;
/// A source that is banned before the first reload.
const BANNED: &str = "192.0.2.99";

fn any_into_any() -> Result {
    let seed = std::env::var("BASTIOND_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let last = std::cell::Cell::new(String::new());
    any_into_any_of(seed, &last).map_err(|failed| {
        let message = failed.message().unwrap_or_default().to_owned();
        format!("BASTIOND_SEED={seed}: {message}\nwith\n{}", last.take()).into()
    })
}

fn any_into_any_of(seed: u64, last: &std::cell::Cell<String>) -> Result {
    let mut rng = Rng::with_seed(seed);
    let host = Namespace::create("reloads")?;
    let memory = tempfile::tempdir()?;
    let mut nat = Nat::load(memory.path(), memory.path());
    for step in 0..=RELOADS {
        let (text, config) = configuration(&mut rng)?;
        last.set(text);
        let site = some_site(&mut rng)?;
        if rng.u8(0..5) == 0 {
            // A restarted daemon.
            nat = Nat::load(memory.path(), memory.path());
        }
        let outcome = reconcile(&host, &mut nat, &config, &site);
        ensure(matches!(outcome.state, State::Ok | State::Waiting), format!("step {step}: {outcome:?}"))?;
        ensure(!outcome.repaired && outcome.changes.len() == 1, format!("step {step}: {:?}", outcome.changes))?;
        if step == 0 {
            host.nft(&format!("add element inet bastiond banned4 {{ {BANNED} timeout 1h }}"))?;
        }
        // Creating the table again would lose the ban.
        ensure(listed(&host, &[])?.contains(BANNED), format!("step {step}: the table was created again"))?;
        let kept = reconcile(&host, &mut nat, &config, &site);
        ensure(kept.changes.is_empty(), format!("step {step}: a second pass changes something: {:?}", kept.changes))?;
        let fresh = Namespace::create(&format!("reloads-{step}"))?;
        let elsewhere = tempfile::tempdir()?;
        let mut first = Nat::load(elsewhere.path(), elsewhere.path());
        reconcile(&fresh, &mut first, &config, &site);
        let difference = difference(&objects(&host)?, &objects(&fresh)?);
        ensure(difference.is_none(), format!("step {step}: {}", difference.unwrap_or_default()))?;
    }
    Ok(())
}

/// The site `everything`, sometimes without some of its links or addresses.
fn some_site(rng: &mut Rng) -> Result<Site> {
    let mut site = site("everything")?;
    match rng.u8(0..6) {
        0 => site.private.truncate(rng.usize(0..3)),
        1 => site.public = None,
        2 => site.public.iter_mut().for_each(|public| public.addresses.truncate(rng.usize(1..4))),
        _ => {}
    }
    Ok(site)
}

/// The table's objects by kind and name, without what differs between namespaces: handles, the order in which sets were
/// created, and elements that packets or the test add. The rules of a chain keep their order.
fn objects(host: &Namespace) -> Result<BTreeMap<String, Vec<String>>> {
    let mut document: Value = serde_json::from_str(&listed(host, &["-j"])?)?;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for object in document["nftables"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for (kind, object) in object {
            remove_handles(object);
            sort_elements(object);
            if object["name"] == "banned4" {
                object["elem"].take();
            }
            let name = if kind == "rule" { &object["chain"] } else { &object["name"] };
            found.entry(format!("{kind} {name}")).or_default().push(object.to_string());
        }
    }
    Ok(found)
}

/// Sorts the elements of sets, because nft does not guarantee their order.
fn sort_elements(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                sort_elements(inner);
                if let (Value::Array(elements), "elem" | "set") = (inner, key.as_str()) {
                    elements.sort_by_cached_key(Value::to_string);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(sort_elements),
        _ => {}
    }
}

/// Describes the first object that differs.
fn difference(found: &BTreeMap<String, Vec<String>>, expected: &BTreeMap<String, Vec<String>>) -> Option<String> {
    let differs = |name: &&String| found.get(*name) != expected.get(*name);
    let name = found.keys().chain(expected.keys()).find(differs)?;
    Some(format!("{name} is {:#?}, but {:#?} in a new table", found.get(name), expected.get(name)))
}

/// A program that is killed when this is dropped.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Both fail if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn one_of_many() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, mut daemon) = gateway(&world, &many_forwards(10_000, 1000))?;
    let output = tempfile::NamedTempFile::new()?;
    let monitor = world.bastion().command("nft").arg("monitor").stdout(output.reopen()?).spawn()?;
    let _monitor = KillOnDrop(monitor);
    let all = || -> Result<String> { Ok(std::fs::read_to_string(output.path())?) };
    // It prints nothing when it begins to listen.
    wait_for("the monitor listens", SOON, || {
        world.bastion().nft("add table ip marker\ndelete table ip marker")?;
        Ok(all()?.contains("table ip marker"))
    })?;
    // The reload removes port 10000 and adds port 11000.
    reload(&installation, &mut daemon, &many_forwards(10_001, 1000))?;
    wait_for("the new forward is printed", SOON, || Ok(all()?.contains("11000")))?;
    let all = all()?;
    let ours: Vec<&str> = all.lines().filter(|line| line.contains("inet bastiond")).collect();
    let element = |what: &str, port: u16| {
        format!("{what} element inet bastiond forwards {{ 198.51.100.2 . tcp . {port} : 10.0.1.5 . {port} }}")
    };
    let translated = |what: &str, port: u16| {
        format!("{what} element inet bastiond translated {{ 198.51.100.2 . tcp . {port} . 10.0.1.5 . {port} }}")
    };
    let mut expected = vec![element("delete", 10_000), element("add", 11_000)];
    expected.extend([translated("delete", 10_000), translated("add", 11_000)]);
    ensure_eq(ours, expected.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A flow limit that no reload changes.
const FEW_FLOWS: &str = "[egress]\nmax_flows = 20\n";

fn memory_survives() -> Result {
    let world = World::start(Settings::default())?;
    let reflector = Reflector::udp(world.server(), (at::SERVER, 5001))?;
    let (installation, mut daemon) = gateway(&world, FEW_FLOWS)?;
    // One source scans, one is banned, and one is at its flow limit.
    let scanner = world.worker().bind_udp((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    scanner.send_to(b"anybody?", "192.168.7.7:22")?;
    world.bastion().nft(&format!("add element inet bastiond banned4 {{ {BANNED} timeout 1h }}"))?;
    let flows: Vec<_> = (0..20)
        .map(|_| world.web().bind_udp((std::net::Ipv4Addr::UNSPECIFIED, 0)))
        .collect::<std::result::Result<_, _>>()?;
    for flow in &flows {
        flow.send_to(b"hello", reflector.address())?;
    }
    wait_for("all flows exist", SOON, || Ok(reflector.seen().len() == flows.len()))?;
    let is_limited = || Ok(contents(&world, "set", "limited4")?.contains("10.0.0.4"));
    wait_for("the source is limited", SOON, is_limited)?;
    let is_at_limit = || traffic::udp_probe(world.web(), reflector.address(), NEVER).is_err();
    ensure(is_at_limit(), "a flow beyond the limit passes")?;
    wait_for("the scan is counted", SOON, || Ok(counted(&world, "dropped_unroutable")? == 1))?;
    let counters = ["egress_flows", "dropped_unroutable", "dropped_flows"];
    let before = counters.map(|counter| counted(&world, counter).unwrap_or_default());
    for sections in [
        "[[nat.forward]]\nport = 80\nto = \"10.0.0.4\"\n[firewall]\nssh_attempts = 7\nssh_from = [\"192.0.2.0/24\"]",
        "[tenants]\nallow = [{ from = [\"10.0.0.0/16\"], to = [\"10.2.0.0/16\"] }]",
        "[[network]]\nrange = \"10.2.0.0/16\"\nallow = []",
        "",
    ] {
        reload(&installation, &mut daemon, &format!("{FEW_FLOWS}{sections}"))?;
        ensure(contents(&world, "set", "banned4")?.contains(BANNED), "the ban is lost")?;
        ensure(contents(&world, "set", "scanning")?.contains("10.0.1.5"), "the scanner is lost")?;
        ensure(contents(&world, "set", "over_flows")?.contains("10.0.0.4"), "the source at its flow limit is lost")?;
        let now = counters.map(|counter| counted(&world, counter).unwrap_or_default());
        ensure(now.iter().zip(before).all(|(now, before)| *now >= before), format!("{before:?} became {now:?}"))?;
        ensure(is_at_limit(), "the flows are no longer counted: one more passes")?;
    }
    Ok(())
}

/// `count` forwards from port `first` on, and one to web.
fn many_forwards(first: u16, count: u16) -> String {
    let mut text = "[[nat.forward]]\nprotocol = \"both\"\nport = 443\nto = \"10.0.0.4\"\nto_port = 8443\n".to_owned();
    for port in first..first + count {
        let _ = writeln!(text, "[[nat.forward]]\nport = {port}\nto = \"10.0.1.5\"");
    }
    text
}

fn under_load() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let _web = (Reflector::tcp(world.web(), (at::WEB, 8443))?, Reflector::udp(world.web(), (at::WEB, 8443))?);
    let forward = (at::BASTION, 443);
    let (installation, mut daemon) = gateway(&world, &many_forwards(10_000, 1000))?;
    let mut held = HeldConnection::open(world.server(), forward, SOON)?;
    let floods = [Flood::start(world.web(), server.udp.address(), 1000)?, Flood::start(world.server(), forward, 1000)?];
    wait_for("the floods run", SOON, || Ok(floods.iter().all(|flood| flood.received() > 100)))?;
    let ended = AtomicBool::new(false);
    let slow = std::thread::scope(|scope| -> Result<Vec<Duration>> {
        // A lost SYN is sent again after a second.
        let connections = scope.spawn(|| {
            let mut slow = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let start = Instant::now();
                let connected = traffic::tcp_connects(world.server(), forward, SOON).is_ok();
                if !connected || start.elapsed() > Duration::from_millis(900) {
                    slow.push(start.elapsed());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            slow
        });
        let reloads = (0..20).try_for_each(|round: u16| {
            // Some forwards are added, some removed, sometimes all of them.
            let sections = match round % 4 {
                0 => many_forwards(10_000 + round, 1000),
                1 => many_forwards(10_500, 700),
                2 => format!("{}[egress]\ndeny = [{{ to = [\"192.0.2.{round}\"] }}]", many_forwards(10_000, 0)),
                _ => format!("{}[nat]\nrandom_ports = false", many_forwards(20_000, 1000)),
            };
            reload(&installation, &mut daemon, &sections)?;
            held.exchange(SOON)?;
            Ok(())
        });
        ended.store(true, Ordering::Relaxed);
        let slow = connections.join().expect("a client does not panic");
        reloads.map(|()| slow)
    })?;
    ensure_eq(slow, Vec::new())?;
    let changes = component(&installation, ComponentName::Nat)?.totals.changes;
    ensure(changes >= 20, format!("the rules changed only {changes} times"))?;
    for flood in floods.map(Flood::stop) {
        ensure(flood.sent > 500, format!("{flood:?}"))?;
        ensure_eq(flood.lost, Vec::new())?;
    }
    ensure_eq(tcp(world.server(), (at::BASTION, 443)), Ok(at::SERVER.into()))
}
