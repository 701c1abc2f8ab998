//! Where the tunnel's process is: at a socket in the runtime directory. systemd listens there and starts the process at
//! the first connection (`bastiond-tunnel.socket`); without systemd, the daemon listens and starts it, detached, so
//! that it outlives the daemon.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::chain;
use bastiond_tunnel::private::{Remote, listen_at};

/// The socket's name in the runtime directory.
const SOCKET: &str = "tunnel.sock";
/// The program, beside the daemon's or in `PATH`.
const PROGRAM: &str = "bastiond-tunnel";

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing answers at the socket, and systemd is to start it.
    #[error("nothing listens on {}, where {unit} should", path.display())]
    Unit {
        path: PathBuf,
        unit: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Nothing answers at the socket, and none can be made there.
    #[error("cannot listen on {}", path.display())]
    Listen {
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("cannot start {}", program.display())]
    Start {
        program: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl Error {
    /// What the operator can do.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Unit { unit, .. } => format!("`systemctl start {unit}`; the daemon retries by itself"),
            Self::Listen { .. } => "look who owns the directory; the daemon retries by itself".to_owned(),
            Self::Start { .. } => {
                format!("install {PROGRAM} beside bastiond, or in PATH; the daemon retries by itself")
            }
        }
    }
}

/// The place of the process.
#[derive(Debug, Clone)]
pub(super) struct ProcessPlace {
    path: PathBuf,
    /// The unit that listens there, if systemd starts the process.
    unit: Option<String>,
}

impl ProcessPlace {
    pub(super) fn new(runtime_directory: &Path, unit: Option<String>) -> Self {
        Self { path: runtime_directory.join(SOCKET), unit }
    }

    /// The process that runs; `None` if none does. With systemd's socket one is started, which ends by itself if it
    /// gets nothing to do.
    pub(super) fn connect(&self) -> Option<Remote> {
        Remote::connect(&self.path)
            .inspect_err(|error| tracing::debug!(%error, "no process of the tunnel answers"))
            .ok()
    }

    /// The process that runs, or a new one.
    pub(super) fn connect_or_start(&self) -> Result<Remote, Error> {
        let source = match Remote::connect(&self.path) {
            Ok(remote) => return Ok(remote),
            Err(error) => error,
        };
        if let Some(unit) = &self.unit {
            return Err(Error::Unit { path: self.path.clone(), unit: unit.clone(), source });
        }
        let failed = |source| Error::Listen { path: self.path.clone(), source };
        match source.kind() {
            io::ErrorKind::NotFound => {}
            // The socket of a process that is gone.
            io::ErrorKind::ConnectionRefused => std::fs::remove_file(&self.path).map_err(failed)?,
            _ => return Err(failed(source)),
        }
        self.start(listen_at(&self.path).map_err(failed)?)?;
        Remote::connect(&self.path).map_err(failed)
    }

    /// Starts the program with the socket as its standard input.
    fn start(&self, listener: OwnedFd) -> Result<(), Error> {
        let program = program();
        let mut command = Command::new(&program);
        // Nothing of our environment, which may hold the API's token. People find the process by the directory.
        command.arg("--controlled").env_clear().env("RUNTIME_DIRECTORY", self.path.parent().unwrap_or(Path::new("/")));
        let started = command.current_dir("/").stdin(Stdio::from(listener)).stdout(Stdio::null()).spawn();
        let mut child = started.map_err(|source| Error::Start { program, source })?;
        let thread = std::thread::Builder::new().name("tunnel-process".to_owned());
        let waited = thread.spawn(move || match child.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!(component = "wireguard", "the tunnel's process ended: {status}"),
            Err(error) => tracing::debug!(%error, "the tunnel's process is not waited for"),
        });
        if let Err(error) = waited {
            tracing::debug!(error = %chain(&error), "the tunnel's process is not waited for");
        }
        Ok(())
    }
}

/// The program beside the daemon's, or in the directory of programs for everybody, or in `PATH`.
fn program() -> PathBuf {
    let ours = std::env::current_exe().ok();
    let beside = ours.as_ref().and_then(|ours| Some(ours.parent()?.join(PROGRAM)));
    let for_everybody = ours.as_ref().and_then(|ours| Some(ours.parent()?.parent()?.join("bin").join(PROGRAM)));
    beside.into_iter().chain(for_everybody).find(|path| path.exists()).unwrap_or_else(|| PROGRAM.into())
}
