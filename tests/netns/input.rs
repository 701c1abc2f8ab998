//! Which packets reach the bastion itself.

use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Ping, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{
    FAST, NEVER, Result, SOON, ensure, ensure_eq, healthy, installation, programs, text, trial, wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("ssh_passes_from_everywhere_and_other_ports_do_not", only_ssh_passes),
        trial("ssh_passes_only_from_the_configured_sources", ssh_is_narrowed),
        trial("a_configured_ssh_port_passes", own_ssh_port),
        trial("the_port_on_which_sshd_really_listens_is_open", listening_sshd),
        trial("ping_passes_over_both_families", ping_passes),
        trial("the_wireguard_port_passes_and_can_be_closed", wireguard_port),
        trial("an_answer_of_a_dhcp_server_passes_untracked_on_links_that_use_dhcp", dhcp_passes),
        trial("the_bastions_own_connections_are_answered", own_connections),
        trial("a_private_source_from_the_public_side_is_dropped", spoofed_from_outside),
    ]
}

/// The results of TCP connections to a port of the bastion, from the internet and from a private host.
fn reaches(from: &Namespace, port: u16, timeout: std::time::Duration) -> bool {
    traffic::tcp_connects(from, (at::BASTION, port), timeout).is_ok()
}

fn only_ssh_passes() -> Result {
    let world = World::start(Settings::default())?;
    let any = std::net::Ipv6Addr::UNSPECIFIED;
    let _listeners = [22, 8080, 9100]
        .into_iter()
        .map(|port| Reflector::tcp(world.bastion(), (any, port)))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    ensure(reaches(world.server(), 8080, SOON), "the listener does not work before there are rules")?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    for from in [world.server(), world.web(), world.tenant()] {
        ensure(reaches(from, 22, SOON), format!("SSH from {}", from.name()))?;
        for port in [8080, 9100] {
            ensure(!reaches(from, port, NEVER), format!("port {port} from {}", from.name()))?;
        }
    }
    ensure_eq(traffic::tcp_connects(world.server(), (world.bastion_v6(), 22), SOON), Ok(()))?;
    ensure(traffic::tcp_connects(world.server(), (world.bastion_v6(), 8080), NEVER).is_err(), "port 8080 over IPv6")
}

fn ssh_is_narrowed() -> Result {
    let world = World::start(Settings::default())?;
    let _ssh = Reflector::tcp(world.bastion(), (std::net::Ipv6Addr::UNSPECIFIED, 22))?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[firewall]\nssh_from = [\"203.0.113.10\"]"))?;
    let _daemon = healthy(&installation)?;
    ensure(reaches(world.server(), 22, SOON), "SSH from the address that is listed")?;
    ensure(!reaches(world.web(), 22, NEVER), "SSH from an address that is not")?;
    ensure(
        traffic::tcp_connects(world.server(), (world.bastion_v6(), 22), NEVER).is_err(),
        "SSH over IPv6, which is not listed",
    )
}

fn own_ssh_port() -> Result {
    let world = World::start(Settings::default())?;
    let _listeners = [22, 2222].map(|port| Reflector::tcp(world.bastion(), (at::BASTION, port)));
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[firewall]\nssh_ports = [2222]"))?;
    let _daemon = healthy(&installation)?;
    ensure(reaches(world.server(), 2222, SOON), "the port that is named")?;
    ensure(!reaches(world.server(), 22, NEVER), "port 22, which is not")
}

/// A program called sshd that listens on a port which no file names.
fn listening_sshd() -> Result {
    let world = World::start(Settings::default())?;
    let directory = tempfile::tempdir()?;
    let sshd = directory.path().join("sshd");
    std::os::unix::fs::symlink("/usr/bin/perl", &sshd)?;
    let script = "my $s = IO::Socket::INET->new(Listen => 5, LocalPort => 2200, ReuseAddr => 1) or die; sleep 60";
    let command = world.bastion().command(&sshd.to_string_lossy());
    let mut process = command.args(["-MIO::Socket::INET", "-e", script]).stdin(std::process::Stdio::null()).spawn()?;
    wait_for("sshd listens", SOON, || Ok(reaches(world.server(), 2200, NEVER)))?;
    let _other = Reflector::tcp(world.bastion(), (at::BASTION, 2201))?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    ensure(reaches(world.server(), 2200, SOON), "the port on which sshd listens")?;
    ensure(!reaches(world.server(), 2201, NEVER), "a port on which another program listens")?;
    let check = |connection: &str| -> Result<String> {
        let command = world.bastion().command(&programs().join("bastionctl").to_string_lossy());
        let command =
            command.env("SSH_CONNECTION", connection).env("RUNTIME_DIRECTORY", installation.runtime_directory());
        let command = command.args(["--config".as_ref(), installation.config_path().as_os_str()]);
        Ok(text(&command.arg("check").output()?.stderr))
    };
    ensure_eq(check("203.0.113.10 5000 198.51.100.2 2200")?, String::new())?;
    let warned = check("203.0.113.10 5000 198.51.100.2 2201")?;
    ensure(warned.contains("does not name port 2201, at which you are logged in"), warned)?;
    process.kill()?;
    process.wait()?;
    Ok(())
}

