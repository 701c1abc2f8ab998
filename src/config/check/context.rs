//! What a configuration is checked with, besides its text.

use crate::config::environment::Environment;

/// The surroundings of the file.
pub(in crate::config) struct CheckContext<'a, F> {
    pub(in crate::config) environment: &'a Environment,
    pub(in crate::config) files: &'a F,
    /// Whether every user of this server may read the configuration file.
    pub(in crate::config) world_readable: bool,
}
