//! The nouns: links, the places of the programs on them, and what stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::net::InterfaceName;

/// Where at a link a program is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// Packets that the link receives.
    Ingress,
    /// Packets that it sends.
    Egress,
}

impl Hook {
    /// In the order in which they are attached: a flow is learnt before it is carried.
    pub(super) const ALL: [Self; 2] = [Self::Egress, Self::Ingress];

    /// The priority of our filter. Last at the ingress, so that other programs see every packet before it is carried.
    /// First at the egress, so that what is learnt is the kernel's own work: what others do after it, they do to
    /// carried packets too.
    pub(super) fn priority(self) -> u16 {
        match self {
            Self::Ingress => u16::MAX,
            Self::Egress => 1,
        }
    }

    /// The name of our filter in `tc filter show`.
    pub(super) fn filter_name(self) -> &'static str {
        match self {
            Self::Ingress => "bastiond-forward",
            Self::Egress => "bastiond-learn",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// The handle of our filters, which tells them from others of the same priority.
pub(super) const HANDLE: u32 = 0xba57;

/// The index of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkIndex(pub(super) u32);

/// The kernel's number of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProgramId(pub(super) u32);

/// Which packets count: the cache's entries carry the number of the change since which they are true. 0: none counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(pub(super) u32);

impl Generation {
    pub(super) const OFF: Self = Self(0);

    /// The one after this. The programs mark packets with the lower 16 bits: 0 means no generation there, and 0xffff a
    /// packet that they carry.
    pub(super) fn next(self) -> Self {
        let next = self.0.wrapping_add(1);
        Self(match next & 0xffff {
            0 => next + 1,
            0xffff => next.wrapping_add(2),
            _ => next,
        })
    }
}

/// A filter of clsact or of `ingress`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Filter {
    pub(super) link: LinkIndex,
    pub(super) hook: Hook,
    pub(super) priority: u16,
    pub(super) handle: u32,
    /// Its kind, such as `bpf` or `u32`.
    pub(super) kind: String,
    /// The name that was given with a program.
    pub(super) name: Option<String>,
    pub(super) program: Option<ProgramId>,
}

impl Filter {
    /// Whether it is of this component, of whatever version.
    pub(super) fn is_ours(&self) -> bool {
        self.kind == "bpf" && self.name.as_deref() == Some(self.hook.filter_name())
    }
}

/// The queueing discipline whose filters see received packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Qdisc {
    /// It sees sent packets too.
    Clsact,
    /// Received ones only.
    Ingress,
}

/// What the programs have counted since they were loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Packets that were carried past the kernel's path.
    pub(super) carried: u64,
    /// Their bytes, from the IP header on.
    pub(super) carried_bytes: u64,
    /// Forwarded packets that took the kernel's path.
    pub(super) full_path: u64,
    /// Entries that found no place.
    pub(super) crowded: u64,
    /// Packets that were lost for lack of memory.
    pub(super) lost: u64,
}

impl Counters {
    /// The share of forwarded packets that were carried, in per cent; `None` if none were forwarded.
    pub(super) fn share(self) -> Option<u64> {
        let all = u128::from(self.carried) + u128::from(self.full_path);
        let share = (u128::from(self.carried) * 100).checked_div(all)?;
        u64::try_from(share).ok()
    }
}

/// The programs of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loaded {
    /// By hook.
    pub(super) forward: ProgramId,
    pub(super) learn: ProgramId,
    pub(super) generation: Generation,
    pub(super) counters: Counters,
}

impl Loaded {
    pub(super) fn program(&self, hook: Hook) -> ProgramId {
        match hook {
            Hook::Ingress => self.forward,
            Hook::Egress => self.learn,
        }
    }
}

/// What a pass finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// `None` if the programs of this version are not loaded.
    pub(super) loaded: Option<Loaded>,
    /// The directories of other versions, and of unfinished ones.
    pub(super) other_versions: BTreeSet<String>,
    /// Every Ethernet link.
    pub(super) links: BTreeMap<InterfaceName, LinkIndex>,
    /// Of every link.
    pub(super) qdiscs: BTreeMap<LinkIndex, Qdisc>,
    /// The links whose clsact this component made.
    pub(super) made_qdiscs: BTreeSet<LinkIndex>,
    /// Of every link.
    pub(super) filters: Vec<Filter>,
    /// The links at which other programs of tcx stand.
    pub(super) tcx: BTreeSet<LinkIndex>,
    /// Whether connection tracking accepts packets of a flow of which it does not see every one.
    pub(super) is_tracking_liberal: bool,
}
