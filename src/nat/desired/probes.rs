//! The probes' part of the rules: their packets pass by the same elements of the same rules as those of private hosts.
//!
//! A probe sends from an interface of its own, one for each private network. Its source has to be translated by the
//! rule that translates the network's hosts. An unused address of the network is best, since rules of other programs
//! meet it too: the network's broadcast address, which no host can have. Where that does not do, further addresses are
//! elements of the rule: if this server has the whole network on its link, so that the kernel takes no packet from the
//! broadcast address, and for the other addresses of a pool, of which each source always has the same one. So have
//! parts of a network with addresses of their own, and hosts with a static address: the source of their probe is an
//! element of the rule or of the map that translates them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::super::statement::SEED;
use super::egress_address::{
    HostsWithAddresses, egress_pool, hosts_with_addresses, own_address, slots, usable_statics,
};
use crate::config::Config;
use crate::net::InterfaceName;
use crate::site::{PrivateLink, PublicLink, Site};

/// For measurements between networks, and not routed on the internet (RFC 2544, RFC 6890): hosts do not have addresses
/// from here.
const RESERVE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 240, 0), 20);

/// What a probe of the path from a private network to the internet sends, and under which address it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbedPath {
    /// The private network.
    pub network: Ipv4Net,
    /// Whose packets of it.
    pub hosts: ProbedHosts,
    /// The probe's own interface. All paths of a network have the same.
    pub interface: InterfaceName,
    /// The source of its packets.
    pub source: Ipv4Addr,
    /// The public address under which they leave; `None`: the kernel chooses one.
    pub egress: Option<Ipv4Addr>,
}

/// Hosts of a private network that one rule translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbedHosts {
    /// All that have no address of their own.
    Network,
    /// Those of a `[[network.egress]]`; the first range of this network that its rule has.
    Part(Ipv4Net),
    /// One with a static address.
    Static(Ipv4Addr),
}

/// The paths that probes prove: one for each private network and address under which its hosts are seen on the
/// internet, then those of hosts with addresses of their own. None while the public link is unknown, or if probes are
/// off.
pub(crate) fn probed_paths(config: &Config, site: &Site) -> Vec<ProbedPath> {
    let Some(public) = site.public.as_ref().filter(|_| config.health.enabled) else { return Vec::new() };
    let mut reserve = Reserve::new(site);
    let mut paths: Vec<ProbedPath> =
        site.private.iter().flat_map(|link| paths_of(link, config, public, site, &mut reserve)).collect();
    for hosts in hosts_with_addresses(config, site) {
        paths.extend(paths_of_hosts(&hosts, config, public, site, &mut reserve));
    }
    for entry in usable_statics(config, site) {
        let link = site.private.iter().find(|link| link.serves(entry.private));
        paths.extend(link.zip(reserve.take(|_| true)).map(|(link, source)| ProbedPath {
            network: link.network,
            hosts: ProbedHosts::Static(entry.private),
            interface: interface_of(link),
            source,
            egress: Some(entry.public),
        }));
    }
    paths
}

/// What the names of probes' interfaces begin with.
const INTERFACE_PREFIX: &str = "probe-";

/// Whether an interface is one of probes, of this daemon or of a former one.
pub(crate) fn is_probe_interface(name: &str) -> bool {
    name.starts_with(INTERFACE_PREFIX)
}

/// The name of the interface of the probes of a private network.
pub(super) fn interface_of(link: &PrivateLink) -> InterfaceName {
    let name = format!("{INTERFACE_PREFIX}{:08x}", link.network.network().to_bits());
    name.parse().expect("letters, digits and a dash make a name of 14 characters")
}

/// The sources of probes that are not addresses of the networks themselves. `of`: whether a probe's counts.
pub(super) fn further_sources(probes: &[ProbedPath], of: impl Fn(&ProbedPath) -> bool) -> Vec<Ipv4Addr> {
    let further = probes.iter().filter(|path| of(path) && !path.network.contains(&path.source));
    further.map(|path| path.source).collect()
}

