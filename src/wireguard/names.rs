//! Names of endpoints: looked up beside the loop, and again while a peer does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::outcome::Problem;
use bastiond_tunnel::model::PeerSnapshot;

/// Before a name that did not resolve, or whose peer does not answer, is looked up again; doubled each time …
const FIRST: Duration = Duration::from_secs(15);
/// … up to this.
const LONGEST: Duration = Duration::from_secs(300);
/// How long a peer may leave what we send unanswered. WireGuard itself starts a handshake after 15 s of silence
/// (Keepalive-Timeout and Rekey-Timeout), and repeats it every 5 s.
const PATIENCE: Duration = Duration::from_secs(15);
/// A handshake younger than this is no sign of trouble: WireGuard makes a new one after 120 s (Rekey-After-Time).
const YOUNG: Duration = Duration::from_secs(120).saturating_add(PATIENCE);

/// A host's name and a port.
pub type Host = (String, u16);

/// How a name is looked up.
type Resolver = Arc<dyn Fn(Host) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The names that are wanted, and what is known of them.
pub struct Names {
    known: BTreeMap<Host, Known>,
    lookups: JoinSet<(Host, io::Result<Vec<SocketAddr>>)>,
    resolver: Resolver,
}

#[derive(Debug, Default)]
struct Known {
    /// What the newest answer was; an answer that fails leaves it.
    addresses: Vec<SocketAddr>,
    /// The one that is used.
    current: usize,
    running: bool,
    /// Look-ups since the peer answered last.
    attempts: u32,
    not_before: Option<Instant>,
    error: Option<String>,
}

impl Names {
    /// Names that the system resolves.
    pub fn of_system() -> Self {
        Self::with(Arc::new(|(host, port)| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
        }))
    }

    fn with(resolver: Resolver) -> Self {
        Self { known: BTreeMap::new(), lookups: JoinSet::new(), resolver }
    }

    /// Wants these names and no others. A new one is looked up at once, one that failed when its time has come.
    pub fn want(&mut self, hosts: &BTreeSet<Host>, now: Instant) {
        self.known.retain(|host, _| hosts.contains(host));
        for host in hosts {
            let known = self.known.entry(host.clone()).or_default();
            if known.addresses.is_empty() {
                self.look_up(host, now);
            }
        }
    }

    /// Where the name leads.
    pub fn address(&self, host: &Host) -> Option<SocketAddr> {
        let known = self.known.get(host)?;
        known.addresses.get(known.current).copied()
    }

    /// The peer behind the name does not answer: it may have moved.
    pub fn unanswered(&mut self, host: &Host, now: Instant) {
        self.look_up(host, now);
    }

    /// The peer behind the name answers.
    pub fn answered(&mut self, host: &Host) {
        if let Some(known) = self.known.get_mut(host).filter(|known| !known.running && !known.addresses.is_empty()) {
            (known.attempts, known.not_before) = (0, None);
        }
    }

    /// Starts a look-up, unless one runs or it is too early.
    fn look_up(&mut self, host: &Host, now: Instant) {
        let Some(known) = self.known.get_mut(host) else { return };
        if known.running || known.not_before.is_some_and(|not_before| now < not_before) {
            return;
        }
        known.running = true;
        let pause = FIRST.saturating_mul(1 << known.attempts.min(8)).min(LONGEST);
        known.attempts = known.attempts.saturating_add(1);
        known.not_before = Some(now + pause);
        let (host, resolver) = (host.clone(), Arc::clone(&self.resolver));
        self.lookups.spawn(async move {
            let answer = resolver(host.clone()).await;
            (host, answer)
        });
    }

    /// Waits until a name leads elsewhere than before, or there is something new to be told of it. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            match self.lookups.join_next().await {
                Some(Ok((host, answer))) => {
                    if self.take(&host, answer) {
                        return;
                    }
                }
                // A look-up that panicked: the next attempt comes in its time.
                Some(Err(_)) => self.known.values_mut().for_each(|known| known.running = false),
                None => return std::future::pending().await,
            }
        }
    }

    /// Takes an answer; whether it is news.
    fn take(&mut self, host: &Host, answer: io::Result<Vec<SocketAddr>>) -> bool {
        let before = self.address(host);
        let Some(known) = self.known.get_mut(host) else { return false };
        known.running = false;
        let error_before = known.error.clone();
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                // Where several are given and one does not answer, the next one may.
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
    pub fn problems(&self) -> Vec<Problem> {
        let failed = self.known.iter().filter_map(|((host, _), known)| Some((host, known.error.as_ref()?)));
        let advice = "check the peer's endpoint and this server's resolver (getent ahosts); tried again by itself";
        failed.map(|(host, error)| Problem::new(format!("{host} does not resolve: {error}"), advice)).collect()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("known", &self.known).finish_non_exhaustive()
    }
}

/// Whether a peer leaves what it is sent unanswered, by what its counters did between looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vigil {
    rx_bytes: u64,
    tx_bytes: u64,
    /// Since when something was sent to which nothing was answered.
    since: Option<Instant>,
}

