//! The hcloud component against the fake Hetzner Cloud over a real socket: failures of the API, and how the component
//! reacts to each.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy allows it only in functions that are marked as tests"
)]

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use bastiond::internals::component::{Component as _, preview, reconcile};
use bastiond::internals::config::{self, Config, Environment, Secret};
use bastiond::internals::hcloud::Hcloud;
use bastiond::internals::inputs::Inputs;
use bastiond::internals::net::NetworkId;
use bastiond::internals::outcome::{Outcome, Problem, State};
use bastiond::internals::site::{PrivateLink, Site};
use sandbox::cloud::{self, Busy, Cloud, Fault, Injection, Matching, ReadOnlyAnswer, Settings, Times, Visible};

const BASTION: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

/// A project with one network, and the component that keeps its routes.
struct Bench {
    cloud: Cloud,
    network: cloud::NetworkId,
    endpoint: String,
    token: String,
    options: String,
    /// The `[wireguard]` section.
    tunnel: String,
    component: Hcloud,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let token = settings.token.clone();
        let cloud = Cloud::new(settings);
        let network =
            cloud.create_network("private", "10.0.0.0/16".parse().unwrap(), &["10.0.0.0/24".parse().unwrap()]);
        let server = cloud.create_server("bastion", Some(Ipv4Addr::new(198, 51, 100, 2)));
        cloud.attach(server, network, BASTION, "86:00:00:00:00:02");
        let other = cloud.create_server("other", None);
        cloud.attach(other, network, OTHER_SERVER, "86:00:00:00:00:07");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1", listener.local_addr().unwrap());
        let serving = cloud.clone();
        tokio::spawn(async move { serving.serve(listener).await.unwrap() });
        Self {
            cloud,
            network,
            endpoint,
            token,
            options: String::new(),
            tunnel: String::new(),
            component: Hcloud::default(),
        }
    }

    fn config(&self) -> Config {
        let environment = Environment {
            hcloud_endpoint: Some(self.endpoint.clone()),
            hcloud_token: Some(Secret::new(self.token.clone())),
            ..Environment::default()
        };
        let text = format!("[hcloud]\ntoken_file = \"/nonexistent/token\"\n{}\n{}", self.options, self.tunnel);
        config::parse(&text, &environment).unwrap()
    }

    /// A configuration whose network is named by `HCLOUD_NETWORK`.
    fn config_with_network(&self, name: &str) -> Config {
        let mut config = self.config();
        config.hcloud.network = Some(name.to_owned());
        config
    }

    fn site(&self) -> Site {
        let link = PrivateLink {
            interface: "eth1".parse().unwrap(),
            mtu: 1450,
            address: BASTION,
            address_present: true,
            aliases: std::collections::BTreeSet::new(),
            network: "10.0.0.0/16".parse().unwrap(),
            network_id: Some(NetworkId(self.network.0)),
            network_name: None,
            gateway: None,
            behind: Vec::new(),
            is_local: false,
        };
        Site { private: vec![link], ..Site::default() }
    }

    async fn pass(&mut self) -> (Outcome, Duration) {
        let (config, site) = (self.config(), self.site());
        let outcome = self.pass_with(&config, &site).await;
        let pause = outcome.next_pass().unwrap();
        (outcome, pause)
    }

    async fn pass_with(&mut self, config: &Config, site: &Site) -> Outcome {
        reconcile(&mut self.component, &inputs(config, site)).await
    }

    async fn down(&mut self, site: &Site) -> (Vec<String>, Vec<Problem>) {
        self.component.down(&inputs(&self.config(), site)).await
    }

    /// Passes until the component is ok, as the loop would but with shorter pauses; how many it took.
    async fn passes_until_ok(&mut self) -> usize {
        for pass in 1..=10 {
            if self.pass().await.0.state == State::Ok {
                return pass;
            }
            tokio::time::sleep(2 * Settings::default().action_duration).await;
        }
        panic!("the component is not ok after 10 passes: {:?}", self.pass().await.0);
    }

    fn routes(&self) -> Vec<(String, Ipv4Addr)> {
        self.cloud.routes(self.network).iter().map(|route| (route.destination.to_string(), route.gateway)).collect()
    }

    fn inject(&self, matching: Matching, fault: Fault, times: Times) {
        self.cloud.inject(Injection { matching, fault, times });
    }
}

