//! Traffic through a bastion during a restart or an upgrade: NAT flows and a tunnel that must not lose a packet, and
//! the tunnel's pause when its own program is another one.

use std::time::Duration;

use bastiond_tunnel::key::PrivateKey;
use libtest_mimic::Trial;
use sandbox::timeouts::scaled;
use sandbox::traffic::{ContinuousDownload, DownloadServer, Flood, HeldConnection, Reflector};
use sandbox::tunnel::{Interface, Program};
use sandbox::world::addresses as at;

use crate::bastion::{Bastion, UNIT};
use crate::package::Package;
use crate::shared::{Result, SOON, ensure, ensure_eq, wait_for};
use crate::trial::{TIMEOUT, print_measurement, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_restart_under_load_loses_no_packet_and_is_no_gap_in_the_tunnel", restart),
        trial("an_upgrade_under_load_loses_no_packet_and_is_no_gap_in_the_tunnel", upgrade),
        trial("an_upgrade_of_the_tunnels_program_pauses_the_tunnel_for_less_than_200_ms", upgrade_of_the_tunnel),
    ]
}

/// The configuration of a tunnel for [`Load`]. Its peer is added with `wg` when the key is known.
pub(crate) const TUNNEL: &str = "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n";

/// Datagrams per second of each NAT flow.
const RATE: u32 = 500;
/// Datagrams per second through the tunnel: one every 5 ms.
const TUNNEL_RATE: u32 = 200;
/// The unit of the tunnel's process.
const TUNNEL_UNIT: &str = "bastiond-tunnel.service";
/// The longest allowed pause of the tunnel.
const GAP: Duration = Duration::from_millis(200);
/// Packets of the tunnel that may be missing without a gap: the client is a program too, and drops some on a busy
/// machine. A gap of 200 ms takes 40, `RestartSec=` of the daemon 100.
pub(crate) const NOISE: usize = 5;
/// The number of repetitions.
const ROUNDS: usize = 3;

/// Running traffic. The client of the tunnel is wireguard-go on the internet host.
pub(crate) struct Load {
    flows: [Flood; 2],
    stream: ContinuousDownload,
    tunnel: Flood,
    held: HeldConnection,
    held_in_tunnel: HeldConnection,
    // Dropped last.
    _source: DownloadServer,
    _reflectors: [Reflector; 2],
    _client: Interface,
}

/// The results of the traffic.
#[derive(Debug)]
pub(crate) struct LoadReport {
    /// The datagrams sent in the NAT flows.
    pub(crate) sent: u64,
    /// The lost datagrams of the NAT flows.
    pub(crate) lost: usize,
    /// The longest pause of the TCP transfer through NAT.
    pub(crate) stream_gap: Duration,
    /// The longest pause in the tunnel.
    pub(crate) tunnel_gap: Duration,
    /// The datagrams lost in the tunnel.
    pub(crate) tunnel_lost: usize,
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, lost, stream_gap, tunnel_gap, tunnel_lost } = self;
        write!(
            f,
            "{lost} of {sent} packets of NAT flows lost, their TCP silent for {stream_gap:?}; \
             the tunnel silent for {tunnel_gap:?}, {tunnel_lost} packets lost in it"
        )
    }
}

impl Load {
    /// Starts the traffic, and returns when all of it flows.
    pub(crate) fn start(bastion: &Bastion) -> Result<Self> {
        let world = &bastion.world;
        let client = client(bastion)?;
        let reflectors = [Reflector::udp(world.web(), (at::WEB, 7))?, Reflector::tcp(world.web(), (at::WEB, 7))?];
        wait_for("the tunnel carries", 5 * SOON, || {
            let reached =
                sandbox::traffic::udp_probe(world.server(), reflectors[0].address(), Duration::from_millis(300));
            Ok(reached.is_ok())
        })?;
        // The daemon saves every 5 s which peers are active. After a crash it does not initiate a handshake with newer
        // peers, which reconnect on their own after 15 s.
        wait_for("the daemon has noted its peer", TIMEOUT, || {
            let noted = bastion.machine.try_run(&["grep", "-q", "203.0.113.10", "/run/bastiond/wireguard-wg0.json"])?;
            Ok(noted.status.success())
        })?;
        let source = DownloadServer::start(world.server(), (at::SERVER, 9000))?;
        let load = Self {
            flows: [
                Flood::start(world.web(), bastion.internet.udp.address(), RATE)?,
                Flood::start(world.worker(), bastion.internet.udp.address(), RATE)?,
            ],
            stream: ContinuousDownload::start(world.web(), source.address(), 5 * SOON)?,
            tunnel: Flood::start(world.server(), reflectors[0].address(), TUNNEL_RATE)?,
            held: HeldConnection::open(world.web(), bastion.internet.tcp.address(), SOON)?,
            held_in_tunnel: HeldConnection::open(world.server(), reflectors[1].address(), SOON)?,
            _source: source,
            _reflectors: reflectors,
            _client: client,
        };
        load.goes_on()?;
        Ok(load)
    }

