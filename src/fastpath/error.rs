//! Why the fast path cannot be observed or changed.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::ProgramError;

use super::load;
use super::model::Hook;
use crate::net::InterfaceName;
use crate::outcome::ComponentError;

/// What failed, and where.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No socket.
    #[error("cannot open a route netlink socket")]
    Open(#[source] io::Error),
    /// A question went unanswered.
    #[error("the kernel did not list its {what}")]
    List {
        /// `links`, `filters` or `queueing disciplines`.
        what: &'static str,
        source: rtnetlink::Error,
    },
    /// The file of a program.
    #[error("cannot open the program {}", path.display())]
    Program {
        /// The file.
        path: PathBuf,
        source: Box<ProgramError>,
    },
    /// The file of a map.
    #[error("cannot use the map {}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        source: Box<MapError>,
    },
    /// A directory among those files.
    #[error("cannot use {}", path.display())]
    Note {
        /// The directory.
        path: PathBuf,
        source: io::Error,
    },
    /// Files of a version.
    #[error("files of the fast path stay")]
    Remove(#[source] load::Error),
    /// The place for filters at a link.
    #[error("cannot change the clsact of link {link}")]
    Qdisc {
        /// Its index.
        link: u32,
        source: rtnetlink::Error,
    },
    /// A filter.
    #[error("cannot attach to {hook} of {link}")]
    Attach {
        /// The link.
        link: InterfaceName,
        /// Where at the link.
        hook: Hook,
        source: rtnetlink::Error,
    },
    /// A filter.
    #[error("cannot detach from {hook} of link {link}")]
    Detach {
        /// Its index.
        link: u32,
        /// Where at the link.
        hook: Hook,
        source: rtnetlink::Error,
    },
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        "fastpath-failed"
    }

    fn advice(&self) -> String {
        "the daemon needs CAP_NET_ADMIN and the files below /sys/fs/bpf/bastiond, which bastiond-fastpath.service makes; \
         it tries again by itself, and nat.fastpath = false does without"
            .to_owned()
    }
}
