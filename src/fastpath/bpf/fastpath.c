// SPDX-License-Identifier: MIT OR GPL-2.0
//
// A flow cache in front of the kernel's own path. Two programs of clsact:
//
//   forward   at the ingress of the public and private links. It carries a packet whose flow is in the cache: it
//             rewrites addresses, ports, TTL and checksums, and redirects the packet to its link. Every other packet
//             continues on the kernel's path.
//   learn     at the egress of the same links. It sees the packets that the kernel has forwarded, after every rule and
//             translation, and stores "tuple before translation and input link -> what the packet looks like now".
//
// Connection tracking stays the only truth. An entry lives for a second, so one packet a second and direction takes the
// kernel's path, and renews the time-outs, the route, the neighbour and the verdict of the rules.
//
// A change of what may pass is followed by a new generation, which ends all entries at once. `forward` stamps each packet
// that takes the kernel's path with the generation that it found, and `learn` believes a packet with the stamp of the
// present generation only. So a packet that was judged before the change is never learnt after it, however long it
// waited in between (for a neighbour's address, for example).
//
// The file needs no header, so that the object depends on the compiler alone. Offsets into the kernel's structures are
// constants that the loader takes from the kernel's BTF.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define COMPILER_BARRIER() __asm__ volatile("" ::: "memory")
#define READ_ONCE(x) (*(volatile __typeof__(x) *)&(x))
// Little-endian machines only: those that bastiond is built for.
#define BE16(x) ((u16)__builtin_bswap16(x))

// The kernel's UAPI (linux/bpf.h), as far as it is used.
struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority;
	u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end, napi_id;
	u32 family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4], remote_port, local_port, data_meta;
	u64 flow_keys, tstamp;
	u32 wire_len, gso_segs;
	u64 sk;
	u32 gso_size;
};

