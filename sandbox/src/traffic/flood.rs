//! A steady stream of numbered datagrams, and the answers to them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::wait::{set_poll_interval, widen_receive_buffer};
use crate::namespace::{self, Namespace};

/// How long [`Flood::stop`] waits for the last answers.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_millis(500);

/// A running stream of datagrams from a namespace to a [`Reflector::udp`](super::Reflector::udp).
#[derive(Debug)]
pub struct Flood {
    stop_sending: Arc<AtomicBool>,
    stop_receiving: Arc<AtomicBool>,
    /// Distinct answers so far.
    answered: Arc<AtomicU64>,
    sender: Option<JoinHandle<Sent>>,
    receiver: Option<JoinHandle<Received>>,
}

/// The result of a [`Flood`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FloodReport {
    /// The number of datagrams sent, including those that the kernel refused to send.
    pub sent: u64,
    /// How many of them were answered.
    pub received: u64,
    /// The numbers of the datagrams without an answer; the first datagram is 0.
    pub lost: Vec<u64>,
    /// The longest time between two answers while datagrams were being sent.
    pub longest_gap: Duration,
}

struct Sent {
    count: u64,
    end: Instant,
}

struct Received {
    numbers: BTreeSet<u64>,
    last: Instant,
    longest_gap: Duration,
}

impl Flood {
    /// Starts to send `rate` datagrams per second (1 to about 20 000) to a UDP reflector.
    ///
    /// # Panics
    /// The rate is 0.
    pub fn start(from: &Namespace, target: impl Into<SocketAddr>, rate: u32) -> Result<Self, namespace::Error> {
        let target = target.into();
        let any = match target {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = from.bind_udp((any, 0))?;
        let ready =
            set_poll_interval(&socket).and_then(|()| widen_receive_buffer(&socket)).and_then(|()| socket.try_clone());
        let failed =
            |source| namespace::Error::Listen { namespace: from.name().to_owned(), address: (any, 0).into(), source };
        let answers = ready.map_err(failed)?;
        let (stop_sending, stop_receiving) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let answered = Arc::<AtomicU64>::default();
        let start = Instant::now();
        let interval = Duration::from_secs(1) / rate;
        let sender = thread::spawn({
            let stop = stop_sending.clone();
            move || send(&socket, target, start, interval, &stop)
        });
        let receiver = thread::spawn({
            let (stop, answered) = (stop_receiving.clone(), answered.clone());
            move || receive(&answers, start, &answered, &stop)
        });
        let (sender, receiver) = (Some(sender), Some(receiver));
        Ok(Self { stop_sending, stop_receiving, answered, sender, receiver })
    }

    /// The number of datagrams answered so far.
    pub fn received(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Stops sending, waits up to half a second for the last answers, and returns the result.
    ///
    /// # Panics
    /// A thread of the flood panicked.
    pub fn stop(mut self) -> FloodReport {
        self.stop_sending.store(true, Ordering::Relaxed);
        let sent = self.sender.take().expect("stopped only once").join().expect("the sender does not panic");
        let deadline = sent.end + LAST_ANSWERS_TIMEOUT;
        while self.received() < sent.count && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.stop_receiving.store(true, Ordering::Relaxed);
        let received = self.receiver.take().expect("stopped only once").join().expect("the receiver does not panic");
        report(&sent, &received)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop_sending.store(true, Ordering::Relaxed);
        self.stop_receiving.store(true, Ordering::Relaxed);
    }
}

fn report(sent: &Sent, received: &Received) -> FloodReport {
    let lost: Vec<u64> = (0..sent.count).filter(|number| !received.numbers.contains(number)).collect();
    let silence_at_end = sent.end.saturating_duration_since(received.last);
    FloodReport {
        sent: sent.count,
        received: sent.count - u64::try_from(lost.len()).expect("a count fits"),
        lost,
        longest_gap: received.longest_gap.max(silence_at_end),
    }
}

fn send(socket: &UdpSocket, target: SocketAddr, start: Instant, interval: Duration, stop: &AtomicBool) -> Sent {
    let mut count = 0_u64;
    let mut due = start;
    while !stop.load(Ordering::Relaxed) {
        // Each datagram has its time, so that a late sender catches up.
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A datagram that the kernel refuses (no route, no buffer) counts as lost.
        let _ = socket.send_to(&count.to_be_bytes(), target);
        count += 1;
        due += interval;
    }
    Sent { count, end: Instant::now() }
}

fn receive(socket: &UdpSocket, start: Instant, count: &AtomicU64, stop: &AtomicBool) -> Received {
    let mut received = Received { numbers: BTreeSet::new(), last: start, longest_gap: Duration::ZERO };
    let mut buffer = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let Some(number) = number_in(&buffer[..length]) else { continue };
        if received.numbers.insert(number) {
            let now = Instant::now();
            received.longest_gap = received.longest_gap.max(now - received.last);
            received.last = now;
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    received
}

/// The number that the reflector repeats after the line with the source address.
fn number_in(answer: &[u8]) -> Option<u64> {
    let end_of_line = answer.iter().position(|&byte| byte == b'\n')?;
    answer[end_of_line + 1..].try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_follows_the_first_line() {
        let mut answer = b"198.51.100.2:4711\n".to_vec();
        answer.extend_from_slice(&2570_u64.to_be_bytes());
        // 2570 is 0x0a0a: two line ends within the number.
        assert_eq!(number_in(&answer), Some(2570));
        assert_eq!(number_in(b"no line's end"), None);
        assert_eq!(number_in(b"198.51.100.2:4711\nshort"), None);
    }

    #[test]
    fn a_report_lists_the_lost_datagrams_and_counts_the_gap_at_the_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let sent = Sent { count: 5, end: at(500) };
        let received = Received { numbers: [0, 1, 4].into(), last: at(200), longest_gap: Duration::from_millis(150) };
        let expected = FloodReport { sent: 5, received: 3, lost: vec![2, 3], longest_gap: Duration::from_millis(300) };
        assert_eq!(report(&sent, &received), expected);
    }
}
