//! `sandbox demo`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use sandbox::daemon::{Daemon, Installation};
use sandbox::isolation;
use sandbox::traffic::{self, Ping, Reflector, Sniffer};
use sandbox::world::{Laptop, Names, Settings, World, addresses as at};

use self::step::{SOON, Step, check};
use super::Outcome;
use super::shell::PICTURE;

mod step;
mod tunnel;

#[derive(Args)]
pub(crate) struct Options {
    /// The directory that contains bastiond and bastionctl.
    #[arg(long, value_name = "DIRECTORY")]
    programs: PathBuf,
}

/// A part of nft's text of the rule that translates private hosts to the public address.
const SNAT_RULE: &str = "snat ip to";
/// How long the demo waits for something that must not happen.
const NEVER: Duration = Duration::from_millis(500);

/// Runs the demo. Every statement is checked before it is printed.
pub(crate) fn run(options: &Options) -> Outcome {
    let programs = std::fs::canonicalize(&options.programs)?;
    isolation::enter()?;
    let start = Instant::now();
    let world = World::start(Settings { names: Names::Plain, laptop: Laptop::BehindNat, ..Settings::default() })?;
    println!("{PICTURE}");
    println!("{} network namespaces were created in {} ms.", world.namespaces().len(), start.elapsed().as_millis());
    let installation = Installation::in_world(&world, &programs)?;
    let reflectors = Reflectors::start(&world)?;
    without_a_gateway(&world, &reflectors)?;
    let mut daemon = installation.start()?;
    let result = run_steps(&world, &installation, &reflectors, &mut daemon);
    if result.is_err() {
        eprintln!("\nbastiond's log:\n{}", daemon.log());
    }
    result?;
    println!("\nThe demo took {:.1} s. It left nothing on this machine.", start.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// The servers that the private hosts connect to.
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

fn without_a_gateway(world: &World, reflectors: &Reflectors) -> Step {
    heading("Without a gateway the private host `web` cannot reach the internet host");
    let tcp = traffic::tcp_probe(world.web(), reflectors.tcp.address(), NEVER);
    let failure = tcp.err().ok_or("the demo failed: packets pass without a gateway")?;
    println!("web -> {}: {failure}", reflectors.tcp.address());
    println!("routes of network {} in the API: {}", world.private_network_id(), routes(world));
    Ok(())
}

fn run_steps(world: &World, installation: &Installation<'_>, reflectors: &Reflectors, daemon: &mut Daemon) -> Step {
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

    heading("With bastiond the same host gets an answer; its source is the bastion's public address");
    check_answers(world, reflectors)?;

    heading("An unsolicited connection from the internet to the private host is dropped");
    check_unsolicited(world)?;

    heading("bastiond restores a rule that was deleted by hand");
    check_rule_is_restored(world)?;
    check_answers(world, reflectors)?;

    heading("A laptop behind a NAT router reaches the private host through the tunnel");
    let laptop = tunnel::from_the_laptop(world, installation, daemon)?;

    heading("The status for the operator: bastionctl status");
    let status = installation.ctl(&["status"])?;
    let output = String::from_utf8_lossy(&status.stdout);
    print!("{output}");
    check(status.status.success(), "the status is not healthy")?;
    check(output.contains(&laptop.peer), "the status does not name the laptop")?;
    drop(laptop);

    heading("bastiond removes everything: bastionctl down");
    let down = installation.ctl(&["down"])?;
    check(down.status.success(), "down failed")?;
    print!("{}", String::from_utf8_lossy(&down.stdout));
    check(world.cloud().routes(world.private_network_id()).is_empty(), "the cloud route is left after down")
}

fn check_answers(world: &World, reflectors: &Reflectors) -> Step {
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

fn check_unsolicited(world: &World) -> Step {
    let listener = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let to_web = |packet: &traffic::Packet| packet.ip().is_some_and(|ip| ip.destination == at::WEB);
    let outside = Sniffer::start(world.bastion(), &world.settings().interfaces.public, to_web)?;
    let inside = Sniffer::start(world.bastion(), &world.settings().interfaces.private, to_web)?;
    let attempt = traffic::tcp_probe(world.server(), listener.address(), NEVER);
    let (arrived, passed) = (outside.stop().len(), inside.stop().len());
    let failure = attempt.err().ok_or("the demo failed: the internet reaches a private host")?;
    check(arrived > 0 && passed == 0, "the packet did not arrive at the bastion, or passed it")?;
    println!(
        "{} -> {}: {failure}; {arrived} packet(s) arrived at the bastion, {passed} passed",
        at::SERVER,
        listener.address()
    );
    Ok(())
}

fn check_rule_is_restored(world: &World) -> Step {
    let list =
        || world.bastion().command("nft").args(["-a", "list", "chain", "inet", "bastiond", "postrouting"]).output();
    let text = String::from_utf8(list()?.stdout)?;
    let rule = text.lines().find(|line| line.contains(SNAT_RULE)).ok_or("the demo failed: there is no SNAT rule")?;
    let (rule, handle) = rule.trim().split_once(" # handle ").ok_or("the demo failed: nft shows no handle")?;
    let command = format!("delete rule inet bastiond postrouting handle {handle}");
    world.bastion().nft(&command)?;
    let deleted = Instant::now();
    println!("nft {command}    ({rule})");
    while !String::from_utf8(list()?.stdout)?.contains(SNAT_RULE) {
        check(deleted.elapsed() < SOON, "the rule is not restored")?;
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("restored after {} ms", deleted.elapsed().as_millis());
    Ok(())
}

fn routes(world: &World) -> String {
    let routes = world.cloud().routes(world.private_network_id());
    let routes: Vec<String> =
        routes.iter().map(|route| format!("{} via {}", route.destination, route.gateway)).collect();
    if routes.is_empty() { "none".to_owned() } else { routes.join(", ") }
}
