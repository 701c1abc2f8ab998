//! A new configuration.

use std::path::Path;
use std::time::SystemTime;

use tokio::time::Instant;

use super::{Daemon, loading};
use crate::config::{self, Bundle, Config, Fallback};
use crate::error::chain;
use crate::outcome::{ComponentName, State};
use crate::reconcile::Gateway;
use crate::report::Trigger;
use crate::site::metadata::Watcher;

impl Daemon {
    /// Takes a new configuration over, or keeps the old one and says why. When the next pass is due.
    pub(super) async fn reload(&mut self) -> Result<Instant, config::Error> {
        self.notifier.reloading();
        let next_pass = match loading::load(&self.path, &self.environment).await {
            Ok((config, texts)) => Ok(self.take_over(config, texts).await),
            Err(error) => {
                log_refusal(&self.path, &error);
                self.gateway.report_mut().refuse_configuration(error.lines());
                self.publish_status();
                Err(error)
            }
        };
        self.readiness.reloaded(&self.notifier);
        next_pass
    }

    async fn take_over(&mut self, config: Config, texts: Bundle) -> Instant {
        tracing::info!(path = %self.path.display(), "the configuration is reloaded");
        log_warnings(&self.path, &config);
        self.log_level.set(config.log.level);
        if config.site.metadata_to_query() != self.config.site.metadata_to_query() {
            let runtime = self.environment.runtime_directory();
            self.metadata = Watcher::start(config.site.metadata_to_query(), &runtime);
            self.await_metadata().await;
        }
        self.drops.follow(&config).await;
        self.config = config.at(SystemTime::now());
        self.written = config;
        self.unkept = Some(texts);
        self.gateway.report_mut().accept_configuration(&self.config);
        self.gateway.note_reload();
        self.pass(Trigger::Configuration).await
    }

    /// Keeps the configuration for a start with a wrong file, once its rules stand.
    pub(super) fn keep_configuration(&mut self) {
        let stands = matches!(self.gateway.report().state(ComponentName::Nat), Some(State::Ok | State::Waiting));
        let Some(texts) = self.unkept.take_if(|_| stands) else { return };
        if let Err(error) = config::keep_last_good(texts, &self.environment, SystemTime::now()) {
            let error = chain(&error);
            tracing::warn!(error, "a start with a wrong file will use an older configuration, or none");
        }
    }
}

/// Tells that a start uses another configuration than the file's.
pub(super) fn report_fallback(path: &Path, fallback: &config::Fallback, gateway: &mut Gateway) {
    let Fallback { error, applied } = fallback;
    gateway.report_mut().run_fallback(*applied, error.lines());
    let which = gateway.report().describe_refusal();
    tracing::error!(path = %path.display(), "{which}: {}", chain(error));
    for problem in error.diagnostics() {
        tracing::error!(path = %path.display(), "{problem}");
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
