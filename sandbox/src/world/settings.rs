//! What a test may choose about the world.

use crate::cloud;

/// The world to start. The default one is complete but for the laptop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The cloud's habits.
    pub cloud: cloud::Settings,
    /// What the namespaces are called.
    pub names: Names,
    /// What the bastion calls its interfaces.
    pub interfaces: Interfaces,
    /// The second network.
    pub second_network: SecondNetwork,
    /// The laptop behind a NAT router of its own.
    pub laptop: Laptop,
    /// The bastion's public address and default route.
    pub public_address: PublicAddress,
    /// The bastion's interface in the private network.
    pub private_nic: PrivateNic,
    /// The metadata service of the bastion.
    pub metadata: Metadata,
}

/// What the namespaces are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Names {
    /// `w1-bastion`, `w2-bastion` …: many worlds fit into one isolation.
    #[default]
    Numbered,
    /// `bastion`: one world in an isolation, for people who type.
    Plain,
}

/// The names of the bastion's interfaces: by the machine's type they are `eth1`, `ens10`, `enp7s0` … at Hetzner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interfaces {
    /// The public one.
    pub public: String,
    /// The one in the private network.
    pub private: String,
    /// The one in the second network.
    pub second: String,
}

impl Default for Interfaces {
    fn default() -> Self {
        Self { public: "eth0".into(), private: "eth1".into(), second: "eth2".into() }
    }
}

/// Whether there is a second network, with a tenant's host and the bastion in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecondNetwork {
    /// 10.2.0.0/16.
    #[default]
    Present,
    /// The bastion serves one network only.
    Absent,
}

/// Whether there is a laptop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Laptop {
    /// None.
    #[default]
    Absent,
    /// An administrator's, at home.
    BehindNat,
}

/// Whether the bastion's public interface is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PublicAddress {
    /// As DHCP and cloud-init leave it.
    #[default]
    Configured,
    /// The link is up, DHCP has not answered yet: [`World::configure_public_address`](super::World::configure_public_address).
    Pending,
}

/// Whether the bastion is in the private network already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrivateNic {
    /// Attached and configured.
    #[default]
    Attached,
    /// Not attached yet, as when a server is created before its network:
    /// [`World::attach_private_nic`](super::World::attach_private_nic).
    Absent,
}

/// Whether the bastion's metadata service answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Metadata {
    /// On 169.254.169.254, port 80, inside the bastion.
    #[default]
    Serving,
    /// Nobody listens there: [`World::serve_metadata`](super::World::serve_metadata).
    Absent,
}
