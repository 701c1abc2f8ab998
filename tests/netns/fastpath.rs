//! The fast path in BPF: which packets it carries, what they look like, and what stops them.
//!
//! Loading programs takes root of the machine, not of a user namespace. Without that these tests are ignored.

mod churn;
mod versions;

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bastiond::internals::outcome::{ComponentName, State};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::{Daemon, Installation};
use sandbox::timeouts::scaled;
use sandbox::traffic::{self, Direction, DownloadServer, HeldConnection, Packet, Reflector, Sniffer};
use sandbox::world::{Settings, World, addresses as at};

use crate::bpf;
use crate::gateway::{
    FAST, NEVER, REPAIR, Result, SOON, all_components_ok, component, ensure, ensure_eq, installation, text, trial,
    wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    let trials = [
        trial("the_fast_path_carries_established_flows_and_the_status_says_how_many", carries),
        trial("carried_packets_equal_those_of_the_kernels_path_byte_by_byte", bytes_are_equal),
        trial("transfers_are_intact_on_the_fast_path_with_and_without_offloads", transfers),
        trial("connections_on_the_fast_path_end_cleanly_by_fin_and_by_reset", || ends(50_000_000)),
        trial("a_removed_forward_stops_its_carried_packets_before_the_change_is_reported", forward_goes),
        trial("no_packet_passes_after_any_of_many_removals_while_others_are_learnt", removals_race),
        trial("a_detached_program_is_attached_again_and_the_place_for_filters_too", healed),
        trial("the_fast_path_stands_aside_for_chains_that_need_every_packet", stands_aside),
        trial("down_and_another_choice_take_the_fast_path_away_and_leave_foreign_filters", taken_away),
        trial("a_daemon_without_rights_for_bpf_attaches_counts_forgets_and_removes", confined),
        trial("no_packet_is_lost_when_the_daemon_restarts_or_is_killed", restarts),
    ];
    // Sequence numbers of TCP have 32 bits.
    let long = trial("connections_of_more_than_4_gb_on_the_fast_path_end_cleanly", || ends(4_500_000_000));
    let trials =
        trials.into_iter().chain(versions::trials()).chain([long.with_ignored_flag(true)]).chain(churn::trials());
    if bpf::are_ignored() { trials.map(|trial| trial.with_ignored_flag(true)).collect() } else { trials.collect() }
}

const BPF: &str = "[nat]\nfastpath = \"bpf\"\n";
/// A UDP port of the bastion that leads to the host `web`.
const FORWARD: &str = "[[nat.forward]]\nprotocol = \"both\"\nport = 7000\nto = \"10.0.0.4\"\n";

fn bpf_installation<'w>(world: &'w World, directory: &Path) -> Result<Installation<'w>> {
    let installation = installation(world)?.env("BASTIOND_BPF_DIRECTORY", &directory.to_string_lossy());
    installation.write_config(&format!("{FAST}{BPF}{FORWARD}"))?;
    Ok(installation)
}

/// A daemon whose fast path stands.
fn serving(installation: &Installation<'_>) -> Result<Daemon> {
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    wait_for("the fast path stands", SOON, || {
        let path = component(installation, ComponentName::Fastpath)?;
        Ok(all_components_ok(installation)? && path.detail.starts_with("bpf carries"))
    })
    .map_err(|error| format!("{}\n{}", error.message().unwrap_or_default(), daemon.log()))?;
    Ok(daemon)
}

/// Changes the configuration, and waits until the daemon says that it is applied.
fn apply(installation: &Installation<'_>, daemon: &mut Daemon, config: &str) -> Result {
    installation.write_config(config)?;
    daemon.signal(Signal::SIGHUP)?;
    let applied = daemon.wait_for_notification("READY=1", SOON);
    ensure(applied.is_some(), format!("the configuration is not applied\n{}", daemon.log()))
}

/// How many packets were carried, by the status.
fn carried(installation: &Installation<'_>) -> Result<u64> {
    installation.ctl(&["reconcile"])?;
    let detail = component(installation, ComponentName::Fastpath)?.detail;
    let number = detail.split('(').nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    number.ok_or_else(|| format!("no number: {detail}").into())
}