fn inputs<'a>(config: &'a Config, site: &'a Site) -> Inputs<'a> {
    Inputs { config, site, tunnel: None, now: tokio::time::Instant::now() }
}

fn default_route_here() -> Vec<(String, Ipv4Addr)> {
    vec![("0.0.0.0/0".to_owned(), BASTION)]
}

#[tokio::test]
async fn the_default_route_is_added_and_an_idle_pass_makes_one_call() {
    let mut bench = Bench::new();
    let (outcome, pause) = bench.pass().await;
    let network = bench.network.0;
    assert_eq!(outcome.state, State::Ok);
    assert_eq!(outcome.changes, [format!("route 0.0.0.0/0 via 10.0.0.2 added to network {network} (private)")]);
    assert!(!outcome.repaired);
    assert_eq!(bench.routes(), default_route_here());
    assert_eq!(pause, Duration::from_secs(20));
    let calls = bench.cloud.requests();
    assert!(
        calls.iter().all(|call| call.user_agent.as_deref() == Some(concat!("bastiond/", env!("CARGO_PKG_VERSION"))))
    );
    bench.cloud.forget_requests();
    let (again, _) = bench.pass().await;
    assert_eq!((again.state, again.changes.len()), (State::Ok, 0));
    assert_eq!(bench.cloud.requests().len(), 1, "an idle pass makes one call");
}

#[tokio::test]
async fn a_deleted_route_is_added_again_and_counted_as_a_repair() {
    let mut bench = Bench::new();
    bench.pass().await;
    bench.cloud.remove_route(bench.network, "0.0.0.0/0".parse().unwrap());
    let (outcome, _) = bench.pass().await;
    assert!(outcome.repaired);
    assert_eq!(bench.routes(), default_route_here());
}

#[tokio::test]
async fn a_default_route_to_another_server_is_replaced_only_with_take_over() {
    let mut bench = Bench::new();
    bench.pass().await;
    bench.cloud.put_route(bench.network, "0.0.0.0/0".parse().unwrap(), OTHER_SERVER);
    let (outcome, _) = bench.pass().await;
    assert_eq!(outcome.state, State::Waiting);
    assert_eq!(
        outcome.problems[0].what,
        format!("network {} (private) sends 0.0.0.0/0 to 10.0.0.7, which is not this server", bench.network.0)
    );
    assert_eq!(bench.routes(), [("0.0.0.0/0".to_owned(), OTHER_SERVER)]);
    bench.options = "take_over = true".to_owned();
    let (outcome, _) = bench.pass().await;
    assert_eq!((outcome.state, outcome.repaired, outcome.changes.len()), (State::Ok, true, 2));
    assert_eq!(bench.routes(), default_route_here());
}

#[tokio::test]
async fn routes_of_others_survive_take_over_and_down() {
    let mut bench = Bench::new();
    bench.options = "take_over = true".to_owned();
    let others = [("10.244.0.0/24", OTHER_SERVER), ("10.8.0.0/24", BASTION)];
    for (destination, gateway) in others {
        bench.cloud.put_route(bench.network, destination.parse().unwrap(), gateway);
    }
    bench.pass().await;
    let site = bench.site();
    let (changes, problems) = bench.down(&site).await;
    assert_eq!((changes.len(), problems), (1, vec![]));
    let left: Vec<_> = others.map(|(destination, gateway)| (destination.to_owned(), gateway)).to_vec();
    let mut routes = bench.routes();
    routes.sort_by_key(|(_, gateway)| *gateway == BASTION);
    assert_eq!(routes, left);
}

