//! Where in the kernel's structures the programs read.

use std::io;
use std::path::Path;

use super::btf::{self, Btf};

/// The descriptions of the kernel and its modules.
const DIRECTORY: &str = "/sys/kernel/btf";
/// The size of `struct nf_conntrack_tuple_hash`, which the programs know as a whole, in bytes.
const TUPLE_HASH: u32 = 56;
/// What the programs take for a member that this kernel does not have.
const ABSENT: u32 = u32::MAX;

/// Why they are not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel was built without its description, or connection tracking is not loaded.
    #[error("cannot read the kernel's description {path}")]
    Read {
        /// The file.
        path: String,
        source: io::Error,
    },
    /// The kernel differs from what is known.
    #[error("the kernel's description {path} does not fit")]
    Unfit {
        /// The file.
        path: String,
        source: btf::Error,
    },
}

/// The name of a constant of the programs, and its value.
pub(super) type Constant = (&'static str, u32);

/// The constants of the programs on the kernel that runs.
pub(super) fn of_this_kernel() -> Result<Vec<Constant>, Error> {
    let kernel = format!("{DIRECTORY}/vmlinux");
    let module = format!("{DIRECTORY}/nf_conntrack");
    let unfit = |path: &str| {
        let path = path.to_owned();
        move |source| Error::Unfit { path, source }
    };
    let btf = Btf::parse(&read(&kernel)?).map_err(unfit(&kernel))?;
    // Without the file, connection tracking is part of the kernel itself.
    let btf = if Path::new(&module).exists() { btf.extended_by(&read(&module)?).map_err(unfit(&module))? } else { btf };
    constants(&btf).map_err(unfit(&kernel))
}

fn read(path: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn constants(btf: &Btf) -> Result<Vec<Constant>, btf::Error> {
    let bytes = |structure, path: &[&str]| btf.offset_in_bits(structure, path).map(|bits| bits / 8);
    let optional = |structure, path: &[&str]| bytes(structure, path).unwrap_or(ABSENT);
    let is_known = btf.size("nf_conntrack_tuple_hash") == Some(TUPLE_HASH)
        && bytes("nf_conntrack_tuple_hash", &["tuple", "dst", "u3"])? == 36;
    if !is_known {
        return Err(btf::Error::Unexpected { structure: "nf_conntrack_tuple_hash" });
    }
    // A bit field behind the bit that says whether it is locked: both are read as one number.
    if btf.offset_in_bits("rtable", &["rt_mtu_locked"])? % 32 != 0
        || btf.offset_in_bits("rtable", &["rt_pmtu"])? % 32 != 1
    {
        return Err(btf::Error::Unexpected { structure: "rtable" });
    }
    Ok(vec![
        ("sk_buff_nfct", bytes("sk_buff", &["_nfct"])?),
        ("sk_buff_refdst", bytes("sk_buff", &["_skb_refdst"])?),
        ("sk_buff_active_extensions", optional("sk_buff", &["active_extensions"])),
        ("nf_conn_tuplehash", bytes("nf_conn", &["tuplehash"])?),
        ("nf_conn_status", bytes("nf_conn", &["status"])?),
        ("nf_conn_zone", optional("nf_conn", &["zone", "id"])),
        ("nf_conn_tcp_state", bytes("nf_conn", &["proto", "tcp", "state"])?),
        ("dst_metrics", bytes("dst_entry", &["_metrics"])?),
        ("dst_dev", bytes("dst_entry", &["dev"])?),
        ("net_device_mtu", bytes("net_device", &["mtu"])?),
        ("rtable_pmtu", bytes("rtable", &["rt_mtu_locked"])?),
    ])
}
