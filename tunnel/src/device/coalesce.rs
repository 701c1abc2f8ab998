//! Joins consecutive packets of a flow into one write to the TUN interface: generic receive offload, as the kernel does
//! it for a network card (`net/core/gro.c`). The kernel then routes, filters and delivers 64 KiB at the price of one
//! packet.
//!
//! A joined packet can be cut into exactly the packets that were received, except for IPv4 identifications of packets
//! that must not be fragmented, which have no meaning (RFC 6864 section 4.1). Packets of one flow stay in order.
//! Payloads are not copied, which is why this is our own code and not that of `tun-rs`: a group is the first packet and
//! the ranges of the others' payloads.

mod candidate;

use std::io::IoSlice;
use std::ops::Range;

use self::candidate::{Candidate, Class, classify};
use super::packet::VnetHeader;

/// What a TUN interface accepts in one write (`TUNSETOFFLOAD`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// TCP segments over IPv4 and IPv6 in one (`TUN_F_TSO4`, `TUN_F_TSO6`).
    pub tcp: bool,
    /// UDP datagrams in one (`TUN_F_USO4`, `TUN_F_USO6`; Linux 6.2).
    pub udp: bool,
}

/// The most packets of a group: what every kernel can cut again of UDP (`UDP_MAX_SEGMENTS` was 64 before Linux 6.9).
const SEGMENTS_MAX: usize = 64;
/// The longest result, in bytes, by the length field of IPv4.
const LENGTH_MAX: usize = 65535;
/// The most groups that may still grow. One more ends the oldest.
const OPEN_MAX: usize = 16;

/// The header of the TUN interface, the first packet, and the payloads of the others.
const SLICES_MAX: usize = 1 + SEGMENTS_MAX;

/// Collects packets and writes them with few writes. It is reused, and allocates only until it has seen its largest
/// batch.
#[derive(Debug)]
pub struct Coalescer {
    offloads: Offloads,
    /// In the order of their first packets, which is the order of the writes.
    groups: Vec<Group>,
    /// Payloads behind first packets; each group's are a list.
    payloads: Vec<Payload>,
    /// The groups that may still grow, the oldest first. At most one for each flow.
    open: Vec<Open>,
}

