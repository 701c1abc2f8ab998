//! The number of handshake initiations that an interface answers on one core.
//!
//! The initiators use boringtun's protocol core. Their messages are created beforehand, so that the other core only
//! sends them and counts the answers. So many peers from so many addresses take turns that none of them is limited:
//! implementations refuse the second initiation of a peer within 20 ms and, under load, the sixth of an address within
//! 250 ms. An interface under load answers with a cookie first, so the peers have their cookies beforehand.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use nix::unistd::Pid;
use sandbox::namespace::Namespace;

use super::config::{self, Keys};
use super::device::Device;
use super::pair::PORT;
use super::program::Program;
use crate::run::Result;

/// The number of peers, each with an address of its own. One of the programs opens a socket for each.
const PEERS: u32 = 512;
/// Initiations of each peer, more than the fastest program answers within [`DURATION`].
const SUPPLY: usize = 60;
const DURATION: Duration = Duration::from_secs(2);
/// The number of unanswered initiations: the interface always has work, but never the 128 that count as load.
const WINDOW: usize = 48;
/// After so long without an answer the unanswered initiations count as lost.
const LOST: Duration = Duration::from_millis(500);
/// The maximum number of passes to get cookies. Usually two are enough; a program that accepts the first hundred
/// initiations of each second without a cookie may need more.
const REHEARSALS: usize = 8;

const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GENERATOR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The first address of the peers: 198.18.0.0/15 is for benchmarks (RFC 2544).
const SOURCES: u32 = 0xc612_0000;

/// The types of messages, and their lengths (<https://www.wireguard.com/protocol/>).
const INITIATION: usize = 148;
const RESPONSE: (u8, usize) = (2, 92);
const COOKIE_REPLY: (u8, usize) = (3, 64);

type Message = [u8; INITIATION];

/// Answers per second.
pub(super) fn answered(program: &Program) -> Result<f64> {
    let part = |part: &str| Namespace::create(&format!("{}-{part}", program.tag()));
    let (namespace, outside) = (part("device")?, part("initiators")?);
    namespace.ip(&format!(
        "link add name eth0 type veth peer name eth0 netns {}
         addr add {DEVICE}/24 dev eth0
         link set eth0 up",
        outside.name()
    ))?;
    // Every address of the prefix is local at the generator.
    outside.ip(&format!(
        "addr add {GENERATOR}/24 dev eth0
         link set eth0 up
         route add local {sources}/15 dev lo",
        sources = Ipv4Addr::from(SOURCES)
    ))?;
    namespace.ip(&format!("route add {}/15 via {GENERATOR}", Ipv4Addr::from(SOURCES)))?;

    let directory = tempfile::tempdir()?;
    let mut random = fastrand::Rng::with_seed(11);
    let keys = Keys::generate(&mut random);
    let mut text = config::interface(&keys, PORT);
    let mut initiators = Vec::new();
    for number in 0..PEERS {
        let own = Keys::generate(&mut random);
        config::add_peer(&mut text, &own.public, Ipv4Addr::new(10, 128, 0, 0) | Ipv4Addr::from(number), None);
        initiators.push(Tunn::new(own.secret, keys.public, None, None, number, None));
    }
    let path = directory.path().join("device.conf");
    std::fs::write(&path, text)?;

    let cores = Cores::allowed()?;
    let interface = format!("{}-shake", program.tag());
    let mut device = Device::start(&namespace, program, &interface, directory.path(), cores.last())?;
    namespace.ip(&format!("link set dev {interface} up"))?;
    let output = namespace.command("wg").args(["setconf", &interface, &path.to_string_lossy()]).output()?;
    if !output.status.success() {
        return Err(format!("wg setconf: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    let measured = outside.run(|| -> io::Result<_> {
        let mut generator = Generator::open(initiators)?;
        // When no peer is asked for a cookie any more, each has a valid one or needs none.
        let mut passes = 0;
        while generator.rehearse()? > 0 && passes < REHEARSALS {
            passes += 1;
        }
        generator.prepare();
        cores.leave_last()?;
        generator.measure()
    });
    device.check_running()?;
    let measured = measured?;
    if measured.completed == 0 {
        return Err("no handshake was completed".into());
    }
    let Measured { answers, cookies, .. } = measured;
    if cookies > answers / 10 {
        return Err(
            format!("{cookies} initiations with a cookie were asked for another one, {answers} were answered").into()
        );
    }
    Ok(f64::from(measured.answers) / measured.elapsed.as_secs_f64())
}

/// The cores that this process may use.
struct Cores(Vec<usize>);

impl Cores {
    fn allowed() -> nix::Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0))?;
        Ok(Self((0..CpuSet::count()).filter(|&core| set.is_set(core) == Ok(true)).collect()))
    }

    /// The core of the interface; `None` if there is only one core.
    fn last(&self) -> Option<usize> {
        self.0.last().copied().filter(|_| self.0.len() > 1)
    }

    /// Moves the calling thread to the other cores.
    fn leave_last(&self) -> nix::Result<()> {
        let mut set = CpuSet::new();
        let others = self.0.split_last().map_or(&[][..], |(_, others)| others);
        for &core in if others.is_empty() { &self.0 } else { others } {
            set.set(core)?;
        }
        sched_setaffinity(Pid::from_raw(0), &set)
    }
}

