//! Unknown hosts that send invalid datagrams, or too many, while a peer is connected.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bastiond_tunnel::internals::message::{self, Kind};
use bastiond_tunnel::key::PrivateKey;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use libtest_mimic::Trial;
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use sandbox::namespace::Namespace;
use sandbox::star::{Family, Star};
use sandbox::traffic::{Direction, Packet, Sniffer};
use sandbox::tunnel::Program;

use super::site::{Reach, Site, Transfer, join, ours};
use crate::gateway::{Result, SOON, ensure, ensure_eq, trial, wait_for};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("invalid_datagrams_of_every_length_change_nothing", invalid_datagrams),
        trial("a_flood_of_initiations_from_a_thousand_addresses_is_answered_with_cookies_and_ends_no_session", flood),
    ]
}

/// The largest datagram over IPv4 (RFC 768, RFC 791), in bytes of data.
const LARGEST: usize = 65_507;
/// Rubbish of each sort.
const COUNT: usize = 400;

fn invalid_datagrams() -> Result {
    let star = Star::with_hosts(3)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    let from_peer = |packet: &Packet| packet.direction == Direction::In && packet.udp_payload().is_some();
    let tap = Sniffer::start(star.router(), &peer.host.link(), from_peer)?;
    join(&peer, &us)?;
    ensure(us.reaches(&peer)?, "nothing passes")?;
    let real: Vec<Vec<u8>> = tap.stop().iter().filter_map(|packet| Some(packet.udp_payload()?.to_vec())).collect();
    ensure(real.iter().any(|datagram| message::kind(datagram) == Some(Kind::Data)), "no data was recorded")?;
    let before = us.peer(&peer)?;

    let transfer = Transfer::start(&us, &peer)?;
    let mut random = fastrand::Rng::with_seed(7);
    let attacker = star.host(2).namespace().bind_udp((star.host(2).v4(), 0))?;
    let target = us.outside(Family::V4);
    let send = |datagram: &[u8]| -> Result {
        // Too fast for the link: lost on the way, as anywhere.
        match attacker.send_to(datagram, target) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(()),
            Err(error) => Err(format!("{} bytes: {error}", datagram.len()).into()),
        }
    };
    let mut bytes = vec![0; LARGEST];
    for round in 0..COUNT {
        random.fill(&mut bytes);
        let length = match round % 4 {
            0 => random.usize(..=LARGEST),
            1 => random.usize(..=1500),
            2 => random.usize(..=160),
            // The ends, too.
            _ => [0, 1, 3, 4, 31, 32, 33, 64, 92, 148, 149, LARGEST][round / 4 % 12],
        };
        send(&bytes[..length])?;
        // The same with the first bytes of each kind of message, and the index of a session that there is.
        let index: [u8; 4] = real[random.usize(..real.len())][4..8].try_into()?;
        for kind in 1..=4 {
            for (place, byte) in bytes.iter_mut().zip([kind, 0, 0, 0].iter().chain(&index)) {
                *place = *byte;
            }
            send(&bytes[..length])?;
        }
        // A real one, cut, lengthened, or with a bit turned.
        let mut datagram = real[round % real.len()].clone();
        match round % 3 {
            0 => datagram.truncate(random.usize(..datagram.len())),
            1 => datagram.extend_from_slice(&bytes[..random.usize(1..2000)]),
            _ => datagram[random.usize(..real[round % real.len()].len())] ^= 1 << random.u8(..8),
        }
        send(&datagram)?;
    }
    transfer.stop()?;
    let after = us.peer(&peer)?;
    ensure_eq((after.endpoint, after.latest_handshake), (before.endpoint, before.latest_handshake))
}

/// Where the flood comes from: a part of the prefix that is for such tests (RFC 2544), as many addresses as there may
/// be.
const SOURCES: u32 = 0xc613_0000;
const ADDRESSES: u32 = 1000;
/// Different initiations. Answering one costs a calculation, and so does making it.
const INITIATIONS: u32 = 40;
/// Datagrams between two rests, and a rest: some five thousand a second.
const BURST: u32 = 20;
const REST: Duration = Duration::from_millis(4);

