//! A star: hosts around one router, for whoever needs an outside and no Hetzner network.
//!
//! ```text
//!  host 0: 198.18.0.2 ─── h0 ┐
//!  host 1: 198.18.1.2 ─── h1 ┼ router      (and 2001:db8:1::2 and so on; for tests: RFC 2544, RFC 3849)
//!  host 2: 198.18.2.2 ─── h2 ┘
//! ```
//!
//! Everything between two hosts passes the router, where it can be watched, marked, or held up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::{self, Namespace};
use crate::world::hosts;

/// For the links to come up.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// The router and its hosts. Dropping it takes all of them away.
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
    /// A star with so many hosts.
    pub fn with_hosts(hosts: u8) -> Result<Self, namespace::Error> {
        static STARS: AtomicU32 = AtomicU32::new(0);
        let star = STARS.fetch_add(1, Ordering::Relaxed) + 1;
        let router = hosts::router(&format!("s{star}-router"))?;
        let hosts = (0..hosts).map(|number| Host::attach(&router, star, number)).collect::<Result<_, _>>()?;
        let star = Self { router, hosts };
        star.wait_for_carriers()?;
        Ok(star)
    }

    /// The kernel sees a while later that the other end of a link has come up (`net/core/link_watch.c`), and drops what is sent
    /// until then: seconds, while other namespaces are taken down. If it takes longer, a test's first packet tells.
    fn wait_for_carriers(&self) -> Result<(), namespace::Error> {
        let deadline = Instant::now() + PATIENCE;
        while self.router.ip("link show up")?.contains("NO-CARRIER") && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// What is in the middle.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// A host by its number, from 0.
    ///
    /// # Panics
    /// There are not so many.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }
}

impl Host {
    fn attach(router: &Namespace, star: u32, number: u8) -> Result<Self, namespace::Error> {
        let host = Self { namespace: hosts::host(&format!("s{star}-h{number}"))?, number };
        let (link, gateway, gateway_v6) = (host.link(), host.gateway(), host.gateway_v6());
        let (v4, v6, mac) = (host.v4(), host.v6(), format!("02:00:00:00:00:{number:02x}"));
        // The router cannot ask for a neighbour in IPv6 before it has a link-local address, which takes a second or two.
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

    /// Where it lives.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The router's end of its link.
    pub fn link(&self) -> String {
        format!("h{}", self.number)
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 2)
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.number.into(), 0, 0, 0, 0, 2)
    }

    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }

    fn gateway_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.number.into(), 0, 0, 0, 0, 1)
    }

    /// Moves to another address of the same network, as a phone does that changes its cell: the former one is gone.
    pub fn renumber(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<(), namespace::Error> {
        let gateway = self.gateway();
        self.namespace.ip(&format!(
            "addr del {from}/24 dev eth0
             addr add {to}/24 dev eth0
             route replace default via {gateway}"
        ))?;
        Ok(())
    }

    /// Its address of a family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4().into(),
            Family::V6 => self.v6().into(),
        }
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}
