//! Logging of dropped packets: in the daemon's log, in a configured nflog group, or not at all.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bastiond::internals::drops::{self, Dropped};
use bastiond::internals::inputs::JOURNAL_GROUP;
use libtest_mimic::Trial;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nflog::{ConfigCmd, ConfigMode, ConfigNla, Timeout, config_request};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use sandbox::daemon::Daemon;
use sandbox::namespace::Namespace;
use sandbox::traffic;
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{NEVER, Result, SOON, all_components_ok, ensure, ensure_eq, trial, wait_for};
use crate::policy::{counted, gateway, reload};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_dropped_packet_is_in_the_log_with_its_fields", in_the_log),
        trial("a_flood_of_drops_does_not_flood_the_log", flood),
        trial("a_configured_nflog_group_gets_the_drops_instead_of_the_log", for_others),
        trial("without_logging_drops_are_only_counted", nowhere),
        trial("a_reload_changes_where_drops_are_logged", reloads),
        trial("an_nflog_group_in_use_is_reported_once_and_has_no_other_effect", taken),
    ]
}

/// The port of the tunnel, on which no process listens. Only the antispoofing rules drop datagrams to it.
const PORT: u16 = 51_820;

/// Sends a datagram that claims to come from a private host.
fn spoof(world: &World) -> Result {
    // An error means that the host has the address already.
    let _ = world.internet().ip(&format!("addr add {}/32 dev lo", at::WEB));
    let from = SocketAddr::from((at::WEB, 40_000));
    ensure(traffic::udp_probe_from(world.internet(), from, (at::BASTION, PORT), NEVER).is_err(), "it is answered")
}

/// The lines about drops in the log.
fn reported_drops(daemon: &Daemon) -> Vec<String> {
    daemon.log().lines().filter(|line| line.contains("dropped_")).map(str::to_owned).collect()
}

/// A socket that listens to an nflog group, as ulogd does.
struct Group(Socket);

impl Group {
    fn listen(host: &Namespace, group: u16) -> io::Result<Self> {
        let socket = host.run(|| -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&NetlinkAddress::new(0, 0))?;
            Ok(socket)
        })?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100))?;
        let wanted: Vec<ConfigNla> =
            vec![ConfigCmd::Bind.into(), ConfigMode::PACKET_MAX.into(), Timeout::new(1).into()];
        let request = config_request(NetfilterProtoFamily::Unspec, group, wanted);
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        socket.send(&bytes, 0)?;
        let (answer, _) = socket.recv_from_full()?;
        // The code after the header is 0 or a negative error number.
        let code = answer.get(16..20).and_then(|code| code.try_into().ok()).map_or(-1, i32::from_ne_bytes);
        if code == 0 { Ok(Self(socket)) } else { Err(io::Error::from_raw_os_error(-code)) }
    }

    /// The packets received until there are `count` of them or the time is over.
    fn receive(&self, count: usize, timeout: Duration) -> Vec<Dropped> {
        let (end, mut received) = (Instant::now() + timeout, Vec::new());
        while received.len() < count && Instant::now() < end {
            // An error means that nothing arrived for a while.
            received.extend(self.0.recv_from_full().map(|(datagram, _)| drops::read(&datagram)).unwrap_or_default());
        }
        received
    }
}

fn in_the_log() -> Result {
    let world = World::start(Settings::default())?;
    let (_installation, daemon) = gateway(&world, "")?;
    spoof(&world)?;
    wait_for("the drop is reported", SOON, || Ok(!reported_drops(&daemon).is_empty()))?;
    let lines = reported_drops(&daemon);
    let [line] = &lines[..] else { return Err(format!("{lines:#?}").into()) };
    for part in [
        "INFO dropped_spoofed: udp 10.0.0.4:40000 -> 198.51.100.2:51820 by eth0 ",
        "component=\"nat\"",
        "reason=\"dropped_spoofed\"",
        "interface=\"eth0\"",
        "source=10.0.0.4",
        "destination=198.51.100.2",
        "protocol=\"udp\"",
        "source_port=40000",
        "destination_port=51820",
    ] {
        ensure(line.contains(part), format!("{part} is not in {line}"))?;
    }
    ensure(!line.contains(" out="), line)?;
    // A forwarded packet has two interfaces.
    let nowhere = SocketAddr::from(([10, 99, 0, 1], 9));
    ensure(traffic::udp_probe(world.web(), nowhere, NEVER).is_err(), "a server answers there")?;
    let both = "dropped_unroutable: udp 10.0.0.4:";
    wait_for("the forwarded packet is reported", SOON, || {
        Ok(reported_drops(&daemon).iter().any(|line| line.contains(both)))
    })?;
    let lines = reported_drops(&daemon);
    let forwarded = lines.iter().find(|line| line.contains(both)).ok_or("it is gone")?;
    ensure(forwarded.contains("-> 10.99.0.1:9 by eth1 out of eth0 ") && forwarded.contains("out=\"eth0\""), forwarded)
}

