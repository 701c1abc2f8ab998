//! What a pass does, for each state of the tunnel.

use std::time::{Duration, SystemTime};

use futures::future::{BoxFuture, FutureExt as _};
use tokio::time::Instant;

use super::*;
use crate::component::Plan as _;
use crate::config::{Config, Environment, parse};
use crate::inputs::{SeenReturnRoutes, tunnel};
use crate::site::{PublicLink, Site};
use crate::wireguard::active_peers::{ActivePeers, ActivePeersFile};
use crate::wireguard::backend::Backend;
use crate::wireguard::held::Held;
use crate::wireguard::known_key::ObservedKey;
use crate::wireguard::refused::RefusedLog;
use bastiond_tunnel::key::PrivateKey;
use bastiond_tunnel::model::{PeerSnapshot, Refused};

const ADA: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

/// A data plane that is only asked which one it is.
#[derive(Debug)]
struct Fake(BackendKind);

impl Backend for Fake {
    fn kind(&self) -> BackendKind {
        self.0
    }

    fn set(&self, _: Update) -> BoxFuture<'_, Result<(), backend::Error>> {
        std::future::ready(Ok(())).boxed()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, backend::Error>> {
        std::future::ready(Ok(Snapshot::default())).boxed()
    }

    fn refused(&self) -> BoxFuture<'_, Result<Option<Refused>, backend::Error>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn initiate_handshakes(&self, _: Vec<PublicKey>) -> BoxFuture<'_, Result<(), backend::Error>> {
        std::future::ready(Ok(())).boxed()
    }

    fn is_gone(&self) -> BoxFuture<'_, bool> {
        std::future::ready(false).boxed()
    }

    fn features(&self) -> Vec<String> {
        Vec::new()
    }

    fn held(&self) -> Held {
        Held::default()
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        std::future::pending().boxed()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), backend::Error>> {
        std::future::ready(Ok(())).boxed()
    }
}

fn key() -> PrivateKey {
    PrivateKey::from_bytes([200; 32])
}

fn ada() -> PublicKey {
    ADA.parse().unwrap()
}

fn interface(name: &str) -> InterfaceName {
    name.parse().unwrap()
}

/// A tunnel with one peer, and more lines of its section.
fn config(more: &str) -> Config {
    let text = format!(
        "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n{more}\n\
         [[wireguard.peer]]\nname = \"ada\"\npublic_key = \"{ADA}\"\nallowed_ips = [\"10.100.0.2/32\"]\n"
    );
    parse(&text, &Environment::default()).unwrap()
}

fn no_tunnel() -> Config {
    parse("", &Environment::default()).unwrap()
}

fn observed() -> Observed {
    Observed {
        running: None,
        links: Vec::new(),
        kernel_has_wireguard: false,
        left_in_kernel: None,
        has_inherited_tun: false,
        key: Some(observed_key(Ok(Some(key())))),
        last_seen: ActivePeers::new(),
        wall_clock: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
    }
}

fn observed_key(file: Result<Option<PrivateKey>, crate::wireguard::keyfile::Error>) -> ObservedKey {
    ObservedKey {
        configured: None,
        path: "/var/lib/bastiond/wireguard.key".into(),
        file,
        known: None,
        known_path: "/var/lib/bastiond/wireguard.pub".into(),
        is_reloaded: false,
    }
}

fn link(name: &str, kind: &str, is_marked: bool) -> Link {
    Link { name: name.to_owned(), index: 7, up: true, mtu: 1420, kind: Some(kind.to_owned()), is_marked }
}

fn idle() -> Wireguard {
    Wireguard::load(std::path::Path::new("/nonexistent"), std::path::Path::new("/nonexistent"), None)
}

/// A daemon whose interface `wg0` stands as configured.
fn running(config: &Config, kind: BackendKind) -> (Wireguard, Observed) {
    let mut wireguard = idle();
    let wanted = config.wireguard.as_ref().unwrap();
    let desired = Interface::desired(wanted, Some(key()), &wireguard.names);
    let peer = PeerSnapshot { allowed_ips: vec!["10.100.0.2/32".parse().unwrap()], ..PeerSnapshot::new(ada()) };
    let snapshot = Snapshot {
        private_key: Some(key()),
        listen_port: wanted.listen_port,
        peers: vec![peer],
        ..Snapshot::default()
    };
    wireguard.running = Some(Running {
        interface: interface("wg0"),
        choice: wanted.backend,
        backend: Box::new(Fake(kind)),
        problems: Vec::new(),
        mtu: 1420,
        labels: [(ada(), "ada".to_owned())].into(),
        expiries: BTreeMap::new(),
        out: Vec::new(),
        hosts: BTreeMap::new(),
        sites: BTreeSet::new(),
        watches: BTreeMap::new(),
        refused_log: RefusedLog::default(),
        configured: ConfiguredEndpoints::new(),
        settled: Some(desired),
        has_settled: true,
        key: Some(key()),
        last_seen: ActivePeers::new(),
        sessions_live: false,
        is_end_told: false,
        active_peers: ActivePeersFile::load(&interface("wg0"), std::path::Path::new("/nonexistent")),
        next_check: Instant::now(),
    });
    let kind = if kind == BackendKind::Kernel { "wireguard" } else { "tun" };
    let observed = Observed {
        running: Some(RunningState { is_gone: false, snapshot: Ok(snapshot) }),
        links: vec![link("wg0", kind, kind == "wireguard")],
        ..observed()
    };
    (wireguard, observed)
}

