//! A host of a star with a WireGuard interface, and what passes between two of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bastiond_tunnel::key::{PrivateKey, PublicKey};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sandbox::namespace::Namespace;
use sandbox::star::{Family, Host, Star};
use sandbox::traffic::{self, ContinuousDownload, DownloadServer, Ping, Reflector};
use sandbox::tunnel::{Interface, Peer, Program};

use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, wait_for};
use crate::tunnel_program;

/// Where all interfaces listen, unless a test says otherwise.
pub(super) const PORT: u16 = 51820;
/// Of a transfer whose content is checked.
pub(super) const MIB: u64 = 1 << 20;

/// Our own program.
pub(super) fn ours() -> Program {
    Program::bastiond_tunnel(&tunnel_program::path())
}

/// A host with an interface that has a key, a port and addresses, and no peers.
pub(super) struct Site<'s> {
    pub(super) host: &'s Host,
    pub(super) interface: Interface,
    pub(super) key: PrivateKey,
    number: u8,
}

/// Whether a site has the endpoint of another one. Without it, it cannot initiate a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Unknown,
    At(Family),
}

impl<'s> Site<'s> {
    /// Starts `program` on the star's host of this number.
    pub(super) fn start(star: &'s Star, number: u8, program: &Program) -> Result<Self> {
        Self::run(star.host(number.into()), number, program, PrivateKey::generate())
    }

    fn run(host: &'s Host, number: u8, program: &Program, key: PrivateKey) -> Result<Self> {
        let interface = Interface::start(host.namespace(), program)?;
        let site = Self { host, interface, key, number };
        site.interface.set_with_key(&format!("listen-port {PORT} private-key /dev/stdin"), &site.key.to_base64())?;
        let addresses = [IpNet::from(Ipv4Net::new(site.v4(), 24)?), IpNet::from(Ipv6Net::new(site.v6(), 64)?)];
        site.interface.up(host.namespace(), &addresses)?;
        Ok(site)
    }

    pub(super) fn namespace(&self) -> &'s Namespace {
        self.host.namespace()
    }

    pub(super) fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// Its address inside.
    pub(super) fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number + 1)
    }

    /// The same in IPv6.
    pub(super) fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(self.number) + 1)
    }

    /// Where it listens.
    pub(super) fn outside(&self, family: Family) -> SocketAddr {
        (self.host.address(family), PORT).into()
    }

    /// The words after `wg set INTERFACE` that add it as a peer.
    pub(super) fn as_peer(&self, reach: Reach) -> String {
        let endpoint = match reach {
            Reach::Unknown => String::new(),
            Reach::At(family) => format!("endpoint {}", self.outside(family)),
        };
        format!("peer {} allowed-ips {}/32,{}/128 {endpoint}", self.public_key(), self.v4(), self.v6())
    }

    /// Makes another site its peer.
    pub(super) fn meets(&self, other: &Site<'_>, reach: Reach) -> Result {
        Ok(self.interface.set(&other.as_peer(reach))?)
    }

    /// How another site is as a peer of this one.
    pub(super) fn peer(&self, other: &Site<'_>) -> Result<Peer> {
        let key = other.public_key().to_string();
        let found = self.interface.status()?.peers.remove(&key);
        found.ok_or_else(|| format!("{} has no peer {key}", self.interface.name()).into())
    }

    /// Changes something of the peer that another site is: `wg set INTERFACE peer KEY words`.
    pub(super) fn changes(&self, other: &Site<'_>, words: &str) -> Result {
        Ok(self.interface.set(&format!("peer {} {words}", other.public_key()))?)
    }

    /// Whether a ping comes back from another site by the tunnel.
    pub(super) fn reaches(&self, other: &Site<'_>) -> Result<bool> {
        self.pings(other.v4())
    }

    /// Whether no ping comes back.
    pub(super) fn is_cut_off_from(&self, other: &Site<'_>) -> Result<bool> {
        let once = Ping { timeout: NEVER, ..Ping::default() };
        Ok(traffic::ping(self.namespace(), other.v4(), once)?.replies.is_empty())
    }

    pub(super) fn pings(&self, target: impl Into<IpAddr>) -> Result<bool> {
        let once = Ping { timeout: SOON, ..Ping::default() };
        Ok(!traffic::ping(self.namespace(), target, once)?.replies.is_empty())
    }

    /// Restarts the program with the same key. It has lost everything else.
    pub(super) fn restart(self, program: &Program) -> Result<Self> {
        let Self { host, interface, key, number } = self;
        drop(interface);
        Self::run(host, number, program, key)
    }
}

/// Two sites that know each other by IPv4, with a session: the first one begins.
pub(super) fn join(from: &Site<'_>, to: &Site<'_>) -> Result {
    to.meets(from, Reach::Unknown)?;
    from.meets(to, Reach::At(Family::V4))?;
    ensure(from.reaches(to)?, "nothing passes")
}

/// Sends everything from one site to another: ping, datagrams, and a transfer whose content is checked, over both
/// families.
pub(super) fn exchange(from: &Site<'_>, to: &Site<'_>) -> Result {
    for (source, target) in [(IpAddr::from(from.v4()), IpAddr::from(to.v4())), (from.v6().into(), to.v6().into())] {
        ensure(from.pings(target)?, format!("{target} does not answer a ping"))?;
        let reflector = Reflector::udp(to.namespace(), (target, 0))?;
        let seen = traffic::udp_probe(from.namespace(), reflector.address(), SOON).map(|seen| seen.ip());
        ensure_eq(seen, Ok(source))?;
        let server = DownloadServer::start(to.namespace(), (target, 0))?;
        fetch(from, server.address(), 3 * MIB)?;
    }
    Ok(())
}

/// Downloads so many bytes, and checks them.
pub(super) fn fetch(from: &Site<'_>, server: SocketAddr, bytes: u64) -> Result {
    let download = traffic::download(from.namespace(), server, bytes, 10 * SOON)?;
    ensure_eq((download.bytes, download.intact), (bytes, true))
}

/// A transfer in the background that must go on, whatever happens.
pub(super) struct Transfer {
    stream: ContinuousDownload,
    // Serves until the transfer has ended.
    _server: DownloadServer,
}

impl Transfer {
    /// From a server on `to`.
    pub(super) fn start(from: &Site<'_>, to: &Site<'_>) -> Result<Self> {
        let server = DownloadServer::start(to.namespace(), (to.v4(), 0))?;
        let transfer =
            Self { stream: ContinuousDownload::start(from.namespace(), server.address(), 5 * SOON)?, _server: server };
        transfer.goes_on()?;
        Ok(transfer)
    }

    /// Waits until more has come.
    pub(super) fn goes_on(&self) -> Result {
        let before = self.stream.received();
        wait_for("the transfer goes on", 5 * SOON, || Ok(self.stream.received() >= before + MIB))?;
        Ok(())
    }

    /// Ends it, once more has come.
    pub(super) fn stop(self) -> Result {
        self.goes_on()?;
        let report = self.stream.stop()?;
        ensure(report.intact, format!("{report:?}"))
    }
}