fn flood() -> Result {
    let world = World::start(Settings::default())?;
    let (_installation, daemon) = gateway(&world, "")?;
    world.internet().ip(&format!("addr add {}/32 dev lo", at::WEB))?;
    let (before, begin) = (counted(&world, "dropped_spoofed")?, Instant::now());
    let socket = world.internet().bind_udp((at::WEB, 40_000))?;
    for _ in 0..2000 {
        socket.send_to(b"flood", (at::BASTION, PORT))?;
    }
    wait_for("all are dropped", SOON, || Ok(counted(&world, "dropped_spoofed")? == before + 2000))?;
    std::thread::sleep(NEVER);
    // A burst of ten, and five more per second.
    let allowed = 10 + 5 * (begin.elapsed().as_secs() + 1);
    let lines = reported_drops(&daemon).len();
    ensure(lines >= 10 && lines as u64 <= allowed, format!("{lines} lines"))
}

fn for_others() -> Result {
    let world = World::start(Settings::default())?;
    let group = Group::listen(world.bastion(), 7)?;
    let (_installation, daemon) = gateway(&world, "[firewall]\nlog_drops = 7")?;
    spoof(&world)?;
    let received = group.receive(1, SOON);
    let received_lines = received.iter().map(ToString::to_string).collect::<Vec<_>>();
    ensure_eq(received_lines, vec!["dropped_spoofed: udp 10.0.0.4:40000 -> 198.51.100.2:51820".to_owned()])?;
    ensure_eq(reported_drops(&daemon), vec![])?;
    // The default group is free.
    ensure(Group::listen(world.bastion(), JOURNAL_GROUP).is_ok(), "the daemon listens to its group")
}

fn nowhere() -> Result {
    let world = World::start(Settings::default())?;
    let groups = [7, JOURNAL_GROUP].map(|group| Group::listen(world.bastion(), group));
    let (_installation, daemon) = gateway(&world, "[firewall]\nlog_drops = false")?;
    spoof(&world)?;
    ensure_eq(counted(&world, "dropped_spoofed")?, 1)?;
    for group in groups {
        ensure_eq(group?.receive(1, NEVER), vec![])?;
    }
    ensure_eq(reported_drops(&daemon), vec![])
}

fn reloads() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, mut daemon) = gateway(&world, "")?;
    let mut lines = 0;
    for (options, is_told) in [("log_drops = false", 0), ("log_drops = \"journal\"", 1), ("log_drops = 9", 0), ("", 1)]
    {
        reload(&installation, &mut daemon, &format!("[firewall]\n{options}"))?;
        spoof(&world)?;
        lines += is_told;
        wait_for(&format!("{options}: {lines} lines"), SOON, || Ok(reported_drops(&daemon).len() == lines))?;
    }
    Ok(())
}

fn taken() -> Result {
    let world = World::start(Settings::default())?;
    let other = Group::listen(world.bastion(), JOURNAL_GROUP)?;
    let (installation, daemon) = gateway(&world, "")?;
    spoof(&world)?;
    ensure_eq(other.receive(1, SOON).len(), 1)?;
    ensure(all_components_ok(&installation)?, "a component is not ok")?;
    let warnings = daemon.log().matches("dropped packets are not logged: cannot listen to nflog group 5178").count();
    ensure_eq((warnings, reported_drops(&daemon)), (1, vec![]))
}
