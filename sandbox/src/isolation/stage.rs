//! Which of the three processes this one is: an environment variable says so, and the kernel confirms it.

use std::process::Command;

use super::error::Error;
use super::network_namespace::NetworkNamespaceId;

/// `init:<inode>` or `inside:<inode>`, with the inode of the machine's network namespace. In a process that is in that
/// namespace the variable was only inherited, and it is ignored.
const VARIABLE: &str = "SANDBOX_STAGE";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Outside,
    Init { machine: NetworkNamespaceId },
    Inside { machine: NetworkNamespaceId },
}

impl Stage {
    pub(super) fn current() -> Result<Self, Error> {
        let here = NetworkNamespaceId::of_this_thread()?;
        Ok(Self::parse(std::env::var(VARIABLE).ok().as_deref(), here))
    }

    fn parse(value: Option<&str>, here: NetworkNamespaceId) -> Self {
        let Some((stage, inode)) = value.and_then(|value| value.split_once(':')) else { return Self::Outside };
        let Ok(machine) = inode.parse().map(NetworkNamespaceId) else { return Self::Outside };
        match stage {
            _ if machine == here => Self::Outside,
            "init" => Self::Init { machine },
            "inside" => Self::Inside { machine },
            _ => Self::Outside,
        }
    }

    /// The command that starts this program again with the same arguments, as this stage.
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
            Self::Outside => command.env_remove(VARIABLE),
            Self::Init { machine } => command.env(VARIABLE, format!("init:{}", machine.0)),
            Self::Inside { machine } => command.env(VARIABLE, format!("inside:{}", machine.0)),
        };
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_ignored_in_the_machines_own_namespace() {
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
        for (value, here, stage) in cases {
            assert_eq!(Stage::parse(value, here), stage, "{value:?} at {here}");
        }
    }
}
