//! Bridges of the bastion itself, with containers or virtual machines behind them: the sandbox's, and those of the real
//! Docker.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bastiond::internals::outcome::ComponentName;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{
    FAST, NEVER, Result, SOON, Server, component, egress, ensure, ensure_eq, healthy, installation, is_shut, open,
    report, text, trial, wait_for,
};
use crate::policy::{gateway, reload};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_docker_bridge_with_containers_that_is_not_served_is_named_with_the_remedy", named),
        trial("guests_of_a_served_bridge_reach_the_internet_and_private_hosts_as_allowed", served),
        trial("a_port_that_a_bridges_program_publishes_is_open_and_nothing_else_of_its_guests", published),
        trial("guests_of_a_bridge_get_their_address_and_names_from_the_bastion", dhcp_and_dns),
        trial("an_interface_that_is_not_served_is_named_when_its_packets_are_dropped", unserved),
        // `scripts/test-docker` brings Docker, and runs it: no machine needs to have it installed.
        trial("containers_of_the_real_docker_and_their_published_ports_work_beside_the_gateway", docker)
            .with_ignored_flag(docker_tree().is_none()),
    ]
}

/// Of the guest.
const GUEST: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

/// A bridge of the bastion with a guest: 172.17.0.1 and 172.17.0.2.
fn guest(world: &World, bridge: &str, name: &str) -> Result<Namespace> {
    let guest = Namespace::create(name)?;
    let bastion = world.bastion();
    bastion.ip(&format!(
        "link add {bridge} type bridge\naddr add 172.17.0.1/16 dev {bridge}\nlink set {bridge} up
         link add vguest type veth peer name eth0 netns {name}\nlink set vguest master {bridge} up",
        name = guest.name()
    ))?;
    guest.ip(&format!(
        "link set lo up\nlink set eth0 up\naddr add {GUEST}/16 dev eth0\nroute add default via 172.17.0.1"
    ))?;
    Ok(guest)
}

fn named() -> Result {
    let world = World::start(Settings::default())?;
    let _guest = guest(&world, "docker0", "br-named")?;
    let installation = installation(&world)?;
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    let problems = || -> Result<Vec<(String, String)>> {
        let found = component(&installation, ComponentName::Nat)?.problems;
        Ok(found.into_iter().map(|problem| (problem.what, problem.advice)).collect())
    };
    wait_for("it is named", SOON, || Ok(!problems()?.is_empty()))?;
    let (what, advice) = problems()?.remove(0);
    ensure_eq(
        what.as_str(),
        "docker0 (172.17.0.0/16) has guests and is not served: they have no network, published ports included",
    )?;
    ensure(advice.contains("docker = true") && advice.contains("docker = false"), advice)?;
    ensure(text(&installation.ctl(&["status"])?.stdout).contains("waiting"), "the gateway calls itself healthy")?;
    // Who wants it so says so.
    installation.write_config(&format!("{FAST}[site]\ndocker = false\n"))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for("nothing is said", SOON, || Ok(problems()?.is_empty()))?;
    // Another program's bridge is a hint: it may be a network without a way out on purpose.
    world.bastion().ip("link set docker0 name virbr0")?;
    wait_for("another bridge is a hint", SOON, || {
        let hints = component(&installation, ComponentName::Site)?.hints;
        Ok(hints.iter().any(|hint| hint.what.starts_with("virbr0 (172.17.0.0/16) has guests and is not served")))
    })?;
    Ok(())
}

