//! `sandbox demo`

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use sandbox::daemon::{Daemon, Installation};
use sandbox::isolation;
use sandbox::traffic::{self, Ping, Reflector, Sniffer};
use sandbox::world::{Laptop, Names, Settings, World, addresses as at};

use super::{Outcome, shell::PICTURE};

mod tunnel;

#[derive(Args)]
pub(crate) struct Options {
    /// The directory that holds bastiond and bastionctl.
    #[arg(long, value_name = "DIRECTORY")]
    programs: PathBuf,
}

/// What nft shows of the rule that gives private hosts the public address.
const TRANSLATION: &str = "snat ip to";
/// For what must come.
const SOON: Duration = Duration::from_secs(3);
/// For what must not.
const NEVER: Duration = Duration::from_millis(500);

type Step<T = ()> = Result<T, Box<dyn Error>>;

/// Tells the whole story once; every line that claims something has been checked before it is printed.
pub(crate) fn run(options: &Options) -> Outcome {
    let programs = std::fs::canonicalize(&options.programs)?;
    isolation::enter()?;
    let start = Instant::now();
    let world = World::start(Settings { names: Names::Plain, laptop: Laptop::BehindNat, ..Settings::default() })?;
    println!("{PICTURE}");
    println!("A world of {} network namespaces, made in {} ms.", world.namespaces().len(), start.elapsed().as_millis());
    let installation = Installation::in_world(&world, &programs)?;
    let reflectors = Reflectors::start(&world)?;
    without_a_gateway(&world, &reflectors)?;
    let mut daemon = installation.start()?;
    let told = story(&world, &installation, &reflectors, &mut daemon);
    if told.is_err() {
        eprintln!("\nbastiond's log:\n{}", daemon.log());
    }
    told?;
    println!("\nThe demo took {:.1} s. Nothing of it is left on this machine.", start.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Whom the private hosts want to reach.
struct Reflectors {
    tcp: Reflector,
    udp: Reflector,
}

impl Reflectors {
    fn start(world: &World) -> Step<Self> {
        let tcp = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
        Ok(Self { tcp, udp: Reflector::udp(world.server(), (at::SERVER, 5353))? })
    }
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// Fails with `what` unless it is so.
fn check(is_so: bool, what: &str) -> Step {
    if is_so { Ok(()) } else { Err(format!("the demo failed: {what}").into()) }
}

fn without_a_gateway(world: &World, reflectors: &Reflectors) -> Step {
    heading("Without a gateway the private host `web` does not reach the internet host");
    let tcp = traffic::tcp_probe(world.web(), reflectors.tcp.address(), NEVER);
    let failure = tcp.err().ok_or("the demo failed: something passes without a gateway")?;
    println!("web -> {}: {failure}", reflectors.tcp.address());
    println!("routes of network {} in the API: {}", world.private_network_id(), routes(world));
    Ok(())
}

fn story(world: &World, installation: &Installation<'_>, reflectors: &Reflectors, daemon: &mut Daemon) -> Step {
    heading("bastiond starts on the bastion, with an empty configuration and an API token");
    let ready = daemon
        .wait_for_notification("READY=1", Duration::from_secs(10))
        .ok_or("the demo failed: bastiond is not ready after 10 s")?;
    println!("ready after {} ms", ready.as_millis());
    let gateway = world.gateway(world.private_network_id());
    gateway.wait_for_route("0.0.0.0/0".parse()?, Some(at::BASTION_PRIVATE), SOON)?;
    for call in world.cloud().requests().iter().filter(|call| call.method == "POST") {
        println!("API: {} {} {} -> {}", call.method, call.path, call.body, call.status.unwrap_or_default());
    }
    println!("routes of network {} in the API: {}", world.private_network_id(), routes(world));

    heading("The same host gets its answer, with the bastion's public address as its source");
    answered(world, reflectors)?;

    heading("An unsolicited connection from the internet to the private host is dropped");
    unsolicited(world)?;

    heading("A rule that somebody deletes by hand comes back");
    rule_comes_back(world)?;
    answered(world, reflectors)?;

    heading("A laptop behind a NAT of its own reaches the private host through the tunnel");
    let laptop = tunnel::from_the_laptop(world, installation, daemon)?;

    heading("What the operator sees: bastionctl status");
    let status = installation.ctl(&["status"])?;
    let seen = String::from_utf8_lossy(&status.stdout);
    print!("{seen}");
    check(status.status.success(), "the status is not healthy")?;
    check(seen.contains(&laptop.peer), "the status does not name the laptop")?;
    drop(laptop);

    heading("And gone: bastionctl down");
    let down = installation.ctl(&["down"])?;
    check(down.status.success(), "down failed")?;
    print!("{}", String::from_utf8_lossy(&down.stdout));
    check(world.cloud().routes(world.private_network_id()).is_empty(), "the cloud route stays after down")
}

fn answered(world: &World, reflectors: &Reflectors) -> Step {
    let tcp = traffic::tcp_probe(world.web(), reflectors.tcp.address(), SOON)?;
    let udp = traffic::udp_probe(world.web(), reflectors.udp.address(), SOON)?;
    for (protocol, reflector, seen) in [("TCP", &reflectors.tcp, tcp), ("UDP", &reflectors.udp, udp)] {
        check(seen.ip() == at::BASTION, "the source is not the bastion's public address")?;
        println!("web {} -> {} by {protocol}: answered; the internet host saw {seen}", at::WEB, reflector.address());
    }
    let ping = traffic::ping(world.web(), at::SERVER, Ping { timeout: SOON, ..Ping::default() })?;
    let reply = ping.replies.first().ok_or("the demo failed: the ping has no answer")?;
    println!("web {} -> {} by ping: answered, ttl {}", at::WEB, at::SERVER, reply.ttl);
    Ok(())
}

fn unsolicited(world: &World) -> Step {
    let listener = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let to_web = |packet: &traffic::Packet| packet.ip().is_some_and(|ip| ip.destination == at::WEB);
    let outside = Sniffer::start(world.bastion(), &world.settings().interfaces.public, to_web)?;
    let inside = Sniffer::start(world.bastion(), &world.settings().interfaces.private, to_web)?;
    let attempt = traffic::tcp_probe(world.server(), listener.address(), NEVER);
    let (came, passed) = (outside.stop().len(), inside.stop().len());
    let failure = attempt.err().ok_or("the demo failed: the internet reaches a private host")?;
    check(came > 0 && passed == 0, "the packet did not come to the bastion, or passed it")?;
    println!(
        "{} -> {}: {failure}; {came} packet(s) came to the bastion, {passed} passed",
        at::SERVER,
        listener.address()
    );
    Ok(())
}

fn rule_comes_back(world: &World) -> Step {
    let list =
        || world.bastion().command("nft").args(["-a", "list", "chain", "inet", "bastiond", "postrouting"]).output();
    let text = String::from_utf8(list()?.stdout)?;
    let rule = text
        .lines()
        .find(|line| line.contains(TRANSLATION))
        .ok_or("the demo failed: there is no rule that translates")?;
    let (rule, handle) = rule.trim().split_once(" # handle ").ok_or("the demo failed: nft shows no handle")?;
    let command = format!("delete rule inet bastiond postrouting handle {handle}");
    world.bastion().nft(&command)?;
    let deleted = Instant::now();
    println!("nft {command}    ({rule})");
    while !String::from_utf8(list()?.stdout)?.contains(TRANSLATION) {
        check(deleted.elapsed() < SOON, "the rule does not come back")?;
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("back after {} ms", deleted.elapsed().as_millis());
    Ok(())
}

fn routes(world: &World) -> String {
    let routes = world.cloud().routes(world.private_network_id());
    let routes: Vec<String> =
        routes.iter().map(|route| format!("{} via {}", route.destination, route.gateway)).collect();
    if routes.is_empty() { "none".to_owned() } else { routes.join(", ") }
}
