//! `bastiond boot`: rules before the network is up.

use crate::config::{self, Config, Environment};
use crate::nat::{self, LoadedRules};
use crate::site::{self, MetadataView, Site};

/// Loads the rules that were good last; without any, rules that forward nothing. Those are made from `config`, or,
/// where that is wrong, from an empty configuration: then no daemon starts either, so SSH is not restricted to its
/// tunnel.
///
/// # Errors
/// `nft` cannot be run, or refuses even rules that forward nothing.
pub async fn run_boot(config: Option<Config>, environment: &Environment) -> Result<(), nat::Error> {
    let alone = config.is_none();
    let config = config.or_else(|| config::parse("", environment).ok());
    let Some(config) = config else { return Ok(()) };
    // Only for the ports that sshd listens on: the links need not exist yet.
    let runtime = environment.runtime_directory();
    let site = site::observe(&config, &MetadataView::default(), &Site::default(), &runtime).await.unwrap_or_default();
    let closed = Site { public: None, private: Vec::new(), ..site };
    let applied = config::last_good(environment).map(|last| last.config);
    let state = environment.state_directory();
    let loaded = nat::load_boot_rules(&state, applied.as_ref(), &config, &closed, alone).await?;
    match loaded {
        LoadedRules::Existing => tracing::info!(component = "nat", "the table stands already"),
        LoadedRules::LastGood => tracing::info!(component = "nat", "the last good rules are loaded"),
        LoadedRules::Closed => tracing::info!(component = "nat", "no earlier rules are kept; nothing is forwarded"),
    }
    Ok(())
}
