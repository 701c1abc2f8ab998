//! The errand of a boot: rules before the network.

use crate::config::{self, Config, Environment};
use crate::nat::{self, LoadedRules};
use crate::site::{self, MetadataView, Site};

/// Loads the rules that were good last, or shuts the gate as `config` says; without one, as an empty file would. Without one no
/// daemon will start either, so that SSH is not left to its tunnel.
///
/// # Errors
/// `nft` cannot be run, or refuses even rules that let nothing through.
pub async fn boot(config: Option<Config>, environment: &Environment) -> Result<(), nat::Error> {
    let alone = config.is_none();
    let config = config.or_else(|| config::parse("", environment).ok());
    let Some(config) = config else { return Ok(()) };
    // Only for the ports that sshd listens to: the links need not be there yet.
    let runtime = environment.runtime_directory();
    let site = site::observe(&config, &MetadataView::default(), &Site::default(), &runtime).await.unwrap_or_default();
    let closed = Site { public: None, private: Vec::new(), ..site };
    let loaded = nat::load_boot_rules(&environment.state_directory(), &config, &closed, alone).await?;
    match loaded {
        LoadedRules::Existing => tracing::info!(component = "nat", "the table is already there"),
        LoadedRules::LastGood => tracing::info!(component = "nat", "the last good rules are loaded"),
        LoadedRules::Closed => tracing::info!(component = "nat", "there are no earlier rules; nothing is forwarded"),
    }
    Ok(())
}
