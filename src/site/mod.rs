//! What this server is: its links, addresses and private networks.
//!
//! This room only looks. It discovers the public interface by the default route and the private ones by the Ethernet
//! addresses that Hetzner's metadata service lists; interface names are never guessed, because the same server type has
//! `ens10` on one machine generation and `enp7s0` on the next. Whatever the configuration states overrules discovery.

pub mod metadata;
mod model;
mod observe;
mod resolve;
mod sshd;

pub use metadata::{Metadata, MetadataView};
pub use model::{PrivateLink, PublicLink, Site};
pub use observe::{DefaultRoute, Error, Kernel, Link};
pub use resolve::resolve;

use std::path::Path;

use crate::config::Config;

/// Looks at the kernel and puts it together with what the metadata service said last. `before` is the last look.
pub async fn observe(config: &Config, metadata: &MetadataView, before: &Site) -> Result<Site, Error> {
    let kernel = observe::observe().await?;
    let sshd_ports = match &config.firewall.ssh_ports {
        Some(_) => std::collections::BTreeSet::new(),
        None => sshd::ports(Path::new("/etc/ssh/sshd_config"), &sshd::UNIT_DIRECTORIES.map(Path::new)),
    };
    let public_before = before.public.as_ref().map(|link| &link.interface);
    Ok(resolve(&config.site, &kernel, metadata, sshd_ports, public_before))
}
