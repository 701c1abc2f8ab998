//! What this server is: its links, addresses and private networks.
//!
//! This room only looks. It discovers the public interface by the default route and the private ones by the Ethernet
//! addresses that Hetzner's metadata service lists; interface names are never guessed, because the same server type has
//! `ens10` on one machine generation and `enp7s0` on the next. Whatever the configuration states overrules discovery.

pub mod metadata;
mod model;
mod noted;
mod observe;
mod resolve;
mod sshd;

pub use metadata::{Metadata, MetadataView};
pub use model::{PrivateLink, PublicLink, Site};
pub use noted::{Error as SshPortsError, note as note_ssh_ports};
pub use observe::{DefaultRoute, Error, Kernel, Link};
pub use resolve::resolve;

use std::path::Path;

use crate::config::Config;

/// Looks at the kernel and puts it together with what the metadata service said last. `before` is the last look; in
/// `runtime_directory` are the ports of sshd that only root can see.
pub async fn observe(
    config: &Config,
    metadata: &MetadataView,
    before: &Site,
    runtime_directory: &Path,
) -> Result<Site, Error> {
    let kernel = observe::observe().await?;
    let (sshd_ports, hints) = match &config.firewall.ssh_ports {
        Some(_) => Default::default(),
        None => noted::ports(runtime_directory),
    };
    let public_before = before.public.as_ref().map(|link| &link.interface);
    Ok(Site { hints, ..resolve(&config.site, &kernel, metadata, sshd_ports, public_before) })
}
