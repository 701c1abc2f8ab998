//! A new configuration.

use std::path::Path;

use tokio::time::Instant;

use super::Daemon;
use crate::config::{self, Config};
use crate::error::chain;
use crate::report::Trigger;
use crate::site::metadata::Watcher;

impl Daemon {
    /// Takes a new configuration over, or keeps the old one and says why. When the next pass is due, if there was one.
    pub(super) async fn reload(&mut self) -> Option<Instant> {
        self.notifier.reloading();
        let next_pass = match config::load(&self.path, &self.environment) {
            Ok(config) => Some(self.take_over(config).await),
            Err(error) => {
                log_refusal(&self.path, &error);
                let problems = error.diagnostics().iter().map(ToString::to_string);
                let whole = error.diagnostics().is_empty().then(|| chain(&error));
                self.gateway.refuse_configuration(problems.chain(whole).collect());
                self.publish_status();
                None
            }
        };
        self.readiness.reloaded(&self.notifier);
        next_pass
    }

    async fn take_over(&mut self, config: Config) -> Instant {
        tracing::info!(path = %self.path.display(), "the configuration is reloaded");
        log_warnings(&self.path, &config);
        self.log_level.set(config.log.level);
        if config.site.metadata_to_query() != self.config.site.metadata_to_query() {
            let runtime = self.environment.runtime_directory();
            self.metadata = Watcher::start(config.site.metadata_to_query(), &runtime);
            self.await_metadata().await;
        }
        self.drops.follow(config.firewall.log_drops).await;
        self.config = config;
        self.gateway.refuse_configuration(Vec::new());
        self.pass(Trigger::Configuration).await
    }
}

fn log_refusal(path: &Path, error: &config::Error) {
    tracing::error!(path = %path.display(), "the reload is refused, the old configuration is kept: {}", chain(error));
    for problem in error.diagnostics() {
        tracing::error!(path = %path.display(), "{problem}");
    }
}

pub(super) fn log_warnings(path: &Path, config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(path = %path.display(), "{warning}");
    }
}
