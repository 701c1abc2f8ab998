//! How many initiations of handshakes an interface answers that has one core.
//!
//! The initiators are boringtun's protocol core. Their messages are made beforehand, so that the other core has nothing
//! to do but to send them and to count the answers. So many peers from as many addresses speak in turn that none is
//! taken for a flood: implementations refuse the second initiation of a peer within 20 ms, and the sixth of an address
//! within 250 ms when they are under load. Who is under load answers with a cookie first; the peers have gathered their
//! cookies beforehand.

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
use crate::Result;

/// Peers, each with an address of its own. Not more: one of the programs opens a socket for each.
const PEERS: u32 = 512;
/// Initiations of each: more than the fastest answers within [`DURATION`].
const SUPPLY: usize = 60;
const DURATION: Duration = Duration::from_secs(2);
/// Initiations under way: an interface always has some waiting, but never, even if as many were lost, the 128 that
/// count as load.
const WINDOW: usize = 48;
/// After so long without any answer those under way are lost.
const LOST: Duration = Duration::from_millis(500);
/// Passes in which peers gather cookies, at most. Usually there are two; a program that counts anew each second, and
/// takes the first hundred without, may need more.
const REHEARSALS: usize = 8;

const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GENERATOR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Of all peers' addresses, as many as there may be: 198.18.0.0/15 is for benchmarks (RFC 2544).
const SOURCES: u32 = 0xc612_0000;

/// The first bytes of messages, and their lengths (<https://www.wireguard.com/protocol/>).
const INITIATION: usize = 148;
const RESPONSE: (u8, usize) = (2, 92);
const COOKIE_REPLY: (u8, usize) = (3, 64);

type Message = [u8; INITIATION];

/// Answers a second.
pub(super) fn answered(program: &Program) -> Result<f64> {
    let part = |part: &str| Namespace::create(&format!("{}-{part}", program.tag()));
    let (namespace, outside) = (part("device")?, part("initiators")?);
    namespace.ip(&format!(
        "link add name eth0 type veth peer name eth0 netns {}
         addr add {DEVICE}/24 dev eth0
         link set eth0 up",
        outside.name()
    ))?;
    // Every address of the prefix is the generator's own.
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
        // Asked for no cookie, every peer has one that serves, or needs none.
        let mut passes = 0;
        while generator.rehearse()? > 0 && passes < REHEARSALS {
            passes += 1;
        }
        generator.prepare();
        cores.leave_last()?;
        generator.measure()
    });
    device.check()?;
    let measured = measured?;
    if measured.completed == 0 {
        return Err("no handshake was completed".into());
    }
    let Measured { answers, cookies, .. } = measured;
    if cookies > answers / 10 {
        return Err(format!("{cookies} initiations were asked for a cookie that they had, {answers} answered").into());
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

    /// The interface's, if it is not the only one.
    fn last(&self) -> Option<usize> {
        self.0.last().copied().filter(|_| self.0.len() > 1)
    }

    /// Keeps the calling thread away from the interface's core.
    fn leave_last(&self) -> nix::Result<()> {
        let mut set = CpuSet::new();
        let others = self.0.split_last().map_or(&[][..], |(_, others)| others);
        for &core in if others.is_empty() { &self.0 } else { others } {
            set.set(core)?;
        }
        sched_setaffinity(Pid::from_raw(0), &set)
    }
}

/// All peers' initiators on one socket.
struct Generator {
    socket: UdpSocket,
    target: SockaddrIn,
    initiators: Vec<Tunn>,
    supply: Vec<(usize, Message)>,
    completed: u32,
}

struct Measured {
    /// Responses in the time that was measured.
    answers: u32,
    /// Replies in that time that asked for a cookie instead.
    cookies: u32,
    /// Handshakes that were seen through beforehand.
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