static void *(*map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*l4_csum_replace)(struct __sk_buff *skb, u32 offset, u64 from, u64 to, u64 flags) = (void *)11;
static long (*redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*skb_change_tail)(struct __sk_buff *skb, u32 len, u64 flags) = (void *)38;
static long (*skb_pull_data)(struct __sk_buff *skb, u32 len) = (void *)39;
static long (*probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static u64 (*ktime_get_coarse_ns)(void) = (void *)160;

enum { MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6 };
enum { MMAPABLE = 1 << 10 };
enum { ACT_UNSPEC = -1, ACT_SHOT = 2 };
enum { PSEUDO_HEADER = 0x10, MARK_MANGLED_0 = 0x20 };
enum { PACKET_HOST = 0, ETHERTYPE_IPV4 = 0x0800, TCP = 6, UDP = 17 };

// struct ethhdr, iphdr, tcphdr and udphdr: offsets from the beginning of the frame.
enum {
	IP = 14,
	L4 = IP + 20,
	UDP_END = L4 + 8,
	TCP_END = L4 + 20,
	TCP_CHECK = L4 + 16,
	UDP_CHECK = L4 + 6,
};
enum { FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10 };
enum { DONT_FRAGMENT = 0x4000 };

// net/netfilter/nf_conntrack_common.h: how a packet belongs to its flow, and the status of a flow.
enum { CT_ESTABLISHED = 0, CT_ESTABLISHED_REPLY = 3, CT_INFO_MASK = 7 };
enum {
	SEEN_REPLY = 1 << 1,
	ASSURED = 1 << 2,
	CONFIRMED = 1 << 3,
	SEQ_ADJUST = 1 << 6,
	DYING = 1 << 9,
	TEMPLATE = 1 << 11,
	UNTRACKED = 1 << 12,
	HELPER = 1 << 13,
	OFFLOAD = 1 << 14,
	HW_OFFLOAD = 1 << 15,
};
enum { TCP_CONNTRACK_ESTABLISHED = 3 };
// A flow with one of these is changed or judged packet by packet.
enum { SPECIAL = SEQ_ADJUST | DYING | TEMPLATE | UNTRACKED | HELPER | OFFLOAD | HW_OFFLOAD };

// net/dst.h, linux/rtnetlink.h
enum { DST_NOREF = 1, METRICS_FLAGS = 3, METRIC_LOCK = 0, METRIC_MTU = 1, LOCKED_MTU = 1 << 2 };

// An entry lives this long, in nanoseconds.
#define LIFETIME 1000000000ull
// The stamp of a packet that `forward` redirects. No generation gives it.
enum { CARRIED = 0xffff };

// Offsets in bytes, set by the loader.
enum { ABSENT = 0xffffffff };
#define CONSTANT volatile const u32
CONSTANT sk_buff_nfct = ABSENT, sk_buff_refdst = ABSENT, sk_buff_active_extensions = ABSENT;
CONSTANT nf_conn_tuplehash = ABSENT, nf_conn_status = ABSENT, nf_conn_zone = ABSENT, nf_conn_tcp_state = ABSENT;
CONSTANT dst_metrics = ABSENT, dst_dev = ABSENT, net_device_mtu = ABSENT, rtable_pmtu = ABSENT;
// The number of buckets less one: a power of two less one.
CONSTANT bucket_mask = 0;
// A random number, so that nobody can choose hosts whose flows share buckets.
CONSTANT seed = 0;

// One direction of a flow, as its packets arrive.
struct key {
	u32 ifindex, source, destination;
	// Source and destination port, as they stand in the packet.
	u32 ports;
	u32 protocol;
};

// One entry of the cache: a cache line.
struct entry {
	u32 ifindex, source, destination, ports;
	// When it was learnt, in nanoseconds of the monotonic clock.
	u64 learnt;
	u32 generation;
	u32 output;
	u32 new_source, new_destination, new_ports;
	u16 mtu;
	u8 protocol, reserved;
	// Destination and source address of the frame.
	u32 frame[3];
	// A checksum of all the above. Another processor may write the entry while it is read: a mixture does not match.
	u32 check;
};

struct bucket {
	struct entry way[2];
};

// Which flows may have an entry that is alive. It is small enough to stay in the processor's cache, so that a flow
// without an entry costs no look at the table, which is not.
enum { RECENT_LINE = 64, RECENT_LINES = 1024 };
struct recent {
	// When an entry of a flow with this place was learnt last, by tick_of(); 0: never.
	u8 learnt[RECENT_LINE];
};

struct control {
	// Which entries count; 0: none, and nothing is learnt.
	u32 generation;
	u32 reserved;
};

// What one processor has counted.
struct counters {
	// Packets that were carried past the kernel's path, and their bytes from the IP header on.
	u64 carried_packets, carried_bytes;
	// Forwarded packets that took the kernel's path.
	u64 full_path_packets;
	// Entries that were made or renewed, and those that found no place.
	u64 learnt, crowded;
	// Packets that could not be rewritten and were lost, for lack of memory.
	u64 lost;
	u64 reserved[2];
};

#define MAP(name, kind, flags, count, value_type)   \
	struct {                                    \
		int (*type)[kind];                  \
		int (*max_entries)[count];          \
		int (*map_flags)[flags];            \
		u32 *key;                           \
		value_type *value;                  \
	} name SECTION(".maps")

// The loader sets the size.
MAP(flows, MAP_ARRAY, MMAPABLE, 1, struct bucket);
MAP(recent, MAP_ARRAY, 0, RECENT_LINES, struct recent);
MAP(control, MAP_ARRAY, 0, 1, struct control);
MAP(counters, MAP_PERCPU_ARRAY, 0, 1, struct counters);

INLINE u32 current_generation(void)
{
	u32 first = 0;
	struct control *found = map_lookup_elem(&control, &first);
	return found ? READ_ONCE(found->generation) : 0;
}

// 0: none. The daemon leaves out the generations other than 0 that would give 0 or CARRIED.
INLINE u32 stamp_of(u32 generation)
{
	return generation & 0xffff;
}

INLINE struct counters *own_counters(void)
{
	u32 first = 0;
	return map_lookup_elem(&counters, &first);
}

INLINE u32 check_of(const struct entry *entry)
{
	const u64 *words = (const u64 *)entry;
	u64 sum = words[0] * 0x9e3779b97f4a7c15ull + words[1] * 0xbf58476d1ce4e5b9ull + words[2] * 0x94d049bb133111ebull +
		  words[3] * 0xd6e8feb86659fd93ull + words[4] * 0xa0761d6478bd642full + words[5] * 0xe7037ed1a0b428dbull +
		  words[6] * 0x8ebc6af09c88c6e3ull + (u64)entry->frame[2] * 0x589965cc75374cc3ull;
	// Not of zeros only: an empty entry does not match.
	return (u32)(sum >> 32) ^ (u32)sum ^ 0x5bd1e995;
}

// Where a flow has its places in the tables.
struct place {
	u32 bucket, recent;
};

// Flows between the same hosts whose ports differ in the last five bits only are neighbours, within one page of memory:
// hosts use ports in turn. Otherwise thousands of flows would need as many pages, more than the processor finds without
// a look at the page table.
INLINE struct place place_of(const struct key *key)
{
	u32 ports = key->ports, low = (ports >> 8 ^ ports >> 24) & 0x1f;
	u64 hash = ((u64)key->source << 32 | (ports & ~0x1f001f00u)) ^ seed;
	hash *= 0x9e3779b97f4a7c15ull;
	hash ^= hash >> 32;
	hash += ((u64)key->destination << 32 | key->ifindex) + ((u64)key->protocol << 24) + ((u64)seed << 16);
	hash *= 0xd6e8feb86659fd93ull;
	return (struct place){ .bucket = (u32)(hash >> 32) << 5 | low, .recent = (u32)(hash >> 16) << 5 | low };
}

INLINE struct bucket *bucket_at(struct place place)
{
	u32 index = place.bucket & bucket_mask;
	return map_lookup_elem(&flows, &index);
}

// A time as `recent` has it: a little more than a lifetime is one unit.
INLINE u8 tick_of(u64 time)
{
	return 0x80 | (time >> 30 & 0x7f);
}

INLINE u8 *recent_at(struct place place)
{
	u32 line = place.recent / RECENT_LINE & (RECENT_LINES - 1);
	struct recent *found = map_lookup_elem(&recent, &line);
	u32 within = place.recent;
	// The mask has to stand next to its use: Linux 6.1 does not follow the limits of a number through `|`.
	__asm__ volatile("" : "+r"(within));
	return found ? &found->learnt[within % RECENT_LINE] : 0;
}

// Whether no entry of a flow with these places is alive.
INLINE int is_unknown(struct place place, u64 now)
{
	u8 *learnt = recent_at(place);
	if (!learnt)
		return 1;
	u8 tick = READ_ONCE(*learnt);
	return !tick || ((tick_of(now) - tick) & 0x7f) > 1;
}

INLINE int has_key(const struct entry *entry, const struct key *key)
{
	return entry->ports == key->ports && entry->source == key->source && entry->destination == key->destination &&
	       entry->ifindex == key->ifindex && entry->protocol == key->protocol;
}

INLINE struct entry *find(const struct key *key, struct place place)
{
	struct bucket *bucket = bucket_at(place);
	if (!bucket)
		return 0;
	if (has_key(&bucket->way[0], key))
		return &bucket->way[0];
	if (has_key(&bucket->way[1], key))
		return &bucket->way[1];
	return 0;
}

// Whether the copy is one entry, of this key, and not parts of two.
INLINE int copy_entry(struct entry *copy, const struct entry *entry, const struct key *key)
{
	__builtin_memcpy(copy, entry, sizeof(*copy));
	COMPILER_BARRIER();
	return copy->check == check_of(copy) && has_key(copy, key);
}

// Ends the entries of both directions of a flow: a connection begins or ends, and connection tracking has to see the
// packets.
INLINE void forget(struct entry *entry, const struct entry *copy)
{
	struct key answers = {
		.ifindex = copy->output,
		.source = copy->new_destination,
		.destination = copy->new_source,
		.ports = copy->new_ports >> 16 | copy->new_ports << 16,
		.protocol = copy->protocol,
	};
	struct entry *other = find(&answers, place_of(&answers));
	READ_ONCE(entry->generation) = 0;
	if (other)
		READ_ONCE(other->generation) = 0;
}

// rt_tos2priority() of net/route.h.
INLINE u32 priority_of(u32 tos)
{
	return 0x4620 >> ((tos >> 3 & 3) * 4) & 0xf;
}

// The sum of 16-bit words, folded to 16 bits.
INLINE u32 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (u32)sum;
}

