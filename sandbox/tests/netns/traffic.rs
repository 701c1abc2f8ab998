//! The traffic generators and observers.

use std::net::SocketAddrV4;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;
use sandbox::traffic::{
    Direction, DownloadFailure, DownloadServer, Flood, FloodReport, Fragmentation, HeldConnection, OfferedLoad, Ping,
    ProbeFailure, Reflector, download, offer_load, ping, sniff_syns, tcp_connects, tcp_probe, udp_probe,
};
use sandbox::world::{Settings, World, addresses as at};

use crate::private::nat_by_hand;
use crate::{Outcome, SILENCE, TIMEOUT, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        probes_distinguish_refused_and_timeout_and_unreachable,
        a_flood_without_an_outage_loses_nothing,
        a_flood_reports_the_lost_datagrams_and_the_length_of_an_outage,
        an_offered_load_counts_arrived_and_lost_datagrams,
        a_held_connection_fails_when_the_path_is_cut,
        a_download_is_compared_byte_for_byte,
        a_download_that_stalls_reports_the_received_bytes,
        each_side_announces_the_mss_of_its_own_link,
        packets_too_large_for_the_private_network_are_refused_with_an_icmp_error,
    ]
}

/// A world in which private hosts reach the internet.
fn connected() -> Result<World, libtest_mimic::Failed> {
    let world = World::start(Settings::default())?;
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    nat_by_hand(&world)?;
    Ok(world)
}

fn probes_distinguish_refused_and_timeout_and_unreachable() -> Outcome {
    let world = connected()?;
    let server = world.server();
    assert_eq!(tcp_probe(world.web(), (at::SERVER, 81), TIMEOUT), Err(ProbeFailure::Refused));
    assert_eq!(udp_probe(world.web(), (at::SERVER, 81), TIMEOUT), Err(ProbeFailure::Refused));
    let listener = Reflector::tcp(server, (at::SERVER, 82))?;
    assert_eq!(tcp_connects(world.web(), listener.address(), TIMEOUT), Ok(()));
    server.nft("table ip silence { chain input { type filter hook input priority 0; tcp dport 82 drop; }; }")?;
    assert_eq!(tcp_connects(world.web(), listener.address(), SILENCE), Err(ProbeFailure::Timeout));
    let nowhere = ([192, 0, 2, 200], 80);
    assert_eq!(tcp_probe(world.web(), nowhere, TIMEOUT), Err(ProbeFailure::Unreachable));
    assert_eq!(udp_probe(world.web(), nowhere, TIMEOUT), Err(ProbeFailure::Unreachable));
    Ok(())
}

fn a_flood_without_an_outage_loses_nothing() -> Outcome {
    let world = connected()?;
    let reflector = Reflector::udp(world.server(), (at::SERVER, 7))?;
    let flood = Flood::start(world.web(), reflector.address(), 1000)?;
    sleep(Duration::from_millis(500));
    let FloodReport { sent, received, lost, longest_gap } = flood.stop();
    assert_eq!((received, lost), (sent, vec![]));
    assert!((250..=600).contains(&sent), "{sent}");
    assert!(longest_gap < SILENCE, "{longest_gap:?}");
    Ok(())
}

fn a_flood_reports_the_lost_datagrams_and_the_length_of_an_outage() -> Outcome {
    let world = connected()?;
    let reflector = Reflector::udp(world.server(), (at::SERVER, 7))?;
    let flood = Flood::start(world.web(), reflector.address(), 500)?;
    sleep(Duration::from_millis(200));
    world.bastion().sysctl("net.ipv4.ip_forward", "0")?;
    sleep(SILENCE);
    world.bastion().sysctl("net.ipv4.ip_forward", "1")?;
    sleep(Duration::from_millis(200));
    let report = flood.stop();
    assert_eq!(report.received + u64::try_from(report.lost.len())?, report.sent);
    // The outage began between two packets, so the gap is a little shorter than the outage.
    assert!(report.longest_gap + Duration::from_millis(50) >= SILENCE, "{:?}", report.longest_gap);
    let (first, last) =
        (report.lost.first().ok_or("no datagram was lost")?, report.lost.last().ok_or("no datagram was lost")?);
    assert_eq!(report.lost, (*first..=*last).collect::<Vec<_>>());
    assert!(report.received > 50, "{report:?}");
    Ok(())
}

