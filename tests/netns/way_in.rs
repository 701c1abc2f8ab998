//! The tunnel of the daemon: people and sites come in with Debian's wireguard-go, as a person would configure it.

mod changes;
mod kinds;
mod people;

use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::time::Duration;

use bastiond::wireguard::status::PeerReport;
use bastiond_tunnel::key::{PrivateKey, PublicKey};
use libtest_mimic::Trial;
use sandbox::daemon::{Daemon, Installation};
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Ping, ProbeFailure, Reflector};
use sandbox::world::{Laptop, SecondNetwork, Settings, World, addresses as at};

use crate::gateway::{FAST, Result, SOON, all_stand, ensure, installation, report, text, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    [people::trials(), changes::trials(), kinds::trials()].into_iter().flatten().collect()
}

/// The bastion's own address in the tunnel.
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

/// Somebody with wireguard-go. Interfaces have names of their own: all tests' control sockets lie in one directory.
pub(crate) struct Client<'w> {
    namespace: &'w Namespace,
    interface: String,
    key: PrivateKey,
    address: Ipv4Addr,
    /// None where the kernel carries it.
    program: Option<Child>,
}

impl<'w> Client<'w> {
    /// Starts it with an address in the tunnel; it knows nobody yet.
    pub(crate) fn start(namespace: &'w Namespace, interface: &str, address: Ipv4Addr) -> Result<Self> {
        let command = namespace.command("wireguard-go").args(["-f", interface]);
        let program = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let client = Self::new(namespace, interface, address, Some(program));
        let asked = || Ok(namespace.command("wg").args(["show", interface]).output()?.status.success());
        wait_for("wireguard-go runs", SOON, asked)?;
        client.comes_up()
    }

    /// The same by the kernel's own WireGuard.
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

    /// `wg set INTERFACE WORDS`
    pub(crate) fn wg(&self, words: &str) -> Result {
        let words = words.split_whitespace();
        let output = self.namespace.command("wg").args(["set", &self.interface]).args(words).output()?;
        ensure(output.status.success(), text(&output.stderr))
    }

    /// Makes the bastion its peer, for these ranges.
    pub(crate) fn meets(&self, bastion: PublicKey, ranges: &str) -> Result {
        self.wg(&format!("peer {bastion} endpoint {}:51820 allowed-ips {ranges}", at::BASTION))?;
        for range in ranges.split(',').filter(|range| !range.starts_with("10.100.0.")) {
            self.namespace.ip(&format!("route replace {range} dev {}", self.interface))?;
        }
        Ok(())
    }

    /// The block of the bastion's configuration that lets it in.
    pub(crate) fn block(&self, name: &str, more: &str) -> String {
        let (key, address) = (self.public_key(), self.address);
        format!("[[wireguard.peer]]\nname = \"{name}\"\npublic_key = \"{key}\"\nallowed_ips = [\"{address}\"{more}]\n")
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        // It has ended, or ends now.
        if let Some(program) = &mut self.program {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// The configuration of a tunnel; its interface is the test's own.
pub(crate) fn tunnel(interface: &str, more: &str) -> String {
    format!("{FAST}[wireguard]\ninterface = \"{interface}\"\naddresses = [\"{INSIDE}/24\"]\n{more}")
}

/// A daemon that is ready, whose every room stands, and the public key that its status shows.
pub(crate) fn serving(installation: &Installation<'_>) -> Result<(Daemon, PublicKey)> {
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    // The way back stands a moment after the rest.
    wait_for("every room stands", SOON, || all_stand(installation))
        .map_err(|error| format!("{}\n{}", error.message().unwrap_or_default(), daemon.log()))?;
    let public_key = report(installation)?.tunnel.and_then(|tunnel| tunnel.public_key);
    Ok((daemon, public_key.ok_or("the status shows no public key")?))
}

/// A daemon that serves a laptop, which knows it.
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

/// The source that a private host sees.
pub(crate) fn seen(from: &Namespace, to: &Reflector) -> std::result::Result<std::net::IpAddr, ProbeFailure> {
    traffic::tcp_probe(from, to.address(), SOON).map(|seen| seen.ip())
}

/// Waits until flows from the laptop are seen as coming from `source`.
fn wait_for_source(what: &str, laptop: &Namespace, reflector: &Reflector, source: Ipv4Addr) -> Result {
    wait_for(what, Duration::from_secs(5), || Ok(seen(laptop, reflector) == Ok(source.into())))?;
    Ok(())
}
