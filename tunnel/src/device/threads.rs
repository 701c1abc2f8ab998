//! The threads of one interface: two for each queue, which carry each packet from end to end, and one for handshakes
//! and timers. They wait in the kernel while there is nothing to do.
//!
//! With little traffic, one thread of a queue carries both directions. When it cannot read everything that waits, it
//! hands the TUN queue over to the second thread, and reclaims it when there is little traffic again. One of them has
//! the queue at any time, and neither passes it on before what it has read is sent: the order within a flow is kept.

use std::io;
use std::os::fd::AsFd;
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
use super::inbound::{self, Inbound};
use super::outbound::{self, Outbound, Pumped};
use super::protocol::Protocol;
use super::shared::{ProtocolEvent, Shared};
use super::tun::TunQueue;
use super::udp::{UdpPair, UdpReceiver};
use crate::sys;

/// How long a thread waits after an unknown error, so that it cannot spin.
const PAUSE: Duration = Duration::from_millis(100);
/// Packets from the inside that one thread carries besides the other direction; more at once need the second thread.
const LIGHT: usize = 8;
/// In so many milliseconds …
const WINDOW: u8 = 10;
/// … the second thread reads packets at least so often, or the queue is reclaimed.
const ENOUGH: usize = 16;

/// What all threads of an interface use.
pub(super) struct ThreadContext {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    pub(super) queues: Vec<TunQueue>,
    pub(super) offloads: Offloads,
    /// One pair per queue. All are replaced when the port changes.
    pub(super) sockets: RwLock<Arc<[Arc<UdpPair>]>>,
    pub(super) clock: Clock,
    /// One for each thread that waits in the kernel: first those of the second threads, then those of the first.
    pub(super) wakers: Vec<EventFd>,
    /// Whether a queue's second thread reads its packets. Set by the first thread, cleared by the second.
    handed_over: Vec<AtomicBool>,
    stopping: AtomicBool,
    gone: Mutex<bool>,
    went: Condvar,
}

impl ThreadContext {
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
            handed_over: queues.iter().map(|_| AtomicBool::new(false)).collect(),
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

    /// Wakes every thread, so that it checks for changes.
    pub(super) fn wake(&self) {
        for waker in &self.wakers {
            // Err: the counter is full, so the thread is awake.
            let _ = waker.write(1);
        }
        self.shared.wake_protocol();
    }

    /// Tells every thread to end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether the interface was deleted, or a thread ended.
    pub(super) fn is_gone(&self) -> bool {
        *self.gone.lock()
    }

    /// Waits at most this long for the end of the interface; whether it has ended.
    pub(super) fn wait_gone(&self, at_most: Duration) -> bool {
        let mut gone = self.gone.lock();
        self.went.wait_while_for(&mut gone, |gone| !*gone, at_most);
        *gone
    }

    fn mark_gone(&self) {
        *self.gone.lock() = true;
        self.went.notify_all();
    }

    /// Lets the second thread read a TUN queue.
    fn hand_over_queue(&self, queue: usize) {
        self.handed_over[queue].store(true, Ordering::Release);
        let _ = self.wakers[queue].write(1);
    }

    /// Lets the first thread read it again.
    fn reclaim_queue(&self, queue: usize) {
        self.handed_over[queue].store(false, Ordering::Release);
        let _ = self.wakers[self.queues.len() + queue].write(1);
    }

    pub(super) fn pair(&self, queue: usize) -> Option<Arc<UdpPair>> {
        self.sockets.read().get(queue).cloned()
    }
}

/// Marks the interface as gone if a thread ends before it was stopped.
struct EndGuard<'a>(&'a ThreadContext);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        if !self.0.is_stopping() {
            self.0.mark_gone();
        }
    }
}

/// Whether a polled descriptor is ready, or has an error.
fn is_ready(polled: &PollFd<'_>) -> bool {
    polled.any().unwrap_or(true)
}