/// The paths of hosts that one rule translates to addresses of their own: in each of their networks one for each
/// address.
fn paths_of_hosts(
    HostsWithAddresses { ranges, addresses }: &HostsWithAddresses<'_>,
    config: &Config,
    public: &PublicLink,
    site: &Site,
    reserve: &mut Reserve,
) -> Vec<ProbedPath> {
    let mut pool = slots(addresses, config, public);
    if pool.is_empty() {
        pool.extend(own_address(config, public));
    }
    let distinct: BTreeSet<Ipv4Addr> = pool.iter().copied().collect();
    let mut paths = Vec::new();
    for link in &site.private {
        let Some((first, _)) = ranges.iter().find(|(_, network)| *network == link.network) else { continue };
        paths.extend(distinct.iter().filter_map(|egress| {
            Some(ProbedPath {
                network: link.network,
                hosts: ProbedHosts::Part(*first),
                interface: interface_of(link),
                source: reserve.take(|source| pool[slot_of(source, pool.len())] == *egress)?,
                egress: Some(*egress),
            })
        }));
    }
    paths
}

fn paths_of(
    link: &PrivateLink,
    config: &Config,
    public: &PublicLink,
    site: &Site,
    reserve: &mut Reserve,
) -> Vec<ProbedPath> {
    let path = |source: Ipv4Addr, egress: Option<Ipv4Addr>| ProbedPath {
        network: link.network,
        hosts: ProbedHosts::Network,
        interface: interface_of(link),
        source,
        egress,
    };
    let own = unused_address(link, site);
    let pool = egress_pool(link, config, public);
    let (single, several) = match pool.as_slice() {
        [] => (own_address(config, public), &[][..]),
        [single] => (Some(*single), &[][..]),
        several => (None, several),
    };
    if several.is_empty() {
        return own.or_else(|| reserve.take(|_| true)).map(|source| path(source, single)).into_iter().collect();
    }
    let addresses: BTreeSet<Ipv4Addr> = several.iter().copied().collect();
    let find = |egress: Ipv4Addr| {
        let leaves_by_it = |source: Ipv4Addr| several[slot_of(source, several.len())] == egress;
        let source = own.filter(|source| leaves_by_it(*source)).or_else(|| reserve.take(leaves_by_it))?;
        Some(path(source, Some(egress)))
    };
    addresses.into_iter().filter_map(find).collect()
}

/// The broadcast address of a network, unless the kernel takes it for one.
fn unused_address(link: &PrivateLink, site: &Site) -> Option<Ipv4Addr> {
    let address = link.network.broadcast();
    let is_usable = link.network.prefix_len() < 31 && !site.broadcasts.contains(&address) && !link.holds(address);
    is_usable.then_some(address)
}

/// Addresses that no host has, each given out once.
struct Reserve {
    free: Vec<Ipv4Addr>,
}

impl Reserve {
    fn new(site: &Site) -> Self {
        let is_free = |address: &Ipv4Addr| site.private.iter().all(|link| !link.network.contains(address));
        Self { free: RESERVE.hosts().filter(is_free).collect() }
    }

    fn take(&mut self, suits: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let position = self.free.iter().position(|address| suits(*address))?;
        Some(self.free.remove(position))
    }
}

/// The slot of a pool that the kernel gives to a source: `jhash ip saddr mod SLOTS seed SEED` (`nft_jhash_eval` in
/// `net/netfilter/nft_hash.c`, which scales by `reciprocal_scale`).
fn slot_of(source: Ipv4Addr, slots: usize) -> usize {
    let scaled = (u64::from(jhash(source)) * u64::try_from(slots).unwrap_or(u64::MAX)) >> 32;
    usize::try_from(scaled).unwrap_or_default()
}

/// Bob Jenkins's `lookup3` over the four bytes of an address, as in the kernel's include/linux/jhash.h.
fn jhash(source: Ipv4Addr) -> u32 {
    const LENGTH: u32 = 4;
    let initial = 0xdead_beef_u32.wrapping_add(LENGTH).wrapping_add(SEED);
    let mut a = initial.wrapping_add(u32::from_le_bytes(source.octets()));
    let (mut b, mut c) = (initial, initial);
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}
