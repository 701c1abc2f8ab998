//! A server of a test in a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::namespace::Namespace;

/// The thread, and whom it has served. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Served<Client> {
    seen: Arc<Mutex<Vec<Client>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<Client: Clone + Send + 'static> Served<Client> {
    /// Runs `serve` in the namespace. It notes its clients, and returns soon after the flag is set.
    pub(super) fn start(
        namespace: &Namespace,
        serve: impl FnOnce(&Mutex<Vec<Client>>, &AtomicBool) + Send + 'static,
    ) -> Self {
        let (seen, stop): (Arc<Mutex<Vec<Client>>>, Arc<AtomicBool>) = Default::default();
        let shared = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = namespace.spawn(move || serve(&shared.0, &shared.1));
        Self { seen, stop, thread: Some(thread) }
    }

    /// The clients in the order of arrival.
    pub(super) fn seen(&self) -> Vec<Client> {
        self.seen.lock().clone()
    }
}

impl<Client> Drop for Served<Client> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is on stderr already.
            let _ = thread.join();
        }
    }
}