/// Two sockets that have exchanged datagrams through the bastion.
struct UdpFlow {
    client: UdpSocket,
    server: UdpSocket,
}

impl UdpFlow {
    /// From `web` to the internet.
    fn out(world: &World) -> Result<Self> {
        let server = world.server().bind_udp((at::SERVER, 0))?;
        let client = world.web().bind_udp((at::WEB, 0))?;
        client.connect(server.local_addr()?)?;
        Self::opened(client, server)
    }

    /// From the internet to `web`, by the forward.
    fn inwards(world: &World, client_port: u16, server: &UdpSocket) -> Result<Self> {
        let client = world.server().bind_udp((at::SERVER, client_port))?;
        client.connect(SocketAddrV4::new(at::BASTION, 7000))?;
        Self::opened(client, server.try_clone()?)
    }

    fn opened(client: UdpSocket, server: UdpSocket) -> Result<Self> {
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(scaled(SOON)))?;
        }
        client.send(b"open")?;
        let mut buffer = [0; 8];
        let (_, source) = server.recv_from(&mut buffer)?;
        server.send_to(b"open", source)?;
        client.recv(&mut buffer)?;
        let mut flow = Self { client, server };
        // The next packet of each direction is learnt.
        flow.exchange(b"learn")?;
        Ok(flow)
    }

    /// Sends a datagram there and back, and compares it.
    fn exchange(&mut self, payload: &[u8]) -> Result {
        let mut buffer = vec![0; 65536];
        self.client.send(payload)?;
        let (length, source) = self.server.recv_from(&mut buffer)?;
        ensure(buffer[..length] == *payload, format!("{length} bytes arrived of {}", payload.len()))?;
        self.server.send_to(payload, source)?;
        let length = self.client.recv(&mut buffer)?;
        ensure(buffer[..length] == *payload, format!("{length} bytes came back of {}", payload.len()))
    }

    /// Whether nothing that the client sends arrives any more.
    fn is_cut(&self) -> Result<bool> {
        self.server.set_nonblocking(true)?;
        let mut buffer = [0; 64];
        while self.server.recv_from(&mut buffer).is_ok() {}
        self.server.set_nonblocking(false)?;
        self.server.set_read_timeout(Some(NEVER))?;
        self.client.send(b"after")?;
        Ok(self.server.recv_from(&mut buffer).is_err())
    }
}

fn carries() -> Result {
    let world = World::start(Settings::default())?;
    let installation = bpf_installation(&world, &bpf::loaded("carries")?)?;
    let _daemon = serving(&installation)?;
    let mut flow = UdpFlow::out(&world)?;
    let before = carried(&installation)?;
    for _ in 0..100 {
        flow.exchange(b"there and back")?;
    }
    let after = carried(&installation)?;
    // At most two a second take the kernel's path.
    ensure((180..=200).contains(&(after - before)), format!("{before} before, {after} after"))?;
    let detail = component(&installation, ComponentName::Fastpath)?.detail;
    ensure(detail.contains("% of forwarded packets"), detail)
}

/// The kernel's path makes the first packets of each payload, the fast path the others: all of them leave alike.
fn bytes_are_equal() -> Result {
    let world = World::start(Settings::default())?;
    let installation = bpf_installation(&world, &bpf::loaded("bytes")?)?;
    let daemon = serving(&installation)?;
    // Without offloads, so that every checksum is complete and the receivers check it.
    for (host, link) in [(world.web(), "eth0"), (world.server(), "eth0")] {
        let output = host.command("ethtool").args(["-K", link, "tx", "off", "rx", "off"]).output()?;
        ensure(output.status.success(), text(&output.stderr))?;
    }
    let mut flow = UdpFlow::out(&world)?;
    let port = flow.server.local_addr()?.port();
    for length in [0_usize, 1, 2, 3, 7, 18, 19, 63, 64, 255, 511, 1000, 1399, 1421, 1422] {
        let payload: Vec<u8> = (0..=u8::MAX).cycle().step_by(7).take(length).collect();
        let is_out =
            move |packet: &Packet| packet.direction == Direction::Out && packet.udp().is_some_and(|(_, to)| to == port);
        let leaving = Sniffer::start(world.bastion(), "eth0", is_out)?;
        let back = Sniffer::start(world.bastion(), "eth1", move |packet: &Packet| {
            packet.direction == Direction::Out && packet.udp().is_some_and(|(from, _)| from == port)
        })?;
        // A pass that raises the generation: the first exchange of a payload takes the kernel's path.
        daemon.signal(Signal::SIGHUP)?;
        std::thread::sleep(Duration::from_millis(150));
        let before = carried(&installation)?;
        for _ in 0..10 {
            flow.exchange(&payload)?;
        }
        let by_fast_path = carried(&installation)? - before;
        ensure(by_fast_path >= 10, format!("{length} bytes: {by_fast_path} carried"))?;
        for (which, packets) in [("there", leaving.stop()), ("back", back.stop())] {
            let alike: Vec<Vec<u8>> = packets.iter().map(|packet| without_identification(&packet.bytes)).collect();
            ensure(alike.len() >= 10, format!("{length} bytes {which}: {} packets", alike.len()))?;
            let differing = alike.iter().position(|bytes| *bytes != alike[0]);
            ensure(
                differing.is_none(),
                format!("{length} bytes {which}: {:02x?} {:02x?}", alike.first(), alike.last()),
            )?;
        }
    }
    Ok(())
}

