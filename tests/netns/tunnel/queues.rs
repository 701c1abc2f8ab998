//! An interface with more than one queue, as machines with four cores and more have it. Ours is given two whatever the
//! machine: each has threads and sockets of its own, and everything that holds with one queue has to hold with two.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use sandbox::star::Star;
use sandbox::traffic::{self, Flood, Ping, Reflector};
use sandbox::tunnel::Program;
use tempfile::TempDir;

use super::site::{PORT, Site, Transfer, exchange, join, ours};
use crate::gateway::{Result, SOON, ensure, ensure_eq, trial, wait_for};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("two_queues_deliver_every_packet_and_share_the_peers", share),
        trial("two_queues_lose_no_packet_of_several_peers_and_change_their_port", all_at_once),
    ]
}

/// Datagrams a second of a flood that must lose none.
const RATE: u32 = 300;
/// A peer that takes another port is with either queue, by a hash: so many in a row with one of them is no chance.
const PORTS: u16 = 24;
const QUEUES: usize = 2;

/// Our program, given an interface with two queues by another one, which a file of the directory is.
fn with_queues(directory: &TempDir) -> Result<Program> {
    let path = directory.path().join("two-queues");
    // linux/if_tun.h: TUNSETIFF; IFF_TUN, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR.
    let script = format!(
        "#!/usr/bin/env python3\n\
         import fcntl, os, struct, sys\n\
         queues = [os.open('/dev/net/tun', os.O_RDWR) for _ in range({QUEUES})]\n\
         for queue in queues:\n    \
             fcntl.ioctl(queue, 0x400454ca, struct.pack('16sH22x', sys.argv[-1].encode(), 0x5101))\n    \
             os.set_inheritable(queue, True)\n\
         os.environ['WG_TUN_FD'] = ','.join(map(str, queues))\n\
         os.execv('{program}', ['{program}'] + sys.argv[1:])\n",
        program = ours().path().display(),
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    Ok(Program::bastiond_tunnel(&path))
}

/// How often the first thread of each queue has woken up. It does for packets only.
fn awakenings(site: &Site<'_>) -> Result<[u64; QUEUES]> {
    let tasks = Path::new("/proc").join(site.interface.pid().to_string()).join("task");
    let mut found = [None; QUEUES];
    for task in fs::read_dir(tasks)? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?;
        let Some(queue) = name.trim().strip_prefix("wg-carry-").and_then(|queue| queue.parse::<usize>().ok()) else {
            continue;
        };
        let status = fs::read_to_string(task.join("status"))?;
        let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let place = found.get_mut(queue).ok_or_else(|| format!("there is a queue {queue}"))?;
        *place = waits.and_then(|waits| waits.trim().parse().ok());
    }
    let [Some(first), Some(second)] = found else {
        return Err(format!("queues without a thread that tells how often it waits: {found:?}").into());
    };
    Ok([first, second])
}

fn share() -> Result {
    let directory = tempfile::tempdir()?;
    let program = with_queues(&directory)?;
    let star = Star::with_hosts(3)?;
    let us = Site::start(&star, 0, &program)?;
    let peers = [Site::start(&star, 1, &program)?, Site::start(&star, 2, &Program::wireguard_go())?];
    for peer in &peers {
        join(peer, &us)?;
        exchange(peer, &us)?;
        exchange(&us, peer)?;
    }

    // A peer's packets come by one socket, which its address and port decide on.
    let [_, peer] = &peers;
    let pings = Ping { count: 10, interval: Duration::from_millis(20), ..Ping::default() };
    let mut carried = [false; QUEUES];
    for port in PORT + 1..=PORT + PORTS {
        peer.interface.set(&format!("listen-port {port}"))?;
        let before = awakenings(&us)?;
        ensure_eq(traffic::ping(peer.namespace(), us.v4(), pings)?.replies.len(), 10)?;
        let after = awakenings(&us)?;
        for ((carried, before), after) in carried.iter_mut().zip(before).zip(after) {
            *carried |= after - before >= 10;
        }
        if carried == [true; QUEUES] {
            return exchange(peer, &us);
        }
    }
    Err(format!("of the queues, these carried what came from {PORTS} ports: {carried:?}").into())
}

fn all_at_once() -> Result {
    let directory = tempfile::tempdir()?;
    let program = with_queues(&directory)?;
    let star = Star::with_hosts(4)?;
    let us = Site::start(&star, 0, &program)?;
    let peers = [
        Site::start(&star, 1, &program)?,
        Site::start(&star, 2, &Program::wireguard_go())?,
        Site::start(&star, 3, &Program::boringtun())?,
    ];
    for peer in &peers {
        join(peer, &us)?;
    }
    let reflector = |peer: &Site<'_>| Reflector::udp(peer.namespace(), (peer.v4(), 7));
    let reflectors = peers.iter().map(reflector).collect::<std::result::Result<Vec<_>, _>>()?;
    let flood = |reflector: &Reflector| Flood::start(us.namespace(), reflector.address(), RATE);
    let floods = reflectors.iter().map(flood).collect::<std::result::Result<Vec<_>, _>>()?;
    for flood in &floods {
        wait_for("the flood goes on", 5 * SOON, || Ok(flood.received() >= u64::from(RATE)))?;
    }
    let lost: Vec<_> = floods.into_iter().map(|flood| flood.stop().lost).collect();
    ensure_eq(lost, vec![vec![]; peers.len()])?;

    // To them and to us, all at once. These look for the most that passes, so packets are lost; no content is.
    let mut transfers = Vec::new();
    for peer in &peers {
        transfers.push(Transfer::start(peer, &us)?);
        transfers.push(Transfer::start(&us, peer)?);
    }
    transfers.iter().try_for_each(Transfer::goes_on)?;
    transfers.into_iter().try_for_each(Transfer::stop)?;

    us.interface.set("listen-port 40404")?;
    for peer in &peers {
        // They learn the port from what we send.
        ensure(us.reaches(peer)?, "nothing passes by the new port")?;
        exchange(peer, &us)?;
        ensure_eq(peer.peer(&us)?.endpoint, Some((us.host.v4(), 40404).into()))?;
    }
    Ok(())
}
