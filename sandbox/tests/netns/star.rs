//! A star of hosts, and a transfer between two of them that goes on.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sandbox::star::{Family, Star};
use sandbox::traffic::{
    ContinuousDownload, Direction, DownloadFailure, DownloadServer, ProbeFailure, Reflector, Sniffer, udp_probe,
};

use crate::{Outcome, PATIENCE, SILENCE, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        hosts_of_a_star_reach_each_other_through_its_router,
        a_host_that_is_renumbered_is_at_its_new_address_only,
        a_stream_counts_what_comes_and_how_long_nothing_came,
        a_stream_that_is_cut_off_has_failed,
    ]
}

fn hosts_of_a_star_reach_each_other_through_its_router() -> Outcome {
    let star = Star::with_hosts(3)?;
    for family in [Family::V4, Family::V6] {
        let passed = Sniffer::start(star.router(), &star.host(2).link(), |packet| packet.udp().is_some())?;
        let reflector = Reflector::udp(star.host(2).namespace(), (star.host(2).address(family), 7))?;
        // The first packet, too: nobody has to be asked for first.
        for from in [0, 1] {
            let seen = udp_probe(star.host(from).namespace(), reflector.address(), PATIENCE)?;
            assert_eq!(seen.ip(), star.host(from).address(family));
        }
        let directions: Vec<_> = passed.stop().iter().map(|packet| packet.direction).collect();
        assert_eq!(directions, [Direction::Out, Direction::In, Direction::Out, Direction::In]);
    }
    Ok(())
}

fn a_host_that_is_renumbered_is_at_its_new_address_only() -> Outcome {
    let star = Star::with_hosts(2)?;
    let (near, far) = (star.host(0), star.host(1));
    let elsewhere = Ipv4Addr::new(198, 18, 1, 77);
    let reflector = Reflector::udp(far.namespace(), (Ipv4Addr::UNSPECIFIED, 7))?;
    far.renumber(far.v4(), elsewhere)?;
    let port = reflector.address().port();
    assert_eq!(udp_probe(near.namespace(), (elsewhere, port), PATIENCE)?.ip(), near.v4());
    assert!(udp_probe(near.namespace(), (far.v4(), port), SILENCE).is_err());
    let reflector = Reflector::udp(near.namespace(), (near.v4(), 7))?;
    assert_eq!(udp_probe(far.namespace(), reflector.address(), PATIENCE)?.ip(), elsewhere);
    Ok(())
}

/// A stream from host 1 to host 0, of which something has come.
fn streaming(star: &Star, timeout: Duration) -> Result<(ContinuousDownload, DownloadServer), libtest_mimic::Failed> {
    let source = DownloadServer::start(star.host(1).namespace(), (star.host(1).v4(), 0))?;
    let stream = ContinuousDownload::start(star.host(0).namespace(), source.address(), timeout)?;
    let deadline = Instant::now() + PATIENCE;
    while stream.received() == 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    assert_ne!(stream.received(), 0);
    Ok((stream, source))
}

const CUT: &str = "table ip cut { chain forward { type filter hook forward priority 0; drop; }; }";

fn a_stream_counts_what_comes_and_how_long_nothing_came() -> Outcome {
    let star = Star::with_hosts(2)?;
    let (stream, _source) = streaming(&star, PATIENCE)?;
    star.router().nft(CUT)?;
    // What came before waits in the client's socket, and is read at the stream's own pace.
    let mut waiting = (stream.received(), Instant::now());
    while waiting.1.elapsed() < SILENCE {
        sleep(Duration::from_millis(20));
        if stream.received() != waiting.0 {
            waiting = (stream.received(), Instant::now());
        }
    }
    star.router().nft("delete table ip cut")?;
    let deadline = Instant::now() + PATIENCE;
    while stream.received() == waiting.0 && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    let report = stream.stop()?;
    assert!(report.intact && report.bytes > waiting.0, "{report:?}");
    assert!(report.longest_gap + Duration::from_millis(100) >= SILENCE, "{report:?}");
    Ok(())
}

fn a_stream_that_is_cut_off_has_failed() -> Outcome {
    let star = Star::with_hosts(2)?;
    let (stream, _source) = streaming(&star, SILENCE)?;
    star.router().nft(CUT)?;
    let deadline = Instant::now() + 2 * PATIENCE;
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
