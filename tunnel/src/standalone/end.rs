//! What ends a tunnel (<https://www.wireguard.com/xplatform/>): a signal, the interface's end, the control socket's
//! end.

use std::fmt;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::Error;
use crate::device::Device;
use crate::uapi::Watch;
use crate::watch::INTERVAL;

/// Everything that can end the tunnel.
pub(super) struct End {
    signals: SignalFd,
    socket: Option<Watch>,
    gone: Arc<EventFd>,
}

/// What ended it.
#[derive(Debug)]
pub(super) enum Reason {
    Signal(u32),
    SocketRemoved,
    InterfaceGone,
}

impl End {
    /// Begins to watch. Blocks the signals in this thread and those that it starts, so no other thread may run yet.
    pub(super) fn watch(listener: &UnixListener) -> Result<Self, Error> {
        let failed = |what| move |source: Errno| Error::Watch { what, source: source.into() };
        let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        set.thread_block().map_err(failed("signals"))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            signals: signals.map_err(failed("signals"))?,
            socket: Watch::new(listener).map_err(failed("control socket"))?,
            gone: Arc::new(EventFd::from_value_and_flags(0, flags).map_err(failed("interface"))?),
        })
    }

    /// Sleeps until something ends the tunnel, and calls `check` regularly meanwhile.
    pub(super) fn wait(&self, device: &Arc<Device>, mut check: impl FnMut()) -> Result<Reason, Error> {
        let failed = |what| move |source: Errno| Error::Watch { what, source: source.into() };
        self.watch_device(device)?;
        let mut next_check = Instant::now() + INTERVAL;
        loop {
            let mut places = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            places.push(PollFd::new(self.gone.as_fd(), PollFlags::POLLIN));
            places.extend(self.socket.iter().map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
            let left = next_check.saturating_duration_since(Instant::now());
            // A millisecond more, so that the time has come.
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut places, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed("signals")(errno)),
            }
            if let Some(signal) = self.signals.read_signal().map_err(failed("signals"))? {
                return Ok(Reason::Signal(signal.ssi_signo));
            }
            if device.is_gone() {
                return Ok(Reason::InterfaceGone);
            }
            if self.socket.as_ref().is_some_and(Watch::is_gone) {
                return Ok(Reason::SocketRemoved);
            }
            if Instant::now() >= next_check {
                check();
                next_check = Instant::now() + INTERVAL;
            }
        }
    }

    /// Starts a thread that waits for the device, which has no descriptor to poll. It ends with the device or with the
    /// process.
    fn watch_device(&self, device: &Arc<Device>) -> Result<(), Error> {
        let (device, gone) = (Arc::clone(device), Arc::clone(&self.gone));
        let waiting = thread::Builder::new().name("wg-end".to_owned()).spawn(move || {
            while !device.wait_gone(Duration::from_secs(3600)) {}
            // Err: the counter is full, so the descriptor is readable already.
            let _ = gone.write(1);
        });
        waiting.map(drop).map_err(|source| Error::Watch { what: "interface", source })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(number) => {
                let signal = i32::try_from(*number).ok().and_then(|number| Signal::try_from(number).ok());
                f.write_str(signal.map_or("a signal", Signal::as_str))
            }
            Self::SocketRemoved => f.write_str("its control socket was removed"),
            Self::InterfaceGone => f.write_str("the interface is gone"),
        }
    }
}