#[tokio::test]
async fn a_transient_failure_is_overcome_within_three_passes() {
    let hold = Duration::from_millis(100);
    let api = |status, code: &str| Fault::Api { status, code: code.to_owned(), message: "retry".to_owned() };
    let faults = [
        ("409", api(409, "conflict")),
        ("423", api(423, "locked")),
        ("429", Fault::RateLimited),
        ("500", Fault::Status { code: 500, json: true }),
        ("502", Fault::Status { code: 502, json: false }),
        ("503", Fault::Status { code: 503, json: true }),
        ("504", Fault::Status { code: 504, json: false }),
        ("no answer", Fault::Timeout { applied: false, hold }),
        ("lost answer", Fault::Timeout { applied: true, hold }),
        ("reset", Fault::Reset { applied: false }),
        ("reset after the change", Fault::Reset { applied: true }),
        ("truncated", Fault::TruncatedJson),
        ("action failed", Fault::ActionFailed),
        ("maintenance", Fault::Maintenance),
    ];
    for (name, fault) in &faults {
        for matching in [Matching::post("add_route"), Matching::get("/networks"), Matching::get("/actions")] {
            let mut bench = Bench::new();
            bench.inject(matching.clone(), fault.clone(), Times::Next(1));
            let passes = bench.passes_until_ok().await;
            assert!(passes <= 3, "{name} at {matching:?}: {passes} passes");
            assert_eq!(bench.routes(), default_route_here(), "{name} at {matching:?}");
        }
    }
}