// What has to be added to a checksum when words change, as a 32-bit sum.
INLINE u32 difference(u32 from1, u32 to1, u32 from2, u32 to2)
{
	u64 sum = (u64)(u32)~from1 + to1 + (u32)~from2 + to2;
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (u32)((sum & 0xffffffff) + (sum >> 32));
}

SECTION("classifier/forward") int forward(struct __sk_buff *skb)
{
	u32 generation = current_generation();
	// A stamp of before is of no use: it may be another gateway's in the same kernel.
	skb->tc_index = stamp_of(generation);
	if (!generation || skb->protocol != BE16(ETHERTYPE_IPV4) || skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return ACT_UNSPEC;

	u32 len = skb->len;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + TCP_END > end && len >= UDP_END) {
		// The headers may be in fragments of the buffer. A whole UDP packet may be shorter than TCP's headers.
		u32 wanted = len < TCP_END ? len : TCP_END;
		if (data + UDP_END > end || len >= TCP_END) {
			if (skb_pull_data(skb, wanted))
				return ACT_UNSPEC;
			data = (void *)(long)skb->data;
			end = (void *)(long)skb->data_end;
		}
	}
	if (data + UDP_END > end)
		return ACT_UNSPEC;

	u32 *ip = data + IP;
	u32 word0 = ip[0], word1 = ip[1], word2 = ip[2], source = ip[3], destination = ip[4];
	u32 ttl = word2 & 0xff, protocol = word2 >> 8 & 0xff, total = BE16(word0 >> 16);
	if ((word0 & 0xff) != 0x45 || (word1 >> 16 & ~BE16(DONT_FRAGMENT) & 0xffff) || ttl <= 1)
		return ACT_UNSPEC;
	if (IP + total > len || total < UDP_END - IP)
		return ACT_UNSPEC;
	if (fold((u64)word0 + word1 + word2 + source + destination) != 0xffff)
		return ACT_UNSPEC;

	u32 gso_size = skb->gso_size, header, flags = ACK;
	if (protocol == TCP) {
		if (data + TCP_END > end)
			return ACT_UNSPEC;
		u8 *tcp = data + L4;
		header = (tcp[12] >> 4) * 4;
		flags = tcp[13] & (FIN | SYN | RST | ACK);
		if (header < 20 || 20 + header > total)
			return ACT_UNSPEC;
	} else if (protocol == UDP) {
		u32 length = BE16(*(u16 *)(data + L4 + 4));
		header = 8;
		if (!gso_size && (length < header || 20 + length > total))
			return ACT_UNSPEC;
	} else {
		return ACT_UNSPEC;
	}

	struct key key = {
		.ifindex = skb->ifindex,
		.source = source,
		.destination = destination,
		.ports = *(u32 *)(data + L4),
		.protocol = protocol,
	};
	struct place place = place_of(&key);
	u64 now = ktime_get_coarse_ns();
	if (is_unknown(place, now))
		return ACT_UNSPEC;
	struct entry *entry = find(&key, place);
	if (!entry)
		return ACT_UNSPEC;
	struct entry flow;
	if (!copy_entry(&flow, entry, &key))
		return ACT_UNSPEC;
	if (flags != ACK) {
		forget(entry, &flow);
		return ACT_UNSPEC;
	}
	if (flow.generation != generation || now - flow.learnt > LIFETIME)
		return ACT_UNSPEC;
	if ((gso_size ? 20 + header + gso_size : total) > flow.mtu)
		return ACT_UNSPEC;
	if (len != IP + total) {
		// Bytes after the packet, with which an Ethernet frame is filled up: ip_rcv() removes them too.
		if (gso_size || skb_change_tail(skb, IP + total, 0))
			return ACT_UNSPEC;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if (data + UDP_END > end)
			return ACT_UNSPEC;
		ip = data + IP;
	}

	u32 *frame = data;
	frame[0] = flow.frame[0];
	frame[1] = flow.frame[1];
	frame[2] = flow.frame[2];
	word2 = (word2 & 0xffff) - 1;
	u32 check = ~fold((u64)word0 + word1 + word2 + flow.new_source + flow.new_destination) & 0xffff;
	ip[2] = word2 | check << 16;
	ip[3] = flow.new_source;
	ip[4] = flow.new_destination;
	*(u32 *)(data + L4) = flow.new_ports;
	skb->priority = priority_of(word0 >> 8);
	skb->tc_index = CARRIED;

	// Without a checksum there is none to change.
	int has_check = protocol == TCP || *(u16 *)(data + UDP_CHECK);
	// By the helper: it knows whether the checksum is complete, or only begun for a device to finish.
	u32 check_at = protocol == TCP ? TCP_CHECK : UDP_CHECK;
	u64 how = protocol == TCP ? 0 : MARK_MANGLED_0;
	long failed = 0;
	if (has_check && (flow.new_source != source || flow.new_destination != destination)) {
		u32 sum = difference(source, flow.new_source, destination, flow.new_destination);
		failed = l4_csum_replace(skb, check_at, 0, sum, how | PSEUDO_HEADER);
	}
	if (has_check && !failed && flow.new_ports != key.ports)
		failed = l4_csum_replace(skb, check_at, 0, difference(key.ports, flow.new_ports, 0, 0xffffffff), how);

	struct counters *counted = own_counters();
	if (counted) {
		if (failed) {
			counted->lost += 1;
		} else {
			counted->carried_packets += 1;
			counted->carried_bytes += total;
		}
	}
	return failed ? ACT_SHOT : (int)redirect(flow.output, 0);
}

