//! The laptop of the demo: a WireGuard client of another project, with a configuration as a person writes it.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sandbox::daemon::{Daemon, Installation};
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Reflector};
use sandbox::world::{World, addresses as at};

use super::step::{SOON, Step, check};

/// The laptop's name in the configuration.
const NAME: &str = "laptop-of-anna";
/// The laptop's address in the tunnel.
const INSIDE: &str = "10.100.0.2";

/// The laptop's tunnel. Dropping the value ends it.
pub(super) struct Tunnel {
    /// The name of the peer.
    pub(super) peer: String,
    program: Child,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

pub(super) fn from_the_laptop(world: &World, installation: &Installation<'_>, daemon: &mut Daemon) -> Step<Tunnel> {
    let laptop = world.laptop();
    let private_key = output_of(laptop, "wg", &["genkey"], "")?;
    let public_key = output_of(laptop, "wg", &["pubkey"], &private_key)?;
    let config = format!(
        "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n\n[[wireguard.peer]]\nname = \"{NAME}\"\npublic_key = \
         \"{public_key}\"\nallowed_ips = [\"{INSIDE}/32\"]\n"
    );
    println!("config.toml of the bastion:\n{}", indented(&config));
    installation.write_config(&config)?;
    daemon.signal(Signal::SIGHUP)?;
    let bastion = retry(|| output_of(world.bastion(), "wg", &["show", "wg0", "public-key"], ""))?;

    let file = format!(
        "[Interface]\nPrivateKey = {private_key}\n\n[Peer]\nPublicKey = {bastion}\nEndpoint = {}:51820\nAllowedIPs = \
         10.0.0.0/16, 10.100.0.1/32\nPersistentKeepalive = 25\n",
        at::BASTION
    );
    println!("home.conf of the laptop:\n{}", indented(&file.replace(&private_key, "(secret)")));
    let path = installation.runtime_directory().join("home.conf");
    std::fs::write(&path, file)?;
    let program = laptop
        .command("wireguard-go")
        .args(["--foreground", "home"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let tunnel = Tunnel { peer: NAME.to_owned(), program };
    retry(|| output_of(laptop, "wg", &["show", "home"], ""))?;
    output_of(laptop, "wg", &["setconf", "home", &path.to_string_lossy()], "")?;
    laptop.ip(&format!("addr add {INSIDE}/32 dev home\nlink set home up mtu 1420\nroute add 10.0.0.0/16 dev home"))?;

    // The return route is a route of the network. Once the cloud has it, private hosts see the laptop's own address.
    let gateway = world.gateway(world.private_network_id());
    gateway.wait_for_route("10.100.0.0/24".parse()?, Some(at::BASTION_PRIVATE), SOON)?;
    let ssh = Reflector::tcp(world.web(), (at::WEB, 22))?;
    let seen = retry(|| {
        let seen = traffic::tcp_probe(laptop, ssh.address(), SOON)?;
        check(seen.ip().to_string() == INSIDE, "the private host does not see the laptop's own address")?;
        Ok(seen)
    })?;
    println!("laptop {} -> {} through the tunnel: answered; the private host saw {seen}", at::LAPTOP, ssh.address());
    let handshake = output_of(laptop, "wg", &["show", "home", "latest-handshakes"], "")?;
    check(!handshake.ends_with("\t0"), "there was no handshake")?;
    Ok(tunnel)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect()
}

/// Repeats the attempt until it succeeds, for at most [`SOON`].
fn retry<T>(mut attempt: impl FnMut() -> Step<T>) -> Step<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > SOON => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The output of a program that must succeed, without the end of the line.
fn output_of(namespace: &Namespace, program: &str, arguments: &[&str], input: &str) -> Step<String> {
    let mut child = namespace
        .command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        std::io::Write::write_all(&mut stdin, input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    } else {
        Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end()).into())
    }
}