impl Vigil {
    /// Looks at the peer, whose newest handshake is `age` old; whether it has been silent for too long.
    pub fn is_unanswered(&mut self, peer: &PeerSnapshot, age: Option<Duration>, now: Instant) -> bool {
        let is_young = age.is_some_and(|age| age < YOUNG);
        if is_young || peer.rx_bytes != self.rx_bytes {
            *self = Self { rx_bytes: peer.rx_bytes, tx_bytes: peer.tx_bytes, since: None };
        } else if peer.tx_bytes != self.tx_bytes {
            self.since.get_or_insert(now);
        }
        self.since.is_some_and(|since| now.duration_since(since) >= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use bastiond_tunnel::key::PublicKey;

    fn host() -> Host {
        ("vpn.example".to_owned(), 51820)
    }

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 51820))
    }

    /// A resolver that gives the answers of a list in turn, and the last one for good; no addresses are a failure.
    fn names(answers: &[&[u8]]) -> Names {
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
        let turn = Arc::new(Mutex::new(0));
        Names::with(Arc::new(move |_| {
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

    /// Whether something changes before any look-up that runs has ended.
    async fn changes(names: &mut Names) -> bool {
        tokio::time::timeout(Duration::from_millis(1), names.changed()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_once_and_again_only_when_its_peer_does_not_answer() {
        let mut names = names(&[&[1], &[2], &[2], &[3]]);
        names.want(&[host()].into(), Instant::now());
        assert_eq!(names.address(&host()), None);
        assert!(changes(&mut names).await);
        assert_eq!(names.address(&host()), Some(address(1)));
        names.want(&[host()].into(), Instant::now() + LONGEST);
        assert!(!changes(&mut names).await, "it is known");
        let mut now = Instant::now() + FIRST;
        names.unanswered(&host(), now);
        assert!(changes(&mut names).await);
        assert_eq!(names.address(&host()), Some(address(2)));
        names.unanswered(&host(), now + FIRST);
        assert!(!changes(&mut names).await, "it is too early");
        now += 2 * FIRST;
        names.unanswered(&host(), now);
        assert!(!changes(&mut names).await, "the same answer");
        now += 4 * FIRST;
        names.unanswered(&host(), now);
        assert!(changes(&mut names).await);
        assert_eq!(names.address(&host()), Some(address(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_addresses_the_next_one_is_tried() {
        let mut names = names(&[&[1, 2, 3]]);
        names.want(&[host()].into(), Instant::now());
        let mut tried = Vec::new();
        for turn in 1..=4 {
            assert!(changes(&mut names).await);
            tried.extend(names.address(&host()));
            names.unanswered(&host(), Instant::now() + LONGEST * turn);
        }
        assert_eq!(tried, [1, 2, 3, 1].map(address));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_tried_again_ever_later_and_takes_nothing_away() {
        let mut names = names(&[&[], &[], &[1], &[]]);
        let mut now = Instant::now();
        names.want(&[host()].into(), now);
        assert!(changes(&mut names).await, "a failure is news");
        let told = names.problems();
        assert_eq!(told[0].what, "vpn.example does not resolve: Temporary failure in name resolution");
        for pause in [FIRST, 2 * FIRST] {
            names.want(&[host()].into(), now + pause - Duration::from_secs(1));
            assert!(!changes(&mut names).await && names.address(&host()).is_none(), "before {pause:?}");
            now += pause;
            names.want(&[host()].into(), now);
            changes(&mut names).await;
        }
        assert_eq!((names.address(&host()), names.problems()), (Some(address(1)), vec![]));
        names.unanswered(&host(), now + LONGEST);
        assert!(changes(&mut names).await);
        assert_eq!((names.address(&host()), names.problems().len()), (Some(address(1)), 1));
        names.want(&BTreeSet::new(), now);
        assert_eq!((names.address(&host()), names.problems()), (None, vec![]), "nobody wants it any more");
    }

    #[test]
    fn a_peer_is_unanswered_when_15_seconds_of_sending_bring_nothing_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let peer = |rx_bytes, tx_bytes| PeerSnapshot {
            public_key: PublicKey([1; 32]),
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: 0,
            allowed_ips: Vec::new(),
            last_handshake: None,
            rx_bytes,
            tx_bytes,
        };
        let old = Some(Duration::from_secs(200));
        let mut vigil = Vigil::default();
        // Nobody speaks: nothing is amiss.
        assert!(!vigil.is_unanswered(&peer(0, 0), None, at(0)));
        assert!(!vigil.is_unanswered(&peer(0, 0), None, at(100)));
        // Handshakes are sent.
        assert!(!vigil.is_unanswered(&peer(0, 148), None, at(105)));
        assert!(!vigil.is_unanswered(&peer(0, 296), None, at(115)));
        assert!(vigil.is_unanswered(&peer(0, 444), None, at(120)));
        // An answer ends it.
        assert!(!vigil.is_unanswered(&peer(92, 592), Some(Duration::ZERO), at(121)));
        // An old session: only silence counts.
        assert!(!vigil.is_unanswered(&peer(92, 1000), Some(Duration::from_secs(100)), at(221)));
        assert!(!vigil.is_unanswered(&peer(92, 1148), old, at(321)));
        assert!(!vigil.is_unanswered(&peer(124, 1296), old, at(335)));
        assert!(!vigil.is_unanswered(&peer(124, 1444), old, at(337)));
        assert!(vigil.is_unanswered(&peer(124, 1444), old, at(352)));
    }
}
