//! The star topology, and continuous downloads between two of its hosts.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sandbox::star::{Family, Star};
use sandbox::traffic::{
    ContinuousDownload, Direction, DownloadFailure, DownloadServer, ProbeFailure, Reflector, Sniffer, udp_probe,
};

use crate::{Outcome, SILENCE, TIMEOUT, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        hosts_of_a_star_reach_each_other_through_the_router,
        a_renumbered_host_has_only_its_new_address,
        a_continuous_download_reports_its_bytes_and_its_longest_gap,
        a_continuous_download_without_a_path_fails,
    ]
}

fn hosts_of_a_star_reach_each_other_through_the_router() -> Outcome {
    let star = Star::with_hosts(3)?;
    for family in [Family::V4, Family::V6] {
        let passed = Sniffer::start(star.router(), &star.host(2).link(), |packet| packet.udp().is_some())?;
        let reflector = Reflector::udp(star.host(2).namespace(), (star.host(2).address(family), 7))?;
        // The first packet arrives too, because the neighbours are static.
        for from in [0, 1] {
            let seen = udp_probe(star.host(from).namespace(), reflector.address(), TIMEOUT)?;
            assert_eq!(seen.ip(), star.host(from).address(family));
        }
        let directions: Vec<_> = passed.stop().iter().map(|packet| packet.direction).collect();
        assert_eq!(directions, [Direction::Out, Direction::In, Direction::Out, Direction::In]);
    }
    Ok(())
}

fn a_renumbered_host_has_only_its_new_address() -> Outcome {
    let star = Star::with_hosts(2)?;
    let (near, far) = (star.host(0), star.host(1));
    let elsewhere = Ipv4Addr::new(198, 18, 1, 77);
    let reflector = Reflector::udp(far.namespace(), (Ipv4Addr::UNSPECIFIED, 7))?;
    far.renumber(far.v4(), elsewhere)?;
    let port = reflector.address().port();
    assert_eq!(udp_probe(near.namespace(), (elsewhere, port), TIMEOUT)?.ip(), near.v4());
    assert!(udp_probe(near.namespace(), (far.v4(), port), SILENCE).is_err());
    let reflector = Reflector::udp(near.namespace(), (near.v4(), 7))?;
    assert_eq!(udp_probe(far.namespace(), reflector.address(), TIMEOUT)?.ip(), elsewhere);
    Ok(())
}

/// A running download of host 0 from host 1.
fn streaming(star: &Star, timeout: Duration) -> Result<(ContinuousDownload, DownloadServer), libtest_mimic::Failed> {
    let source = DownloadServer::start(star.host(1).namespace(), (star.host(1).v4(), 0))?;
    let stream = ContinuousDownload::start(star.host(0).namespace(), source.address(), timeout)?;
    let deadline = Instant::now() + TIMEOUT;
    while stream.received() == 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    assert_ne!(stream.received(), 0);
    Ok((stream, source))
}

const CUT: &str = "table ip cut { chain forward { type filter hook forward priority 0; drop; }; }";

fn a_continuous_download_reports_its_bytes_and_its_longest_gap() -> Outcome {
    let star = Star::with_hosts(2)?;
    let (stream, _source) = streaming(&star, TIMEOUT)?;
    star.router().nft(CUT)?;
    // Bytes that arrived before are in the socket buffer, and are read at the rate of the download.
    let mut waiting = (stream.received(), Instant::now());
    while waiting.1.elapsed() < SILENCE {
        sleep(Duration::from_millis(20));
        if stream.received() != waiting.0 {
            waiting = (stream.received(), Instant::now());
        }
    }
    star.router().nft("delete table ip cut")?;
    let deadline = Instant::now() + TIMEOUT;
    while stream.received() == waiting.0 && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    let report = stream.stop()?;
    assert!(report.intact && report.bytes > waiting.0, "{report:?}");
    assert!(report.longest_gap + Duration::from_millis(100) >= SILENCE, "{report:?}");
    Ok(())
}

fn a_continuous_download_without_a_path_fails() -> Outcome {
    let star = Star::with_hosts(2)?;
    let (stream, _source) = streaming(&star, SILENCE)?;
    star.router().nft(CUT)?;
    let deadline = Instant::now() + 2 * TIMEOUT;
    let mut last = (stream.received(), Instant::now());
    while last.1.elapsed() < 2 * SILENCE && Instant::now() < deadline {
        sleep(Duration::from_millis(20));
        if stream.received() != last.0 {
            last = (stream.received(), Instant::now());
        }
    }
    let ended = stream.stop();
    assert!(matches!(ended, Err(DownloadFailure::Ended { source: ProbeFailure::Timeout, .. })), "{ended:?}");
    Ok(())
}
