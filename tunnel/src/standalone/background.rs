//! The way to the background, and the word from there.

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

/// How long the process behind may take to say that it runs. It has little more to do than to start threads.
const PATIENCE: Duration = Duration::from_secs(30);
/// What it says then.
const RUNS: &str = "runs\n";
/// The longest complaint that is read, in bytes.
const MAX_COMPLAINT: u64 = 4096;

/// Starts this program again behind, and returns when it runs there.
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
    // As wireguard-go has it: whoever sets a log level wants to read logs. Else nobody is to wait for our output's end.
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
    ours.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut word = String::new();
    let heard = ours.take(MAX_COMPLAINT).read_to_string(&mut word);
    let reason = match heard {
        Ok(_) if word == RUNS => return Ok(()),
        Ok(0) => "it ended without a word".to_owned(),
        Ok(_) => word,
        Err(error) => format!("nothing was heard of it: {error}"),
    };
    // Err either way: it has ended already.
    let _ = child.kill();
    let _ = child.wait();
    Err(Error::Behind { reason })
}

/// Lets a descriptor pass to the next program. Only one is started, and at once.
fn keep_open(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// Where the process behind says that it runs, or why it does not. In front, nobody is told.
pub(super) struct Ready(Option<UnixStream>);

impl Ready {
    /// With a socket, this is the process behind: it leaves the session of whoever started it, whose terminal's end would be
    /// its own.
    pub(super) fn new(socket: Option<UnixStream>) -> Result<Self, Error> {
        if socket.is_some() {
            nix::unistd::setsid().map_err(|source| Error::Background { source: source.into() })?;
        }
        Ok(Self(socket))
    }

    pub(super) fn is_behind(&self) -> bool {
        self.0.is_some()
    }

    /// It runs.
    pub(super) fn tell(&self) {
        self.say(RUNS);
    }

    /// It does not.
    pub(super) fn failed(&self, error: &Error) {
        self.say(&chain(error));
    }

    fn say(&self, word: &str) {
        let Some(mut socket) = self.0.as_ref() else { return };
        let said = socket.write_all(word.as_bytes()).and_then(|()| socket.shutdown(Shutdown::Both));
        if let Err(error) = said {
            tracing::debug!(%error, "nobody waits for a word from behind");
        }
    }
}
