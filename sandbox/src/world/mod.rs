//! The simulated network: an internet, a bastion on it, Hetzner private networks behind it, and the fake cloud.
//!
//! ```text
//!  server 203.0.113.10 ──┐            ┌── bastion: 198.51.100.2 (eth0), 10.0.0.2 (eth1), 10.2.0.2 (eth2)
//!                     internet ───────┘         │                        │
//!  laptop ── home ───────┘  172.31.1.1       gw-private 10.0.0.1      gw-second 10.2.0.1
//!                           203.0.113.1:80      ├── web 10.0.0.4         └── tenant 10.2.0.4
//!                           is the cloud's API  └── worker 10.0.1.5
//! ```
//!
//! Every host is a network namespace. The gateways forward by the routes of the fake cloud only: a private host reaches
//! the internet once the route `0.0.0.0/0` is added through the API and the bastion forwards.

pub mod addresses;
mod gateway;
pub(crate) mod hosts;
mod links;
mod outages;
mod private;
mod resolver;
mod services;
mod settings;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnet::Ipv4Net;
use parking_lot::Mutex;

use self::addresses as at;
use self::links::Home;
use self::private::{DefaultRoute, Nic, PrivateNetwork};
use self::services::Services;
use crate::cloud::{Cloud, NetworkId, ServerId};
use crate::namespace::{self, Namespace};
use crate::timeouts::scaled;

pub use gateway::{Gateway, NextHop, RouteNotApplied};
pub use links::BASTION_MAC;
pub use outages::Outage;
pub use resolver::RESOLVERS;
pub use services::UPSTREAM_METADATA;
pub use settings::{Interfaces, Laptop, Metadata, Names, PrivateNic, PublicAddress, SecondNetwork, Settings};

/// How long a gateway may take to apply a route. It usually takes milliseconds, but test machines are busy.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a world could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace could not be created or configured.
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    /// The threads that serve the cloud could not be started.
    #[error("failed to start the cloud's threads")]
    Services {
        /// The cause.
        source: std::io::Error,
    },
}

/// A running world. Dropping the value ends everything in it and blocks until that is done, so do not drop it in an
/// async task.
#[derive(Debug)]
pub struct World {
    // Fields are dropped in this order: the services before the namespaces.
    services: Services,
    private: PrivateNetwork,
    second: Option<PrivateNetwork>,
    tenant: Option<Namespace>,
    web: Namespace,
    worker: Namespace,
    home: Option<Home>,
    bastion: Namespace,
    server: Namespace,
    internet: Namespace,
    bastion_id: ServerId,
    cloud: Cloud,
    settings: Settings,
    /// The internet's routes to the bastion while [`Outage::PublicCarrier`] lasts, a line each.
    lost_routes: Mutex<String>,
}

