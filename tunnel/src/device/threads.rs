//! The threads of one interface: two for each queue, which carry each packet from end to end, and one for handshakes and
//! timers. They wait in the kernel while there is nothing to do.
//!
//! While there is little to carry, one thread of a queue does both directions. Once it does not get to the end of what is
//! there, it lends the TUN queue to the other one, which gives it back when there is little again. The queue is with one of them
//! at any time, and neither passes it on before what it has read is sent: order within a flow is kept.

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
use super::shared::{Call, Shared};
use super::tun::TunQueue;
use super::udp::{UdpPair, UdpReceiver};
use crate::sys;

/// How long a thread waits after an error that it does not know, so that it cannot spin.
const PAUSE: Duration = Duration::from_millis(100);
/// Packets from the inside that one thread carries beside its own direction; more at once are work for two.
const LIGHT: usize = 8;
/// In so many milliseconds ...
const WINDOW: u8 = 10;
/// ... the second thread finds packets at least so often, or it is not needed.
const ENOUGH: usize = 16;

/// What all threads of an interface work with.
pub(super) struct Works {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    pub(super) queues: Vec<TunQueue>,
    pub(super) offloads: Offloads,
    /// One pair a queue. Replaced whole when the port changes.
    pub(super) sockets: RwLock<Arc<[Arc<UdpPair>]>>,
    pub(super) clock: Clock,
    /// One for each thread that waits in the kernel, the second ones of the queues first.
    pub(super) wakers: Vec<EventFd>,
    /// Whether a queue's second thread reads its packets. Set by the first one, cleared by the second.
    lent: Vec<AtomicBool>,
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
            lent: queues.iter().map(|_| AtomicBool::new(false)).collect(),
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

    /// Leaves the packets of a TUN queue to its second thread.
    fn lend(&self, queue: usize) {
        self.lent[queue].store(true, Ordering::Release);
        let _ = self.wakers[queue].write(1);
    }

