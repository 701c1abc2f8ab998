//! Rounds of the paths by a private link: out to the network's gateway, and back because the network's route leads
//! here. One packet ends as soon as it is back; the other one continues to a target as a private host's packet does.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::engine::{Outcome, ROUND_TIMEOUT};
use super::interface::ProbeInterface;
use super::nat_path::{STAGGER, forget};
use super::packet::{Asked, Received, Target, describe_error};
use crate::error::chain;
use crate::inputs::{LinkProbe, RETURN_PORT, RETURNED_GROUP};
use crate::nflog::{self, Delivery};

/// Enough to reach the gateway and come back. Where the route leads to another server, the packet ends there.
const HOPS: u32 = 2;
/// What the data of a probe begins with; its token follows.
const MAGIC: &[u8; 8] = b"bastiond";
/// Bytes of an IPv4 header without options.
const IP_HEADER: usize = 20;
/// The most data in bytes, whatever the MTU of a link.
const LONGEST: usize = 9000;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// So many packets in a row of the link's whole size are lost before that is told.
const LONG_MISSES: u32 = 3;
/// How long a long packet may take when a short one is back.
const LONG_TIMEOUT: Duration = Duration::from_millis(250);

/// Probes that are on their way.
#[derive(Debug, Default)]
pub(super) struct OnTheWay {
    /// Those that wait for their return, by token.
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    /// How many long ones in a row did not come back although short ones did, by network.
    long_misses: Mutex<HashMap<Ipv4Net, u32>>,
}

impl OnTheWay {
    /// A new token, and what its return completes.
    fn expect(&self) -> (u64, oneshot::Receiver<()>) {
        let (sender, returned) = oneshot::channel();
        let token = fastrand::u64(..);
        self.waiting.lock().insert(token, sender);
        (token, returned)
    }

    /// Counts a long packet that came back or did not; how many did not, in a row.
    fn count_long(&self, network: Ipv4Net, came_back: bool) -> u32 {
        let mut misses = self.long_misses.lock();
        let count = misses.entry(network).or_default();
        *count = if came_back { 0 } else { count.saturating_add(1) };
        *count
    }
}

/// Where probes that come back are noticed: the rules log them.
#[derive(Debug, Default)]
pub(super) struct Returns {
    probes: Arc<OnTheWay>,
    listening: Option<JoinHandle<()>>,
}

impl Returns {
    /// Listens, if nothing does yet.
    pub(super) async fn listen(&mut self) -> Result<Arc<OnTheWay>, String> {
        if self.listening.as_ref().is_none_or(JoinHandle::is_finished) {
            let socket = nflog::listen(RETURNED_GROUP, Delivery::Immediate).await.map_err(|error| chain(&error))?;
            let probes = Arc::clone(&self.probes);
            self.listening = Some(tokio::spawn(async move {
                let take = |datagram: &[u8]| {
                    for token in nflog::packets(datagram).filter_map(|logged| token_in(&logged.bytes)) {
                        // Err: that probe has just ended.
                        let _ = probes.waiting.lock().remove(&token).map(|probe| probe.send(()));
                    }
                };
                let error = nflog::receive(&socket, take).await;
                tracing::debug!(component = "health", %error, "probes that come back are not noticed for a moment");
            }));
        }
        Ok(Arc::clone(&self.probes))
    }
}

impl Drop for Returns {
    fn drop(&mut self) {
        if let Some(task) = &self.listening {
            task.abort();
        }
    }
}

/// One round of the path to the network's gateway and back: a short packet, which decides, and one of the link's whole
/// size.
pub(super) async fn round(probes: &OnTheWay, link: &LinkProbe) -> Outcome {
    let ((short, short_returned), (long, long_returned)) = (probes.expect(), probes.expect());
    let started = Instant::now();
    let outcome = match send(link, short, long).await {
        Err(error) => {
            Outcome::Missed { reason: format!("{} takes no packet to {}: {error}", link.interface, link.gateway) }
        }
        Ok(long_is_sent) => match timeout(ROUND_TIMEOUT, short_returned).await {
            Ok(Ok(())) => {
                let round_trip = started.elapsed();
                let came_back = !long_is_sent || matches!(timeout(LONG_TIMEOUT, long_returned).await, Ok(Ok(())));
                let is_lost = probes.count_long(link.network, came_back) >= LONG_MISSES;
                Outcome::Passed { round_trip, note: if is_lost { too_long(link) } else { String::new() } }
            }
            _ => Outcome::Missed {
                reason: format!("what leaves by {} to {} does not come back", link.interface, link.gateway),
            },
        },
    };
    let mut waiting = probes.waiting.lock();
    waiting.remove(&short);
    waiting.remove(&long);
    outcome
}

fn too_long(link: &LinkProbe) -> String {
    let LinkProbe { interface, mtu, .. } = link;
    format!(
        "packets of {mtu} bytes, the MTU of {interface}, do not come back, and no ICMP error says so: downloads hang; \
         set the MTU that the network carries (ip link set dev {interface} mtu 1450, behind a vSwitch 1400)"
    )
}

