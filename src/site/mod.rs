//! What this server is: its links, addresses and private networks.
//!
//! This module only observes. It discovers the public interface by the default route, and the private interfaces by the
//! Ethernet addresses in Hetzner's metadata. It never guesses interface names, because the same server type has `ens10`
//! on one generation of machines and `enp7s0` on the next. The configuration overrides discovery.

mod behind;
mod identity;
mod local;
pub(crate) mod metadata;
mod model;
mod observe;
mod recorded_ports;
mod resolve;
mod route;
mod sshd;
mod sshd_options;
mod sshd_sockets;
mod vpn_only;
mod ways;

pub(crate) use behind::is_reachable_inside;
pub use behind::{OtherRoute, SeenOtherRoutes, add_ranges_behind};
pub(crate) use identity::{FirstSight, check as check_identity};
pub(crate) use local::is_dockers as is_docker_bridge;
pub(crate) use metadata::MetadataView;
pub use model::{PrivateLink, PublicLink, Site};
pub(crate) use observe::Error;
pub use recorded_ports::record as record_ssh_ports;
pub(crate) use recorded_ports::sshd_ports;
pub use sshd::matches as sshd_includes;
pub use sshd_options::ports_in as sshd_ports_in;

use std::path::Path;

use crate::config::Config;
use crate::net::InterfaceName;
use observe::Netlink;
use resolve::{elsewhere, resolve};

/// Observes the kernel and combines the result with the last answer of the metadata service. `previous` is the previous
/// result; `runtime_directory` holds the recorded ports of sshd that only root can find out. The ranges behind private
/// networks are added by [`add_ranges_behind`].
pub(crate) async fn observe(
    config: &Config,
    metadata: &MetadataView,
    previous: &Site,
    runtime_directory: &Path,
) -> Result<Site, Error> {
    let netlink = Netlink::open()?;
    let kernel = netlink.observe().await?;
    let (sshd_ports, hints) = if config.firewall.ssh_ports.is_some() {
        Default::default()
    } else {
        let directory = runtime_directory.to_owned();
        // Beside the loop, since these are files of others.
        let read = tokio::task::spawn_blocking(move || recorded_ports::sshd_ports(&directory)).await;
        read.unwrap_or_else(|_| (previous.sshd_ports.clone(), Vec::new()))
    };
    let mut site = resolve(&config.site, &kernel, metadata, sshd_ports, previous.public.as_ref());
    site.hints.extend(hints);
    ways::check(&netlink.0.handle, config, &kernel, metadata, &mut site, forwards).await;
    local::add_local_links(&mut site, config, &kernel);
    vpn_only::settle(config, &mut site);
    site.dhcp_links = site.network_links().filter(|name| kernel.may_use_dhcp(name)).cloned().collect();
    site.elsewhere = elsewhere(&kernel, &site, config.wireguard.as_ref().map(|tunnel| &tunnel.interface));
    Ok(site)
}

/// Whether the kernel forwards what arrives by an interface.
fn forwards(interface: &InterfaceName) -> bool {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/forwarding");
    std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1")
}
