//! Runs `nft`, and carries a transaction out with it.
//!
//! Our own exec instead of the crate's: that one does not capture standard error, has no time limit, and does not tell a
//! crash from a refusal.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process;

use super::model::{Ruleset, TRIAL};
use super::plan::{self, Command};

/// Ten thousand elements take a tenth of a second; a machine out of memory may take much longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Enough of nft's complaint to act on.
const MAX_COMPLAINT: usize = 600;

/// Why the rules could not be read or loaded. nft's transactions are whole or not at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `nft`.
    #[error("the program nft was not found (looked in {looked_in})")]
    Missing {
        /// The search path.
        looked_in: String,
    },
    /// It cannot be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It said no.
    #[error("`{command}` failed: {complaint}")]
    Refused {
        /// What was asked.
        command: String,
        /// Its standard error, shortened, on one line.
        complaint: String,
    },
    /// It died. Some versions crash on valid input (nft 1.0.6 on sets that a newer nft wrote).
    #[error("`{command}` was killed by signal {signal}")]
    Crashed {
        /// What was asked.
        command: String,
        /// The signal's number.
        signal: i32,
    },
    /// It hangs.
    #[error("`{command}` did not end within {} s", TIMEOUT.as_secs())]
    TimedOut {
        /// What was asked.
        command: String,
    },
    /// What was read back is not what was loaded.
    #[error("somebody else changed the table while it was being loaded")]
    Disturbed,
    /// It answered something else than JSON of its schema.
    #[error("nft's listing cannot be read")]
    Unreadable {
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Error {
    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "install it: apt install nftables",
            Self::Run { .. } => "the daemon needs to be allowed to run it",
            Self::Refused { .. } => {
                "look at its words (it needs CAP_NET_ADMIN and a kernel with nf_tables); tried again by itself"
            }
            Self::Disturbed => "find the program that edits table inet bastiond; tried again by itself",
            Self::Crashed { .. } | Self::TimedOut { .. } | Self::Unreadable { .. } => {
                "the table is as it was; tried again by itself, and an update of nftables may help"
            }
        }
    }
}

/// The `nft` program.
#[derive(Debug, Clone)]
pub struct Nft {
    program: PathBuf,
}

impl Nft {
    /// Finds it in `PATH` and where Debian has it.
    pub fn find() -> Result<Self, Error> {
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

    /// Loads what has to be declared first, if anything, and then the commands as one transaction.
    pub(super) async fn load(&self, skeleton: Option<String>, commands: &[Command]) -> Result<(), Error> {
        if let Some(text) = skeleton {
            self.run(&["-f", "-"], Some(text)).await?;
        }
        self.apply(commands).await
    }

    /// Whether a table of these rules could be made from nothing: an error if not. It is tried in a table of its own, which is
    /// gone afterwards, and which no packet passes.
    pub(super) async fn would_load(&self, desired: &Ruleset) -> Result<(), Error> {
        let (text, commands) = plan::trial(desired);
        self.run(&["-f", "-"], Some(text)).await?;
        let tried = self.run(&["-c", "-j", "-f", "-"], Some(document(&commands))).await;
        let removal = format!("delete table inet {TRIAL}\n");
        let removed = self.run(&["-f", "-"], Some(removal)).await;
        tried.and(removed).map(drop)
    }

    /// Loads the commands as one transaction.
    pub(super) async fn apply(&self, commands: &[Command]) -> Result<(), Error> {
        self.run(&["-j", "-f", "-"], Some(document(commands))).await.map(drop)
    }

    /// Runs it with `arguments`, `input` on its standard input; its standard output.
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
        judge(command, output.status, &output.stderr)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn document(commands: &[Command]) -> String {
    format!("{{\"nftables\":[{}]}}", commands.join(","))
}

fn judge(command: String, status: ExitStatus, complaint: &[u8]) -> Result<(), Error> {
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
