//! The program `nft`: how it is found, run and stopped, and why it can fail.
//!
//! Our own exec instead of the `nftables` crate's: that one does not capture standard error, has no time limit, and
//! does not tell a crash from a refusal.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process;

use super::command::{self, Command};
use super::declarations::{self, Declaration};
use super::model::{TABLE, TRIAL_TABLE};
use crate::outcome::ComponentError;

/// How long nft may run. Ten thousand elements take a tenth of a second; a machine out of memory may take much longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of nft's message that are kept: enough to act on.
const MAX_COMPLAINT: usize = 600;

/// Why the rules could not be read or loaded. nft's transactions are carried out whole or not at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `nft`.
    #[error("the program nft was not found (looked in {looked_in})")]
    Missing {
        /// The directories, separated by colons.
        looked_in: String,
    },
    /// It cannot be started.
    #[error("cannot run {}", program.display())]
    Run {
        /// The path of the program.
        program: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// It ended with a failure.
    #[error("`{command}` failed: {complaint}")]
    Refused {
        /// The command line.
        command: String,
        /// Its standard error on one line, at most [`MAX_COMPLAINT`] characters.
        complaint: String,
    },
    /// It died. Some versions crash on valid input (nft 1.0.6 on sets that a newer nft wrote).
    #[error("`{command}` was killed by signal {signal}")]
    Crashed {
        /// The command line.
        command: String,
        /// The signal's number.
        signal: i32,
    },
    /// It did not end in time.
    #[error("`{command}` did not end within {} s", TIMEOUT.as_secs())]
    TimedOut {
        /// The command line.
        command: String,
    },
    /// What was read back is not what was loaded.
    #[error("another program changed the table while it was being loaded")]
    Disturbed,
    /// Its answer is not the JSON of its schema.
    #[error("nft's listing cannot be read")]
    Unreadable {
        /// Where it differs from the schema.
        source: serde_json::Error,
    },
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "nft-missing",
            Self::Run { .. } => "nft-not-runnable",
            Self::Refused { .. } => "nft-refused",
            Self::Disturbed => "nft-disturbed",
            Self::Crashed { .. } | Self::TimedOut { .. } | Self::Unreadable { .. } => "nft-failed",
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Missing { .. } => "install it: apt install nftables",
            Self::Run { .. } => "allow the daemon to run it",
            Self::Refused { .. } => {
                "read nft's message (it needs CAP_NET_ADMIN and a kernel with nf_tables); the daemon retries by itself"
            }
            Self::Disturbed => "find the program that edits table inet bastiond; the daemon retries by itself",
            Self::Crashed { .. } | Self::TimedOut { .. } | Self::Unreadable { .. } => {
                "the table is as it was; the daemon retries by itself, and an update of nftables may help"
            }
        }
        .to_owned()
    }
}

/// The `nft` program.
#[derive(Debug, Clone)]
pub(super) struct Nft {
    program: PathBuf,
}

impl Nft {
    /// Finds it in `PATH` and where Debian has it.
    pub(super) fn find() -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories: Vec<PathBuf> = std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .filter(|d| d.is_absolute())
            .collect();
        let found = directories.iter().map(|directory| directory.join("nft")).find(|program| program.is_file());
        found.map(|program| Self { program }).ok_or_else(|| {
            let looked_in: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
            Error::Missing { looked_in: looked_in.join(":") }
        })
    }

    /// Declares what the transaction cannot declare, then carries the commands out as one transaction.
    pub(super) async fn load(&self, declarations: &[&Declaration], commands: &[Command]) -> Result<(), Error> {
        if let Some(text) = declarations::text(declarations, TABLE) {
            self.run_text(text).await?;
        }
        self.apply(commands).await
    }

    /// Carries the commands out as one transaction.
    pub(super) async fn apply(&self, commands: &[Command]) -> Result<(), Error> {
        self.run(&["-j", "-f", "-"], Some(command::document(commands, TABLE))).await.map(drop)
    }

    /// Carries commands in nft's text syntax out as one transaction.
    pub(super) async fn run_text(&self, text: String) -> Result<(), Error> {
        self.run(&["-f", "-"], Some(text)).await.map(drop)
    }

    /// Checks whether these commands could make a table from nothing. They are checked in a table of its own, which is
    /// removed afterwards and which no packet passes.
    pub(super) async fn check(&self, commands: &[Command]) -> Result<(), Error> {
        let declared = declarations::text(&declarations::all(), TRIAL_TABLE).unwrap_or_default();
        self.run_text(format!("add table inet {TRIAL_TABLE}\ndelete table inet {TRIAL_TABLE}\n{declared}")).await?;
        let document = command::document(commands, TRIAL_TABLE);
        let checked = self.run(&["-c", "-j", "-f", "-"], Some(document)).await;
        let removed = self.run_text(format!("delete table inet {TRIAL_TABLE}\n")).await;
        checked.and(removed.map(|()| String::new())).map(drop)
    }

    /// Runs it with `arguments` and with `input` on its standard input. Returns its standard output.
    pub(super) async fn run(&self, arguments: &[&str], input: Option<String>) -> Result<String, Error> {
        let command = format!("nft {}", arguments.join(" "));
        let failed = |source| Error::Run { program: self.program.clone(), source };
        let mut child = process::Command::new(&self.program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let feed = async move {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // A broken pipe means that nft has ended: its exit status says why.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let both = async { futures::future::join(feed, child.wait_with_output()).await.1 };
        let output = match tokio::time::timeout(TIMEOUT, both).await {
            Ok(output) => output.map_err(failed)?,
            Err(_) => return Err(Error::TimedOut { command }),
        };
        check_exit(command, output.status, &output.stderr)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Turns the way in which nft ended into an error.
fn check_exit(command: String, status: ExitStatus, complaint: &[u8]) -> Result<(), Error> {
    if let Some(signal) = status.signal() {
        return Err(Error::Crashed { command, signal });
    }
    if status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(complaint);
    let lines: Vec<&str> = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let complaint: String = lines.join(", ").chars().take(MAX_COMPLAINT).collect();
    Err(Error::Refused { command, complaint: if complaint.is_empty() { status.to_string() } else { complaint } })
}
