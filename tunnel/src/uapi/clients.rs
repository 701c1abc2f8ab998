//! Who is connected to the socket, and who has to go when somebody else waits: a client that is silent.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a client that has asked nothing yet may be silent while another one waits for its place. wg(8) asks at
/// once.
const GRACE_OF_NEW: Duration = Duration::from_millis(100);
/// How long a client that has sent something may be silent while another one waits for its place.
const GRACE: Duration = Duration::from_secs(1);

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
    connected: Instant,
    /// When it sent or took something last, in milliseconds since it connected.
    active: AtomicU64,
    has_asked: AtomicBool,
    /// Whether a change of its is being carried out.
    is_served: AtomicBool,
    is_dismissed: AtomicBool,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Self {
        let no = || AtomicBool::new(false);
        Self {
            stream,
            connected: Instant::now(),
            active: AtomicU64::new(0),
            has_asked: no(),
            is_served: no(),
            is_dismissed: no(),
        }
    }

    /// Notes that it sent or took something.
    pub(super) fn note_activity(&self) {
        let elapsed = u64::try_from(self.connected.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active.store(elapsed, Ordering::Relaxed);
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// Carries out a change of the client, which keeps its place meanwhile.
    pub(super) fn served<T>(&self, change: impl FnOnce() -> T) -> T {
        self.is_served.store(true, Ordering::Relaxed);
        let result = change();
        self.note_activity();
        self.is_served.store(false, Ordering::Relaxed);
        result
    }

    /// How long it may still be silent.
    fn grace_left(&self, now: Instant) -> Duration {
        let active = self.connected + Duration::from_millis(self.active.load(Ordering::Relaxed));
        let grace = if self.has_asked.load(Ordering::Relaxed) { GRACE } else { GRACE_OF_NEW };
        (active + grace).saturating_duration_since(now)
    }
}

/// All clients, by the order in which they came.
pub(super) type Clients = BTreeMap<u64, Arc<Client>>;

/// Disconnects the client that has been silent for longest, because another one waits for its place. How long to wait
/// until there is a place, or one may be made; `None`: until a client goes by itself.
pub(super) fn make_room(clients: &Clients, now: Instant) -> Option<Duration> {
    if clients.values().any(|client| client.is_dismissed.load(Ordering::Relaxed)) {
        return None;
    }
    let idle = clients.values().filter(|client| !client.is_served.load(Ordering::Relaxed));
    let client = idle.min_by_key(|client| client.grace_left(now))?;
    let left = client.grace_left(now);
    if left.is_zero() {
        client.is_dismissed.store(true, Ordering::Relaxed);
        // Err: it has gone by itself. Its thread notices either, and wakes the accepting one.
        let _ = client.stream.shutdown(Shutdown::Both);
        return None;
    }
    Some(left)
}