    /// Leaves them to its first thread again.
    fn give_back(&self, queue: usize) {
        self.lent[queue].store(false, Ordering::Release);
        let _ = self.wakers[self.queues.len() + queue].write(1);
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

/// Whether a descriptor that was waited for has something to say, an error included.
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

/// What a turn of the way from the inside to the outside ended with.
enum Turn {
    /// There is nothing more.
    Dry,
    /// There may be more.
    More,
    /// Reading failed; it may fail again at once.
    Failed,
    /// The interface is gone.
    Over,
}

fn carry_out(works: &Works, queue: usize, way: &mut Outbound, pair: &UdpPair, budget: usize) -> Turn {
    match way.pump(&works.queues[queue], pair, works.clock.now(), budget) {
        Ok(Pumped::More) => Turn::More,
        Ok(Pumped::Dry) => Turn::Dry,
        // EBADFD: the interface was deleted.
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
            if !works.is_stopping() {
                tracing::warn!(interface = works.name, "the TUN interface was deleted");
            }
            Turn::Over
        }
        Err(error) => {
            tracing::debug!(%error, interface = works.name, "reading from the TUN interface failed");
            Turn::Failed
        }
    }
}

/// A turn of one who has another direction to look after, too.
fn carry_few(works: &Works, queue: usize, way: &mut Outbound, pair: &UdpPair) -> Turn {
    // The first packet leaves before another one is looked for: mostly there is none.
    match carry_out(works, queue, way, pair, 1) {
        Turn::More => carry_out(works, queue, way, pair, LIGHT),
        turn => turn,
    }
}

/// The way from the sockets to the TUN interface, and the other way as long as one thread can do both.
///
/// An answer from the inside to what was just written there is then found by the thread that is awake already. Waking another
/// one costs more than everything else that happens to a small packet.
pub(super) fn carrier(works: &Works, queue: usize) {
    let _alive = Alive(works);
    let mut inbound = Inbound::new(Arc::clone(&works.shared), works.offloads);
    let mut outbound = Outbound::new(Arc::clone(&works.shared));
    let (tun, lent) = (&works.queues[queue], &works.lent[queue]);
    let waker = &works.wakers[works.queues.len() + queue];
    while !works.is_stopping() {
        let Some(pair) = works.pair(queue) else { return };
        let mut receivers: Vec<UdpReceiver<'_>> = pair.sockets().map(UdpReceiver::new).collect();
        let descriptors = [waker.as_fd()].into_iter().chain(pair.sockets().map(AsFd::as_fd)).chain([tun.as_fd()]);
        let mut polled: Vec<PollFd<'_>> = descriptors.map(|one| PollFd::new(one, PollFlags::POLLIN)).collect();
        let sockets = 1..polled.len() - 1;
        while !works.is_stopping() && works.pair(queue).is_some_and(|now| Arc::ptr_eq(&now, &pair)) {
            let is_alone = !lent.load(Ordering::Acquire);
            let watched = if is_alone { polled.len() } else { sockets.end };
            if let Err(error) = wait(&mut polled[..watched], PollTimeout::NONE) {
                tracing::warn!(%error, interface = works.name, "waiting for packets failed");
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
                match inbound.pump(receiver, pair.as_ref(), tun, works.clock.now(), budget) {
                    Ok(pumped) => is_busy |= pumped == Pumped::More,
                    // A pending error of the socket, an ICMP message for one: reading it has cleared it.
                    Err(error) => {
                        tracing::debug!(%error, interface = works.name, "receiving failed");
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
            let has_received = polled[sockets.clone()].iter().any(is_ready);
            // What was just written may have been answered on the spot: looking is as cheap as asking whether to look.
            if is_alone && (has_received || is_ready(&polled[sockets.end])) {
                match if is_busy { Turn::More } else { carry_few(works, queue, &mut outbound, &pair) } {
                    Turn::Dry => {}
                    // Nor shall what comes from the outside wait for what is wrong with the inside.
                    Turn::More | Turn::Failed => works.lend(queue),
                    Turn::Over => return,
                }
            }
        }
    }
}

/// The way from the TUN interface to the sockets, while there is work for two threads.
pub(super) fn helper(works: &Works, queue: usize) {
    let _alive = Alive(works);
    let mut way = Outbound::new(Arc::clone(&works.shared));
    let (tun, waker, lent) = (&works.queues[queue], &works.wakers[queue], &works.lent[queue]);
    let mut polled = [waker.as_fd(), tun.as_fd()].map(|one| PollFd::new(one, PollFlags::POLLIN));
    let window = Duration::from_millis(WINDOW.into());
    let (mut since, mut turns) = (Duration::ZERO, 0);
    while !works.is_stopping() {
        let waited = if lent.load(Ordering::Acquire) {
            let Some(pair) = works.pair(queue) else { return };
            match carry_out(works, queue, &mut way, &pair, outbound::BUDGET) {
                Turn::Over => return,
                Turn::More => {
                    turns = ENOUGH;
                    continue;
                }
                Turn::Failed => {
                    std::thread::sleep(PAUSE);
                    turns += 1;
                }
                Turn::Dry => turns += 1,
            }
            let now = works.clock.now().elapsed;
            if now >= since + window {
                if turns < ENOUGH {
                    works.give_back(queue);
                    continue;
                }
                (since, turns) = (now, 0);
            }
            wait(&mut polled, WINDOW.into())
        } else {
            let waited = wait(&mut polled[..1], PollTimeout::NONE);
            (since, turns) = (works.clock.now().elapsed, 0);
            waited
        };
        if let Err(error) = waited {
            tracing::warn!(%error, interface = works.name, "waiting for the TUN interface failed");
            std::thread::sleep(PAUSE);
        }
        if is_ready(&polled[0]) {
            let _ = waker.read();
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
