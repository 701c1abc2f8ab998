//! The daemon's tunnel: people and sites connect with Debian's wireguard-go, configured as a person does it.

mod access;
mod changes;
mod expiry;
mod kinds;
mod lost_key;
mod no_routes;
mod paths;
mod peer_commands;
mod people;
mod refused;
mod silence;
pub(crate) mod untracked;

use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::time::Duration;

use bastiond::internals::wireguard::status::PeerReport;
use bastiond_tunnel::key::{PrivateKey, PublicKey};
use libtest_mimic::Trial;
use sandbox::daemon::{Daemon, Installation};
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Ping, ProbeFailure, Reflector};
use sandbox::world::{Laptop, SecondNetwork, Settings, World, addresses as at};

use crate::gateway::{FAST, Result, SOON, ensure, installation, report, text, wait_for, wait_until_ok};

pub(crate) fn trials() -> Vec<Trial> {
    [
        access::trials(),
        people::trials(),
        changes::trials(),
        expiry::trials(),
        kinds::trials(),
        refused::trials(),
        lost_key::trials(),
        no_routes::trials(),
        paths::trials(),
        peer_commands::trials(),
        silence::trials(),
        untracked::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The bastion's address in the tunnel.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);
pub(crate) const ADA: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 2);
pub(crate) const BOB: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 3);
/// A host in the office's network.
pub(crate) const OFFICE_HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 9);

/// A world with a laptop behind a NAT.
pub(crate) fn world() -> Result<World> {
    let settings = Settings { laptop: Laptop::BehindNat, second_network: SecondNetwork::Absent, ..Settings::default() };
    Ok(World::start(settings)?)
}

/// A client with wireguard-go. Interface names are unique, because the control sockets of all tests are in one
/// directory.
pub(crate) struct Client<'w> {
    namespace: &'w Namespace,
    interface: String,
    key: PrivateKey,
    address: Ipv4Addr,
    /// The process; `None` for an interface of the kernel.
    program: Option<Child>,
}

impl<'w> Client<'w> {
    /// Starts the client with an address in the tunnel and without peers.
    pub(crate) fn start(namespace: &'w Namespace, interface: &str, address: Ipv4Addr) -> Result<Self> {
        let command = namespace.command("wireguard-go").args(["-f", interface]);
        let program = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let client = Self::new(namespace, interface, address, Some(program));
        let asked = || Ok(namespace.command("wg").args(["show", interface]).output()?.status.success());
        wait_for("wireguard-go runs", SOON, asked)?;
        client.comes_up()
    }

    /// Starts a client with the kernel's WireGuard.
    pub(crate) fn of_kernel(namespace: &'w Namespace, interface: &str, address: Ipv4Addr) -> Result<Self> {
        namespace.ip(&format!("link add {interface} type wireguard"))?;
        Self::new(namespace, interface, address, None).comes_up()
    }

    fn new(namespace: &'w Namespace, interface: &str, address: Ipv4Addr, program: Option<Child>) -> Self {
        Self { namespace, interface: interface.to_owned(), key: PrivateKey::generate(), address, program }
    }

    fn comes_up(self) -> Result<Self> {
        let Self { namespace, interface, address, .. } = &self;
        let key_file = tempfile::NamedTempFile::new()?;
        std::fs::write(key_file.path(), self.key.to_base64().as_bytes())?;
        self.wg(&format!("private-key {}", key_file.path().display()))?;
        namespace.ip(&format!("addr add {address}/24 dev {interface}\nlink set {interface} mtu 1420 up"))?;
        Ok(self)
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// Runs `wg set INTERFACE WORDS`.
    pub(crate) fn wg(&self, words: &str) -> Result {
        let words = words.split_whitespace();
        let output = self.namespace.command("wg").args(["set", &self.interface]).args(words).output()?;
        ensure(output.status.success(), text(&output.stderr))
    }

    /// Adds the bastion as a peer for these ranges.
    pub(crate) fn meets(&self, bastion: PublicKey, ranges: &str) -> Result {
        self.wg(&format!("peer {bastion} endpoint {}:51820 allowed-ips {ranges}", at::BASTION))?;
        for range in ranges.split(',').filter(|range| !range.starts_with("10.100.0.")) {
            self.namespace.ip(&format!("route replace {range} dev {}", self.interface))?;
        }
        Ok(())
    }

    /// The client's block in the bastion's configuration.
    pub(crate) fn block(&self, name: &str, more: &str) -> String {
        let (key, address) = (self.public_key(), self.address);
        format!("[[wireguard.peer]]\nname = \"{name}\"\npublic_key = \"{key}\"\nallowed_ips = [\"{address}\"{more}]\n")
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        if let Some(program) = &mut self.program {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// The configuration of a tunnel with an interface name of the test's own.
pub(crate) fn tunnel(interface: &str, more: &str) -> String {
    format!("{FAST}[wireguard]\ninterface = \"{interface}\"\naddresses = [\"{INSIDE}/24\"]\n{more}")
}

/// Starts a daemon, waits until every component is ok, and returns the public key of its status.
pub(crate) fn serving(installation: &Installation<'_>) -> Result<(Daemon, PublicKey)> {
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    // The return route exists shortly after the rest.
    wait_until_ok("every component is ok", SOON, installation)
        .map_err(|error| format!("{}\n{}", error.message().unwrap_or_default(), daemon.log()))?;
    let public_key = report(installation)?.tunnel.and_then(|tunnel| tunnel.public_key);
    Ok((daemon, public_key.ok_or("the status shows no public key")?))
}

/// A daemon with a laptop as its peer, configured on both sides.
fn with_laptop<'w>(
    world: &'w World,
    interface: &str,
    more: &str,
    ranges: &str,
) -> Result<(Installation<'w>, Daemon, Client<'w>)> {
    let ada = Client::start(world.laptop(), &format!("{interface}-ada"), ADA)?;
    let installation = installation(world)?;
    installation.write_config(&tunnel(interface, &format!("{more}{}", ada.block("ada", ""))))?;
    let (daemon, bastion) = serving(&installation)?;
    ada.meets(bastion, ranges)?;
    Ok((installation, daemon, ada))
}

pub(crate) fn peer(installation: &Installation<'_>, name: &str) -> Result<PeerReport> {
    let tunnel = report(installation)?.tunnel.ok_or("no tunnel in the status")?;
    let peer = tunnel.peers.into_iter().find(|peer| peer.name.as_deref() == Some(name));
    peer.ok_or_else(|| format!("no peer {name}").into())
}

fn pings(from: &Namespace, to: Ipv4Addr, timeout: Duration) -> Result<bool> {
    Ok(!traffic::ping(from, to, Ping { timeout, ..Ping::default() })?.replies.is_empty())
}

/// The source address that a private host sees.
pub(crate) fn seen(from: &Namespace, to: &Reflector) -> std::result::Result<std::net::IpAddr, ProbeFailure> {
    traffic::tcp_probe(from, to.address(), SOON).map(|seen| seen.ip())
}

/// Waits until flows from the laptop have the source `source`.
fn wait_for_source(what: &str, laptop: &Namespace, reflector: &Reflector, source: Ipv4Addr) -> Result {
    // After an outage of the API the daemon asks it again in a few seconds.
    wait_for(what, Duration::from_secs(10), || Ok(seen(laptop, reflector) == Ok(source.into())))?;
    Ok(())
}