fn served() -> Result {
    let world = World::start(Settings::default())?;
    let guest = guest(&world, "virbr0", "br-served")?;
    let server = Server::start(&world)?;
    let web = Reflector::tcp(world.web(), (at::WEB, 5432))?;
    let (installation, mut daemon) = gateway(&world, "")?;
    ensure(is_shut(&egress(&guest, &server, NEVER)?), "a bridge that nobody named is served")?;
    reload(&installation, &mut daemon, "[[network]]\ninterface = \"virbr0\"\n")?;
    ensure_eq(egress(&guest, &server, SOON)?, open())?;
    ensure(traffic::tcp_connects(&guest, (at::WEB, 5432), NEVER).is_err(), "a guest reaches a private host")?;
    let sections = "[[network]]\ninterface = \"virbr0\"\ndeny = [{ protocol = \"udp\" }]\n\
                    [tenants]\nallow = [{ from = [\"172.17.0.0/16\"], to = [\"10.0.0.0/16\"] }]\n";
    reload(&installation, &mut daemon, sections)?;
    // Private hosts see the bastion: Hetzner's gateway drops other sources.
    ensure_eq(traffic::tcp_probe(&guest, web.address(), SOON).map(|seen| seen.ip()), Ok(at::BASTION_PRIVATE.into()))?;
    let outcome = egress(&guest, &server, SOON)?;
    ensure_eq((outcome.tcp, outcome.udp.is_err()), (Ok(at::BASTION.into()), true))?;
    ensure_eq(report(&installation)?.components[&ComponentName::Nat].problems.clone(), vec![])?;
    // It may go and come back.
    world.bastion().ip("link set virbr0 down")?;
    world.bastion().ip("link set virbr0 up")?;
    wait_for("it is served again", SOON, || Ok(egress(&guest, &server, NEVER)?.tcp == Ok(at::BASTION.into())))?;
    Ok(())
}

fn unserved() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let guest = Namespace::create("unserved")?;
    world.bastion().ip(&format!(
        "link add wg1 type veth peer name eth0 netns {name}\naddr add 10.9.0.1/24 dev wg1\nlink set wg1 up",
        name = guest.name()
    ))?;
    guest.ip("link set lo up\nlink set eth0 up\naddr add 10.9.0.2/24 dev eth0\nroute add default via 10.9.0.1")?;
    let (installation, mut daemon) = gateway(&world, "")?;
    let hints = || -> Result<Vec<String>> {
        let hints = component(&installation, ComponentName::Nat)?.hints.into_iter();
        Ok(hints.filter(|hint| hint.code == "interface-not-served").map(|hint| hint.what).collect())
    };
    ensure_eq(hints()?, Vec::new())?;
    wait_for("it is named", Duration::from_secs(60), || {
        let _ = traffic::udp_probe(&guest, (at::SERVER, 9), Duration::from_millis(50));
        let _ = traffic::udp_probe(&guest, (at::WEB, 9), Duration::from_millis(50));
        Ok(!hints()?.is_empty())
    })?;
    let expected = "wg1 is not served: what comes in by it for other hosts, or would leave by it, is dropped";
    ensure_eq(hints()?, vec![expected.to_owned()])?;
    ensure_eq(report(&installation)?.health, bastiond::internals::report::Health::Healthy)?;
    // What the hint advises helps.
    reload(&installation, &mut daemon, "[[network]]\ninterface = \"wg1\"\n")?;
    ensure_eq(egress(&guest, &server, SOON)?, open())?;
    ensure_eq(hints()?, Vec::new())
}

/// What Docker writes for `-p 8080:80`, in words of nft.
const PUBLISHES: &str = "table ip guests {
    chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local tcp dport 8080 dnat to 172.17.0.2:80; }
    chain postrouting { type nat hook postrouting priority srcnat; ip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade; }
}";

