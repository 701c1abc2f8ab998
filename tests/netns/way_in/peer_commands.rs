//! `bastionctl peer` with a running daemon: clients that are configured by nothing but what it prints.

use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use bastiond_tunnel::file;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::Installation;
use sandbox::namespace::Namespace;
use sandbox::traffic::{ContinuousDownload, DownloadServer, Flood, Reflector};
use sandbox::world::addresses as at;

use super::{ADA, BOB, INSIDE, peer, pings, seen, serving, tunnel, world};
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, installation, report, text, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_client_that_is_configured_by_what_peer_add_prints_gets_in", added),
        trial("a_peer_that_is_removed_in_mid_download_is_out_within_a_second_and_others_lose_nothing", removed),
        trial("a_rotated_key_lets_the_new_client_in_and_the_old_one_out", rotated),
        trial("a_peer_that_the_daemon_cannot_load_now_is_reported_as_such", written),
    ]
}

/// A client that is set up from a file as wg-quick does it, with wireguard-go.
struct QuickClient<'w> {
    namespace: &'w Namespace,
    interface: String,
    program: Child,
}

impl<'w> QuickClient<'w> {
    fn start(namespace: &'w Namespace, interface: &str, configuration: &str) -> Result<Self> {
        let command = namespace.command("wireguard-go").args(["-f", interface]);
        let program = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let client = Self { namespace, interface: interface.to_owned(), program };
        let asked = || Ok(namespace.command("wg").args(["show", interface]).output()?.status.success());
        wait_for("wireguard-go runs", SOON, asked)?;
        client.load(configuration)?;
        let parsed = file::parse(configuration.as_bytes()).map_err(|problems| format!("{problems:?}"))?;
        for address in &parsed.addresses {
            namespace.ip(&format!("addr add {address} dev {interface}"))?;
        }
        let mtu = parsed.mtu.ok_or("there is no MTU")?;
        namespace.ip(&format!("link set {interface} mtu {mtu} up"))?;
        for range in parsed.peers.iter().flat_map(|peer| &peer.allowed_ips) {
            namespace.ip(&format!("route replace {range} dev {interface}"))?;
        }
        Ok(client)
    }

    /// `wg setconf` with what `wg-quick strip` leaves of the configuration.
    fn load(&self, configuration: &str) -> Result {
        let directory = tempfile::tempdir()?;
        let quick = directory.path().join(format!("{}.conf", self.interface));
        std::fs::write(&quick, configuration)?;
        let stripped = self.namespace.command("wg-quick").args(["strip", &quick.display().to_string()]).output()?;
        ensure(stripped.status.success(), text(&stripped.stderr))?;
        let plain = directory.path().join("plain.conf");
        std::fs::write(&plain, &stripped.stdout)?;
        let set = self.namespace.command("wg").args(["setconf", &self.interface, &plain.display().to_string()]);
        let set = set.output()?;
        ensure(set.status.success(), text(&set.stderr))
    }
}

impl Drop for QuickClient<'_> {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// What a successful command prints.
fn done(output: &Output) -> Result<String> {
    ensure(output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))?;
    Ok(text(&output.stdout))
}

fn ctl(installation: &Installation<'_>, words: &str) -> Result<String> {
    let words: Vec<&str> = ["peer"].into_iter().chain(words.split_whitespace()).collect();
    done(&installation.ctl(&words)?)
}

fn added() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let installation = installation(&world)?;
    installation.write_config(&tunnel("wi-added", ""))?;
    let (_daemon, _) = serving(&installation)?;
    let printed = ctl(&installation, "add ada/laptop --psk --expires 1d")?;
    ensure(printed.contains(&format!("Endpoint = {}:51820\n", at::BASTION)), printed.clone())?;
    let _ada = QuickClient::start(world.laptop(), "wi-added-ada", &printed)?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the bastion's own address in the tunnel")?;
    let listed = ctl(&installation, "list")?;
    let row: Vec<&str> = listed.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    ensure_eq(row[..3].to_vec(), vec!["ada/laptop", "active", "10.100.0.2"])?;
    ensure_eq(row[4], "192.0.2.7")?;
    ensure(["23h", "24h"].contains(&row[7]), listed.clone())?;
    let shown = ctl(&installation, "show ada/laptop")?;
    ensure(shown.contains("state       active\n") && shown.contains("peers.d/ada.laptop.toml"), shown)?;
    // A copy of the configuration lacks what this server does not know, and nothing else.
    let exported = ctl(&installation, "export ada/laptop")?;
    let without_key = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("PrivateKey"));
        lines.collect::<Vec<_>>().join("\n")
    };
    ensure_eq(without_key(&exported), without_key(&printed))?;
    // Two peers that are added at once get different addresses.
    let (one, two) = std::thread::scope(|scope| {
        let add = |name: &'static str| scope.spawn(|| installation.ctl(&["peer", "add", name]));
        let (one, two) = (add("bob"), add("eve"));
        (one.join(), two.join())
    });
    let addresses = |output: std::thread::Result<std::io::Result<Output>>| -> Result<_> {
        let printed = done(&output.map_err(|_| "a thread panicked")??)?;
        Ok(file::parse(printed.as_bytes()).map_err(|problems| format!("{problems:?}"))?.addresses)
    };
    let (one, two) = (addresses(one)?, addresses(two)?);
    ensure(one != two, format!("{one:?} {two:?}"))?;
    ensure_eq(report(&installation)?.tunnel.map(|tunnel| tunnel.peers.len()), Some(3))
}