/// A packet without what its sender counts: its identification, and the header's checksum less that.
fn without_identification(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    let word = |at: usize| u32::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let sum = word(4) + word(10);
    let sum = (sum & 0xffff) + (sum >> 16);
    bytes[4..6].fill(0);
    bytes[10..12].copy_from_slice(&u16::try_from(sum).unwrap_or_default().to_be_bytes());
    bytes
}

/// Bytes of a transfer.
const BULK: u64 = 20_000_000;

fn transfers() -> Result {
    let world = World::start(Settings::default())?;
    let installation = bpf_installation(&world, &bpf::loaded("transfers")?)?;
    let _daemon = serving(&installation)?;
    let out = DownloadServer::start(world.server(), (at::SERVER, 0))?;
    let inwards = DownloadServer::start(world.web(), (at::WEB, 7000))?;
    for offloads in ["on", "off"] {
        for host in [world.web(), world.server()] {
            let words = ["-K", "eth0", "tx", offloads, "tso", offloads, "gso", offloads, "gro", offloads];
            let output = host.command("ethtool").args(words).output()?;
            ensure(output.status.success(), text(&output.stderr))?;
        }
        let before = carried(&installation)?;
        let down = traffic::download(world.web(), out.address(), BULK, SOON * 4)?;
        let up = traffic::download(world.server(), (at::BASTION, inwards.address().port()), BULK, SOON * 4)?;
        ensure_eq((down.bytes, down.intact, up.bytes, up.intact), (BULK, true, BULK, true))?;
        let more = carried(&installation)? - before;
        ensure(more > 100, format!("offloads {offloads}: {more} carried"))?;
    }
    Ok(())
}

/// The state of the flow to this port, as connection tracking has it.
fn state_of(world: &World, port: u16) -> Result<String> {
    let listing = world.bastion().run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack"))?;
    let wanted = format!("dport={port} ");
    let line = listing.lines().find(|line| line.contains("tcp") && line.contains(&wanted)).unwrap_or_default();
    Ok(line.to_owned())
}