fn plan(wireguard: &Wireguard, config: &Config, observed: &Observed) -> Plan {
    let public = PublicLink { interface: interface("eth0"), mtu: 1500, addresses: Vec::new() };
    let site = Site { public: Some(public), ..Site::default() };
    let tunnel = tunnel(config, &site, &SeenReturnRoutes::new());
    let inputs = Inputs { config, site: &site, tunnel: tunnel.as_ref(), now: Instant::now() };
    wireguard.plan_pass(&inputs, observed)
}

fn start(plan: &Plan) -> Option<&Start> {
    plan.interface.as_ref()?.start.as_ref()
}

#[tokio::test]
async fn an_interface_that_stands_as_configured_needs_no_step() {
    let config = config("");
    for kind in [BackendKind::Userspace, BackendKind::Kernel] {
        let (wireguard, observed) = running(&config, kind);
        let plan = plan(&wireguard, &config, &observed);
        assert_eq!((plan.steps(), plan.problems()), (vec![], vec![]));
        assert_eq!(plan.interface.map(|interface| interface.is_repair), Some(false));
    }
}

#[tokio::test]
async fn a_first_start_makes_the_key_the_interface_and_its_peers() {
    let config = config("");
    let observed = Observed { key: Some(observed_key(Ok(None))), ..observed() };
    let plan = plan(&idle(), &config, &observed);
    assert_eq!(plan.steps(), ["make a private key in /var/lib/bastiond/wireguard.key", "make wg0 with 1 peer(s)"]);
    let interface = plan.interface.unwrap();
    assert_eq!(interface.update_described, ["peer ada added"]);
    assert_eq!(interface.set_up, Some(SetUp { is_down: true, wrong_mtu: None }));
}

#[tokio::test]
async fn a_link_of_another_program_is_left_alone_and_reported() {
    let config = config("");
    for (kind, is_marked) in [("wireguard", false), ("dummy", true)] {
        let observed = Observed { links: vec![link("wg0", kind, is_marked)], ..observed() };
        let plan = plan(&idle(), &config, &observed);
        assert_eq!(plan.steps(), Vec::<String>::new());
        let expected = format!("there is an interface wg0 already (a {kind} one), which is not bastiond's");
        assert_eq!(plan.problems()[0].what, expected);
    }
    // One that runs under another name continues meanwhile.
    let (wireguard, mut state) = running(&config, BackendKind::Userspace);
    state.links.push(link("wg1", "wireguard", false));
    let renamed = self::config("interface = \"wg1\"");
    let plan = plan(&wireguard, &renamed, &state);
    assert_eq!((plan.stop.clone(), plan.problems().len()), (None, 1));
}

#[tokio::test]
async fn an_interface_of_another_name_replaces_the_running_one() {
    let (wireguard, observed) = running(&config(""), BackendKind::Userspace);
    let plan = plan(&wireguard, &config("interface = \"wg1\""), &observed);
    assert_eq!(plan.steps(), ["remove wg0", "make wg1 with 1 peer(s)"]);
}

#[tokio::test]
async fn an_interface_that_a_former_daemon_left_to_the_kernel_goes_on_or_is_removed() {
    let left = |name| Observed {
        links: vec![link(name, "wireguard", true)],
        kernel_has_wireguard: true,
        left_in_kernel: Some(Snapshot::default()),
        ..observed()
    };
    let by_kernel = config("backend = \"kernel\"");
    let goes_on = plan(&idle(), &by_kernel, &left("wg0"));
    assert!(start(&goes_on).unwrap().is_left_in_kernel);
    assert_eq!(goes_on.steps(), ["listens on UDP 51820", "peer ada added"]);
    let replaced = plan(&idle(), &config(""), &left("wg0"));
    assert_eq!(replaced.steps(), ["make wg0 with 1 peer(s)"]);
    let other_name = plan(&idle(), &by_kernel, &left("wg7"));
    assert_eq!(other_name.steps(), ["remove wg7", "make wg0 with 1 peer(s)"]);
    let unwanted = plan(&idle(), &no_tunnel(), &left("wg0"));
    assert_eq!(unwanted.steps(), ["remove wg0"]);
}

