//! The threads of one interface: two for each queue, one a direction, which carry each packet from end to end, and one for
//! handshakes and timers. They wait in the kernel while there is nothing to do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::{Condvar, Mutex, RwLock};

use super::clock::Clock;
use super::coalesce::Offloads;
use super::inbound::Inbound;
use super::outbound::{Outbound, Pumped};
use super::protocol::Protocol;
use super::shared::{Call, Shared};
use super::sys;
use super::tun::TunQueue;
use super::udp::{UdpPair, UdpReceiver};

/// How long a thread waits after an error that it does not know, so that it cannot spin.
const PAUSE: Duration = Duration::from_millis(100);

/// What all threads of an interface work with.
pub(super) struct Works {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    pub(super) queues: Vec<TunQueue>,
    pub(super) offloads: Offloads,
    /// One pair a queue. Replaced whole when the port changes.
    pub(super) sockets: RwLock<Arc<[Arc<UdpPair>]>>,
    pub(super) clock: Clock,
    /// One for each thread that waits in the kernel, outbound ones first.
    pub(super) wakers: Vec<EventFd>,
    stopping: AtomicBool,
    gone: Mutex<bool>,
    went: Condvar,
}

impl Works {
    pub(super) fn new(
        name: String,
        shared: Arc<Shared>,
        queues: Vec<TunQueue>,
        offloads: Offloads,
        sockets: Arc<[Arc<UdpPair>]>,
    ) -> io::Result<Self> {
        let wakers = (0..queues.len() * 2)
            .map(|_| EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            shared,
            queues,
            offloads,
            sockets: RwLock::new(sockets),
            clock: Clock::start(),
            wakers,
            stopping: AtomicBool::new(false),
            gone: Mutex::new(false),
            went: Condvar::new(),
        })
    }

    /// Makes every thread look around.
    pub(super) fn wake(&self) {
        for waker in &self.wakers {
            // Full: it is awake.
            let _ = waker.write(1);
        }
        self.shared.look();
    }

    /// Tells every thread to end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether the interface was deleted, or a thread died.
    pub(super) fn is_gone(&self) -> bool {
        *self.gone.lock()
    }

    /// Waits for the interface's end, at most this long; whether it has come.
    pub(super) fn wait_gone(&self, at_most: Duration) -> bool {
        let mut gone = self.gone.lock();
        self.went.wait_while_for(&mut gone, |gone| !*gone, at_most);
        *gone
    }

    fn mark_gone(&self) {
        *self.gone.lock() = true;
        self.went.notify_all();
    }

    pub(super) fn pair(&self, queue: usize) -> Option<Arc<UdpPair>> {
        self.sockets.read().get(queue).cloned()
    }
}

/// Marks the interface as gone when a thread ends without having been told to.
struct Alive<'a>(&'a Works);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if !self.0.is_stopping() {
            self.0.mark_gone();
        }
    }
}

/// Waits until one of the descriptors has something to read; `None` after a signal.
fn wait(descriptors: &[BorrowedFd<'_>], waker: &EventFd) -> io::Result<()> {
    let mut polled: Vec<PollFd<'_>> = descriptors
        .iter()
        .copied()
        .chain([waker.as_fd()])
        .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
        .collect();
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    // Empty: it was something else.
    let _ = waker.read();
    Ok(())
}

/// The way from the TUN interface to the sockets.
pub(super) fn outbound(works: &Works, queue: usize) {
    let _alive = Alive(works);
    let mut way = Outbound::new(Arc::clone(&works.shared));
    let (tun, waker) = (&works.queues[queue], &works.wakers[queue]);
    while !works.is_stopping() {
        let Some(pair) = works.pair(queue) else { return };
        match way.pump(tun, pair.as_ref(), works.clock.now()) {
            Ok(Pumped::More) => {}
            Ok(Pumped::Dry) => {
                if let Err(error) = wait(&[tun.as_fd()], waker) {
                    tracing::warn!(%error, interface = works.name, "waiting for the TUN interface failed");
                    std::thread::sleep(PAUSE);
                }
            }
            // EBADFD: the interface was deleted.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
                if !works.is_stopping() {
                    tracing::warn!(interface = works.name, "the TUN interface was deleted");
                }
                return;
            }
            Err(error) => {
                tracing::debug!(%error, interface = works.name, "reading from the TUN interface failed");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// The way from the sockets to the TUN interface.
pub(super) fn inbound(works: &Works, queue: usize) {
    let _alive = Alive(works);
    let mut way = Inbound::new(Arc::clone(&works.shared), works.offloads);
    let (tun, waker) = (&works.queues[queue], &works.wakers[works.queues.len() + queue]);
    while !works.is_stopping() {
        let Some(pair) = works.pair(queue) else { return };
        let mut receivers: Vec<UdpReceiver<'_>> = pair.sockets().map(UdpReceiver::new).collect();
        let descriptors: Vec<BorrowedFd<'_>> = pair.sockets().map(AsFd::as_fd).collect();
        while !works.is_stopping() && works.pair(queue).is_some_and(|now| Arc::ptr_eq(&now, &pair)) {
            let mut more = false;
            for receiver in &mut receivers {
                match way.pump(receiver, pair.as_ref(), tun, works.clock.now()) {
                    Ok(pumped) => more |= pumped == Pumped::More,
                    // A pending error of the socket, an ICMP message for one: reading it has cleared it.
                    Err(error) => {
                        tracing::debug!(%error, interface = works.name, "receiving failed");
                        std::thread::sleep(Duration::from_millis(1));
                        more = true;
                    }
                }
            }
            if !more {
                if let Err(error) = wait(&descriptors, waker) {
                    tracing::warn!(%error, interface = works.name, "waiting for the UDP sockets failed");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

/// Handshakes and timers.
pub(super) fn protocol(works: &Works, calls: &Receiver<Call>) {
    let _alive = Alive(works);
    let mut protocol = Protocol::new(Arc::clone(&works.shared));
    refresh_mtu(works);
    while !works.is_stopping() {
        let now = works.clock.now();
        let call = match protocol.next_tick() {
            None => calls.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) if at <= now.elapsed => Err(RecvTimeoutError::Timeout),
            Some(at) => calls.recv_timeout(at.saturating_sub(now.elapsed)),
        };
        let Some(pair) = works.pair(0) else { return };
        let now = works.clock.now();
        match call {
            Ok(Call::Handshake(message)) => {
                let waiting = works.shared.taken();
                protocol.receive(&message, waiting, pair.as_ref(), now);
            }
            Ok(Call::Look) => {
                refresh_mtu(works);
                protocol.look(now);
            }
            Err(RecvTimeoutError::Timeout) => {
                refresh_mtu(works);
                protocol.tick(pair.as_ref(), now);
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for key in works.shared.asked() {
            protocol.initiate(&key, pair.as_ref(), now);
        }
    }
}

/// The interface's MTU may be changed by anyone at any time; padding follows it within a tick.
fn refresh_mtu(works: &Works) {
    let Some(pair) = works.pair(0) else { return };
    let Some(socket) = pair.sockets().next() else { return };
    match sys::interface_mtu(socket.as_fd(), &works.name) {
        Ok(mtu) => works.shared.mtu.store(mtu, Ordering::Relaxed),
        Err(error) => tracing::debug!(%error, interface = works.name, "the interface's MTU cannot be read"),
    }
}
