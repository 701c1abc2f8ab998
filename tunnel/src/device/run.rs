//! Sealed datagrams that wait to be sent, gathered so that one system call sends many.

use super::allowed_ips::Slot;
use super::message::{self, HANDSHAKE_TOS, INITIATION_LEN, Kind};
use super::shared::{Counters, Shared};
use super::transport::{Endpoint, MAX_RUN, MAX_SEGMENTS, Run, Sent, UdpSend};

/// The most runs that wait to be sent. More than one, because locks are released before anything is sent and one packet
/// from the inside may fill several.
const RUNS: usize = 8;

/// The destination of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// The peer's endpoint.
    pub endpoint: Endpoint,
    /// The outer type of service or traffic class.
    pub tos: u8,
    /// The peer; `None` for a cookie, whose receiver is not known yet.
    pub peer: Option<Slot>,
}

/// Datagrams of one size for one target.
#[derive(Debug)]
struct Gathered {
    bytes: Box<[u8]>,
    len: usize,
    segment: usize,
    count: usize,
    /// Whether the last datagram is shorter: nothing may follow it.
    closed: bool,
    target: Target,
}

impl Gathered {
    #[inline]
    fn takes(&self, target: &Target, len: usize) -> bool {
        self.grows(len) && len <= self.segment && self.target == *target
    }

    #[inline]
    fn grows(&self, by: usize) -> bool {
        !self.closed && self.count < MAX_SEGMENTS && self.len + by <= MAX_RUN
    }
}

/// Runs in the order in which they are to be sent.
#[derive(Debug)]
pub(crate) struct Runs {
    /// The first `used` are in use; memory of the others is kept.
    runs: Vec<Gathered>,
    used: usize,
}

impl Runs {
    /// No runs; their memory is allocated at their first use.
    pub(crate) fn new() -> Self {
        Self { runs: Vec::with_capacity(RUNS), used: 0 }
    }

    /// Whether a datagram of any size can still be added.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.used < RUNS
    }

    /// Reserves space for a datagram of `len` bytes (1 to [`MAX_RUN`]); [`Runs::commit`] adds it. `None` if there is no
    /// space. The space is at least as long as a handshake initiation, since the protocol core may write one instead.
    #[inline]
    pub(crate) fn reserve(&mut self, target: &Target, len: usize) -> Option<&mut [u8]> {
        let joins = self.last().is_some_and(|run| run.takes(target, len));
        if !joins {
            self.open(target, len)?;
        }
        let run = self.runs.get_mut(self.used - 1)?;
        run.bytes.get_mut(run.len..run.len + len.max(INITIATION_LEN))
    }

    #[inline]
    fn last(&self) -> Option<&Gathered> {
        self.runs.get(self.used.checked_sub(1)?)
    }

    fn open(&mut self, target: &Target, segment: usize) -> Option<()> {
        if !self.has_room() || segment == 0 || segment > MAX_RUN {
            return None;
        }
        if self.used == self.runs.len() {
            let bytes = vec![0; MAX_RUN + INITIATION_LEN].into_boxed_slice();
            self.runs.push(Gathered { bytes, len: 0, segment, count: 0, closed: false, target: *target });
        }
        let run = self.runs.get_mut(self.used)?;
        (run.len, run.segment, run.count, run.closed, run.target) = (0, segment, 0, false, *target);
        self.used += 1;
        Some(())
    }

    /// Adds a message of the timers: a keepalive, or a handshake message.
    pub(crate) fn add(&mut self, endpoint: &Endpoint, peer: Slot, message: &[u8]) {
        if message::kind(message) != Some(Kind::Data) {
            return self.add_handshake(endpoint, Some(peer), message);
        }
        let target = Target { endpoint: *endpoint, tos: 0, peer: Some(peer) };
        self.copy(&target, message);
    }

    /// Adds a handshake message, which has a DSCP of its own. Dropped if there is no space: the protocol retries it.
    pub(crate) fn add_handshake(&mut self, endpoint: &Endpoint, peer: Option<Slot>, message: &[u8]) {
        self.copy(&Target { endpoint: *endpoint, tos: HANDSHAKE_TOS, peer }, message);
    }

    fn copy(&mut self, target: &Target, message: &[u8]) {
        if let Some(place) = self.reserve(target, message.len()) {
            place[..message.len()].copy_from_slice(message);
            self.commit(message.len());
        }
    }

    /// Adds the datagram that was written to the space reserved last.
    #[inline]
    pub(crate) fn commit(&mut self, len: usize) {
        if let Some(run) = self.used.checked_sub(1).and_then(|last| self.runs.get_mut(last)) {
            run.len += len;
            run.count += 1;
            run.closed = len < run.segment;
        }
    }

    /// Releases the space reserved last: nothing was written to it.
    pub(crate) fn abandon(&mut self) {
        if self.last().is_some_and(|run| run.len == 0) {
            self.used -= 1;
        }
    }

    /// Passes all runs to `send`, except the last one if it can still grow and `keep_last` is set.
    pub(crate) fn drain(&mut self, keep_last: bool, mut send: impl FnMut(&Run<'_>, Option<Slot>)) {
        let kept = usize::from(keep_last && self.last().is_some_and(|run| run.grows(run.segment)));
        for run in self.runs.iter().take(self.used - kept).filter(|run| run.len > 0) {
            let Target { endpoint, tos, peer } = run.target;
            send(&Run { endpoint, tos, bytes: &run.bytes[..run.len], segment: run.segment }, peer);
        }
        if kept == 1 {
            self.runs.swap(0, self.used - 1);
        }
        self.used = kept;
    }

    /// Sends all runs, except the last one if it can still grow and `keep_last` is set.
    pub(crate) fn send(&mut self, shared: &Shared, net: &impl UdpSend, keep_last: bool) {
        self.drain(keep_last, |run, peer| {
            let sent = net.send(run);
            if !matches!(sent, Ok(Sent::Whole)) {
                record_result(shared, sent, peer);
            }
        });
    }
}