fn ping_passes() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let answered = |from: &Namespace, to: std::net::IpAddr| -> Result<bool> {
        Ok(!traffic::ping(from, to, Ping { timeout: SOON, ..Ping::default() })?.replies.is_empty())
    };
    ensure(answered(world.server(), at::BASTION.into())?, "IPv4 from outside")?;
    ensure(answered(world.server(), world.bastion_v6().into())?, "IPv6 from outside")?;
    ensure(answered(world.web(), at::BASTION_PRIVATE.into())?, "IPv4 from inside")
}

fn wireguard_port() -> Result {
    let world = World::start(Settings::default())?;
    let [open, _other] = [51820, 51821].map(|port| Reflector::udp(world.bastion(), (at::BASTION, port)));
    let open = open?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    ensure(traffic::udp_probe(world.server(), open.address(), SOON).is_ok(), "port 51820 is closed")?;
    ensure(traffic::udp_probe(world.server(), (at::BASTION, 51821), NEVER).is_err(), "port 51821 is open")?;
    drop(daemon);
    installation.write_config(&format!("{FAST}[firewall]\nwireguard_port = false"))?;
    let _daemon = healthy(&installation)?;
    ensure(
        traffic::udp_probe(world.server(), open.address(), NEVER).is_err(),
        "port 51820 is open, though switched off",
    )
}

fn dhcp_passes() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    let client = Reflector::udp(world.bastion(), (std::net::Ipv4Addr::UNSPECIFIED, 68))?;
    // Without a tracked flow. On the public link from Hetzner's gateway, whose address is a private one.
    let public = |port: u16, timeout| {
        let from = std::net::SocketAddr::from((at::PUBLIC_GATEWAY, port));
        traffic::udp_probe_from(world.internet(), from, (at::BASTION, 68), timeout).is_ok()
    };
    let private = |timeout| {
        let from = std::net::SocketAddr::from((at::WEB, 67));
        traffic::udp_probe_from(world.web(), from, (at::BASTION_PRIVATE, 68), timeout).is_ok()
    };
    ensure(!public(67, NEVER), "an answer, although no address is leased")?;
    // As a DHCP client sets it.
    world.bastion().ip(&format!("addr change {}/32 dev eth0 valid_lft 3600 preferred_lft 3600", at::BASTION))?;
    wait_for("the answer of a DHCP server passes", SOON, || Ok(public(67, NEVER)))?;
    ensure_eq(crate::way_in::untracked::entries(&daemon, "port=68 ")?, Vec::new())?;
    ensure(!public(6767, NEVER), "a packet from another port")?;
    ensure(!private(NEVER), "an answer on a link that does not use DHCP")?;
    ensure_eq(client.seen().len(), 1)
}

fn own_connections() -> Result {
    let world = World::start(Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let seen = traffic::tcp_probe(world.bastion(), server.address(), SOON).map(|seen| seen.ip());
    ensure_eq(seen, Ok(at::BASTION.into()))
}

fn spoofed_from_outside() -> Result {
    let world = World::start(Settings::default())?;
    let wireguard = Reflector::udp(world.bastion(), (at::BASTION, 51820))?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    world.internet().ip(&format!("addr add {}/32 dev lo", at::WEB))?;
    let from = std::net::SocketAddr::from((at::WEB, 40000));
    let _ = traffic::udp_probe_from(world.internet(), from, wireguard.address(), NEVER);
    ensure_eq(wireguard.seen(), vec![])
}