/// Connections that end after so many bytes.
fn ends(bytes: u64) -> Result {
    // A debug build makes and compares 100 MB a second.
    let patience = SOON * 4 + Duration::from_secs(bytes / 20_000_000);
    let world = World::start(Settings::default())?;
    let installation = bpf_installation(&world, &bpf::loaded("ends")?)?;
    let _daemon = serving(&installation)?;
    for (by_reset, port) in [(false, 8081), (true, 8082)] {
        let server = DownloadServer::start(world.server(), (at::SERVER, port))?;
        let before = carried(&installation)?;
        let mut stream = world.web().run(|| std::net::TcpStream::connect(server.address()))?;
        if by_reset {
            // Closed with data unread, a socket resets the connection.
            stream.write_all(&(2 * bytes).to_be_bytes())?;
            stream.set_read_timeout(Some(scaled(SOON)))?;
            ensure_eq(std::io::copy(&mut (&stream).take(bytes), &mut std::io::sink())?, bytes)?;
            drop(stream);
        } else {
            drop(stream);
            let download = traffic::download(world.web(), server.address(), bytes, patience)?;
            ensure(download.intact, "the transfer is intact")?;
        }
        ensure(carried(&installation)? > before + 100, "the transfer takes the fast path")?;
        // An entry of an open connection lives for two hours. After a reset that does not continue the last segment
        // exactly the kernel keeps its state, and gives it ten seconds.
        wait_for("connection tracking sees the end", SOON, || {
            let line = state_of(&world, port)?;
            let left = line.split_whitespace().nth(4).and_then(|seconds| seconds.parse::<u32>().ok());
            Ok(left.is_none_or(|seconds| seconds <= 60))
        })
        .map_err(|error| format!("{error:?}: {}", state_of(&world, port).unwrap_or_default()))?;
        wait_for("the server sees the end", SOON, || {
            let filter = format!("sport = :{port}");
            let output = world.server().command("ss").args(["-Htn", "state", "established", &filter]).output()?;
            Ok(output.status.success() && output.stdout.is_empty())
        })?;
    }
    Ok(())
}

fn forward_goes() -> Result {
    let world = World::start(Settings::default())?;
    let installation = bpf_installation(&world, &bpf::loaded("forward")?)?;
    let mut daemon = serving(&installation)?;
    let server = world.web().bind_udp((at::WEB, 7000))?;
    let mut flow = UdpFlow::inwards(&world, 6000, &server)?;
    let mut other = UdpFlow::out(&world)?;
    let before = carried(&installation)?;
    for _ in 0..20 {
        flow.exchange(b"inwards")?;
    }
    ensure(carried(&installation)? >= before + 30, "the flow takes the fast path")?;
    apply(&installation, &mut daemon, &format!("{FAST}{BPF}"))?;
    ensure(flow.is_cut()?, "a packet passes after the forward was removed")?;
    // Others go on.
    other.exchange(b"other")
}

/// How often a forward is removed.
const REMOVALS: u16 = 12;

/// A sender that never stops sends while its forward is removed: after the answer to the reload not one packet arrives,
/// however often that is tried, and flows that are still allowed are learnt all the time.
fn removals_race() -> Result {
    let world = World::start(Settings::default())?;
    let installation = bpf_installation(&world, &bpf::loaded("race")?)?;
    let mut daemon = serving(&installation)?;
    let server = world.web().bind_udp((at::WEB, 7000))?;
    let mut other = UdpFlow::out(&world)?;
    let mut latest = Duration::ZERO;
    for round in 0..REMOVALS {
        apply(&installation, &mut daemon, &format!("{FAST}{BPF}{FORWARD}"))?;
        let flow = UdpFlow::inwards(&world, 6100 + round, &server)?;
        let sender = flow.client.try_clone()?;
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let sending = std::thread::spawn(move || {
            let mut sent = 0_u64;
            while matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                // An error: a port is unreachable.
                sent += u64::from(sender.send(&sent.to_be_bytes()).is_ok());
            }
            sent
        });
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        apply(&installation, &mut daemon, &format!("{FAST}{BPF}"))?;
        latest = latest.max(began.elapsed());
        // What had arrived before the answer is read away.
        let mut buffer = [0; 64];
        server.set_nonblocking(true)?;
        while server.recv_from(&mut buffer).is_ok() {}
        std::thread::sleep(Duration::from_millis(20));
        // The receive queue was full of packets of before, so one more time.
        let mut late = 0;
        while server.recv_from(&mut buffer).is_ok() {
            late += 1;
        }
        let _ = stop.send(());
        let sent = sending.join().map_err(|_| "the sender panicked")?;
        server.set_nonblocking(false)?;
        ensure(sent > 100, format!("round {round}: {sent} sent"))?;
        ensure_eq((round, late), (round, 0))?;
        other.exchange(b"other")?;
    }
    println!("a reload took at most {latest:?}");
    Ok(())
}

/// The programs at the links, a line each.
fn filters(world: &World) -> Result<String> {
    let mut found = String::new();
    for link in ["eth0", "eth1"] {
        for hook in ["ingress", "egress"] {
            let output = world.bastion().command("tc").args(["filter", "show", "dev", link, hook]).output()?;
            found.push_str(&text(&output.stdout));
        }
    }
    Ok(found)
}

