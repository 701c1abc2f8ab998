//! How many flows each source has, and who may open no more.
//!
//! One thread listens to the kernel's events of flows, for all who need them: today the limits. It is a thread and not
//! a task so that it keeps up while passes use the processor. It waits for an event without using any, then collects
//! for some milliseconds what comes: a thread that wakes for each event would make each new flow dearer.
//!
//! It counts flows by source, decides ([`decide`]) and writes the sets that the rules look into ([`sets`]). The counts
//! are right after a listing of the table: at the start, after events were lost, and once in a while.

mod counts;
mod decide;
mod listener;
mod message;
mod report;
mod sets;

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::observe::observe_usage;
use crate::error::chain;
use crate::inputs::FlowLimits;
use counts::Counts;
use decide::{Decision, Fill, Limits};
use listener::{Drained, Listener};

pub(crate) use decide::LimitReason;
pub(super) use report::SourceNames;
pub(crate) use report::{BusySource, FlowCount};

/// How long events are collected after the first one.
const COLLECT: Duration = Duration::from_millis(10);
/// The time between two decisions about more sources than [`FEW_SOURCES`]: each looks at all of them.
const COLLECT_MANY: Duration = Duration::from_millis(100);
const FEW_SOURCES: usize = 4096;
/// How often decisions are made while a source is limited, or the table is more than half full.
const TICK: Duration = Duration::from_secs(1);
/// How often the elements of the sets are written again: their time-out is longer.
const REFRESH: Duration = Duration::from_secs(sets::TIMEOUT_SECONDS / 3);
/// How often the table is listed although no event was lost. A flow that was born while nobody listened may not report
/// its end: the rules stand before the daemon runs, and at a boot before `nf_conntrack_events` is set. Most flows are
/// short, so the first listings come soon after each other.
const RELIST: Duration = Duration::from_secs(600);
/// The time from the first listing to the second one. It doubles up to [`RELIST`].
const FIRST_RELIST: Duration = Duration::from_secs(15);
/// A wait is counted in whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(1);
/// How long to wait between two listings because of lost events.
const RELIST_AFTER_LOSS: Duration = Duration::from_secs(2);
/// How many batches of events are applied that may be older than a listing.
const MAX_BATCHES_OF_LISTING: usize = 50;
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// How many events a datagram of the kernel's holds, and the flows by source that they leave. What cannot be read is
/// left out, with what follows it.
pub fn count_events(datagram: &[u8]) -> (u64, Vec<(IpAddr, u32)>) {
    let (mut counts, mut events) = (Counts::default(), 0);
    // Err: the listener stops at such a datagram, and starts again.
    let _ = message::for_each_event(datagram, |event| {
        events += 1;
        counts.apply(event);
    });
    (events, counts.iter().map(|(source, flows)| (source.address(), flows)).collect())
}

/// The thread, while there are limits. It ends with its value.
#[derive(Debug)]
pub(super) struct FlowCounter {
    state: Arc<Mutex<State>>,
    /// Closed to end the thread; written to wake it.
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and those who ask it share.
#[derive(Debug)]
struct State {
    limits: Limits,
    /// What `limits` was made of.
    wanted: FlowLimits,
    counts: Counts,
    decision: Decision,
    /// What the sets hold; `None`: it is not known.
    written: Option<Decision>,
    /// How many times events were lost.
    losses: u64,
    /// Why flows are not counted, or the sets cannot be written.
    error: Option<String>,
}

impl FlowCounter {
    /// Starts to listen. `sysctls` is `/proc/sys`.
    pub(super) fn start(limits: FlowLimits, sysctls: &Path) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State {
            limits: Limits::new(limits.clone()),
            wanted: limits,
            counts: Counts::default(),
            decision: Decision::default(),
            written: None,
            losses: 0,
            error: None,
        }));
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        // Opened here: the caller's next step may load rules, and no flow of theirs is missed.
        let listener = Listener::open();
        let worker = Worker {
            state: Arc::clone(&state),
            woken,
            sysctls: sysctls.to_owned(),
            listed: None,
            relist_after: FIRST_RELIST,
            tried_to_list: Instant::now(),
            refreshed: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("flow-counter".to_owned()).spawn(move || worker.run(listener))?;
        Ok(Self { state, wake: Some(wake), thread: Some(thread) })
    }

    /// Changes the limits.
    pub(super) fn follow(&self, limits: FlowLimits) {
        let mut state = self.state.lock();
        if state.wanted != limits {
            state.limits = Limits::new(limits.clone());
            state.wanted = limits;
            drop(state);
            self.wake();
        }
    }

    /// Writes the sets again, because new rules may have been loaded with empty ones.
    pub(super) fn write_sets_again(&self) {
        let mut state = self.state.lock();
        if state.written.as_ref().is_none_or(|written| *written != Decision::default()) {
            state.written = None;
            drop(state);
            self.wake();
        }
    }

    /// Wakes the thread. If the socket is full, it is awake anyway.
    fn wake(&self) {
        if let Some(mut wake) = self.wake.as_ref() {
            _ = io::Write::write(&mut wake, &[0]);
        }
    }

    /// The report of the moment.
    pub(super) fn report(&self, names: &SourceNames) -> FlowCount {
        let state = self.state.lock();
        let report = report::report(&state.counts, &state.decision, names);
        FlowCount { losses: state.losses, error: state.error.clone(), ..report }
    }
}

impl Drop for FlowCounter {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // It ends within a batch of events.
            _ = thread.join();
        }
    }
}