    /// Waits until each kind of traffic has received more answers.
    pub(crate) fn goes_on(&self) -> Result {
        let counts =
            || [self.flows[0].received(), self.flows[1].received(), self.tunnel.received(), self.stream.received()];
        let before = counts();
        wait_for("all traffic continues", 5 * SOON, || {
            Ok(counts().iter().zip(before).all(|(now, before)| *now > before + 50))
        })?;
        Ok(())
    }

    /// The identities that a restart must not change: the interface index, and the inode numbers of the tunnel's
    /// sockets.
    pub(crate) fn kept(bastion: &Bastion) -> Result<(String, Vec<String>)> {
        let index =
            bastion.machine.sh("cat /sys/class/net/wg0/ifindex 2>/dev/null || ip -o link show wg0 | cut -d : -f 1")?;
        let listed = bastion.machine.run(&[
            "ss",
            "--udp",
            "--listening",
            "--numeric",
            "--extended",
            "--no-header",
            "sport = :51820",
        ])?;
        let mut inodes: Vec<_> =
            listed.split_whitespace().filter(|word| word.starts_with("ino:")).map(str::to_owned).collect();
        inodes.sort();
        ensure(!inodes.is_empty(), format!("the tunnel has no sockets: {listed}"))?;
        Ok((index.trim().to_owned(), inodes))
    }

    /// Stops the traffic. It fails if a connection was closed or a byte was wrong.
    pub(crate) fn stop(mut self) -> Result<LoadReport> {
        self.goes_on()?;
        self.held.exchange(SOON)?;
        self.held_in_tunnel.exchange(SOON)?;
        let stream = self.stream.stop()?;
        ensure(stream.intact, "a byte of the transfer is wrong")?;
        let tunnel = self.tunnel.stop();
        let flows = self.flows.map(Flood::stop);
        Ok(LoadReport {
            sent: flows.iter().map(|flow| flow.sent).sum(),
            lost: flows.iter().map(|flow| flow.lost.len()).sum(),
            stream_gap: stream.longest_gap,
            tunnel_gap: tunnel.longest_gap,
            tunnel_lost: tunnel.lost.len(),
        })
    }
}

/// A client of the tunnel with an interface and addresses, configured as a peer of the bastion.
fn client(bastion: &Bastion) -> Result<Interface> {
    let world = &bastion.world;
    let key = PrivateKey::generate();
    let peer = format!("name = \"client\"\npublic_key = \"{}\"\nallowed_ips = [\"10.100.0.2/32\"]\n", key.public());
    bastion.machine.write("/etc/bastiond/peers.d/client.toml", 0o640, peer)?;
    bastion.machine.run(&["systemctl", "reload", UNIT])?;
    let mut public_key = None;
    wait_for("the peer is taken", 5 * SOON, || {
        let tunnel = bastion.report()?.tunnel;
        public_key = tunnel.filter(|tunnel| !tunnel.peers.is_empty()).and_then(|tunnel| tunnel.public_key);
        Ok(public_key.is_some())
    })?;
    bastion.becomes_healthy()?;
    let public_key = public_key.ok_or("the tunnel has no key")?;
    let client = Interface::start(world.server(), &Program::wireguard_go())?;
    client.set_with_key("private-key /dev/stdin", &key.to_base64())?;
    client.set(&format!("peer {public_key} endpoint {}:51820 allowed-ips 10.100.0.0/24,10.0.0.0/16", at::BASTION))?;
    client.up(world.server(), &["10.100.0.2/24".parse()?])?;
    world.server().ip(&format!("route add 10.0.0.0/16 dev {}", client.name()))?;
    Ok(client)
}

/// Repeats an operation under load. The interface and its sockets stay, and the daemon's process changes each time. The
/// pauses of the tunnel, from the shortest on, and the packets lost in it.
fn under_load(bastion: &Bastion, what: &str, mut deed: impl FnMut(usize) -> Result) -> Result<(Vec<Duration>, usize)> {
    let (mut gaps, mut lost) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let load = Load::start(bastion)?;
        let (pid, kept) = (bastion.main_pid()?, Load::kept(bastion)?);
        deed(round)?;
        bastion.is_replaced(pid, 5 * SOON)?;
        bastion.becomes_healthy()?;
        load.goes_on()?;
        ensure_eq(Load::kept(bastion)?, kept)?;
        let report = load.stop()?;
        print_measurement(what, &report);
        ensure_eq(report.lost, 0)?;
        gaps.push(report.tunnel_gap);
        lost += report.tunnel_lost;
    }
    gaps.sort_unstable();
    Ok((gaps, lost))
}