/// Waits until one of the descriptors is ready, at most for `timeout`.
fn wait(polled: &mut [PollFd<'_>], timeout: PollTimeout) -> io::Result<()> {
    loop {
        match poll(polled, timeout) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How a turn of reading from the TUN queue ended.
enum Turn {
    /// Nothing waits any more.
    Empty,
    /// There may be more.
    More,
    /// Reading failed; it may fail again at once.
    Failed,
    /// The interface is gone.
    Gone,
}

fn carry_out(context: &ThreadContext, queue: usize, way: &mut Outbound, pair: &UdpPair, budget: usize) -> Turn {
    match way.pump(&context.queues[queue], pair, context.clock.now(), budget) {
        Ok(Pumped::More) => Turn::More,
        Ok(Pumped::Empty) => Turn::Empty,
        // EBADFD: the interface was deleted.
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
            if !context.is_stopping() {
                tracing::warn!(interface = context.name, "the TUN interface was deleted");
            }
            Turn::Gone
        }
        Err(error) => {
            tracing::debug!(%error, interface = context.name, "reading from the TUN interface failed");
            Turn::Failed
        }
    }
}

/// A short turn, for a thread that carries the other direction too.
fn carry_few(context: &ThreadContext, queue: usize, way: &mut Outbound, pair: &UdpPair) -> Turn {
    // The first packet is sent before the next one is read: mostly there is none.
    match carry_out(context, queue, way, pair, 1) {
        Turn::More => carry_out(context, queue, way, pair, LIGHT),
        turn => turn,
    }
}

/// Carries packets from the sockets to the TUN interface, and in the other direction as long as one thread can do both.
///
/// The answer to a packet that was just written is then read by a thread that is awake already. Waking another thread
/// costs more than all other work on a small packet.
pub(super) fn packet_thread(context: &ThreadContext, queue: usize) {
    let _guard = EndGuard(context);
    let mut inbound = Inbound::new(Arc::clone(&context.shared), context.offloads);
    let mut outbound = Outbound::new(Arc::clone(&context.shared));
    let (tun, handed_over) = (&context.queues[queue], &context.handed_over[queue]);
    let waker = &context.wakers[context.queues.len() + queue];
    while !context.is_stopping() {
        let Some(pair) = context.pair(queue) else { return };
        let mut receivers: Vec<UdpReceiver<'_>> = pair.sockets().map(UdpReceiver::new).collect();
        let descriptors = [waker.as_fd()].into_iter().chain(pair.sockets().map(AsFd::as_fd)).chain([tun.as_fd()]);
        let mut polled: Vec<PollFd<'_>> = descriptors.map(|one| PollFd::new(one, PollFlags::POLLIN)).collect();
        let sockets = 1..polled.len() - 1;
        while !context.is_stopping() && context.pair(queue).is_some_and(|now| Arc::ptr_eq(&now, &pair)) {
            let is_alone = !handed_over.load(Ordering::Acquire);
            let watched = if is_alone { polled.len() } else { sockets.end };
            if let Err(error) = wait(&mut polled[..watched], PollTimeout::NONE) {
                tracing::warn!(%error, interface = context.name, "waiting for packets failed");
                std::thread::sleep(PAUSE);
                continue;
            }
            if is_ready(&polled[0]) {
                let _ = waker.read();
            }
            let mut is_busy = false;
            for (receiver, polled) in receivers.iter_mut().zip(&polled[sockets.clone()]) {
                if !is_ready(polled) {
                    continue;
                }
                let budget = if is_alone { 1 } else { inbound::BUDGET };
                match inbound.pump(receiver, pair.as_ref(), tun, context.clock.now(), budget) {
                    Ok(pumped) => is_busy |= pumped == Pumped::More,
                    // A pending error of the socket, such as an ICMP message: reading it has cleared it.
                    Err(error) => {
                        tracing::debug!(%error, interface = context.name, "receiving failed");
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
            let has_received = polled[sockets.clone()].iter().any(is_ready);
            // A packet that was just written may have been answered at once: reading is as cheap as polling.
            if is_alone && (has_received || is_ready(&polled[sockets.end])) {
                match if is_busy { Turn::More } else { carry_few(context, queue, &mut outbound, &pair) } {
                    Turn::Empty => {}
                    // Also after an error of the TUN interface, so that packets from the outside do not wait.
                    Turn::More | Turn::Failed => context.hand_over_queue(queue),
                    Turn::Gone => return,
                }
            }
        }
    }
}

/// Carries packets from the TUN interface to the sockets, while there is work for two threads.
pub(super) fn helper_thread(context: &ThreadContext, queue: usize) {
    let _guard = EndGuard(context);
    let mut way = Outbound::new(Arc::clone(&context.shared));
    let (tun, waker, handed_over) = (&context.queues[queue], &context.wakers[queue], &context.handed_over[queue]);
    let mut polled = [waker.as_fd(), tun.as_fd()].map(|one| PollFd::new(one, PollFlags::POLLIN));
    let window = Duration::from_millis(WINDOW.into());
    let (mut since, mut turns) = (Duration::ZERO, 0);
    while !context.is_stopping() {
        let waited = if handed_over.load(Ordering::Acquire) {
            let Some(pair) = context.pair(queue) else { return };
            match carry_out(context, queue, &mut way, &pair, outbound::BUDGET) {
                Turn::Gone => return,
                Turn::More => {
                    turns = ENOUGH;
                    continue;
                }
                Turn::Failed => {
                    std::thread::sleep(PAUSE);
                    turns += 1;
                }
                Turn::Empty => turns += 1,
            }
            let now = context.clock.now().elapsed;
            if now >= since + window {
                if turns < ENOUGH {
                    context.reclaim_queue(queue);
                    continue;
                }
                (since, turns) = (now, 0);
            }
            wait(&mut polled, WINDOW.into())
        } else {
            let waited = wait(&mut polled[..1], PollTimeout::NONE);
            (since, turns) = (context.clock.now().elapsed, 0);
            waited
        };
        if let Err(error) = waited {
            tracing::warn!(%error, interface = context.name, "waiting for the TUN interface failed");
            std::thread::sleep(PAUSE);
        }
        if is_ready(&polled[0]) {
            let _ = waker.read();
        }
    }
}

/// Handshakes and timers.
pub(super) fn protocol_thread(context: &ThreadContext, events: &Receiver<ProtocolEvent>) {
    let _guard = EndGuard(context);
    let mut protocol = Protocol::new(Arc::clone(&context.shared));
    refresh_mtu(context);
    while !context.is_stopping() {
        let now = context.clock.now();
        let call = match protocol.next_tick() {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) if at <= now.elapsed => Err(RecvTimeoutError::Timeout),
            Some(at) => events.recv_timeout(at.saturating_sub(now.elapsed)),
        };
        let Some(pair) = context.pair(0) else { return };
        let now = context.clock.now();
        match call {
            Ok(ProtocolEvent::Handshake(message)) => {
                let waiting = context.shared.take_queued();
                protocol.receive(&message, waiting, pair.as_ref(), now);
            }
            Ok(ProtocolEvent::Wake) => {
                refresh_mtu(context);
                protocol.tick_soon(now);
            }
            Err(RecvTimeoutError::Timeout) => {
                refresh_mtu(context);
                protocol.tick(pair.as_ref(), now);
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for key in context.shared.take_requested_handshakes() {
            protocol.initiate(&key, pair.as_ref(), now);
        }
    }
}

/// Reads the interface's MTU, which other programs may change; padding follows it within a tick.
fn refresh_mtu(context: &ThreadContext) {
    let Some(pair) = context.pair(0) else { return };
    let Some(socket) = pair.sockets().next() else { return };
    match sys::interface_mtu(socket.as_fd(), &context.name) {
        Ok(mtu) => context.shared.mtu.store(mtu, Ordering::Relaxed),
        Err(error) => tracing::debug!(%error, interface = context.name, "the interface's MTU cannot be read"),
    }
}
