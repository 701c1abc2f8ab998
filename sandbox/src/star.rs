//! A star topology: hosts around one router, for tests that need no Hetzner network.
//!
//! ```text
//!  host 0: 198.18.0.2 ─── h0 ┐
//!  host 1: 198.18.1.2 ─── h1 ┼ router      (and 2001:db8:1::2 and so on; for tests: RFC 2544, RFC 3849)
//!  host 2: 198.18.2.2 ─── h2 ┘
//! ```
//!
//! All packets between two hosts pass the router, where a test can capture, mark or drop them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::{self, Namespace};
use crate::world::hosts;

/// How long the links may take to come up.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The router and its hosts. Dropping the value removes all of them.
#[derive(Debug)]
pub struct Star {
    router: Namespace,
    hosts: Vec<Host>,
}

/// A host of a star. Its link is called `eth0`.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    number: u8,
}

impl Star {
    /// Builds a star with so many hosts.
    pub fn with_hosts(hosts: u8) -> Result<Self, namespace::Error> {
        static STARS: AtomicU32 = AtomicU32::new(0);
        let star = STARS.fetch_add(1, Ordering::Relaxed) + 1;
        let router = hosts::router(&format!("s{star}-router"))?;
        let hosts = (0..hosts).map(|number| Host::attach(&router, star, number)).collect::<Result<_, _>>()?;
        let star = Self { router, hosts };
        star.wait_for_carriers()?;
        Ok(star)
    }

    /// The kernel notices with a delay that the other end of a link has come up (`net/core/link_watch.c`), and drops
    /// packets until then. The delay is seconds while other namespaces are removed. After a time-out the test's first
    /// packet fails.
    fn wait_for_carriers(&self) -> Result<(), namespace::Error> {
        let deadline = Instant::now() + CARRIER_TIMEOUT;
        while self.router.ip("link show up")?.contains("NO-CARRIER") && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// The router.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// A host by its number, from 0.
    ///
    /// # Panics
    /// There is no such host.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }
}

impl Host {
    fn attach(router: &Namespace, star: u32, number: u8) -> Result<Self, namespace::Error> {
        let host = Self { namespace: hosts::host(&format!("s{star}-h{number}"))?, number };
        let (link, gateway, gateway_v6) = (host.link(), host.gateway(), host.gateway_v6());
        let (v4, v6, mac) = (host.v4(), host.v6(), format!("02:00:00:00:00:{number:02x}"));
        // Neighbour discovery needs a link-local address, which takes a second or two, so the neighbour is static.
        router.ip(&format!(
            "link add name {link} type veth peer name eth0 address {mac} netns {}
             link set {link} up
             addr add {gateway}/24 dev {link}
             addr add {gateway_v6}/64 dev {link} nodad
             neigh add {v6} lladdr {mac} dev {link} nud permanent",
            host.namespace.name()
        ))?;
        host.namespace.ip(&format!(
            "link set eth0 up
             addr add {v4}/24 dev eth0
             addr add {v6}/64 dev eth0 nodad
             route add default via {gateway}
             route add default via {gateway_v6}"
        ))?;
        Ok(host)
    }

    /// The namespace of the host.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The name of the router's interface to this host.
    pub fn link(&self) -> String {
        format!("h{}", self.number)
    }

    /// The IPv4 address of the host.
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 2)
    }

    /// The IPv6 address of the host.
    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.number.into(), 0, 0, 0, 0, 2)
    }

    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }

    fn gateway_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.number.into(), 0, 0, 0, 0, 1)
    }

    /// Replaces the IPv4 address by another one of the same network, as on a phone that moves to another cell.
    pub fn renumber(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<(), namespace::Error> {
        let gateway = self.gateway();
        self.namespace.ip(&format!(
            "addr del {from}/24 dev eth0
             addr add {to}/24 dev eth0
             route replace default via {gateway}"
        ))?;
        Ok(())
    }

    /// The address of the host in one family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4().into(),
            Family::V6 => self.v6().into(),
        }
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}