fn removed() -> Result {
    let world = world()?;
    let server = DownloadServer::start(world.web(), (at::WEB, 80))?;
    let echo = Reflector::udp(world.web(), (at::WEB, 53))?;
    let installation = installation(&world)?;
    installation.write_config(&tunnel("wi-removed", ""))?;
    let (_daemon, _) = serving(&installation)?;
    let printed = ctl(&installation, "add ada")?;
    let _ada = QuickClient::start(world.laptop(), "wi-removed-ada", &printed)?;
    // Bob made his key himself, and comes with the address that he was given.
    let bob = super::Client::start(world.server(), "wi-removed-bob", BOB)?;
    let key = bob.public_key();
    ctl(&installation, &format!("add bob --public-key {key} --address {BOB}"))?;
    let bastion = report(&installation)?.tunnel.and_then(|tunnel| tunnel.public_key).ok_or("no key")?;
    bob.meets(bastion, "10.100.0.0/24,10.0.0.0/16")?;

    let download = ContinuousDownload::start(world.laptop(), server.address(), Duration::from_secs(20))?;
    let flood = Flood::start(world.server(), echo.address(), 100)?;
    wait_for("both have traffic", SOON, || Ok(download.received() > 100_000 && flood.received() > 20))?;
    let asked = Instant::now();
    ctl(&installation, "remove ada")?;
    std::thread::sleep(Duration::from_secs(1).saturating_sub(asked.elapsed()));
    let after_a_second = download.received();
    std::thread::sleep(Duration::from_secs(1));
    ensure_eq(download.received(), after_a_second)?;
    ensure(!pings(world.laptop(), INSIDE, NEVER)?, "Ada still gets in")?;
    let flood = flood.stop();
    ensure_eq((flood.lost.len(), flood.sent > 100), (0, true))?;
    ensure(peer(&installation, "ada").is_err(), "Ada is still a peer")?;
    // Under another name his session goes on.
    let before = peer(&installation, "bob")?;
    ctl(&installation, "rename bob robert")?;
    ensure_eq(peer(&installation, "robert")?.last_handshake_unix, before.last_handshake_unix)
}

fn rotated() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let installation = installation(&world)?;
    installation.write_config(&tunnel("wi-rotated", ""))?;
    let (_daemon, _) = serving(&installation)?;
    let ada = QuickClient::start(world.laptop(), "wi-rotated-ada", &ctl(&installation, "add ada --psk")?)?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    let printed = ctl(&installation, "rotate ada")?;
    ensure(!pings(world.laptop(), INSIDE, NEVER)?, "the old key still gets in")?;
    ada.load(&printed)?;
    wait_for("the new key gets in", Duration::from_secs(20), || Ok(seen(world.laptop(), &web) == Ok(ADA.into())))?;
    Ok(())
}

fn written() -> Result {
    let world = world()?;
    let installation = installation(&world)?;
    installation.write_config(&tunnel("wi-refused", ""))?;
    let (daemon, _) = serving(&installation)?;
    // What the daemon runs is another file than the one that the caller names.
    let other = tempfile::tempdir()?;
    let config = other.path().join("config.toml");
    std::fs::copy(installation.config_path(), &config)?;
    let path = config.display().to_string();
    let output = world
        .bastion()
        .command(&crate::gateway::programs().join("bastionctl").display().to_string())
        .env("RUNTIME_DIRECTORY", installation.runtime_directory())
        .env("STATE_DIRECTORY", installation.state_directory())
        .args(["--config", &path, "peer", "add", "ada"])
        .output()?;
    let said = text(&output.stderr);
    ensure_eq(output.status.code(), Some(1))?;
    ensure(said.contains("not in use: the daemon runs with"), said)?;
    // A wrong main file: the caller is told, nothing is written, and the daemon goes on with what it has.
    let good = std::fs::read_to_string(installation.config_path())?;
    installation.write_config(&format!("{good}mtu = 1\n"))?;
    let output = installation.ctl(&["peer", "add", "ada"])?;
    ensure_eq(output.status.code(), Some(78))?;
    ensure(text(&output.stderr).contains("1 is not an MTU"), text(&output.stderr))?;
    let peers = installation.config_path().with_file_name("peers.d");
    ensure_eq(std::fs::read_dir(&peers)?.count(), 0)?;
    installation.write_config(&good)?;
    ctl(&installation, "add ada")?;
    ensure(peer(&installation, "ada").is_ok(), "Ada is not in")?;
    daemon.signal(Signal::SIGTERM)?;
    let mut daemon = daemon;
    ensure(daemon.wait_for_exit(SOON)?.is_some(), "the daemon ends")?;
    let output = installation.ctl(&["peer", "add", "bob"])?;
    ensure_eq(output.status.code(), Some(3))?;
    ensure(text(&output.stderr).contains("counts when the daemon has loaded it"), text(&output.stderr))?;
    ensure(text(&output.stdout).contains("PrivateKey = "), "the private key is lost")
}