fn an_offered_load_counts_arrived_and_lost_datagrams() -> Outcome {
    let world = connected()?;
    let target = SocketAddrV4::new(at::SERVER, 9);
    let offered = OfferedLoad { rate: 2000, size: 64, duration: Duration::from_millis(250) };
    let delivered = offer_load(world.web(), world.server(), target, offered)?;
    assert_eq!((delivered.arrived, delivered.loss()), (delivered.sent, 0.0), "{delivered:?}");
    assert!((100..=500).contains(&delivered.sent), "{delivered:?}");
    // Every second datagram is dropped.
    world.server().nft(
        "table ip half { chain input {
             type filter hook input priority 0; policy accept;
             udp dport 9 numgen inc mod 2 0 drop
         }
         }",
    )?;
    let delivered = offer_load(world.web(), world.server(), target, offered)?;
    assert!((0.45..=0.55).contains(&delivered.loss()), "{delivered:?}");
    Ok(())
}

fn a_held_connection_fails_when_the_path_is_cut() -> Outcome {
    let world = connected()?;
    let reflector = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let mut held = HeldConnection::open(world.web(), reflector.address(), TIMEOUT)?;
    assert_eq!(held.seen().ip(), at::BASTION);
    for _ in 0..3 {
        held.exchange(TIMEOUT)?;
    }
    world.remove_route("0.0.0.0/0".parse()?);
    assert!(held.exchange(SILENCE).is_err());
    Ok(())
}

fn a_download_is_compared_byte_for_byte() -> Outcome {
    let world = connected()?;
    let source = DownloadServer::start(world.server(), (at::SERVER, 8080))?;
    // Not a multiple of the block or of the segment size.
    let bytes = 5_000_003;
    let fetched = download(world.web(), source.address(), bytes, TIMEOUT)?;
    assert_eq!((fetched.bytes, fetched.intact), (bytes, true));
    // 1450 less the headers of IP and TCP, less the timestamps.
    assert_eq!(fetched.mss, 1398);
    Ok(())
}

fn a_download_that_stalls_reports_the_received_bytes() -> Outcome {
    let world = connected()?;
    let source = DownloadServer::start(world.server(), (at::SERVER, 8080))?;
    // Only the first packets pass, enough to connect.
    world.bastion().nft(
        "table ip stall { chain forward {
             type filter hook forward priority 0; policy accept;
             ct original packets > 4 drop
         }
         }",
    )?;
    let failure =
        download(world.web(), source.address(), 50_000_000, SILENCE).err().ok_or("the download must not finish")?;
    let DownloadFailure::Ended { received, source } = failure else { return Err("it connects".into()) };
    assert!(received < 50_000_000, "{received}");
    assert_eq!(source, ProbeFailure::Timeout);
    Ok(())
}

fn each_side_announces_the_mss_of_its_own_link() -> Outcome {
    let world = connected()?;
    let reflector = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let caught = sniff_syns(world.bastion(), "eth1")?;
    tcp_probe(world.web(), reflector.address(), TIMEOUT)?;
    let offers: Vec<_> = caught
        .stop()
        .iter()
        .filter_map(|packet| packet.tcp().map(|tcp| (packet.direction, tcp.ack, tcp.mss)))
        .collect();
    // Without MSS clamping each side announces the MSS of its own MTU: 1450 and 1500 minus 40.
    assert_eq!(offers, [(Direction::In, false, Some(1410)), (Direction::Out, true, Some(1460))]);
    Ok(())
}

fn packets_too_large_for_the_private_network_are_refused_with_an_icmp_error() -> Outcome {
    let world = connected()?;
    world.web().sysctl("net.ipv4.ip_no_pmtu_disc", "0")?;
    let exact = Ping { size: 1422, fragmentation: Fragmentation::Forbidden, ..Ping::default() };
    assert_eq!(ping(world.web(), at::SERVER, exact)?.replies.len(), 1);
    // In the other direction the bastion sends the ICMP error. A route around the NAT lets the server send to it.
    world.server().ip(&format!("route add {}/32 via {}", at::WEB, at::API))?;
    let large = Ping { size: 1472, ..exact };
    let refused = ping(world.server(), at::WEB, large)?;
    assert_eq!(refused.replies, []);
    assert_eq!(refused.icmp_errors.len(), 1, "{refused:?}");
    assert!(refused.icmp_errors[0].contains("Frag needed and DF set (mtu = 1450)"), "{refused:?}");
    Ok(())
}
