//! `sandbox shell`

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use sandbox::isolation;
use sandbox::world::{Laptop, Names, Settings, World};

use super::Outcome;

#[derive(Args)]
pub(crate) struct Options {
    /// Run this bastiond in the bastion; its log is /run/bastiond.log in the shell.
    #[arg(long, value_name = "PATH")]
    bastiond: Option<PathBuf>,
}

/// The isolation has a /run of its own, which disappears at its end.
const RUNTIME_DIRECTORY: &str = "/run/bastiond";
const STATE_DIRECTORY: &str = "/run/bastiond-state";
const LOG: &str = "/run/bastiond.log";
/// Empty at the start. A person can edit it and send SIGHUP.
const CONFIG: &str = "/run/bastiond.toml";

/// A picture of the network.
pub(crate) const PICTURE: &str = "
  server 203.0.113.10 ─┐
                       │               ┌─ bastion ── eth0 198.51.100.2, eth1 10.0.0.2, eth2 10.2.0.2
                    internet ──────────┘                     │                  │
                       │   172.31.1.1                 gw-private 10.0.0.1   gw-second 10.2.0.1
  laptop ─── home ─────┘   203.0.113.1 (the API)         │          │           │
  192.168.178.20                                        web       worker      tenant
  behind 192.0.2.7                                    10.0.0.4   10.0.1.5    10.2.0.4
";

pub(crate) fn run(options: &Options) -> Outcome {
    isolation::enter()?;
    // Ctrl-C is for the programs in the shell. It is blocked before any thread starts, so that no thread receives it.
    interrupt().thread_block()?;
    let settings = Settings { names: Names::Plain, laptop: Laptop::BehindNat, ..Settings::default() };
    let world = World::start(settings)?;
    println!("{PICTURE}");
    let daemon = options
        .bastiond
        .as_deref()
        .map(|program| with_interrupt_unblocked(|| Daemon::start(&world, program)))
        .transpose()?;
    println!("{}", hints(&world, daemon.as_ref()));
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut command = Command::new(shell);
    command
        .env("HCLOUD_ENDPOINT", world.api_endpoint())
        .env("HCLOUD_TOKEN", world.token())
        .env("HCLOUD_NETWORK", world.private_network_id().to_string());
    let status = with_interrupt_unblocked(|| Ok(command.spawn()?))?.wait()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn interrupt() -> SigSet {
    SigSet::from_iter([Signal::SIGINT])
}

/// Starts a process with Ctrl-C unblocked, because a process inherits the blocked signals.
fn with_interrupt_unblocked<T>(start: impl FnOnce() -> Result<T, Box<dyn Error>>) -> Result<T, Box<dyn Error>> {
    interrupt().thread_unblock()?;
    let started = start();
    interrupt().thread_block()?;
    started
}

fn hints(world: &World, daemon: Option<&Daemon>) -> String {
    let names: Vec<_> = world.namespaces().iter().map(|namespace| namespace.name()).collect();
    let daemon = match daemon {
        Some(_) => format!("bastiond is running in the bastion: tail -f {LOG}"),
        None => "no bastiond is running: the private hosts cannot reach the internet".to_owned(),
    };
    format!(
        "Namespaces: {}
{daemon}

  ip netns exec web ping 203.0.113.10               whether a private host reaches the internet
  ip netns exec bastion nft list ruleset            the rules of the bastion
  ip netns exec gw-private ip route                 the routes of Hetzner's virtual gateway
  ip netns exec bastion hcloud network list         the cloud's networks (HCLOUD_ENDPOINT and HCLOUD_TOKEN are set)
  ip netns exec bastion curl http://169.254.169.254/hetzner/v1/metadata

The network ends with this shell.",
        names.join(" ")
    )
}

/// The running bastiond in the bastion.
struct Daemon {
    process: Child,
}

impl Daemon {
    fn start(world: &World, program: &Path) -> Result<Self, Box<dyn Error>> {
        let program = fs::canonicalize(program).map_err(|error| format!("{}: {error}", program.display()))?;
        for directory in [RUNTIME_DIRECTORY, STATE_DIRECTORY] {
            fs::create_dir_all(directory)?;
        }
        File::create(CONFIG)?;
        let log = File::create(LOG)?;
        let program = program.to_str().ok_or("the path of bastiond is not UTF-8")?;
        let process = world
            .bastion()
            .command(program)
            .env("HCLOUD_ENDPOINT", world.api_endpoint())
            .env("HCLOUD_TOKEN", world.token())
            .env("RUNTIME_DIRECTORY", RUNTIME_DIRECTORY)
            .env("STATE_DIRECTORY", STATE_DIRECTORY)
            .args(["--config", CONFIG])
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { process })
    }
}

impl Drop for Daemon {
    /// Sends SIGTERM, and SIGKILL after 3 s.
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a process id fits pid_t"));
        let deadline = Instant::now() + Duration::from_secs(3);
        let _ = kill(pid, Signal::SIGTERM);
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.process.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