fn published() -> Result {
    let world = World::start(Settings::default())?;
    let guest = guest(&world, "docker0", "br-ports")?;
    let web = Reflector::tcp(&guest, (GUEST, 80))?;
    let _other = Reflector::tcp(&guest, (GUEST, 81))?;
    let (installation, mut daemon) = gateway(&world, "[site]\ndocker = true\n")?;
    world.bastion().nft(PUBLISHES)?;
    let seen = |from: &Namespace, to: Ipv4Addr| traffic::tcp_probe(from, (to, 8080), SOON).map(|seen| seen.ip());
    ensure_eq(seen(world.server(), at::BASTION), Ok(at::SERVER.into()))?;
    ensure_eq(seen(world.web(), at::BASTION_PRIVATE), Ok(at::WEB.into()))?;
    ensure(traffic::tcp_connects(world.server(), (at::BASTION, 81), NEVER).is_err(), "port 81 is not published")?;
    // Without translation nobody reaches a guest.
    world.internet().ip("route add 172.17.0.0/16 via 198.51.100.2 dev bastion onlink")?;
    ensure(traffic::tcp_connects(world.server(), (GUEST, 81), NEVER).is_err(), "the internet reaches a guest")?;
    ensure(traffic::tcp_connects(world.web(), (GUEST, 81), NEVER).is_err(), "a private host reaches a guest")?;
    ensure_eq(web.seen().len(), 2)?;
    // What is translated from another address than this server's is no published port.
    let server = (at::SERVER, 8080);
    let led_away = format!("ip daddr {} tcp dport 8080 dnat to 172.17.0.2:80", at::SERVER);
    world.bastion().nft(&format!("add rule ip guests prerouting {led_away}"))?;
    ensure(traffic::tcp_connects(world.web(), server, NEVER).is_err(), "a host's requests are led to a guest")?;
    ensure_eq(web.seen().len(), 2)?;
    reload(&installation, &mut daemon, "[site]\ndocker = false\n")?;
    ensure(traffic::tcp_connects(world.server(), (at::BASTION, 8080), NEVER).is_err(), "the port is open, not served")
}

fn dhcp_and_dns() -> Result {
    let world = World::start(Settings::default())?;
    let guest = guest(&world, "lxcbr0", "br-dhcp")?;
    let _names = Reflector::udp(world.bastion(), (Ipv4Addr::new(172, 17, 0, 1), 53))?;
    let requests = Reflector::udp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 67))?;
    let (installation, mut daemon) = gateway(&world, "")?;
    let dns = || traffic::udp_probe(&guest, (Ipv4Addr::new(172, 17, 0, 1), 53), NEVER).is_ok();
    ensure(!dns(), "DNS is open to a bridge that is not served")?;
    reload(&installation, &mut daemon, "[[network]]\ninterface = \"lxcbr0\"\n")?;
    ensure(dns(), "guests get no DNS")?;
    // A client without an address: its source is 0.0.0.0, which a socket cannot have, so the link is asked directly.
    let _ = traffic::udp_probe(&guest, (Ipv4Addr::new(172, 17, 0, 1), 67), NEVER);
    ensure_eq(requests.seen().len(), 1)
}

/// The directory into which Docker's packages are unpacked.
fn docker_tree() -> Option<String> {
    std::env::var("BASTIOND_TEST_DOCKER").ok()
}

