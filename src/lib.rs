//! NAT gateway, firewall and way in for private Hetzner Cloud networks.

pub mod config;
pub mod hcloud;
pub mod http;
pub mod nat;
pub mod net;
pub mod report;
pub mod site;
pub mod state;
pub mod sysctl;
