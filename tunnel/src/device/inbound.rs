//! From the outside to the inside: datagrams are received in runs, opened straight into one buffer, joined to large
//! packets, and written to the TUN interface.

use std::io;
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::clock::Now;
use super::coalesce::{Coalescer, Offloads};
use super::ecn;
use super::message::{self, INITIATION_LEN, Kind};
use super::outbound::Pumped;
use super::packet;
use super::peer::{Opened, Peer, State};
use super::run::Runs;
use super::shared::{Counters, HandshakeMessage, Shared};
use super::table::Table;
use super::transport::{Batch, Endpoint, RECEIVE_BUFFER, Received, Tun, UdpReceive, UdpSend};

/// The size of the buffer for opened packets, in bytes. Twice a receive buffer: an opened packet is still in the cache
/// when it is written.
const ARENA: usize = 2 * RECEIVE_BUFFER;
/// Batches that are received before a caller without other work checks for changes.
pub(crate) const BUDGET: usize = 16;
/// After a batch of so few buffers nothing more waits, and another receive would be a wasted system call.
const SMALL_BATCH: usize = 1;
/// So many messages are opened before the lock is released to a thread that waits for the same peer in the other
/// direction.
const PACKETS_PER_LOCK: usize = 8;

/// One thread's work from the outside to the inside.
#[derive(Debug)]
pub(crate) struct Inbound {
    shared: Arc<Shared>,
    batch: Batch,
    opened: OpenedPackets,
    /// Packets that waited for the session that a message has just confirmed.
    runs: Runs,
    /// Peers that have more such packets than were sent at once.
    waiting: Vec<Arc<Peer>>,
}

/// Packets on their way to the inside.
#[derive(Debug)]
struct OpenedPackets {
    arena: Box<[u8]>,
    used: usize,
    coalescer: Coalescer,
}

impl Inbound {
    /// For an interface that takes these large packets.
    pub(crate) fn new(shared: Arc<Shared>, offloads: Offloads) -> Self {
        Self {
            shared,
            batch: Batch::new(),
            opened: OpenedPackets {
                arena: vec![0; ARENA].into_boxed_slice(),
                used: 0,
                coalescer: Coalescer::new(offloads),
            },
            runs: Runs::new(),
            waiting: Vec::new(),
        }
    }

    /// Carries what waits, at most `budget` batches.
    ///
    /// # Errors
    /// Those of the socket, except `WouldBlock`.
    pub(crate) fn pump(
        &mut self,
        from: &mut impl UdpReceive,
        net: &impl UdpSend,
        tun: &impl Tun,
        now: Now,
        budget: usize,
    ) -> io::Result<Pumped> {
        for _ in 0..budget {
            match from.receive(&mut self.batch) {
                Ok(()) => {
                    self.carry(net, tun, now);
                    if self.batch.received().count() <= SMALL_BATCH {
                        return Ok(Pumped::Empty);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Pumped::Empty),
                Err(error) => return Err(error),
            }
        }
        Ok(Pumped::More)
    }

    fn carry(&mut self, net: &impl UdpSend, tun: &impl Tun, now: Now) {
        let Self { shared, batch, opened, runs, waiting } = self;
        let mut received = batch.received().peekable();
        while received.peek().is_some() {
            {
                let table = shared.table.read();
                // What fits; then the locks are released and it is written.
                while let Some((bytes, from)) = received.next_if(|(bytes, _)| opened.used + bytes.len() <= ARENA) {
                    open_all(shared, &table, bytes, from, opened, runs, waiting, now);
                    if !runs.has_room() {
                        break;
                    }
                }
            }
            runs.send(shared, net, false);
            while let Some(peer) = waiting.pop() {
                flush_staged(&peer, &mut peer.lock(), runs, waiting, now);
                runs.send(shared, net, false);
            }
            opened.write(shared, tun);
        }
    }
}

impl OpenedPackets {
    fn write(&mut self, shared: &Shared, tun: &impl Tun) {
        let Ok(()) = self.coalescer.flush(&mut self.arena, |slices| {
            if let Err(error) = tun.write(slices) {
                // The interface is down, or has no memory: the packet is lost, as on any link. Fatal errors show when
                // reading.
                tracing::trace!(%error, "a packet was not taken by the TUN interface");
                Counters::count(&shared.counters.write_failed);
            }
            Ok::<(), std::convert::Infallible>(())
        });
        self.used = 0;
    }
}

/// Opens one receive buffer's datagrams.
#[expect(clippy::too_many_arguments, reason = "the body of a loop: each is a local of it")]
fn open_all(
    shared: &Shared,
    table: &Table,
    bytes: &[u8],
    from: &Received,
    opened: &mut OpenedPackets,
    runs: &mut Runs,
    waiting: &mut Vec<Arc<Peer>>,
    now: Now,
) {
    let mut current: Option<(&Arc<Peer>, MutexGuard<'_, State>)> = None;
    let mut turn = 0;
    for datagram in bytes.chunks(from.segment.max(1)) {
        match message::kind(datagram) {
            Some(Kind::Data) => {}
            Some(_) => {
                queue_handshake(shared, from, datagram);
                continue;
            }
            None => {
                Counters::count(&shared.counters.malformed_outside);
                continue;
            }
        }
        let Some(peer) = table.by_index(message::receiver(datagram)) else {
            Counters::count(&shared.counters.malformed_outside);
            continue;
        };
        if !current.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, peer)) {
            // The former peer's lock is released before the next one's is taken: two at once could deadlock.
            drop(current.take());
            current = Some((peer, peer.lock()));
        }
        let Some((_, state)) = &mut current else { continue };
        if turn == PACKETS_PER_LOCK {
            MutexGuard::bump(state);
            turn = 0;
        }
        turn += 1;
        open(shared, table, peer, state, datagram, from, opened, now);
        if state.has_staged() {
            flush_staged(peer, state, runs, waiting, now);
        }
    }
}