/// Initiations of unknown peers. Their first MAC is valid, because our public key is not secret.
fn initiations(us: &Site<'_>) -> Vec<Vec<u8>> {
    let ours = x25519::PublicKey::from(us.public_key().0);
    let initiation = |number| {
        let mut attacker = Tunn::new(PrivateKey::generate().secret(), ours, None, None, number, None);
        let mut message = [0; 148];
        match attacker.format_handshake_initiation(&mut message, true) {
            TunnResult::WriteToNetwork(message) => message.to_vec(),
            other => panic!("{other:?}"),
        }
    };
    (0..INITIATIONS).map(initiation).collect()
}

/// Somebody who sends initiations until it is dropped.
struct Flooder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<u64>>>,
}

impl Flooder {
    fn start(from: &Namespace, target: SocketAddrV4, initiations: Vec<Vec<u8>>) -> Result<Self> {
        let socket = from.bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
        let stop = Arc::<AtomicBool>::default();
        let theirs = Arc::clone(&stop);
        let thread = from.spawn(move || pour(&socket, target, &initiations, &theirs));
        Ok(Self { stop, thread: Some(thread) })
    }

    /// How many were sent.
    fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("it is stopped once")?;
        Ok(thread.join().map_err(|_| "the flooder panicked")??)
    }
}

impl Drop for Flooder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn pour(socket: &UdpSocket, target: SocketAddrV4, initiations: &[Vec<u8>], stop: &AtomicBool) -> io::Result<u64> {
    let mut sent = 0;
    let target = SockaddrIn::from(target);
    for (number, message) in (0..ADDRESSES).cycle().zip(initiations.iter().cycle()) {
        let source = in_addr { s_addr: (SOURCES + 1 + number).to_be() };
        let from = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: in_addr { s_addr: 0 } };
        let control = [ControlMessage::Ipv4PacketInfo(&from)];
        sendmsg(socket.as_raw_fd(), &[IoSlice::new(message)], &control, MsgFlags::empty(), Some(&target))?;
        sent += 1;
        if number % BURST == 0 {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(REST);
        }
    }
    Ok(sent)
}

fn flood() -> Result {
    let star = Star::with_hosts(5)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    let attacker = star.host(2);
    let newcomers = [Site::start(&star, 3, &Program::wireguard_go())?, Site::start(&star, 4, &Program::boringtun())?];
    let sources = Ipv4Addr::from(SOURCES);
    star.router().ip(&format!("route add {sources}/16 via {}", attacker.v4()))?;
    attacker.namespace().ip(&format!("route add local {sources}/16 dev lo"))?;
    join(&peer, &us)?;
    let initiations = initiations(&us);
    let transfer = Transfer::start(&us, &peer)?;
    let is_answer = |packet: &Packet| packet.direction == Direction::Out && packet.udp_payload().is_some();
    let answers = Sniffer::start(star.router(), &attacker.link(), is_answer)?;
    let SocketAddr::V4(target) = us.outside(Family::V4) else { return Err("no IPv4".into()) };
    let flooder = Flooder::start(attacker.namespace(), target, initiations)?;
    ensure(answers.wait_for(ADDRESSES as usize, 5 * SOON), "few cookies are sent")?;
    for _ in 0..4 {
        transfer.goes_on()?;
    }
    ensure(us.reaches(&peer)? && peer.reaches(&us)?, "nothing passes during the flood")?;
    // A known peer connects: with the cookie that it gets, when it repeats its initiation after five seconds.
    for newcomer in &newcomers {
        us.meets(newcomer, Reach::Unknown)?;
        newcomer.meets(&us, Reach::At(Family::V4))?;
        // A packet to begin with. Whether it comes through is left to chance: now and then nobody is asked for a
        // cookie.
        newcomer.is_cut_off_from(&us)?;
    }
    for newcomer in &newcomers {
        wait_for("a known peer gets in during the flood", 10 * SOON, || newcomer.reaches(&us))?;
    }
    transfer.stop()?;
    let sent = flooder.stop()?;
    let answers = answers.stop();
    let kind = |packet: &Packet| packet.udp_payload().and_then(message::kind);
    ensure(
        answers.iter().all(|packet| kind(packet) == Some(Kind::CookieReply)),
        "something else than a cookie was sent",
    )?;
    // To a good part of those who asked, each at the address that it asked from.
    let answered: std::collections::HashSet<_> =
        answers.iter().filter_map(|packet| Some(packet.ip()?.destination)).collect();
    ensure(
        answered.len() > ADDRESSES as usize / 4,
        format!("{} of {ADDRESSES} addresses were answered", answered.len()),
    )?;
    ensure(answers.len() as u64 <= sent, format!("{} answers to {sent} initiations", answers.len()))
}
