//! Whether the kernel has a software flowtable, which forwards packets of established flows past most of the network
//! stack.

use std::fmt;

use super::model::TABLE;
use super::nft::{Error, Nft};
use crate::config::Fastpath;

/// From this version on flows in a flowtable expire while they are used: `nf_flow_table_extend_ct_timeout` of 6.18
/// never extends them.
const FAULTY_FROM: (u32, u32) = (6, 18);

/// The kernel's flowtable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flowtable {
    /// It works.
    Sound,
    /// It exists, and is known to lose flows.
    Faulty,
    /// The kernel was built without it.
    Absent,
}

impl Flowtable {
    /// Asks the kernel, and changes nothing.
    pub(super) async fn probe(nft: &Nft) -> Result<Self, Error> {
        // In a table of its own, so that the answer does not depend on ours. The loopback interface always exists.
        let table = format!("{TABLE}_probe");
        let text = format!(
            "add table inet {table}\nadd flowtable inet {table} probe {{ hook ingress priority 0; devices = {{ lo }}; \
             }}\n"
        );
        match nft.run(&["-c", "-f", "-"], Some(text)).await {
            Ok(_) => {}
            Err(Error::Refused { .. }) => return Ok(Self::Absent),
            Err(error) => return Err(error),
        }
        let release = nix::sys::utsname::uname().ok().map(|names| names.release().to_string_lossy().into_owned());
        Ok(release.map_or(Self::Faulty, |release| Self::for_release(&release)))
    }

    /// Decides by the kernel's release, like `6.12.48+deb13-cloud-amd64`.
    fn for_release(release: &str) -> Self {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) if (major, minor) < FAULTY_FROM => Self::Sound,
            _ => Self::Faulty,
        }
    }

    /// Whether the configuration wants it used.
    pub(super) fn is_wanted(self, fastpath: Fastpath) -> bool {
        match fastpath {
            Fastpath::Auto => self == Self::Sound,
            Fastpath::Flowtable => self != Self::Absent,
            Fastpath::Bpf | Fastpath::Off => false,
        }
    }
}

impl fmt::Display for Flowtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sound => "flowtable",
            Self::Faulty => "this kernel's flowtable loses flows, used only with nat.fastpath = \"flowtable\"",
            Self::Absent => "none in this kernel",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_lose_flows_are_recognised_by_their_release() {
        for (release, flowtable) in [
            ("6.1.0-37-amd64", Flowtable::Sound),
            ("6.12.48+deb13-cloud-amd64", Flowtable::Sound),
            ("6.17.13", Flowtable::Sound),
            ("6.18.0", Flowtable::Faulty),
            ("7.0.1", Flowtable::Faulty),
            ("strange", Flowtable::Faulty),
            ("", Flowtable::Faulty),
        ] {
            assert_eq!(Flowtable::for_release(release), flowtable, "{release}");
        }
    }

    #[test]
    fn the_configuration_decides_whether_a_flowtable_is_used() {
        for (fastpath, used) in [
            (Fastpath::Auto, [true, false, false]),
            (Fastpath::Flowtable, [true, true, false]),
            (Fastpath::Bpf, [false; 3]),
            (Fastpath::Off, [false; 3]),
        ] {
            let there = [Flowtable::Sound, Flowtable::Faulty, Flowtable::Absent];
            assert_eq!(there.map(|flowtable| flowtable.is_wanted(fastpath)), used, "{fastpath:?}");
        }
    }
}