#[derive(Debug)]
struct Group {
    first: Range<usize>,
    /// The first packet's headers; `None` if no packet may join it.
    candidate: Option<Candidate>,
    count: usize,
    /// Its length in bytes.
    len: usize,
    /// Whether the first packet's checksums are right. They are checked when a second packet joins: a single packet
    /// keeps its own.
    is_intact: bool,
    /// Whether all packets carry the same IPv4 identification, instead of counting.
    has_fixed_id: bool,
    /// FIN and PSH of the last packet.
    end_flags: u8,
    /// Indices of the first and the last payload behind the first packet.
    payloads: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Payload {
    range: Range<usize>,
    next: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    /// A hash of addresses, protocol and ports. Whether two packets are of one flow is decided by these themselves.
    flow: u64,
    /// A hash of the addresses.
    hosts: u64,
    group: usize,
}

/// Whether a packet joins a group.
enum Join {
    /// It has joined.
    Joined {
        /// Whether no other may join after it.
        is_last: bool,
    },
    /// It does not continue the group.
    Refused,
    /// Its checksum is wrong.
    Corrupt,
}

impl Coalescer {
    /// For an interface with these offloads.
    pub const fn new(offloads: Offloads) -> Self {
        Self { offloads, groups: Vec::new(), payloads: Vec::new(), open: Vec::new() }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Adds the next packet, an IP packet without padding at `packet` in `arena`. These bytes must not change until the
    /// next [`Coalescer::flush`], which gets the same arena.
    pub fn add(&mut self, arena: &[u8], packet: Range<usize>) {
        match classify(&arena[packet.clone()], self.offloads) {
            Class::Candidate(candidate) => self.add_candidate(arena, packet, candidate),
            Class::OfFlow(flow) => {
                self.open.retain(|open| open.flow != flow);
                self.add_alone(packet);
            }
            Class::BetweenHosts(hosts) => {
                self.open.retain(|open| open.hosts != hosts);
                self.add_alone(packet);
            }
            Class::Foreign => self.add_alone(packet),
        }
    }

    fn add_candidate(&mut self, arena: &[u8], packet: Range<usize>, candidate: Candidate) {
        let mut is_corrupt = false;
        if let Some(at) = self.open.iter().rposition(|open| open.flow == candidate.flow) {
            match self.join(self.open[at].group, arena, &packet, &candidate) {
                Join::Joined { is_last: false } => return,
                Join::Joined { is_last: true } => {
                    self.open.remove(at);
                    return;
                }
                Join::Refused => (),
                Join::Corrupt => is_corrupt = true,
            }
            self.open.remove(at);
        }
        if candidate.ends_group() || is_corrupt {
            return self.add_alone(packet);
        }
        if self.open.len() == OPEN_MAX {
            self.open.remove(0);
        }
        self.open.push(Open { flow: candidate.flow, hosts: candidate.hosts, group: self.groups.len() });
        self.groups.push(Group::new(packet, Some(candidate)));
    }

    fn add_alone(&mut self, packet: Range<usize>) {
        self.groups.push(Group::new(packet, None));
    }

    #[inline]
    fn join(&mut self, group: usize, arena: &[u8], range: &Range<usize>, candidate: &Candidate) -> Join {
        let group = &mut self.groups[group];
        let Some(head) = &group.candidate else { return Join::Refused };
        let (first, packet) = (&arena[group.first.clone()], &arena[range.clone()]);
        let fits = candidate.payload <= head.payload
            && group.count < SEGMENTS_MAX
            && group.len + candidate.payload <= LENGTH_MAX
            && head.is_continued(first, candidate, packet, group.len - head.headers);
        if !fits {
            return Join::Refused;
        }
        let has_fixed_id = if group.count == 1 { head.has_same_id(first, packet) } else { group.has_fixed_id };
        if !head.has_id_at(first, packet, if has_fixed_id { 0 } else { group.count }) {
            return Join::Refused;
        }
        if !group.is_intact && !head.is_intact(first) {
            return Join::Refused;
        }
        group.is_intact = true;
        if !candidate.is_intact(packet) {
            return Join::Corrupt;
        }
        group.has_fixed_id = has_fixed_id;
        group.count += 1;
        group.len += candidate.payload;
        group.end_flags = candidate.end_flags;
        let is_last = candidate.payload < head.payload || candidate.ends_group();

        let new = self.payloads.len();
        self.payloads.push(Payload { range: range.start + candidate.headers..range.end, next: None });
        group.payloads = Some(match group.payloads {
            Some((first, last)) => {
                self.payloads[last].next = Some(new);
                (first, new)
            }
            None => (new, new),
        });
        Join::Joined { is_last }
    }

    /// Writes everything, in the order in which the first packets were added, and is empty afterwards. Each call of
    /// `write` is one write to the interface: the header for `IFF_VNET_HDR` ([`VnetHeader`]) comes first, at most 64
    /// pieces follow. The headers of groups are rewritten in `arena`.
    ///
    /// The first error ends it, and packets that are not written yet are lost; so `write` must not return an error that
    /// concerns one packet only.
    pub fn flush<E>(
        &mut self,
        arena: &mut [u8],
        mut write: impl FnMut(&[IoSlice<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let written = self.groups.iter().try_for_each(|group| {
            let mut header = VnetHeader::default();
            if let Some(candidate) = group.candidate.as_ref().filter(|_| group.count > 1) {
                header = candidate.join_headers(&mut arena[group.first.clone()], group.len, group.end_flags);
            }
            let header = header.to_bytes();
            let first = [IoSlice::new(&header), IoSlice::new(&arena[group.first.clone()])];
            let Some((payload, _)) = group.payloads else { return write(&first) };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            slices[..2].copy_from_slice(&first);
            let mut next = Some(payload);
            for slice in &mut slices[2..=group.count] {
                let Some(index) = next else { break };
                let payload = &self.payloads[index];
                *slice = IoSlice::new(&arena[payload.range.clone()]);
                next = payload.next;
            }
            write(&slices[..=group.count])
        });
        self.groups.clear();
        self.payloads.clear();
        self.open.clear();
        written
    }
}

impl Group {
    fn new(first: Range<usize>, candidate: Option<Candidate>) -> Self {
        Self {
            len: first.len(),
            first,
            candidate,
            count: 1,
            is_intact: false,
            has_fixed_id: false,
            end_flags: 0,
            payloads: None,
        }
    }
}

#[cfg(test)]
mod tests;
