//! The options of a world.

use crate::cloud;

/// The options of a world. The default has everything except the laptop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The behaviour of the cloud.
    pub cloud: cloud::Settings,
    /// The names of the namespaces.
    pub names: Names,
    /// The names of the bastion's interfaces.
    pub interfaces: Interfaces,
    /// Whether there is a second network.
    pub second_network: SecondNetwork,
    /// Whether there is a laptop behind a NAT router.
    pub laptop: Laptop,
    /// Whether the bastion's public interface is configured.
    pub public_address: PublicAddress,
    /// Whether the bastion is attached to the private network.
    pub private_nic: PrivateNic,
    /// Whether the bastion's metadata service answers.
    pub metadata: Metadata,
}

/// The names of the namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Names {
    /// `w1-bastion`, `w2-bastion`, …: one isolation can have many worlds.
    #[default]
    Numbered,
    /// `bastion`: short names for people; one isolation can have one such world.
    Plain,
}

/// The names of the bastion's interfaces. At Hetzner they depend on the server type: `eth1`, `ens10`, `enp7s0`, …
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interfaces {
    /// The public interface.
    pub public: String,
    /// The interface in the private network.
    pub private: String,
    /// The interface in the second network.
    pub second: String,
}

impl Default for Interfaces {
    fn default() -> Self {
        Self { public: "eth0".into(), private: "eth1".into(), second: "eth2".into() }
    }
}

/// Whether there is a second network, with the bastion and a tenant's host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecondNetwork {
    /// The network 10.2.0.0/16.
    #[default]
    Present,
    /// There is only the private network.
    Absent,
}

/// Whether there is a laptop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Laptop {
    /// There is no laptop.
    #[default]
    Absent,
    /// An administrator's laptop behind a NAT router.
    BehindNat,
}

/// Whether the bastion's public interface is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PublicAddress {
    /// It is configured as DHCP and cloud-init do.
    #[default]
    Configured,
    /// The link is up, but DHCP has not answered yet; see
    /// [`World::configure_public_address`](super::World::configure_public_address).
    Pending,
}

/// Whether the bastion is attached to the private network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrivateNic {
    /// It is attached and its interface is configured.
    #[default]
    Attached,
    /// It is not attached yet, as when a server is created before its network; see
    /// [`World::attach_private_nic`](super::World::attach_private_nic).
    Absent,
}

/// Whether the bastion's metadata service answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Metadata {
    /// It answers on 169.254.169.254, port 80, inside the bastion.
    #[default]
    Serving,
    /// It does not run yet; see [`World::serve_metadata`](super::World::serve_metadata).
    Absent,
}