    /// One initiation of each peer, whose answer it reads itself: a cookie serves the next. How many were asked for a
    /// cookie.
    fn rehearse(&mut self) -> io::Result<u32> {
        let peers = self.initiators.len();
        let (mut next, mut under_way, mut cookies) = (0, 0, 0);
        let mut datagram = [0; 256];
        while next < peers || under_way > 0 {
            while next < peers && under_way < WINDOW {
                let message = initiation(&mut self.initiators[next]);
                self.send(next, &message)?;
                next += 1;
                under_way += 1;
            }
            let Some(length) = self.receive(&mut datagram)? else {
                under_way = 0;
                continue;
            };
            under_way = under_way.saturating_sub(1);
            let datagram = &datagram[..length];
            let Some(peer) = self.initiators.get_mut(addressee(datagram).unwrap_or(usize::MAX)) else { continue };
            // Also if it came too late to serve.
            cookies += u32::from((datagram[0], length) == COOKIE_REPLY);
            // A response is answered by a keepalive, which nobody waits for.
            if let TunnResult::WriteToNetwork(_) = peer.decapsulate(Some(DEVICE.into()), datagram, &mut [0; 256]) {
                self.completed += 1;
            }
        }
        Ok(cookies)
    }

    /// Makes all messages, on all cores, in the order in which they are sent.
    fn prepare(&mut self) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = self.initiators.len().div_ceil(threads);
        let made: Vec<Vec<Message>> = std::thread::scope(|scope| {
            let shares = self.initiators.chunks_mut(share);
            let make = |tunn: &mut Tunn| (0..SUPPLY).map(|_| initiation(tunn)).collect();
            let threads: Vec<_> =
                shares.map(|share| scope.spawn(move || share.iter_mut().map(make).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("nothing in it panics")).collect()
        });
        let turns = (0..SUPPLY).flat_map(|turn| made.iter().enumerate().map(move |(peer, own)| (peer, own[turn])));
        self.supply = turns.collect();
    }

    fn measure(&mut self) -> io::Result<Measured> {
        let mut supply = std::mem::take(&mut self.supply).into_iter();
        let (mut answers, mut cookies, mut under_way) = (0, 0, 0_usize);
        let mut datagram = [0; 256];
        let start = Instant::now();
        while start.elapsed() < DURATION {
            while under_way < WINDOW {
                let Some((peer, message)) = supply.next() else { break };
                self.send(peer, &message)?;
                under_way += 1;
            }
            if under_way == 0 {
                break;
            }
            let Some(length) = self.receive(&mut datagram)? else {
                under_way = 0;
                continue;
            };
            let known = addressee(&datagram[..length]).is_some_and(|peer| peer < self.initiators.len());
            if known && (datagram[0], length) == RESPONSE {
                answers += 1;
                under_way = under_way.saturating_sub(1);
            } else if known && (datagram[0], length) == COOKIE_REPLY {
                cookies += 1;
                under_way = under_way.saturating_sub(1);
            }
        }
        Ok(Measured { answers, cookies, completed: self.completed, elapsed: start.elapsed() })
    }

    /// From the peer's own address.
    fn send(&self, peer: usize, message: &Message) -> io::Result<()> {
        let number = u32::try_from(peer).expect("there are few peers");
        let source = in_addr { s_addr: (SOURCES + 256 + number).to_be() };
        let from = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: in_addr { s_addr: 0 } };
        let control = [ControlMessage::Ipv4PacketInfo(&from)];
        let slices = [IoSlice::new(message)];
        sendmsg(self.socket.as_raw_fd(), &slices, &control, MsgFlags::empty(), Some(&self.target))?;
        Ok(())
    }

    /// `None` after [`LOST`] without anything.
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
    assert!(made, "an initiation can always be made");
    message
}

/// The peer whose number is in the receiver's index of a response or of a cookie's reply; the core adds a byte of its
/// own.
fn addressee(datagram: &[u8]) -> Option<usize> {
    let at = match (*datagram.first()?, datagram.len()) {
        RESPONSE => 8,
        COOKIE_REPLY => 4,
        _ => return None,
    };
    let index = u32::from_le_bytes(datagram[at..at + 4].try_into().ok()?);
    usize::try_from(index >> 8).ok()
}