impl World {
    /// Builds a world. When this returns, every part of it works.
    pub fn start(settings: Settings) -> Result<Self, Error> {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed) + 1;
        let name = |place: &str| match settings.names {
            Names::Numbered => format!("w{number}-{place}"),
            Names::Plain => place.to_owned(),
        };
        let services = Services::start().map_err(|source| Error::Services { source })?;
        let cloud = Cloud::new(settings.cloud.clone());
        let bastion_id = cloud.create_server("bastion", Some(at::BASTION));
        let internet = hosts::router(&name("internet"))?;
        let server = hosts::host(&name("server"))?;
        let bastion = hosts::host(&name("bastion"))?;
        links::connect_internet(&internet, &server, &bastion, &settings.interfaces.public, bastion_v6(bastion_id))?;
        let home = match settings.laptop {
            Laptop::BehindNat => Some(Home::build(&internet, &name("home"), &name("laptop"))?),
            Laptop::Absent => None,
        };
        let private = PrivateNetwork::create(&cloud, "private", &name("gw-private"), at::PRIVATE)?;
        let web = private_host(&cloud, &private, "web", &name("web"), at::WEB, "86:00:00:2a:00:04")?;
        let worker = private_host(&cloud, &private, "worker", &name("worker"), at::WORKER, "86:00:00:2a:01:05")?;
        let (second, tenant) = match settings.second_network {
            SecondNetwork::Absent => (None, None),
            SecondNetwork::Present => {
                let second = PrivateNetwork::create(&cloud, "second", &name("gw-second"), at::SECOND)?;
                let tenant = private_host(&cloud, &second, "tenant", &name("tenant"), at::TENANT, "86:00:00:2a:02:04")?;
                (Some(second), Some(tenant))
            }
        };
        let world = Self {
            services,
            private,
            second,
            tenant,
            web,
            worker,
            home,
            bastion,
            server,
            internet,
            bastion_id,
            cloud,
            settings,
            lost_routes: Mutex::default(),
        };
        world.configure_bastion()?;
        world.start_services()?;
        Ok(world)
    }

    fn configure_bastion(&self) -> Result<(), Error> {
        if self.settings.public_address == PublicAddress::Configured {
            self.configure_public_address()?;
        }
        if self.settings.private_nic == PrivateNic::Attached {
            self.attach_private_nic()?;
        }
        if let Some(second) = &self.second {
            let interface = &self.settings.interfaces.second;
            second.attach(&self.cloud, self.bastion_nic(interface, at::BASTION_SECOND, "86:00:00:2a:02:02"))?;
        }
        Ok(())
    }

    fn start_services(&self) -> Result<(), Error> {
        self.services.serve_api(&self.cloud, self.internet.listen_tcp((at::API, 80))?);
        for resolver in resolver::RESOLVERS {
            self.services.serve_resolver(self.internet.bind_udp((resolver, resolver::PORT))?);
        }
        self.services.serve_upstream_metadata(self.internet.listen_tcp((at::METADATA, 80))?);
        if self.settings.metadata == Metadata::Serving {
            self.serve_metadata()?;
        }
        for network in std::iter::once(&self.private).chain(&self.second) {
            // Applied once here, so that the gateway is complete when `start` returns.
            network.gateway.apply(&self.cloud.watch_networks().borrow());
            self.services.follow(&network.gateway, &self.cloud);
        }
        Ok(())
    }

    /// Configures the bastion's public interface as DHCP does, for worlds with [`PublicAddress::Pending`].
    pub fn configure_public_address(&self) -> Result<(), Error> {
        Ok(links::configure_public(&self.bastion, &self.settings.interfaces.public, self.bastion_v6())?)
    }

    /// Attaches the bastion to the private network, for worlds with [`PrivateNic::Absent`]: the interface appears and
    /// is configured as in Hetzner's images, and the API and the metadata show it.
    pub fn attach_private_nic(&self) -> Result<(), Error> {
        let interface = &self.settings.interfaces.private;
        let nic = self.bastion_nic(interface, at::BASTION_PRIVATE, "86:00:00:2a:00:02");
        Ok(self.private.attach(&self.cloud, nic)?)
    }

    fn bastion_nic<'a>(&'a self, interface: &'a str, address: Ipv4Addr, mac: &'a str) -> Nic<'a> {
        let (server, namespace) = (self.bastion_id, &self.bastion);
        Nic { server, namespace, interface, address, mac, default_route: DefaultRoute::Public }
    }

    /// Starts the bastion's metadata service, for worlds with [`Metadata::Absent`].
    pub fn serve_metadata(&self) -> Result<(), Error> {
        let listener = self.bastion.listen_tcp((at::METADATA, 80))?;
        self.services.serve_metadata(&self.cloud, self.bastion_id, listener);
        Ok(())
    }

    /// Adds a route to the private network without the API, as a person does in the console, and waits until the
    /// gateway applies it.
    ///
    /// # Panics
    /// The cloud refuses the route, or the gateway does not apply it within 5 s.
    pub fn put_route(&self, destination: Ipv4Net, gateway: Ipv4Addr) {
        self.cloud.put_route(self.private.id, destination, gateway);
        let applied = self.private.gateway.wait_for_route(destination, Some(gateway), scaled(ROUTE_TIMEOUT));
        applied.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Removes a route from the private network without the API, and waits until the gateway has removed it.
    ///
    /// # Panics
    /// The gateway does not remove it within 5 s.
    pub fn remove_route(&self, destination: Ipv4Net) {
        self.cloud.remove_route(self.private.id, destination);
        let applied = self.private.gateway.wait_for_route(destination, None, scaled(ROUTE_TIMEOUT));
        applied.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The internet's router, which has the addresses of the API and of the public gateway. Its interfaces are
    /// `server`, `bastion` and `home`.
    pub fn internet(&self) -> &Namespace {
        &self.internet
    }

    /// The host on the internet, 203.0.113.10 on `eth0`.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The bastion.
    pub fn bastion(&self) -> &Namespace {
        &self.bastion
    }

    /// A private host, 10.0.0.4 on `eth0`.
    pub fn web(&self) -> &Namespace {
        &self.web
    }

    /// A private host in another subnet, 10.0.1.5 on `eth0`.
    pub fn worker(&self) -> &Namespace {
        &self.worker
    }

    /// The host in the second network, 10.2.0.4 on `eth0`.
    ///
    /// # Panics
    /// The settings have no second network.
    pub fn tenant(&self) -> &Namespace {
        self.tenant.as_ref().expect("the settings have a second network")
    }

    /// The laptop, 192.168.178.20 on `eth0`, behind a NAT router with 192.0.2.7.
    ///
    /// # Panics
    /// The settings have no laptop.
    pub fn laptop(&self) -> &Namespace {
        &self.home.as_ref().expect("the settings have a laptop").laptop
    }

    /// The NAT router in front of the laptop, with the interfaces `lan` and `wan`.
    ///
    /// # Panics
    /// The settings have no laptop.
    pub fn home(&self) -> &Namespace {
        &self.home.as_ref().expect("the settings have a laptop").router
    }

    /// The virtual gateway of one of the world's networks.
    ///
    /// # Panics
    /// The network is not one of the world's.
    pub fn gateway(&self, network: NetworkId) -> &Gateway {
        let mut networks = std::iter::once(&self.private).chain(&self.second);
        &networks.find(|candidate| candidate.id == network).expect("the network is one of the world's").gateway
    }

    /// The id of the private network in the cloud.
    pub fn private_network_id(&self) -> NetworkId {
        self.private.id
    }

    /// The id of the second network in the cloud.
    ///
    /// # Panics
    /// The settings have no second network.
    pub fn second_network_id(&self) -> NetworkId {
        self.second.as_ref().expect("the settings have a second network").id
    }

    /// The id of the bastion in the cloud and in its metadata.
    pub fn bastion_id(&self) -> ServerId {
        self.bastion_id
    }

    /// The bastion's public IPv6 address, the first of its /64.
    pub fn bastion_v6(&self) -> Ipv6Addr {
        bastion_v6(self.bastion_id)
    }

    /// The fake cloud.
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    /// The value for `HCLOUD_ENDPOINT`.
    pub fn api_endpoint(&self) -> String {
        format!("http://{}/v1", at::API)
    }

    /// The value for `HCLOUD_TOKEN`.
    pub fn token(&self) -> &str {
        &self.settings.cloud.token
    }

    /// The settings that the world was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Every namespace of the world, the internet first.
    pub fn namespaces(&self) -> Vec<&Namespace> {
        let home = self.home.iter().flat_map(|home| [&home.laptop, &home.router]);
        let second = self.second.iter().map(|second| second.gateway.namespace()).chain(&self.tenant);
        let private = [self.private.gateway.namespace(), &self.web, &self.worker];
        [&self.server, &self.internet]
            .into_iter()
            .chain(home)
            .chain([&self.bastion])
            .chain(private)
            .chain(second)
            .collect()
    }
}

fn private_host(
    cloud: &Cloud,
    network: &PrivateNetwork,
    name: &str,
    namespace: &str,
    address: Ipv4Addr,
    mac: &str,
) -> Result<Namespace, Error> {
    let server = cloud.create_server(name, None);
    let namespace = hosts::host(namespace)?;
    let default_route = DefaultRoute::Private;
    network.attach(cloud, Nic { server, namespace: &namespace, interface: "eth0", address, mac, default_route })?;
    Ok(namespace)
}

/// The first address of the server's /64.
fn bastion_v6(server: ServerId) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(server.0 & 0xffff_ffff) << 64 | 1)
}