/// The variables with which programs in it run.
fn docker_environment() -> Result<[(&'static str, String); 2]> {
    let tree = docker_tree().ok_or("BASTIOND_TEST_DOCKER is not set: run scripts/test-docker")?;
    let path = format!("{tree}/usr/sbin:{tree}/usr/bin:{tree}/bin:{tree}/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
    let libraries =
        ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];
    Ok([("PATH", path), ("LD_LIBRARY_PATH", libraries.map(|part| format!("{tree}/{part}")).join(":"))])
}

/// Docker's daemon in the bastion's namespace, with an image of busybox.
struct Docker {
    daemon: Child,
    directory: tempfile::TempDir,
}

impl Docker {
    fn start(bastion: &Namespace) -> Result<Self> {
        let tree = docker_tree().ok_or("BASTIOND_TEST_DOCKER is not set: run scripts/test-docker")?;
        let [path, libraries] = docker_environment()?;
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name).display().to_string();
        let log = std::fs::File::create(directory.path().join("log"))?;
        let daemon = bastion
            .command(&format!("{tree}/usr/sbin/dockerd"))
            .env(path.0, path.1)
            .env(libraries.0, libraries.1)
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args(["-H", &format!("unix://{}", at("sock")), "--storage-driver", "vfs"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let docker = Self { daemon, directory };
        wait_for("Docker runs", Duration::from_secs(20), || Ok(docker.run("version").is_ok()))
            .map_err(|_| docker.log())?;
        let image = docker.directory.path().join("image/bin");
        std::fs::create_dir_all(&image)?;
        let busybox = ["bin/busybox", "usr/bin/busybox"].map(|file| std::path::Path::new(&tree).join(file));
        let busybox = busybox.iter().find(|file| file.exists()).ok_or("there is no busybox")?;
        std::fs::copy(busybox, image.join("busybox"))?;
        docker.shell("tar -C $DIRECTORY/image -c . | docker import - tiny")?;
        Ok(docker)
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    /// Runs `docker` with these words.
    fn run(&self, words: &str) -> Result<String> {
        self.shell(&format!("docker {words}"))
    }

    fn shell(&self, line: &str) -> Result<String> {
        let directory = self.directory.path().display().to_string();
        let output = Command::new("sh")
            .args(["-c", line])
            .env("DOCKER_HOST", format!("unix://{directory}/sock"))
            .env("DIRECTORY", &directory)
            .envs(docker_environment()?)
            .stdin(Stdio::null())
            .output()?;
        ensure(output.status.success(), format!("{line}: {}", text(&output.stderr)))?;
        Ok(text(&output.stdout).trim().to_owned())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It ends its containers too.
        let _ = self.shell("docker rm -f $(docker ps -aq)");
        if let Ok(pid) = i32::try_from(self.daemon.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.daemon.wait();
    }
}

fn docker() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[site]\ndocker = true\n"))?;
    let _daemon = healthy(&installation)?;
    let docker = Docker::start(world.bastion())?;
    docker.run("run -d --name web -p 8080:80 tiny /bin/busybox httpd -f -p 80")?;
    let connects = |from: &Namespace, to: Ipv4Addr, port: u16| traffic::tcp_connects(from, (to, port), NEVER).is_ok();
    wait_for("the published port is open", SOON, || Ok(connects(world.server(), at::BASTION, 8080)))?;
    ensure(connects(world.web(), at::BASTION_PRIVATE, 8080), "private hosts do not reach the published port")?;
    // The container reaches the internet under the gateway's address, and no private host.
    let leaves = |name: &str| -> Result {
        let before = server.tcp.seen().len();
        let fetch = format!("exec {name} /bin/busybox nc -w 2 {} 8080", at::SERVER);
        docker.run(&fetch)?;
        ensure_eq(
            server.tcp.seen()[before..].iter().map(std::net::SocketAddr::ip).collect::<Vec<_>>(),
            vec![at::BASTION.into()],
        )
    };
    leaves("web")?;
    let _private = Reflector::tcp(world.web(), (at::WEB, 5432))?;
    let private = format!("exec web /bin/busybox nc -w 1 {} 5432", at::WEB);
    ensure(docker.run(&private).is_err(), "a container reaches a private host")?;
    // Another network of Docker's is another bridge, which is served at once.
    docker.run("network create more")?;
    docker.run("run -d --name second --network more -p 8081:80 tiny /bin/busybox httpd -f -p 80")?;
    wait_for("a new network's port is open", SOON, || Ok(connects(world.server(), at::BASTION, 8081)))?;
    leaves("second")?;
    ensure_eq(report(&installation)?.components[&ComponentName::Nat].problems.clone(), vec![])?;
    // Private hosts use the gateway as before, and Docker's rules are Docker's.
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    docker.run("rm -f web")?;
    ensure(!connects(world.server(), at::BASTION, 8080), "the port of a removed container is open")
}
