//! Starts the program again in the background, and waits for its report.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::Error;
use super::environment::{CONTROL, READY, TUN, wants_logs};
use crate::device::tun::TunInterface;
use crate::error::chain;

/// How long the background process may take to report that it runs. It has little more to do than to start threads.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Its report when it runs; everything else is an error message.
const RUNS: &str = "runs\n";
/// The longest report that is read, in bytes.
const MAX_REPORT: u64 = 4096;

/// Starts this program again in the background, and returns when it runs there.
pub(super) fn start(tun: &TunInterface, listener: &UnixListener) -> Result<(), Error> {
    let failed = |source| Error::Background { source };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut queues = String::new();
    for queue in &tun.queues {
        keep_open(queue.as_fd()).map_err(failed)?;
        let comma = if queues.is_empty() { "" } else { "," };
        write!(queues, "{comma}{}", queue.as_fd().as_raw_fd()).expect("text takes all that is written");
    }
    keep_open(listener.as_fd()).map_err(failed)?;
    keep_open(theirs.as_fd()).map_err(failed)?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // As in wireguard-go: a log level asks for logs. Otherwise a shell that reads our output would wait for its end.
    let stderr = if wants_logs() { Stdio::inherit() } else { Stdio::null() };
    command
        .args(arguments)
        .env(TUN, queues)
        .env(CONTROL, listener.as_raw_fd().to_string())
        .env(READY, theirs.as_raw_fd().to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let mut child = command.spawn().map_err(failed)?;
    drop(theirs);
    ours.set_read_timeout(Some(READY_TIMEOUT)).map_err(failed)?;
    let mut report = String::new();
    let read = ours.take(MAX_REPORT).read_to_string(&mut report);
    let reason = match read {
        Ok(_) if report == RUNS => return Ok(()),
        Ok(0) => "it ended without a message".to_owned(),
        Ok(_) => report,
        Err(error) => format!("it did not report: {error}"),
    };
    // Err either way: it has ended already.
    let _ = child.kill();
    let _ = child.wait();
    Err(Error::BackgroundFailed { reason })
}

/// Keeps a descriptor open for the next program. Only one is started, and at once.
fn keep_open(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// Where the background process reports that it runs, or why it does not. In the foreground there is no report.
pub(super) struct Ready(Option<UnixStream>);

impl Ready {
    /// With a socket, this is the background process: it starts a session of its own, so that it outlives the terminal.
    pub(super) fn new(socket: Option<UnixStream>) -> Result<Self, Error> {
        if socket.is_some() {
            nix::unistd::setsid().map_err(|source| Error::Background { source: source.into() })?;
        }
        Ok(Self(socket))
    }

    pub(super) fn is_background(&self) -> bool {
        self.0.is_some()
    }

    /// Reports that it runs.
    pub(super) fn report_running(&self) {
        self.send(RUNS);
    }

    /// Reports why it does not run.
    pub(super) fn failed(&self, error: &Error) {
        self.send(&chain(error));
    }

    fn send(&self, report: &str) {
        let Some(mut socket) = self.0.as_ref() else { return };
        let sent = socket.write_all(report.as_bytes()).and_then(|()| socket.shutdown(Shutdown::Both));
        if let Err(error) = sent {
            tracing::debug!(%error, "the foreground process does not read the report");
        }
    }
}