INLINE int read_at(void *to, u32 size, u64 base, u32 offset)
{
	return probe_read_kernel(to, size, (const void *)(base + offset)) == 0;
}

// The kernel's struct nf_conntrack_tuple_hash: a list node and a tuple.
struct tuple_hash {
	u64 node[2];
	u32 source[4];
	u16 source_port, family;
	u32 destination[4];
	u16 destination_port;
	u8 protocol, direction;
};

// The size up to which the kernel forwards by a route, or a smaller one; 0: not known. See ip_dst_mtu_maybe_forward().
INLINE u32 mtu_of(struct __sk_buff *skb)
{
	u64 route = 0, metrics = 0, device = 0;
	if (probe_read_kernel(&route, sizeof(route), (void *)skb + sk_buff_refdst))
		return 0;
	route &= ~(u64)DST_NOREF;
	if (!route)
		return 0;
	u32 values[2] = {}, mtu = 0, path = 0;
	if (!read_at(&metrics, sizeof(metrics), route, dst_metrics) || !read_at(&device, sizeof(device), route, dst_dev) ||
	    !read_at(values, sizeof(values), metrics & ~(u64)METRICS_FLAGS, 0) ||
	    !read_at(&mtu, sizeof(mtu), device, net_device_mtu) || !read_at(&path, sizeof(path), route, rtable_pmtu))
		return 0;
	// The first bit: the path's MTU is locked.
	if (values[METRIC_LOCK] & LOCKED_MTU || path & 1)
		return 0;
	if (values[METRIC_MTU] && values[METRIC_MTU] < mtu)
		mtu = values[METRIC_MTU];
	if (path >> 1 && path >> 1 < mtu)
		mtu = path >> 1;
	return mtu > 0xffff ? 0xffff : mtu;
}

