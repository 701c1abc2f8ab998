//! Host names of endpoints: resolved in the background, and again while a peer does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::outcome::Problem;

/// Before a name is resolved again that failed, or whose peer does not answer.
const RETRY: Backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
const FIRST_RETRY: Duration = Duration::from_secs(15);
/// The name of a host with a changing address usually has a new one within minutes.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// A host's name and a port.
pub(super) type Host = (String, u16);

/// How a name is resolved.
type Resolver = Arc<dyn Fn(Host) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The requested names and their addresses.
pub(super) struct Names {
    known: BTreeMap<Host, Known>,
    lookups: JoinSet<(Host, io::Result<Vec<SocketAddr>>)>,
    resolver: Resolver,
}

#[derive(Debug)]
struct Known {
    /// The newest successful answer.
    addresses: Vec<SocketAddr>,
    /// The index of the address in use.
    current: usize,
    is_running: bool,
    /// Counts the look-ups since the peer answered last.
    retry: Backoff,
    not_before: Option<Instant>,
    error: Option<String>,
}

impl Known {
    fn new() -> Self {
        Self { addresses: Vec::new(), current: 0, is_running: false, retry: RETRY, not_before: None, error: None }
    }
}

impl Names {
    /// Names for the system's resolver.
    pub(super) fn with_system_resolver() -> Self {
        Self::with_resolver(Arc::new(|(host, port)| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
        }))
    }

    fn with_resolver(resolver: Resolver) -> Self {
        Self { known: BTreeMap::new(), lookups: JoinSet::new(), resolver }
    }

    /// Requests these names and no others. A new one is resolved at once, one that failed when its next attempt is due.
    pub(super) fn request(&mut self, hosts: &BTreeSet<Host>, now: Instant) {
        self.known.retain(|host, _| hosts.contains(host));
        for host in hosts {
            let known = self.known.entry(host.clone()).or_insert_with(Known::new);
            if known.addresses.is_empty() {
                self.look_up(host, now);
            }
        }
    }

    /// The address in use.
    pub(super) fn address(&self, host: &Host) -> Option<SocketAddr> {
        let known = self.known.get(host)?;
        known.addresses.get(known.current).copied()
    }

    /// Notes that the peer behind the name does not answer: its address may have changed.
    pub(super) fn note_unanswered(&mut self, host: &Host, now: Instant) {
        self.look_up(host, now);
    }

    /// Notes that the peer behind the name answers.
    pub(super) fn note_answered(&mut self, host: &Host) {
        if let Some(known) = self.known.get_mut(host).filter(|known| !known.is_running && !known.addresses.is_empty()) {
            known.retry.succeeded();
            known.not_before = None;
        }
    }

    /// Starts a look-up, unless one runs or the next one is not due.
    fn look_up(&mut self, host: &Host, now: Instant) {
        let Some(known) = self.known.get_mut(host) else { return };
        if known.is_running || known.not_before.is_some_and(|not_before| now < not_before) {
            return;
        }
        known.is_running = true;
        known.not_before = Some(now + known.retry.failed());
        let (host, resolver) = (host.clone(), Arc::clone(&self.resolver));
        self.lookups.spawn(async move {
            let answer = resolver(host.clone()).await;
            (host, answer)
        });
    }

    /// Waits until the address or the error of a name changes. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        loop {
            match self.lookups.join_next().await {
                Some(Ok((host, answer))) => {
                    if self.take(&host, answer) {
                        return;
                    }
                }
                // A look-up panicked: the next attempt comes when it is due.
                Some(Err(_)) => self.known.values_mut().for_each(|known| known.is_running = false),
                None => return std::future::pending().await,
            }
        }
    }

    /// Takes an answer; whether it changes the address or the error.
    fn take(&mut self, host: &Host, answer: io::Result<Vec<SocketAddr>>) -> bool {
        let before = self.address(host);
        let Some(known) = self.known.get_mut(host) else { return false };
        known.is_running = false;
        let error_before = known.error.clone();
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                // If one of several addresses does not answer, the next one may.
                let current = addresses.iter().position(|address| Some(*address) == before);
                known.current = current.map_or(0, |position| (position + 1) % addresses.len());
                (known.addresses, known.error) = (addresses, None);
            }
            Ok(_) => known.error = Some("no address is known for it".to_owned()),
            Err(error) => known.error = Some(error.to_string()),
        }
        known.error != error_before || self.address(host) != before
    }

    /// Names that do not resolve.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let failed = self.known.iter().filter_map(|((host, _), known)| Some((host, known.error.as_ref()?)));
        let advice =
            "check the peer's endpoint and this server's resolver (getent ahosts); the daemon retries by itself";
        failed
            .map(|(host, error)| {
                Problem::new("endpoint-unresolved", format!("{host} does not resolve: {error}"), advice)
            })
            .collect()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("known", &self.known).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn host() -> Host {
        ("vpn.example".to_owned(), 51820)
    }

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 51820))
    }

    /// A resolver that gives the answers of a list in turn, and then the last one for ever; an empty answer is a
    /// failure.
    fn names(answers: &[&[u8]]) -> Names {
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
        let turn = Arc::new(Mutex::new(0));
        Names::with_resolver(Arc::new(move |_| {
            let mut turn = turn.lock();
            let answer = answers[(*turn).min(answers.len() - 1)].clone();
            *turn += 1;
            let answer = if answer.is_empty() {
                Err(io::Error::other("Temporary failure in name resolution"))
            } else {
                Ok(answer.into_iter().map(address).collect())
            };
            Box::pin(async move { answer })
        }))
    }

    /// Whether something changes before all running look-ups have ended.
    async fn changes(names: &mut Names) -> bool {
        tokio::time::timeout(Duration::from_millis(1), names.changed()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_resolved_once_and_again_only_when_its_peer_does_not_answer() {
        let mut names = names(&[&[1], &[2], &[2], &[3]]);
        names.request(&[host()].into(), Instant::now());
        assert_eq!(names.address(&host()), None);
        assert!(changes(&mut names).await);
        assert_eq!(names.address(&host()), Some(address(1)));
        names.request(&[host()].into(), Instant::now() + LONGEST_RETRY);
        assert!(!changes(&mut names).await, "it is resolved already");
        let mut now = Instant::now() + FIRST_RETRY;
        names.note_unanswered(&host(), now);
        assert!(changes(&mut names).await);
        assert_eq!(names.address(&host()), Some(address(2)));
        names.note_unanswered(&host(), now + FIRST_RETRY);
        assert!(!changes(&mut names).await, "it is too early");
        now += 2 * FIRST_RETRY;
        names.note_unanswered(&host(), now);
        assert!(!changes(&mut names).await, "the same answer");
        now += 4 * FIRST_RETRY;
        names.note_unanswered(&host(), now);
        assert!(changes(&mut names).await);
        assert_eq!(names.address(&host()), Some(address(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_of_several_addresses_is_tried() {
        let mut names = names(&[&[1, 2, 3]]);
        names.request(&[host()].into(), Instant::now());
        let mut tried = Vec::new();
        for turn in 1..=4 {
            assert!(changes(&mut names).await);
            tried.extend(names.address(&host()));
            names.note_unanswered(&host(), Instant::now() + LONGEST_RETRY * turn);
        }
        assert_eq!(tried, [1, 2, 3, 1].map(address));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_look_up_is_reported_retried_with_growing_pauses_and_keeps_the_address() {
        let mut names = names(&[&[], &[], &[1], &[]]);
        let mut now = Instant::now();
        names.request(&[host()].into(), now);
        assert!(changes(&mut names).await, "a failure is a change");
        let problems = names.problems();
        assert_eq!(problems[0].what, "vpn.example does not resolve: Temporary failure in name resolution");
        for pause in [FIRST_RETRY, 2 * FIRST_RETRY] {
            names.request(&[host()].into(), now + pause - Duration::from_secs(1));
            assert!(!changes(&mut names).await && names.address(&host()).is_none(), "before {pause:?}");
            now += pause;
            names.request(&[host()].into(), now);
            changes(&mut names).await;
        }
        assert_eq!((names.address(&host()), names.problems()), (Some(address(1)), vec![]));
        names.note_unanswered(&host(), now + LONGEST_RETRY);
        assert!(changes(&mut names).await);
        assert_eq!((names.address(&host()), names.problems().len()), (Some(address(1)), 1));
        names.request(&BTreeSet::new(), now);
        assert_eq!((names.address(&host()), names.problems()), (None, vec![]), "it is not requested any more");
    }
}
