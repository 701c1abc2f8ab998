//! The soak: random faults, one after another, beside a private host of each network that keeps asking a server on the
//! internet. What the daemon says about a network's paths is compared with what that host sees.
//!
//! Ignored by default; `make soak` runs it. The environment decides how much: `BASTIOND_SOAK_SEED`,
//! `BASTIOND_SOAK_SECONDS` (without it each kind of fault comes `BASTIOND_SOAK_ROUNDS` times, 10 by default) and
//! `BASTIOND_SOAK_WORLDS` (how many worlds have faults at the same time).

mod account;
mod kinds;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use libtest_mimic::Trial;
use parking_lot::Mutex;
use sandbox::daemon::Installation;
use sandbox::namespace::Namespace;
use sandbox::traffic;
use sandbox::world::{Settings, World};

use crate::gateway::{FAST, Result, Server, ensure, healthy, installation};
use account::{Account, Episode, Said, Timeline};
use kinds::{KINDS, Kind};

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("soak_what_the_paths_say_is_what_private_hosts_see", soak).with_ignored_flag(true)]
}

/// The second public address, under which the second network leaves.
pub(crate) const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);
/// Between two questions of a private host, and how long it waits for the answer.
const QUESTION: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(500));
/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(300);
/// How long a fault lasts: longer than the time in which it has to be noticed.
const LASTS: std::ops::Range<u64> = 11_000..16_000;
/// How long everything has to be well before the next fault, and how long that may take.
const CALM: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(40));

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn soak() -> Result {
    let seed = number("BASTIOND_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let seconds = number("BASTIOND_SOAK_SECONDS").map(Duration::from_secs);
    let rounds = number("BASTIOND_SOAK_ROUNDS").unwrap_or(10);
    let worlds = number("BASTIOND_SOAK_WORLDS").unwrap_or(2).max(1);
    let mut order: Vec<&'static Kind> = (0..rounds).flat_map(|_| KINDS.iter()).collect();
    Rng::with_seed(seed).shuffle(&mut order);
    let only = std::env::var("BASTIOND_SOAK_KIND").ok();
    order.retain(|kind| only.as_deref().is_none_or(|word| kind.name.contains(word)));
    println!("soak: seed {seed}, {} faults of {} kinds in {worlds} worlds", order.len(), KINDS.len());
    let (next, end) = (AtomicUsize::new(0), seconds.map(|seconds| Instant::now() + seconds));
    let account = Mutex::new(Account::default());
    std::thread::scope(|scope| -> Result {
        let work = |world: u64| {
            let (next, order, account) = (&next, &order, &account);
            move || one_world(seed.wrapping_add(world), next, order, end, account)
        };
        let threads: Vec<_> = (0..worlds).map(|world| scope.spawn(work(world))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a world's thread panicked")?)
    })?;
    let account = account.into_inner();
    println!("{account}");
    ensure(account.violations().is_empty(), format!("seed {seed}:\n{}", account.violations().join("\n")))
}

/// Begins and ends faults in one world until the list or the time is over.
fn one_world(
    seed: u64,
    next: &AtomicUsize,
    order: &[&'static Kind],
    end: Option<Instant>,
    account: &Mutex<Account>,
) -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    world.add_public_address(SECOND_ADDRESS)?;
    let installation = installation(&world)?;
    installation.write_config(&format!(
        "{FAST}[[network]]\nrange = \"10.2.0.0/16\"\negress_addresses = [\"{SECOND_ADDRESS}\"]\n"
    ))?;
    let _daemon = healthy(&installation)?;
    let watch = Watch::default();
    let mut random = Rng::with_seed(seed);
    std::thread::scope(|scope| {
        scope.spawn(|| watch.ask(world.web(), &server, 0));
        scope.spawn(|| watch.ask(world.tenant(), &server, 1));
        scope.spawn(|| watch.look(&installation));
        let worked = watch.faults(&world, &mut random, next, order, end);
        watch.stop.store(true, Ordering::Relaxed);
        worked
    })?;
    let timelines = watch.timelines.map(Mutex::into_inner);
    account.lock().add(&watch.episodes.into_inner(), &timelines);
    Ok(())
}

/// What is seen in one world, since the beginning of it.
struct Watch {
    begin: Instant,
    stop: AtomicBool,
    /// Of the private network and of the second one.
    timelines: [Mutex<Timeline>; 2],
    episodes: Mutex<Vec<Episode>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            stop: AtomicBool::new(false),
            timelines: Default::default(),
            episodes: Mutex::default(),
        }
    }
}

/// The networks of the timelines.
const NETWORKS: [&str; 2] = ["10.0.0.0/16", "10.2.0.0/16"];

impl Watch {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A private host's questions.
    fn ask(&self, host: &Namespace, server: &Server, network: usize) {
        while !self.is_over() {
            let asked = Instant::now();
            let answered = traffic::udp_probe(host, server.udp.address(), QUESTION.1).is_ok();
            self.timelines[network].lock().answered.push((asked.duration_since(self.begin), answered));
            std::thread::sleep(QUESTION.0.saturating_sub(asked.elapsed()));
        }
    }

    /// What the daemon says.
    fn look(&self, installation: &Installation<'_>) {
        while !self.is_over() {
            if let Some(said) = said(installation) {
                let now = self.begin.elapsed();
                for (timeline, (said, detail)) in self.timelines.iter().zip(said) {
                    timeline.lock().said.push((now, said, detail));
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    fn is_calm(&self) -> bool {
        self.timelines.iter().all(|timeline| timeline.lock().is_calm(self.begin.elapsed(), CALM.0))
    }

    fn wait_for_calm(&self, after: &str) -> Result {
        let begin = Instant::now();
        while !self.is_calm() {
            if begin.elapsed() > CALM.1 {
                let last: Vec<_> = self.timelines.iter().map(|timeline| timeline.lock().last()).collect();
                return Err(format!("not well {:?} after the end of `{after}`: {last:?}", CALM.1).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn faults(
        &self,
        world: &World,
        random: &mut Rng,
        next: &AtomicUsize,
        order: &[&'static Kind],
        end: Option<Instant>,
    ) -> Result {
        let mut before = "the start";
        while end.is_none_or(|end| Instant::now() < end) {
            let Some(kind) = order.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(()) };
            self.wait_for_calm(before)?;
            let begin = self.begin.elapsed();
            kind.begin(world).map_err(|error| format!("`{}` does not begin: {error:?}", kind.name))?;
            std::thread::sleep(Duration::from_millis(random.u64(LASTS)));
            kind.end(world).map_err(|error| format!("`{}` does not end: {error:?}", kind.name))?;
            self.episodes.lock().push(Episode { kind: kind.name, begin });
            before = kind.name;
        }
        self.wait_for_calm(before)
    }
}

/// What the daemon says about each network, with the paths that are not ok; `None` if it does not answer.
fn said(installation: &Installation<'_>) -> Option<[(Said, String); 2]> {
    let output = installation.ctl(&["status", "--json"]).ok()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let paths = report["paths"].as_array()?;
    Some(NETWORKS.map(|network| {
        let of_network = || paths.iter().filter(|path| path["network"] == network);
        let not_ok = of_network().filter(|path| path["state"] != "ok");
        let words = |path: &serde_json::Value| format!("{} {}: {}", path["kind"], path["state"], path["detail"]);
        let detail = not_ok.map(words).collect::<Vec<_>>().join("; ");
        let said = if of_network().any(|path| path["state"] == "lost") {
            Said::Lost
        } else if of_network().next().is_some() && detail.is_empty() {
            Said::Ok
        } else {
            Said::Unknown
        };
        (said, detail)
    }))
}