SECTION("classifier/learn") int learn(struct __sk_buff *skb)
{
	u32 stamp = skb->tc_index, input = skb->ingress_ifindex;
	// What this server sends has no stamp. What `forward` carries must not renew itself.
	if (!stamp || stamp == CARRIED || !input)
		return ACT_UNSPEC;
	u32 generation = current_generation();
	if (stamp_of(generation) != stamp)
		return ACT_UNSPEC;
	struct counters *counted = own_counters();
	if (!counted)
		return ACT_UNSPEC;
	counted->full_path_packets += 1;

	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (skb->protocol != BE16(ETHERTYPE_IPV4) || skb->vlan_present || data + UDP_END > end)
		return ACT_UNSPEC;
	u32 *ip = data + IP;
	u32 word0 = ip[0], protocol = ip[2] >> 8 & 0xff;
	if ((word0 & 0xff) != 0x45 || (ip[1] >> 16 & ~BE16(DONT_FRAGMENT) & 0xffff))
		return ACT_UNSPEC;
	if (protocol == TCP) {
		if (data + TCP_END > end || (((u8 *)data)[L4 + 13] & (FIN | SYN | RST | ACK)) != ACK)
			return ACT_UNSPEC;
	} else if (protocol != UDP) {
		return ACT_UNSPEC;
	}
	// Somebody's rules treat the packet in a way that the cache does not remember.
	if (skb->mark || skb->priority != priority_of(word0 >> 8))
		return ACT_UNSPEC;

	u64 tracked = 0;
	if (probe_read_kernel(&tracked, sizeof(tracked), (void *)skb + sk_buff_nfct))
		return ACT_UNSPEC;
	u32 relation = tracked & CT_INFO_MASK;
	u64 connection = tracked & ~(u64)CT_INFO_MASK;
	if (!connection || (relation != CT_ESTABLISHED && relation != CT_ESTABLISHED_REPLY))
		return ACT_UNSPEC;
	// An extension says that IPsec has decrypted the packet: the same packet in clear may not pass.
	u8 extensions = 0;
	if (sk_buff_active_extensions != ABSENT &&
	    (probe_read_kernel(&extensions, sizeof(extensions), (void *)skb + sk_buff_active_extensions) || extensions))
		return ACT_UNSPEC;
	u64 status = 0;
	if (!read_at(&status, sizeof(status), connection, nf_conn_status) || status & SPECIAL ||
	    (status & (CONFIRMED | SEEN_REPLY)) != (CONFIRMED | SEEN_REPLY))
		return ACT_UNSPEC;
	if (nf_conn_zone != ABSENT) {
		u16 zone = 0;
		if (!read_at(&zone, sizeof(zone), connection, nf_conn_zone) || zone)
			return ACT_UNSPEC;
	}
	if (protocol == TCP) {
		u8 state = 0;
		if (!(status & ASSURED) || !read_at(&state, sizeof(state), connection, nf_conn_tcp_state) ||
		    state != TCP_CONNTRACK_ESTABLISHED)
			return ACT_UNSPEC;
	}
	struct tuple_hash tuples[2] = {};
	if (!read_at(tuples, sizeof(tuples), connection, nf_conn_tuplehash))
		return ACT_UNSPEC;
	int is_reply = relation == CT_ESTABLISHED_REPLY;
	const struct tuple_hash *arrived = is_reply ? &tuples[1] : &tuples[0];
	const struct tuple_hash *other = is_reply ? &tuples[0] : &tuples[1];

	struct entry made = {
		.ifindex = input,
		.source = arrived->source[0],
		.destination = arrived->destination[0],
		.ports = arrived->source_port | (u32)arrived->destination_port << 16,
		.learnt = ktime_get_coarse_ns(),
		.generation = generation,
		.output = skb->ifindex,
		.new_source = ip[3],
		.new_destination = ip[4],
		.new_ports = *(u32 *)(data + L4),
		.protocol = protocol,
	};
	// What connection tracking makes of the flow's packets, and nobody else has changed.
	if (arrived->protocol != protocol || other->destination[0] != made.new_source ||
	    other->source[0] != made.new_destination ||
	    (other->destination_port | (u32)other->source_port << 16) != made.new_ports)
		return ACT_UNSPEC;
	u32 *frame = data;
	made.frame[0] = frame[0];
	made.frame[1] = frame[1];
	made.frame[2] = frame[2];
	made.mtu = mtu_of(skb);
	if (!made.mtu)
		return ACT_UNSPEC;
	made.check = check_of(&made);

	struct key key = {
		.ifindex = input,
		.source = made.source,
		.destination = made.destination,
		.ports = made.ports,
		.protocol = protocol,
	};
	struct place at = place_of(&key);
	struct bucket *bucket = bucket_at(at);
	u8 *recently = recent_at(at);
	if (!bucket || !recently)
		return ACT_UNSPEC;
	struct entry *first = &bucket->way[0], *second = &bucket->way[1], *place;
	int is_first_dead = first->generation != generation || made.learnt - first->learnt > LIFETIME;
	int is_second_dead = second->generation != generation || made.learnt - second->learnt > LIFETIME;
	if (has_key(first, &key))
		place = first;
	else if (has_key(second, &key))
		place = second;
	else if (is_first_dead)
		place = first;
	else if (is_second_dead)
		place = second;
	else {
		// The flow stays on the kernel's path. If it took the place of another one, both would lose theirs again and
		// again.
		counted->crowded += 1;
		return ACT_UNSPEC;
	}
	__builtin_memcpy(place, &made, sizeof(made));
	*recently = tick_of(made.learnt);
	counted->learnt += 1;
	return ACT_UNSPEC;
}

char _license[] SECTION("license") = "Dual MIT/GPL";
