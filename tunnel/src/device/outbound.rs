//! From the inside to the outside: packets are read from the TUN interface, cut into segments, sealed straight into the
//! buffers that are sent, and leave in runs.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::clock::Now;
use super::message::{DATA_OVERHEAD, INITIATION_LEN};
use super::packet::{self, VNET_HEADER_LEN, VnetHeader};
use super::peer::{Peer, Sealed};
use super::run::{Runs, Target};
use super::segment::{self, Segments};
use super::shared::{Counters, Shared};
use super::transport::{MAX_RUN, Tun, UdpSend};
use super::{ecn, icmp};

/// Space behind a packet for its padding.
const SPARE: usize = 64;
/// The largest IP packet with its header, and space behind it, in bytes.
const BUFFER: usize = VNET_HEADER_LEN + 65_535 + SPARE;
/// The largest packet that fits into a datagram with its padding, in bytes.
const MAX_INNER_PACKET: usize = (MAX_RUN - DATA_OVERHEAD) / 16 * 16;
/// Packets that are read before a caller without other work checks for changes.
pub(crate) const BUDGET: usize = 256;
/// So many segments are sealed before the lock is released to a thread that waits for the same peer in the other
/// direction.
const PACKETS_PER_LOCK: usize = 8;
/// ICMP errors to the inside, in [`ICMP_WINDOW`] (the kernel's `icmp_ratelimit` is of the same order).
const ICMP_BURST: u32 = 50;
const ICMP_WINDOW: Duration = Duration::from_millis(100);

/// Whether more may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// Nothing waits any more.
    Empty,
    /// More may wait; the budget is used up.
    More,
}

/// One thread's work from the inside to the outside.
#[derive(Debug)]
pub(crate) struct Outbound {
    shared: Arc<Shared>,
    buffer: Box<[u8]>,
    runs: Runs,
    /// The peer of the last packet's destination, valid while the table is unchanged.
    last: Option<(u64, IpAddr, Arc<Peer>)>,
    icmp_limiter: IcmpLimiter,
}

impl Outbound {
    /// Has carried nothing yet.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            runs: Runs::new(),
            last: None,
            icmp_limiter: IcmpLimiter { since: Duration::ZERO, left: ICMP_BURST },
        }
    }

    /// Carries what waits, at most `budget` packets.
    ///
    /// # Errors
    /// Those of the TUN interface, except `WouldBlock`.
    pub(crate) fn pump(&mut self, tun: &impl Tun, net: &impl UdpSend, now: Now, budget: usize) -> io::Result<Pumped> {
        for _ in 0..budget {
            match tun.read(&mut self.buffer[..BUFFER - SPARE]) {
                Ok(len) => self.carry(len, tun, net, now),
                Err(error) => {
                    self.runs.send(&self.shared, net, false);
                    return if error.kind() == io::ErrorKind::WouldBlock { Ok(Pumped::Empty) } else { Err(error) };
                }
            }
        }
        self.runs.send(&self.shared, net, false);
        Ok(Pumped::More)
    }

    fn carry(&mut self, len: usize, tun: &impl Tun, net: &impl UdpSend, now: Now) {
        let Self { shared, buffer, runs, last, icmp_limiter } = self;
        let (header, packet) = buffer.split_at_mut(VNET_HEADER_LEN);
        let len = len.saturating_sub(VNET_HEADER_LEN);
        let Some((header, destination)) = VnetHeader::parse(header).zip(packet::destination(&packet[..len])) else {
            Counters::count(&shared.counters.malformed_inside);
            return;
        };
        let aimed = route(shared, last, destination).and_then(|peer| {
            let (endpoint, limit) = {
                let state = peer.lock();
                (state.endpoint()?, state.inner_limit())
            };
            let tos = ecn::encapsulate(packet::traffic_class(packet));
            Some((Target { endpoint, tos, peer: Some(peer.slot) }, limit, peer))
        });
        let Some((target, limit, peer)) = aimed else {
            Counters::count(&shared.counters.unroutable);
            icmp_limiter.send(|source| icmp::unreachable(&packet[..len], source), destination, tun, now);
            return;
        };
        let mtu = shared.mtu.load(Ordering::Relaxed);
        let mut split = segment::split(header, packet, len, mtu);
        // An IPv6 host may send packets of 1280 bytes in any case (RFC 8200 section 5): they are fragmented outside.
        let least = if destination.is_ipv6() { icmp::IPV6_MIN_MTU } else { 0 };
        let limit = limit.map_or(MAX_INNER_PACKET, |limit| limit.clamp(least, MAX_INNER_PACKET));
        if let Ok(segments) = &split {
            let longest = segments.segment_len();
            if longest > limit {
                if icmp::too_big(&packet[..len], limit, destination).is_some() {
                    Counters::count(&shared.counters.too_big);
                    icmp_limiter.send(|source| icmp::too_big(&packet[..len], limit, source), destination, tun, now);
                    return;
                }
                if longest > MAX_INNER_PACKET {
                    Counters::count(&shared.counters.too_big);
                    return;
                }
                // It may be fragmented: the kernel does that outside.
                split = segment::split(header.finished(), packet, len, mtu);
            }
        }
        match split {
            Ok(segments) => seal(shared, peer, &target, segments, runs, net, now),
            Err(malformed) => {
                tracing::trace!(?malformed, "a packet from the inside contradicts itself");
                Counters::count(&shared.counters.malformed_inside);
            }
        }
        runs.send(shared, net, true);
    }
}