/// What only the thread has.
struct Worker {
    state: Arc<Mutex<State>>,
    woken: UnixStream,
    /// `/proc/sys`.
    sysctls: PathBuf,
    /// When the table was listed last; `None`: the counts are not right.
    listed: Option<Instant>,
    /// The time from that listing to the next one, unless events are lost.
    relist_after: Duration,
    tried_to_list: Instant,
    refreshed: Instant,
}

/// Why the thread stops to wait.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    /// Its value is gone.
    Ended,
    Events,
    Other,
}

impl Worker {
    fn run(mut self, mut listener: io::Result<Listener>) {
        loop {
            let result = listener.and_then(|mut listener| self.listen(&mut listener));
            let Err(error) = result else { return };
            // The message is the same as long as the cause is, so it is logged once.
            let message = format!("the kernel's events of flows cannot be read: {error}");
            if self.state.lock().error.as_ref() != Some(&message) {
                tracing::warn!(component = "flows", "{message}");
            }
            self.state.lock().error = Some(message);
            self.listed = None;
            if self.sleep(RETRY) == Woken::Ended {
                return;
            }
            listener = Listener::open();
        }
    }

    /// Waits without a listener.
    fn sleep(&mut self, time: Duration) -> Woken {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::sleep(left.min(Duration::from_millis(200)));
            if self.is_ended() {
                return Woken::Ended;
            }
        }
        Woken::Other
    }

    /// Reads what woke the thread. Whether its value is gone.
    fn is_ended(&mut self) -> bool {
        let mut buffer = [0; 64];
        loop {
            match self.woken.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Counts and decides until the thread's value is gone, or the listener fails.
    fn listen(&mut self, listener: &mut Listener) -> io::Result<()> {
        self.state.lock().error = None;
        self.relist_after = FIRST_RELIST;
        self.relist(listener)?;
        loop {
            self.decide();
            match self.wait(listener)? {
                Woken::Ended => return Ok(()),
                Woken::Other => {}
                Woken::Events => {
                    let few = self.state.lock().counts.sources() <= FEW_SOURCES;
                    std::thread::sleep(if few { COLLECT } else { COLLECT_MANY });
                    self.drain(listener)?;
                }
            }
            if self.listing_is_due() {
                self.relist_after = (2 * self.relist_after).min(RELIST);
                self.relist(listener)?;
            }
        }
    }

    fn wait(&mut self, listener: &Listener) -> io::Result<Woken> {
        let is_busy = {
            let state = self.state.lock();
            state.decision != Decision::default() || state.written.is_none() || self.listed.is_none()
        };
        let until_listing = self.listed.map_or(TICK, |listed| self.relist_after.saturating_sub(listed.elapsed()));
        let time = if is_busy { TICK } else { until_listing + ROUNDING };
        let (events, woken) = listener.wait(self.woken.as_fd(), time)?;
        if woken && self.is_ended() {
            return Ok(Woken::Ended);
        }
        Ok(if events { Woken::Events } else { Woken::Other })
    }

    /// Takes the events that wait, up to a batch.
    fn drain(&mut self, listener: &mut Listener) -> io::Result<Drained> {
        let mut state = self.state.lock();
        let drained = listener.drain(|event| state.counts.apply(event))?;
        if drained == Drained::Lost {
            state.losses += 1;
            self.listed = None;
            tracing::warn!(
                component = "flows",
                losses = state.losses,
                "events of flows were lost; flows are counted again"
            );
        }
        Ok(drained)
    }

    fn listing_is_due(&self) -> bool {
        match self.listed {
            Some(listed) => listed.elapsed() >= self.relist_after,
            None => self.tried_to_list.elapsed() >= RELIST_AFTER_LOSS,
        }
    }

    /// Lists the table, and applies what has happened meanwhile. If some of that was lost, the next listing is due
    /// soon.
    fn relist(&mut self, listener: &mut Listener) -> io::Result<()> {
        let counts = listener::list().map_err(|error| io::Error::other(chain(&error)))?;
        self.state.lock().counts = counts;
        let now = Instant::now();
        (self.listed, self.tried_to_list) = (Some(now), now);
        // What waits now is older than the listing, or a part of it. In a flood more comes all the time.
        for _ in 0..MAX_BATCHES_OF_LISTING {
            if self.drain(listener)? != Drained::Some {
                break;
            }
        }
        self.state.lock().counts.end_listing();
        Ok(())
    }

    /// Decides who may open no more flows, and writes it into the sets if that has changed.
    fn decide(&mut self) {
        let Some(usage) = observe_usage(&self.sysctls) else { return };
        let fill = Fill { entries: usage.entries, max: usage.max };
        let refresh = self.refreshed.elapsed() >= REFRESH;
        let mut state = self.state.lock();
        let decision = state.limits.decide(&state.counts, fill, &state.decision);
        let is_written = state.written.as_ref().is_some_and(|written| written.same_sets(&decision));
        state.decision = decision.clone();
        if is_written && (!refresh || decision.sets_are_empty()) {
            return;
        }
        drop(state);
        let result = sets::write(&decision);
        let mut state = self.state.lock();
        match result {
            Ok(()) => {
                self.refreshed = Instant::now();
                state.written = Some(decision);
                state.error = None;
            }
            // Without our rules there is nothing to limit; they are loaded soon.
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.written = None,
            Err(error) => {
                let message = format!("the kernel refuses the sets of limited sources: {error}");
                if state.error.as_ref() != Some(&message) {
                    tracing::warn!(component = "flows", "{message}");
                }
                (state.written, state.error) = (None, Some(message));
            }
        }
    }
}