fn tc(world: &World, words: &str) -> Result {
    let output = world.bastion().command("tc").args(words.split(' ')).output()?;
    ensure(output.status.success(), format!("tc {words}: {}", text(&output.stderr)))
}

fn our_filters(world: &World) -> Result<usize> {
    Ok(filters(world)?.matches("bastiond-forward").count() + filters(world)?.matches("bastiond-learn").count())
}

fn healed() -> Result {
    let world = World::start(Settings::default())?;
    let installation = bpf_installation(&world, &bpf::loaded("healed")?)?;
    let _daemon = serving(&installation)?;
    ensure_eq(our_filters(&world)?, 4)?;
    let mut flow = UdpFlow::out(&world)?;
    for detach in ["filter del dev eth0 ingress", "filter del dev eth1 egress", "qdisc del dev eth0 clsact"] {
        tc(&world, detach)?;
        flow.exchange(b"without")?;
        wait_for("it is attached again", REPAIR, || Ok(our_filters(&world)? == 4))?;
    }
    ensure(component(&installation, ComponentName::Fastpath)?.totals.repairs >= 3, "it counts as repaired")?;
    flow.exchange(b"learn")?;
    let before = carried(&installation)?;
    for _ in 0..20 {
        flow.exchange(b"again")?;
    }
    ensure(carried(&installation)? >= before + 30, "it carries again")
}

/// Within which time other programs' rules see every packet again.
const ASIDE: Duration = Duration::from_secs(1);

fn stands_aside() -> Result {
    let world = World::start(Settings::default())?;
    let installation = bpf_installation(&world, &bpf::loaded("aside")?)?;
    let _daemon = serving(&installation)?;
    let mut flow = UdpFlow::out(&world)?;
    let counted = "table inet counted {\nchain every {\ntype filter hook forward priority 10; counter\n}\n}";
    world.bastion().nft(counted)?;
    wait_for("it stands aside", ASIDE, || Ok(our_filters(&world)? == 0))?;
    let path = component(&installation, ComponentName::Fastpath)?;
    ensure(path.detail.starts_with("bpf stands aside"), path.detail.clone())?;
    ensure(path.hints.iter().any(|hint| hint.what.contains("chain every of table inet counted")), format!("{path:?}"))?;
    ensure_eq(our_filters(&world)?, 0)?;
    flow.exchange(b"by the kernel")?;
    world.bastion().nft("delete table inet counted")?;
    wait_for("it carries again", ASIDE, || Ok(our_filters(&world)? == 4))?;
    flow.exchange(b"carried")
}

fn taken_away() -> Result {
    let world = World::start(Settings::default())?;
    let directory = bpf::loaded("away")?;
    let installation = bpf_installation(&world, &directory)?;
    let mut daemon = serving(&installation)?;
    let foreign = "filter add dev eth1 ingress prio 10 protocol ip u32 match ip dst 192.0.2.99/32 flowid 1:1";
    tc(&world, foreign)?;
    // Another choice.
    apply(&installation, &mut daemon, &format!("{FAST}[nat]\nfastpath = false\n"))?;
    ensure_eq(our_filters(&world)?, 0)?;
    ensure(filters(&world)?.contains("u32"), "the foreign filter is gone")?;
    ensure_eq(std::fs::read_dir(&directory)?.count(), 0)?;
    let mut flow = UdpFlow::out(&world)?;
    flow.exchange(b"without")?;
    // And back: the daemon asks, and the programs come.
    apply(&installation, &mut daemon, &format!("{FAST}{BPF}"))?;
    let path = component(&installation, ComponentName::Fastpath)?;
    ensure_eq((path.state, path.problems[0].code.to_string()), (State::Waiting, "fastpath-not-loaded".to_owned()))?;
    ensure(installation.runtime_directory().join("fastpath").exists(), "nobody is asked for the programs")?;
    bpf::load(&directory, &[])?;
    wait_for("the fast path stands", SOON, || Ok(our_filters(&world)? == 4))?;
    flow.exchange(b"carried")?;
    let down = installation.ctl(&["down"])?;
    ensure(down.status.success(), text(&down.stderr))?;
    daemon.wait_for_exit(SOON)?;
    ensure_eq(our_filters(&world)?, 0)?;
    ensure(filters(&world)?.contains("u32"), "the foreign filter is gone")?;
    let qdiscs = text(&world.bastion().command("tc").args(["qdisc", "show", "dev", "eth0"]).output()?.stdout);
    ensure(!qdiscs.contains("clsact"), qdiscs)?;
    ensure_eq(std::fs::read_dir(&directory)?.count(), 0)
}