/// Sends a short packet and one of the link's size; whether the long one is on its way. The kernel refuses it where it
/// has learnt that the network carries less, and then nothing hangs.
async fn send(link: &LinkProbe, short: u64, long: u64) -> io::Result<bool> {
    let socket = UdpSocket::bind(SocketAddr::from((link.own, 0))).await?;
    socket.bind_device(Some(link.interface.as_str().as_bytes()))?;
    socket.set_ttl(HOPS)?;
    let to = SocketAddr::from((link.destination, RETURN_PORT));
    let data = |token: u64| [&MAGIC[..], &token.to_be_bytes()].concat();
    socket.send_to(&data(short), to).await?;
    let mut padded = data(long);
    let room = usize::try_from(link.mtu).unwrap_or_default().saturating_sub(IP_HEADER + UDP_HEADER);
    padded.resize(room.clamp(padded.len(), LONGEST), 0);
    Ok(socket.send_to(&padded, to).await.is_ok())
}

/// The token of a returned probe, from its IP header on.
fn token_in(packet: &[u8]) -> Option<u64> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let data = packet.get(header + UDP_HEADER..)?.strip_prefix(MAGIC)?;
    Some(u64::from_be_bytes(*data.first_chunk()?))
}

/// One round of the whole path: from `source`, an address of the network, out by the private link and back, through
/// the rules, the translation and the public link to a target, and its answer back.
pub(super) async fn whole_round(
    interface: &Arc<ProbeInterface>,
    source: Ipv4Addr,
    link: &LinkProbe,
    targets: &[(u16, SocketAddrV4)],
) -> Outcome {
    let deadline = Instant::now() + ROUND_TIMEOUT;
    let mut asking: FuturesUnordered<_> = (0..)
        .zip(targets)
        .map(|(place, &(port, _))| async move {
            sleep(STAGGER * place).await;
            ask(interface, source, link, port, deadline).await
        })
        .collect();
    let mut hint = None;
    while let Some(answered) = asking.next().await {
        match answered {
            Ok(round_trip) => return Outcome::Passed { round_trip, note: String::new() },
            Err(told) => hint = hint.or(told),
        }
    }
    let targets: Vec<String> = targets.iter().map(|(_, target)| Target::Dns(*target).to_string()).collect();
    let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
    Outcome::Missed { reason: format!("no answer from {} by {}{hint}", targets.join(", "), link.interface) }
}

/// How long the answer took; or what an ICMP error says.
async fn ask(
    interface: &Arc<ProbeInterface>,
    source: Ipv4Addr,
    link: &LinkProbe,
    port: u16,
    deadline: Instant,
) -> Result<Duration, Option<String>> {
    let mut listener = interface.listen();
    let target = Target::Dns(SocketAddrV4::new(link.destination, port));
    let sent = Asked { source: SocketAddrV4::new(source, listener.port), target, token: fastrand::u64(..) };
    // It comes back under the link's own source, and so is answered there.
    let asked = Asked { source: SocketAddrV4::new(link.source, listener.port), ..sent };
    let started = Instant::now();
    interface.send(&sent.packet()).map_err(|error| Some(format!("the probe's interface takes no packet: {error}")))?;
    let mut hint = None;
    let result = loop {
        tokio::select! {
            biased;
            received = listener.received.recv() => match received {
                Some(received) if asked.is_answered_by(&received) => break Ok(started.elapsed()),
                Some(Received::IcmpError { from, kind, code, .. }) => hint = Some(describe_error(from, kind, code)),
                Some(_) => {}
                None => break Err(hint),
            },
            () = sleep_until(deadline) => break Err(hint),
        }
    };
    forget(sent.source, target);
    forget(asked.source, target);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_lost_long_packet_counts_for_nothing() {
        let (probes, network) = (OnTheWay::default(), "10.0.0.0/16".parse().unwrap());
        let counts = [false, false, true, false, false, false].map(|came_back| probes.count_long(network, came_back));
        assert_eq!(counts, [1, 2, 0, 1, 2, 3]);
        assert_eq!(probes.count_long("10.2.0.0/16".parse().unwrap(), false), 1);
    }

    #[test]
    fn the_token_of_a_returned_probe_is_read_behind_any_ip_header() {
        for words in [5u8, 6, 15] {
            let mut packet = vec![0x40 | words];
            packet.resize(usize::from(words) * 4 + UDP_HEADER, 0);
            packet.extend(MAGIC);
            packet.extend(7u64.to_be_bytes());
            assert_eq!(token_in(&packet), Some(7));
            for length in 0..packet.len() {
                assert_eq!(token_in(&packet[..length]), None, "{length} bytes");
            }
        }
        assert_eq!(token_in(&[0x45; 60]), None);
    }
}