#[tokio::test]
async fn a_kernel_without_wireguard_is_an_obstacle_only_where_the_kernels_is_wanted() {
    let plan_of = |choice| plan(&idle(), &config(&format!("backend = \"{choice}\"")), &observed());
    assert_eq!(plan_of("kernel").problems()[0].what, "this kernel has no WireGuard");
    assert_eq!(start(&plan_of("auto")).map(|start| start.kind), Some(BackendKind::Userspace));
}

#[tokio::test]
async fn another_choice_of_a_backend_restarts_only_if_the_data_plane_differs() {
    let (wireguard, state) = running(&config(""), BackendKind::Userspace);
    let to_auto = plan(&wireguard, &config("backend = \"auto\""), &state);
    assert_eq!(to_auto.steps(), Vec::<String>::new());
    let state = Observed { kernel_has_wireguard: true, ..state };
    let to_kernel = plan(&wireguard, &config("backend = \"kernel\""), &state);
    assert_eq!(to_kernel.steps(), ["remove wg0", "make wg0 with 1 peer(s)"]);
}

#[tokio::test]
async fn a_deleted_interface_is_made_again_and_its_peers_get_a_handshake() {
    let config = config("");
    let (wireguard, mut state) = running(&config, BackendKind::Userspace);
    state.running = Some(RunningState { is_gone: true, snapshot: Ok(Snapshot::default()) });
    state.links.clear();
    state.last_seen = [(ada(), "192.0.2.1:1".parse().unwrap())].into();
    let plan = plan(&wireguard, &config, &state);
    assert_eq!(plan.reap, Some(interface("wg0")));
    assert_eq!(plan.steps(), ["make wg0 with 1 peer(s)", "initiate handshakes with 1 peer(s) that were active"]);
    let update = plan.interface.unwrap().update.unwrap();
    assert_eq!(update.peers[0].endpoint, Some("192.0.2.1:1".parse().unwrap()));
}

#[tokio::test]
async fn inherited_descriptors_are_taken_over_or_released() {
    let mut wireguard = idle();
    wireguard.inherited = vec![("tun-wg0".to_owned(), std::fs::File::open("/dev/null").unwrap().into())];
    let state = || Observed { has_inherited_tun: true, links: vec![link("wg0", "tun", false)], ..observed() };
    let taken_over = plan(&wireguard, &config(""), &state());
    assert!(!taken_over.release_inherited);
    assert_eq!(taken_over.interface.unwrap().set_up, None, "it is up already");
    assert!(plan(&wireguard, &no_tunnel(), &state()).release_inherited);
    // The service manager's store keeps the interface; once that has closed it, the next pass continues.
    let state = Observed { kernel_has_wireguard: true, ..state() };
    let by_kernel = plan(&wireguard, &config("backend = \"kernel\""), &state);
    assert!(by_kernel.release_inherited && by_kernel.problems().len() == 1);
}

#[tokio::test]
async fn what_another_program_changed_is_repaired_and_what_the_configuration_changed_is_not_a_repair() {
    let config_before = config("");
    let (wireguard, mut state) = running(&config_before, BackendKind::Userspace);
    let Some(RunningState { snapshot: Ok(snapshot), .. }) = &mut state.running else { unreachable!() };
    snapshot.peers[0].persistent_keepalive = 7;
    state.links[0].up = false;
    state.links[0].mtu = 1280;
    let repaired = plan(&wireguard, &config_before, &state);
    assert_eq!(repaired.steps(), ["peer ada changed", "set the link up", "change the MTU, which is 1280"]);
    assert!(repaired.interface.unwrap().is_repair);
    let (wireguard, state) = running(&config_before, BackendKind::Userspace);
    let changed = plan(&wireguard, &config("listen_port = 51821"), &state);
    assert_eq!(changed.steps(), ["listens on UDP 51821"]);
    assert!(!changed.interface.unwrap().is_repair);
}

#[tokio::test]
async fn another_port_is_announced_to_active_peers() {
    let config_before = config("");
    let (wireguard, mut state) = running(&config_before, BackendKind::Userspace);
    let then = state.wall_clock - Duration::from_secs(10);
    let Some(RunningState { snapshot: Ok(snapshot), .. }) = &mut state.running else { unreachable!() };
    snapshot.peers[0].last_handshake = Some(then);
    let plan = plan(&wireguard, &config("listen_port = 51821"), &state);
    assert_eq!(plan.interface.unwrap().initiate, [ada()].into());
}

#[tokio::test]
async fn a_key_that_cannot_be_read_leaves_everything_as_it_is() {
    let config = config("");
    let (wireguard, mut state) = running(&config, BackendKind::Userspace);
    let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    state.key = Some(observed_key(Err(crate::wireguard::keyfile::Error::Read { path: "/key".into(), source })));
    let plan = plan(&wireguard, &config, &state);
    assert_eq!(plan.steps(), Vec::<String>::new());
    let expected = format!(
        "cannot read the private key /key: permission denied; the tunnel goes on with the key that it has, {}",
        key().public()
    );
    assert_eq!(plan.problems()[0].what, expected);
}