/// The peer of an address. The last result is kept while the table is unchanged, so that a flow needs one look-up.
fn route<'a>(
    shared: &Shared,
    last: &'a mut Option<(u64, IpAddr, Arc<Peer>)>,
    destination: IpAddr,
) -> Option<&'a Arc<Peer>> {
    let generation = shared.generation.load(Ordering::Acquire);
    if !last.as_ref().is_some_and(|(known, address, _)| *known == generation && *address == destination) {
        *last = shared.table.read().route(destination).map(|peer| (generation, destination, Arc::clone(peer)));
    }
    last.as_ref().map(|(_, _, peer)| peer)
}

/// Seals all segments of one packet. Locks are released before anything is sent.
fn seal(
    shared: &Shared,
    peer: &Arc<Peer>,
    target: &Target,
    mut segments: Segments<'_>,
    runs: &mut Runs,
    net: &impl UdpSend,
    now: Now,
) {
    let mut segment = segments.next_segment();
    while segment.is_some() {
        if !runs.has_room() {
            runs.send(shared, net, false);
        }
        let mut state = peer.lock();
        if !state.is_awake() {
            drop(state);
            let table = shared.table.read();
            state = peer.lock();
            shared.wake(&table, peer, &mut state);
            if !state.is_awake() {
                // Without a private key, or the peer was just removed.
                Counters::count(&shared.counters.unroutable);
                return;
            }
        }
        let mut turn = 0;
        while let Some(packet) = segment.take() {
            if turn == PACKETS_PER_LOCK {
                MutexGuard::bump(&mut state);
                turn = 0;
                if !state.is_awake() {
                    // The other thread has ended the sessions: start again.
                    segment = Some(packet);
                    break;
                }
            }
            turn += 1;
            let Some(place) = runs.reserve(target, packet.len() + DATA_OVERHEAD) else {
                segment = Some(packet);
                break;
            };
            match state.seal(packet, place, now) {
                Sealed::Message(len) => runs.commit(len),
                Sealed::Initiation(len) => {
                    let mut initiation = [0; INITIATION_LEN];
                    let len = len.min(INITIATION_LEN);
                    initiation[..len].copy_from_slice(&place[..len]);
                    runs.abandon();
                    runs.add_handshake(&target.endpoint, target.peer, &initiation[..len]);
                }
                Sealed::Staged | Sealed::Exhausted => runs.abandon(),
            }
            segment = segments.next_segment();
            if !runs.has_room() {
                break;
            }
        }
    }
}

/// Sends ICMP errors to the inside, up to a rate limit.
#[derive(Debug)]
struct IcmpLimiter {
    since: Duration,
    left: u32,
}

impl IcmpLimiter {
    /// Sends the error about a packet to `destination`; `message` makes it, given its source.
    fn send(
        &mut self,
        message: impl Fn(IpAddr) -> Option<icmp::Message>,
        destination: IpAddr,
        tun: &impl Tun,
        now: Now,
    ) {
        let Some(error) = message(destination) else { return };
        if now.elapsed >= self.since + ICMP_WINDOW {
            *self = Self { since: now.elapsed, left: ICMP_BURST };
        }
        if self.left > 0 {
            self.left -= 1;
            let Some(receiver) = error.receiver() else { return };
            if tun.send_icmp(receiver, error.icmp()) {
                return;
            }
            // The kernel takes a packet from its own address over IPv6 only.
            let own = if receiver.is_ipv6() { tun.source_towards(receiver).and_then(message) } else { None };
            let message = own.unwrap_or(error);
            let header = VnetHeader::default().to_bytes();
            if let Err(error) = tun.write(&[IoSlice::new(&header), IoSlice::new(message.as_slice())]) {
                tracing::debug!(%error, "an ICMP error could not be sent to the inside");
            }
        }
    }
}
