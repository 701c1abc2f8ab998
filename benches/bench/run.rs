//! The options of a run: the selected cases and the number of rounds.

/// The result of a benchmark. Errors are printed and end the run.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The environment variable with the number of rounds, for a shorter run.
const RUNS: &str = "RUNS";

/// The number of rounds: the default, or that of the environment.
pub(crate) fn rounds(default: usize) -> Result<usize> {
    let Ok(text) = std::env::var(RUNS) else { return Ok(default) };
    match text.parse() {
        Ok(rounds @ 1..) => Ok(rounds),
        _ => Err(format!("{RUNS}={text}: the number of rounds must be 1 or more").into()),
    }
}

/// The cases to run: those whose names begin with one of the words, or all.
#[derive(Debug)]
pub(crate) struct Selection(Vec<String>);

impl Selection {
    /// Takes the words from the arguments, without the option that `cargo bench` adds.
    pub(crate) fn from_arguments(arguments: impl Iterator<Item = String>) -> Self {
        Self(arguments.filter(|word| !word.is_empty() && !word.starts_with('-')).collect())
    }

    pub(crate) fn has(&self, case: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| case.starts_with(word.as_str()))
    }
}