/// The initiators of all peers on one socket.
struct Generator {
    socket: UdpSocket,
    target: SockaddrIn,
    initiators: Vec<Tunn>,
    supply: Vec<(usize, Message)>,
    completed: u32,
}

struct Measured {
    /// Responses during the measurement.
    answers: u32,
    /// Cookie replies during the measurement.
    cookies: u32,
    /// Handshakes completed before the measurement.
    completed: u32,
    elapsed: Duration,
}

impl Generator {
    fn open(initiators: Vec<Tunn>) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        socket.set_read_timeout(Some(LOST))?;
        let target = SockaddrIn::from(SocketAddrV4::new(DEVICE, PORT));
        Ok(Self { socket, target, initiators, supply: Vec::new(), completed: 0 })
    }

    /// Sends one initiation of each peer and handles its answer, such as a cookie for the next one. Returns the number
    /// of cookie replies.
    fn rehearse(&mut self) -> io::Result<u32> {
        let peers = self.initiators.len();
        let (mut next, mut unanswered, mut cookies) = (0, 0, 0);
        let mut datagram = [0; 256];
        while next < peers || unanswered > 0 {
            while next < peers && unanswered < WINDOW {
                let message = initiation(&mut self.initiators[next]);
                self.send(next, &message)?;
                next += 1;
                unanswered += 1;
            }
            let Some(length) = self.receive(&mut datagram)? else {
                unanswered = 0;
                continue;
            };
            unanswered = unanswered.saturating_sub(1);
            let datagram = &datagram[..length];
            let Some(peer) = self.initiators.get_mut(addressee(datagram).unwrap_or(usize::MAX)) else { continue };
            // It counts even if it arrived too late to be used.
            cookies += u32::from((datagram[0], length) == COOKIE_REPLY);
            // A response is answered with a keepalive, which is not sent.
            if let TunnResult::WriteToNetwork(_) = peer.decapsulate(Some(DEVICE.into()), datagram, &mut [0; 256]) {
                self.completed += 1;
            }
        }
        Ok(cookies)
    }

    /// Creates all messages on all cores, in the order of sending.
    fn prepare(&mut self) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = self.initiators.len().div_ceil(threads);
        let made: Vec<Vec<Message>> = std::thread::scope(|scope| {
            let shares = self.initiators.chunks_mut(share);
            let make = |tunn: &mut Tunn| (0..SUPPLY).map(|_| initiation(tunn)).collect();
            let threads: Vec<_> =
                shares.map(|share| scope.spawn(move || share.iter_mut().map(make).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("the threads do not panic")).collect()
        });
        let turns = (0..SUPPLY).flat_map(|turn| made.iter().enumerate().map(move |(peer, own)| (peer, own[turn])));
        self.supply = turns.collect();
    }

    fn measure(&mut self) -> io::Result<Measured> {
        let mut supply = std::mem::take(&mut self.supply).into_iter();
        let (mut answers, mut cookies, mut unanswered) = (0, 0, 0_usize);
        let mut datagram = [0; 256];
        let start = Instant::now();
        while start.elapsed() < DURATION {
            while unanswered < WINDOW {
                let Some((peer, message)) = supply.next() else { break };
                self.send(peer, &message)?;
                unanswered += 1;
            }
            if unanswered == 0 {
                break;
            }
            let Some(length) = self.receive(&mut datagram)? else {
                unanswered = 0;
                continue;
            };
            let known = addressee(&datagram[..length]).is_some_and(|peer| peer < self.initiators.len());
            if known && (datagram[0], length) == RESPONSE {
                answers += 1;
                unanswered = unanswered.saturating_sub(1);
            } else if known && (datagram[0], length) == COOKIE_REPLY {
                cookies += 1;
                unanswered = unanswered.saturating_sub(1);
            }
        }
        Ok(Measured { answers, cookies, completed: self.completed, elapsed: start.elapsed() })
    }

    /// Sends a message from the peer's own address.
    fn send(&self, peer: usize, message: &Message) -> io::Result<()> {
        let number = u32::try_from(peer).expect("there are few peers");
        let source = in_addr { s_addr: (SOURCES + 256 + number).to_be() };
        let from = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: in_addr { s_addr: 0 } };
        let control = [ControlMessage::Ipv4PacketInfo(&from)];
        let slices = [IoSlice::new(message)];
        sendmsg(self.socket.as_raw_fd(), &slices, &control, MsgFlags::empty(), Some(&self.target))?;
        Ok(())
    }

    /// Receives a datagram; `None` after [`LOST`] without one.
    fn receive(&self, datagram: &mut [u8]) -> io::Result<Option<usize>> {
        match self.socket.recv(datagram) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn initiation(tunn: &mut Tunn) -> Message {
    let mut message = [0; INITIATION];
    let made = matches!(tunn.format_handshake_initiation(&mut message, true), TunnResult::WriteToNetwork(_));
    assert!(made, "an initiation can always be created");
    message
}

/// The number of the peer in the receiver index of a response or of a cookie reply. The protocol core appends a byte to
/// it.
fn addressee(datagram: &[u8]) -> Option<usize> {
    let at = match (*datagram.first()?, datagram.len()) {
        RESPONSE => 8,
        COOKIE_REPLY => 4,
        _ => return None,
    };
    let index = u32::from_le_bytes(datagram[at..at + 4].try_into().ok()?);
    usize::try_from(index >> 8).ok()
}