/// Updates a peer by the result of sending a run to it.
#[cold]
fn record_result(shared: &Shared, sent: std::io::Result<Sent>, peer: Option<Slot>) {
    let table = shared.table.read();
    let peer = peer.and_then(|slot| table.by_slot(slot));
    match (sent, peer) {
        (Ok(Sent::FromOtherAddress), Some(peer)) => peer.lock().clear_local_address(),
        (Ok(Sent::Fragmented), Some(peer)) => peer.lock().request_path_lookup(),
        (Ok(_), _) => {}
        (Err(error), _) => {
            tracing::debug!(%error, "a datagram was not sent");
            Counters::count(&shared.counters.send_failed);
        }
    }
}

impl Default for Runs {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(port: u16) -> Target {
        let endpoint = Endpoint::from(std::net::SocketAddr::from(([203, 0, 113, 9], port)));
        Target { endpoint, tos: 0, peer: None }
    }

    fn add(runs: &mut Runs, port: u16, len: usize) {
        runs.reserve(&target(port), len).expect("there is room")[..len].fill(0);
        runs.commit(len);
    }

    fn drained(runs: &mut Runs, keep_last: bool) -> Vec<(u16, usize, usize)> {
        let mut seen = Vec::new();
        runs.drain(keep_last, |run, _| seen.push((run.endpoint.address.port(), run.bytes.len(), run.segment)));
        seen
    }

    #[test]
    fn datagrams_of_one_size_for_one_endpoint_leave_together_and_a_shorter_one_is_the_last() {
        let mut runs = Runs::new();
        for len in [1452, 1452, 100, 1452] {
            add(&mut runs, 1, len);
        }
        add(&mut runs, 2, 1452);
        assert_eq!(drained(&mut runs, false), [(1, 3004, 1452), (1, 1452, 1452), (2, 1452, 1452)]);
        assert_eq!(drained(&mut runs, false), []);
    }

    #[test]
    fn a_run_is_no_longer_than_the_kernel_sends() {
        let mut runs = Runs::new();
        for _ in 0..46 {
            add(&mut runs, 1, 1452);
        }
        for _ in 0..65 {
            add(&mut runs, 2, 96);
        }
        let lens = [(1, 45 * 1452, 1452), (1, 1452, 1452), (2, 64 * 96, 96), (2, 96, 96)];
        assert_eq!(drained(&mut runs, false), lens);
    }

    #[test]
    fn the_last_run_may_wait_for_more_unless_it_is_full_or_closed() {
        let mut runs = Runs::new();
        add(&mut runs, 1, 1452);
        add(&mut runs, 2, 1452);
        assert_eq!(drained(&mut runs, true), [(1, 1452, 1452)]);
        add(&mut runs, 2, 1000);
        assert_eq!(drained(&mut runs, true), [(2, 2452, 1452)]);
        assert_eq!(drained(&mut runs, true), []);
    }

    #[test]
    fn there_is_space_for_eight_runs_and_an_abandoned_reservation_takes_none() {
        let mut runs = Runs::new();
        for port in 0..8 {
            assert!(runs.has_room());
            add(&mut runs, port, 96);
        }
        assert!(!runs.has_room());
        assert!(runs.reserve(&target(9), 96).is_none());
        drained(&mut runs, false);
        assert!(runs.reserve(&target(9), 96).is_some());
        runs.abandon();
        assert_eq!(drained(&mut runs, false), []);
    }
}