/// The process of the tunnel, by the machine's systemd; 0 means none.
pub(crate) fn tunnel_pid(bastion: &Bastion) -> Result<u32> {
    Ok(bastion.machine.property(TUNNEL_UNIT, "MainPID")?.parse()?)
}

fn restart() -> Result {
    let bastion = Bastion::healthy(TUNNEL)?;
    let tunnel = tunnel_pid(&bastion)?;
    has_nothing(&bastion, tunnel)?;
    let (_, lost) = under_load(&bastion, "restart under load", |_| {
        bastion.machine.run(&["systemctl", "restart", UNIT])?;
        Ok(())
    })?;
    ensure(lost <= NOISE, format!("{lost} packets were lost in the tunnel"))?;
    ensure_eq(tunnel_pid(&bastion)?, tunnel)?;
    // These are no automatic restarts.
    ensure_eq(bastion.restarts()?, 0)
}

/// The tunnel's process has no capability, another user than the daemon, and no network but what it was given.
fn has_nothing(bastion: &Bastion, pid: u32) -> Result {
    ensure(pid != 0, "the tunnel has no process")?;
    let status = bastion.machine.run(&["cat", &format!("/proc/{pid}/status")])?;
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        ensure_eq((set, field(set)), (set, "0000000000000000".to_owned()))?;
    }
    ensure_eq((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()))?;
    let user = bastion.machine.run(&["id", "-u", "bastiond-tunnel"])?;
    ensure_eq(field("Uid:").split_whitespace().next().map(str::to_owned), Some(user.trim().to_owned()))?;
    let network = |pid: &str| bastion.machine.run(&["readlink", &format!("/proc/{pid}/ns/net")]);
    ensure(network(&pid.to_string())? != network("1")?, "the process is in the server's network")?;
    let sockets =
        bastion.machine.run(&["stat", "--format", "%U %a", "/run/bastiond/tunnel.sock", "/run/wireguard/wg0.sock"])?;
    ensure_eq(sockets.trim(), "bastiond 600\nbastiond 600")?;
    // No member of the daemon's group may pose as a tunnel.
    let member = ["setpriv", "--reuid", "nobody", "--regid", "bastiond", "--clear-groups"];
    let posed = [&member[..], &["touch", "/run/wireguard/wg1.sock"]].concat();
    ensure(!bastion.machine.try_run(&posed)?.status.success(), "a member of the group may make a file")?;
    bastion.machine.run(&["wg", "show", "wg0"]).map(drop)
}

fn upgrade() -> Result {
    let bastion = Bastion::healthy(TUNNEL)?;
    let tunnel = tunnel_pid(&bastion)?;
    let (_, lost) = under_load(&bastion, "upgrade under load", |round| {
        install(&bastion, &Package::given()?.next(&format!("+{}", round + 1))?)
    })?;
    ensure(lost <= NOISE, format!("{lost} packets were lost in the tunnel"))?;
    ensure_eq(tunnel_pid(&bastion)?, tunnel)
}

fn install(bastion: &Bastion, next: &Package) -> Result {
    bastion.machine.write("/root/next.deb", 0o644, std::fs::read(next.path())?)?;
    bastion.machine.run(&["dpkg", "--install", "/root/next.deb"])?;
    let version = bastion.machine.run(&["dpkg-query", "--show", "--showformat=${Version}", "bastiond"])?;
    ensure_eq(version.as_str(), next.version())
}

fn upgrade_of_the_tunnel() -> Result {
    let bastion = Bastion::healthy(TUNNEL)?;
    let mut processes = vec![tunnel_pid(&bastion)?];
    let (gaps, _) = under_load(&bastion, "upgrade of the tunnel's program under load", |round| {
        let next = Package::given()?.changed(&format!("+{}", round + 1), |tree| {
            // What follows an ELF program's own bytes is not loaded.
            let path = tree.join("usr/bin/bastiond-tunnel");
            let mut program = std::fs::read(&path)?;
            program.extend(round.to_ne_bytes());
            Ok(std::fs::write(&path, program)?)
        })?;
        install(&bastion, &next)?;
        processes.push(tunnel_pid(&bastion)?);
        Ok(())
    })?;
    processes.dedup();
    ensure_eq(processes.len(), ROUNDS + 1)?;
    // The median, because other load of the machine makes single pauses longer.
    ensure(gaps[ROUNDS / 2] < scaled(GAP), format!("the tunnel was silent for {gaps:?}"))
}