fn restarts() -> Result {
    let world = World::start(Settings::default())?;
    let installation = bpf_installation(&world, &bpf::loaded("restarts")?)?;
    let mut daemon = serving(&installation)?;
    let mut flow = UdpFlow::out(&world)?;
    let source = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let mut held = HeldConnection::open(world.web(), source.address(), SOON)?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        daemon.signal(signal)?;
        // Not one of these is lost: each is waited for.
        for _ in 0..50 {
            flow.exchange(b"during")?;
            held.exchange(SOON)?;
        }
        ensure(daemon.wait_for_exit(SOON)?.is_some(), "the daemon ends")?;
        ensure_eq(our_filters(&world)?, 4)?;
        daemon = serving(&installation)?;
        for _ in 0..50 {
            flow.exchange(b"after")?;
            held.exchange(SOON)?;
        }
    }
    Ok(())
}

/// As in the package: another account, with the one capability for the network, and the files of the programs.
fn confined() -> Result {
    let world = World::start(Settings::default())?;
    let directory = bpf::directory("confined");
    bpf::loaded("confined")?;
    bpf::load(&directory, &["--owner", "nobody"])?;
    let tools = tempfile::tempdir()?;
    let real = crate::gateway::programs().join("bastiond");
    let capabilities = "-all,+net_admin,+net_bind_service";
    let script = format!(
        "#!/bin/sh\nexec setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps={capabilities} \
         --ambient-caps={capabilities} --bounding-set={capabilities} --no-new-privs {} \"$@\"\n",
        real.display()
    );
    let wrapper = tools.path().join("bastiond");
    std::fs::write(&wrapper, script)?;
    std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755))?;
    std::fs::set_permissions(tools.path(), Permissions::from_mode(0o755))?;
    std::os::unix::fs::symlink(crate::gateway::programs().join("bastionctl"), tools.path().join("bastionctl"))?;
    let plain = bpf_installation(&world, &directory)?;
    give_to_nobody(plain.config_path().parent().unwrap_or(Path::new("/nonexistent")))?;
    let installation = plain.with_programs(tools.path());
    let mut daemon = installation.start()?;
    // The socket of the service manager, which is root's.
    let notify = installation.config_path().with_file_name("notify");
    std::fs::set_permissions(notify, Permissions::from_mode(0o777))?;
    daemon.wait_until_ready();
    ensure_eq(daemon.status_field("CapEff")?, "0000000000001400".to_owned())?;
    ensure(our_filters(&world)? >= 4, daemon.log())?;
    wait_for("every component is ok", SOON, || all_components_ok(&installation))
        .map_err(|error| format!("{}\n{}", error.message().unwrap_or_default(), daemon.log()))?;
    let mut flow = UdpFlow::out(&world)?;
    for _ in 0..20 {
        flow.exchange(b"confined")?;
    }
    ensure(carried(&installation)? > 30, daemon.log())?;
    let server = world.web().bind_udp((at::WEB, 7000))?;
    let inwards = UdpFlow::inwards(&world, 6001, &server)?;
    apply(&installation, &mut daemon, &format!("{FAST}{BPF}"))?;
    ensure(inwards.is_cut()?, "a packet passes after the forward was removed")?;
    apply(&installation, &mut daemon, &format!("{FAST}[nat]\nfastpath = false\n"))?;
    ensure_eq(our_filters(&world)?, 0)?;
    ensure_eq(std::fs::read_dir(&directory)?.count(), 0)
}

/// Gives a directory with everything in it to the account `nobody`.
fn give_to_nobody(directory: &Path) -> Result {
    let output = Command::new("chown").args(["-R", "nobody:nogroup"]).arg(directory).output()?;
    ensure(output.status.success(), text(&output.stderr))
}