#[tokio::test]
async fn a_lasting_failure_is_reported_with_the_apis_message_and_retried_less_often() {
    let mut bench = Bench::new();
    let fault = Fault::Api { status: 503, code: "unavailable".to_owned(), message: "back soon".to_owned() };
    bench.inject(Matching::any(), fault, Times::UntilCleared);
    let mut longest = Duration::ZERO;
    for _ in 0..8 {
        let (outcome, pause) = bench.pass().await;
        assert_eq!(outcome.state, State::Failed);
        let expected = format!("GET /networks/{} was refused: back soon (unavailable, HTTP 503)", bench.network.0);
        assert!(outcome.problems[0].what == expected, "{:?}", outcome.problems);
        assert!((Duration::from_secs(1)..=Duration::from_secs(30)).contains(&pause), "{pause:?}");
        longest = longest.max(pause);
    }
    assert!(longest > Duration::from_secs(1));
    bench.cloud.clear_faults();
    assert_eq!(bench.passes_until_ok().await, 1);
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_not_sent_twice() {
    let mut bench = Bench::new();
    bench.inject(Matching::post("add_route"), Fault::Reset { applied: true }, Times::Next(1));
    bench.passes_until_ok().await;
    let posts = bench.cloud.requests().iter().filter(|call| call.method == "POST").count();
    assert_eq!(posts, 1, "{:?}", bench.cloud.requests());
}

#[tokio::test]
async fn a_change_is_retried_while_the_network_is_locked() {
    for busy in [Busy::Conflict409, Busy::Locked423] {
        let settings = Settings { action_duration: Duration::from_millis(600), busy, ..Settings::default() };
        let mut bench = Bench::with(settings);
        let client = foreign_change(&bench, "10.9.0.0/24", OTHER_SERVER);
        tokio::task::spawn_blocking(client).await.unwrap();
        let (outcome, pause) = bench.pass().await;
        assert_eq!(outcome.state, State::Failed, "{busy:?}");
        assert_eq!(pause, Duration::from_secs(1), "the first retry comes after a second, like the official clients'");
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(bench.passes_until_ok().await, 1);
    }
}

/// Another client's change, sent over a plain socket, so that it shares no code with ours.
fn foreign_change(bench: &Bench, destination: &str, gateway: Ipv4Addr) -> impl FnOnce() + Send + 'static {
    use std::io::{Read as _, Write as _};
    let address = bench.endpoint.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let body = format!("{{\"destination\":\"{destination}\",\"gateway\":\"{gateway}\"}}");
    let request = format!(
        "POST /v1/networks/{}/actions/add_route HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        bench.network.0,
        bench.token,
        body.len()
    );
    move || {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

#[tokio::test]
async fn a_pass_waits_for_the_action_even_if_the_route_is_listed_earlier() {
    let settings =
        Settings { visible: Visible::OnAccept, action_duration: Duration::from_millis(300), ..Settings::default() };
    let mut bench = Bench::with(settings);
    let started = std::time::Instant::now();
    assert_eq!(bench.pass().await.0.state, State::Ok);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_wrong_token_is_reported_and_a_corrected_one_is_used_without_a_restart() {
    let mut bench = Bench::new();
    let right = std::mem::replace(&mut bench.token, "wrong".to_owned());
    let (outcome, pause) = bench.pass().await;
    assert_eq!(outcome.state, State::Failed);
    assert!(
        outcome.problems[0].what.contains("the token you have provided is invalid (unauthorized, HTTP 401"),
        "{outcome:?}"
    );
    assert!(!format!("{outcome:?}").contains("wrong"), "the report does not contain the token");
    assert_eq!(pause, Duration::from_secs(20), "the regular poll interval: only a person can help");
    bench.token = right;
    assert_eq!(bench.passes_until_ok().await, 1);
}

#[tokio::test]
async fn a_read_only_token_is_reported_as_such() {
    for read_only_answer in [ReadOnlyAnswer::TokenReadonly401, ReadOnlyAnswer::Forbidden403] {
        let mut bench = Bench::with(Settings { read_only_answer, ..Settings::default() });
        bench.token = Settings::default().read_only_token;
        let (outcome, _) = bench.pass().await;
        assert_eq!(outcome.state, State::Failed);
        assert_eq!(outcome.problems[0].advice, "the token may only read: give one with read and write permission");
    }
}

#[tokio::test]
async fn without_a_token_the_status_shows_the_command_to_run() {
    let mut bench = Bench::new();
    let environment = Environment { hcloud_endpoint: Some(bench.endpoint.clone()), ..Environment::default() };
    let config = config::parse("[hcloud]\ntoken_file = \"/nonexistent/token\"", &environment).unwrap();
    let site = bench.site();
    let outcome = bench.pass_with(&config, &site).await;
    assert_eq!(outcome.state, State::Waiting);
    let command = format!("hcloud network add-route {} --destination 0.0.0.0/0 --gateway 10.0.0.2", bench.network.0);
    assert!(outcome.problems[0].advice.ends_with(&command), "{outcome:?}");
    assert_eq!(bench.cloud.requests(), []);
}

#[tokio::test]
async fn a_network_without_subnets_and_a_missing_network_are_reported() {
    let mut bench = Bench::new();
    let bare = bench.cloud.create_network("bare", "10.5.0.0/16".parse().unwrap(), &[]);
    bench.network = bare;
    let (outcome, _) = bench.pass().await;
    assert_eq!(outcome.state, State::Waiting);
    assert_eq!(
        outcome.problems[0].what,
        format!("network {} (bare) has no subnet, so no server can be reached in it", bare.0)
    );
    bench.network = cloud::NetworkId(999_999);
    let (outcome, _) = bench.pass().await;
    assert_eq!(outcome.state, State::Failed);
    assert_eq!(outcome.problems[0].advice, "check that the token belongs to the project of this network");
}

#[tokio::test]
async fn hcloud_network_selects_the_network_by_name_or_id() {
    for name in ["private", "number"] {
        let mut bench = Bench::new();
        let name = if name == "number" { bench.network.0.to_string() } else { name.to_owned() };
        let config = bench.config_with_network(&name);
        let mut site = bench.site();
        site.private[0].network_id = None;
        let outcome = bench.pass_with(&config, &site).await;
        assert_eq!(outcome.state, State::Ok, "{outcome:?}");
        assert_eq!(bench.routes(), default_route_here());
    }
    let mut bench = Bench::new();
    let config = bench.config_with_network("nowhere");
    let mut site = bench.site();
    site.private[0].network_id = None;
    let outcome = bench.pass_with(&config, &site).await;
    assert_eq!(outcome.problems[0].what, "the project has no network called `nowhere` (HCLOUD_NETWORK)");
}

#[tokio::test]
async fn a_preview_changes_nothing() {
    let mut bench = Bench::new();
    let (config, site) = (bench.config(), bench.site());
    let (steps, problems) = preview(&mut bench.component, &inputs(&config, &site)).await.unwrap();
    assert_eq!(problems, []);
    assert_eq!(steps, [format!("add route 0.0.0.0/0 via 10.0.0.2 to network {} (private)", bench.network.0)]);
    assert_eq!(bench.routes(), []);
}

#[tokio::test]
async fn no_route_is_added_while_the_private_address_is_missing() {
    let mut bench = Bench::new();
    let (config, mut site) = (bench.config(), bench.site());
    site.private[0].address_present = false;
    let outcome = bench.pass_with(&config, &site).await;
    assert_eq!(outcome.state, State::Waiting);
    assert_eq!(bench.routes(), []);
}

#[tokio::test]
async fn down_retries_while_the_api_is_busy_and_reports_what_it_could_not_do() {
    let mut bench = Bench::new();
    bench.pass().await;
    let site = bench.site();
    let busy = Fault::Api { status: 409, code: "conflict".to_owned(), message: "busy".to_owned() };
    bench.inject(Matching::post("delete_route"), busy, Times::Next(2));
    let (changes, problems) = bench.down(&site).await;
    assert_eq!((changes.len(), problems), (1, vec![]));
    assert_eq!(bench.routes(), []);
    bench.pass().await;
    let forbidden = Fault::Api { status: 403, code: "forbidden".to_owned(), message: "no".to_owned() };
    bench.inject(Matching::post("delete_route"), forbidden, Times::UntilCleared);
    let (changes, problems) = bench.down(&site).await;
    assert_eq!((changes.len(), problems.len()), (0, 1));
    assert_eq!(problems[0].advice, "delete the routes to this server by hand: hcloud network remove-route");
    let without_network = Site::default();
    let (_, problems) = bench.down(&without_network).await;
    assert_eq!(problems[0].what, "no private network yet, so the routes in the cloud were not deleted");
}

#[tokio::test]
async fn one_name_for_two_networks_is_refused() {
    let mut bench = Bench::new();
    bench.options = "take_over = true".to_owned();
    let config = bench.config_with_network("private");
    let mut site = bench.site();
    site.private[0].network_id = None;
    site.private.push(PrivateLink { interface: "eth2".parse().unwrap(), ..site.private[0].clone() });
    let outcome = bench.pass_with(&config, &site).await;
    assert_eq!(outcome.state, State::Failed);
    assert_eq!(outcome.problems[0].what, "HCLOUD_NETWORK names one network, but 2 private links have no network id");
    assert_eq!(bench.routes(), []);
}

#[tokio::test]
async fn the_same_error_has_the_same_text_each_time() {
    let mut bench = Bench::new();
    bench.inject(Matching::any(), Fault::Status { code: 503, json: true }, Times::UntilCleared);
    let first = bench.pass().await.0.problems;
    assert_eq!(bench.pass().await.0.problems, first);
}

/// A tunnel with this network, whose peers are masqueraded where no route is possible (`snat = "auto"`).
fn tunnel(network: &str) -> String {
    tunnel_with_snat(network, "\"auto\"")
}

fn tunnel_with_snat(network: &str, snat: &str) -> String {
    let network: ipnet::Ipv4Net = network.parse().unwrap();
    let address = network.hosts().next().unwrap();
    format!("[wireguard]\naddresses = [\"{address}/{}\"]\nsnat = {snat}", network.prefix_len())
}

fn return_routes_here(bench: &Bench) -> Vec<String> {
    bench.component.seen_routes().here.values().flatten().map(ToString::to_string).collect()
}

fn tunnel_route_here() -> Vec<(String, Ipv4Addr)> {
    vec![("0.0.0.0/0".to_owned(), BASTION), ("10.100.0.0/24".to_owned(), BASTION)]
}

#[tokio::test]
async fn the_tunnels_return_routes_follow_its_network() {
    let mut bench = Bench::new();
    bench.tunnel = tunnel("10.100.0.0/24");
    bench.passes_until_ok().await;
    assert_eq!((bench.routes(), return_routes_here(&bench)), (tunnel_route_here(), vec!["10.100.0.0/24".to_owned()]));
    // A wider network overlaps the old one, which Hetzner would refuse.
    bench.tunnel = tunnel("10.100.0.0/16");
    bench.passes_until_ok().await;
    let moved = vec![("0.0.0.0/0".to_owned(), BASTION), ("10.100.0.0/16".to_owned(), BASTION)];
    assert_eq!((bench.routes(), return_routes_here(&bench)), (moved, vec!["10.100.0.0/16".to_owned()]));
    bench.tunnel = String::new();
    bench.passes_until_ok().await;
    assert_eq!(bench.routes(), default_route_here());
    let site = bench.site();
    bench.tunnel = tunnel("10.100.0.0/24");
    bench.passes_until_ok().await;
    let (_, problems) = bench.down(&site).await;
    assert_eq!((bench.routes(), problems), (vec![], vec![]));
}

#[tokio::test]
async fn a_missing_return_route_is_a_problem_only_where_peers_are_not_masqueraded() {
    let cases: [(&str, Option<&str>, &str); 3] = [
        ("100.64.0.0/24", None, "100.64.0.0/24 of the tunnel has no route back: Hetzner accepts no route for it"),
        ("10.100.0.0/24", Some("10.100.0.0/24"), "sends 10.100.0.0/24 to 10.0.0.7, which is not this server"),
        (
            "10.100.0.0/24",
            Some("10.100.0.0/16"),
            "10.100.0.0/24 via 10.0.0.2 overlaps the route 10.100.0.0/16 via 10.0.0.7",
        ),
    ];
    for (range, other, message) in cases {
        let mut bench = Bench::new();
        if let Some(destination) = other {
            bench.cloud.put_route(bench.network, destination.parse().unwrap(), OTHER_SERVER);
        }
        bench.tunnel = tunnel(range);
        bench.passes_until_ok().await;
        let (outcome, _) = bench.pass().await;
        assert_eq!((outcome.problems, return_routes_here(&bench)), (vec![], vec![]), "{range}");
        assert!(
            outcome.detail.contains("peers are masqueraded") && outcome.detail.contains(message),
            "{}",
            outcome.detail
        );
        bench.tunnel = tunnel_with_snat(range, "false");
        let (outcome, _) = bench.pass().await;
        assert_eq!((outcome.state, outcome.problems.len()), (State::Waiting, 1), "{range}");
        assert!(outcome.problems[0].what.contains(message), "{}", outcome.problems[0]);
    }
}

#[tokio::test]
async fn known_return_routes_are_kept_while_the_api_fails_and_dropped_when_they_are_wrong() {
    let mut bench = Bench::new();
    bench.tunnel = tunnel("10.100.0.0/24");
    bench.passes_until_ok().await;
    bench.inject(Matching::any(), Fault::Status { code: 503, json: true }, Times::UntilCleared);
    assert_eq!(bench.pass().await.0.state, State::Failed);
    assert_eq!(return_routes_here(&bench), ["10.100.0.0/24"]);
    bench.cloud.clear_faults();
    bench.cloud.remove_route(bench.network, "10.100.0.0/24".parse().unwrap());
    bench.cloud.put_route(bench.network, "10.100.0.0/24".parse().unwrap(), OTHER_SERVER);
    assert_eq!(bench.pass().await.0.state, State::Ok);
    assert_eq!(return_routes_here(&bench), [""; 0]);
    bench.cloud.remove_route(bench.network, "10.100.0.0/24".parse().unwrap());
    bench.passes_until_ok().await;
    assert_eq!(return_routes_here(&bench), ["10.100.0.0/24"]);
    bench.options = "enabled = false".to_owned();
    bench.pass().await;
    assert_eq!(return_routes_here(&bench), [""; 0], "the API is no longer asked");
}

#[tokio::test]
async fn a_destination_that_contains_the_tunnel_is_its_return_route() {
    let mut bench = Bench::new();
    bench.options = "destinations = [\"10.100.0.0/16\"]".to_owned();
    bench.tunnel = tunnel("10.100.0.0/24");
    bench.passes_until_ok().await;
    assert_eq!(bench.routes(), [("10.100.0.0/16".to_owned(), BASTION)]);
    assert_eq!(return_routes_here(&bench), ["10.100.0.0/16"]);
}