/// Passes a handshake message to the protocol thread.
fn queue_handshake(shared: &Shared, from: &Received, datagram: &[u8]) {
    let mut bytes = [0; INITIATION_LEN];
    if let Some(place) = bytes.get_mut(..datagram.len()) {
        place.copy_from_slice(datagram);
        shared.queue_handshake(HandshakeMessage { from: from.endpoint, len: datagram.len(), bytes });
    }
}

/// Opens one data message into the buffer and checks its content.
#[expect(clippy::too_many_arguments, reason = "the innermost step of a loop: each is a local of it")]
#[inline]
fn open(
    shared: &Shared,
    table: &Table,
    peer: &Peer,
    state: &mut State,
    datagram: &[u8],
    from: &Received,
    opened: &mut OpenedPackets,
    now: Now,
) {
    let start = opened.used;
    let Some(place) = opened.arena.get_mut(start..start + datagram.len()) else { return };
    let len = match state.open(&from.endpoint, datagram, place, now) {
        Ok(Opened::Packet(len)) => len,
        Ok(Opened::Keepalive) => return,
        Err(_) => {
            Counters::count(&shared.counters.rejected);
            return;
        }
    };
    let packet = &mut place[..len];
    let source = packet::source(packet);
    let is_allowed = source.is_some_and(|source| table.may_use_source(peer, source));
    if !is_allowed || ecn::decapsulate(packet, from.tos) == ecn::Verdict::Drop {
        Counters::count(if is_allowed { &shared.counters.rejected } else { &shared.counters.spoofed });
        if let Some(source) = source.filter(|_| !is_allowed) {
            state.note_foreign_source(source, now);
        }
        return;
    }
    opened.used = start + len;
    opened.coalescer.add(&opened.arena, start..start + len);
}

/// Sends what waited for the session that this message confirmed.
#[cold]
fn flush_staged(peer: &Arc<Peer>, state: &mut State, runs: &mut Runs, waiting: &mut Vec<Arc<Peer>>, now: Now) {
    let Some(endpoint) = state.endpoint() else { return };
    add_staged(peer, state, &endpoint, runs, now);
    if state.has_staged() && !waiting.iter().any(|other| Arc::ptr_eq(other, peer)) {
        waiting.push(Arc::clone(peer));
    }
}

/// Adds the packets of a peer that waited for a session to the runs, as many as there is room for.
pub(crate) fn add_staged(peer: &Peer, state: &mut State, endpoint: &Endpoint, runs: &mut Runs, now: Now) {
    let mut message = vec![0; super::transport::MAX_RUN];
    while runs.has_room() {
        let Some(len) = state.next_staged(&mut message, now) else { break };
        runs.add(endpoint, peer.slot, &message[..len]);
    }
}
