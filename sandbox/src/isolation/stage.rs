//! Which of the three processes this one is, by a mark in the environment that is checked against the kernel.

use std::process::Command;

use super::{Error, NetworkNamespaceId};

/// `init:<inode>` or `inside:<inode>`, the inode being that of the machine's network namespace. Where the process finds
/// itself in that very namespace, somebody only inherited the mark, and it means nothing.
const MARK: &str = "SANDBOX_STAGE";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Outside,
    Init { machine: NetworkNamespaceId },
    Inside { machine: NetworkNamespaceId },
}

impl Stage {
    pub(super) fn current() -> Result<Self, Error> {
        let here = NetworkNamespaceId::of_this_thread()?;
        Ok(Self::read(std::env::var(MARK).ok().as_deref(), here))
    }

    fn read(mark: Option<&str>, here: NetworkNamespaceId) -> Self {
        let Some((stage, inode)) = mark.and_then(|mark| mark.split_once(':')) else { return Self::Outside };
        let Ok(machine) = inode.parse().map(NetworkNamespaceId) else { return Self::Outside };
        match stage {
            _ if machine == here => Self::Outside,
            "init" => Self::Init { machine },
            "inside" => Self::Inside { machine },
            _ => Self::Outside,
        }
    }

    /// This program again, with the arguments it has, to run as `self`.
    pub(super) fn command(self) -> Result<Command, Error> {
        use std::os::unix::process::CommandExt;

        let path = "/proc/self/exe";
        let program = std::fs::read_link(path).map_err(|source| Error::Read { path, source })?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new(program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments);
        match self {
            Self::Outside => command.env_remove(MARK),
            Self::Init { machine } => command.env(MARK, format!("init:{}", machine.0)),
            Self::Inside { machine } => command.env(MARK, format!("inside:{}", machine.0)),
        };
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_only_away_from_the_machines_own_namespace() {
        let machine = NetworkNamespaceId(4);
        let elsewhere = NetworkNamespaceId(7);
        let cases = [
            (None, elsewhere, Stage::Outside),
            (Some("init:4"), elsewhere, Stage::Init { machine }),
            (Some("inside:4"), elsewhere, Stage::Inside { machine }),
            (Some("inside:4"), machine, Stage::Outside),
            (Some("inside:four"), elsewhere, Stage::Outside),
            (Some("beside:4"), elsewhere, Stage::Outside),
            (Some("inside"), elsewhere, Stage::Outside),
        ];
        for (mark, here, stage) in cases {
            assert_eq!(Stage::read(mark, here), stage, "{mark:?} at {here}");
        }
    }
}
