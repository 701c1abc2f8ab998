//! Reads what stands: the files of the programs, the filters of the links, and the setting that they need.

use std::path::Path;

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

use super::Error;
use super::filters::Netlink;
use super::model::Observed;
use super::pins::Pins;
use crate::net::InterfaceName;

/// Below `/proc/sys`: whether connection tracking accepts packets whose sequence numbers it cannot judge.
const LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";

/// Whether anything of this component may stand, as far as its files tell.
pub(super) fn has_files(pins: &Pins) -> Result<bool, Error> {
    Ok(pins.loaded()?.is_some() || !pins.other_versions()?.is_empty() || !pins.made_qdiscs()?.is_empty())
}

/// Reads everything. `links`: those at which programs are to stand.
pub(super) async fn observe(
    pins: &Pins,
    links: impl Iterator<Item = &InterfaceName>,
    sysctls: &Path,
) -> Result<Observed, Error> {
    let netlink = Netlink::open()?;
    let all = netlink.links().await?;
    let qdiscs = netlink.qdiscs().await?;
    let filters = netlink.filters(qdiscs.keys().copied()).await?;
    let tcx = links.filter(|name| has_tcx(name)).filter_map(|name| all.get(name).copied()).collect();
    let liberal = std::fs::read_to_string(sysctls.join(LIBERAL));
    Ok(Observed {
        loaded: pins.loaded()?,
        other_versions: pins.other_versions()?,
        made_qdiscs: pins.made_qdiscs()?,
        is_tracking_liberal: liberal.is_ok_and(|value| value.trim() == "1"),
        links: all,
        qdiscs,
        filters,
        tcx,
    })
}

/// Whether programs stand at tcx of a link (Linux 6.6), which come before clsact. This component has none there.
fn has_tcx(link: &InterfaceName) -> bool {
    [TcAttachType::Ingress, TcAttachType::Egress].into_iter().any(|hook| {
        match SchedClassifier::query_tcx(link.as_str(), hook) {
            Ok((_, programs)) => !programs.is_empty(),
            // The kernel lists numbers, and this process may not look behind one: so there is one.
            Err(ProgramError::SyscallError(error)) => error.call == "bpf_prog_get_fd_by_id",
            Err(_) => false,
        }
    })
}
