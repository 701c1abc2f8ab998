//! Two interfaces of one program, in two namespaces that a veth pair connects.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::namespace::Namespace;
use sandbox::traffic::{Ping, ping};
use tempfile::TempDir;

use super::config::{self, Keys};
use super::device::Device;
use super::program::Program;
use crate::run::Result;

/// The addresses of the link (documentation prefix, RFC 5737).
const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// The addresses in the tunnel.
pub(super) const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
pub(super) const PORT: u16 = 51820;
/// The MTU that `wg-quick` sets on a link with 1500: minus 40 for IPv6, 8 for UDP and 32 for WireGuard.
const MTU: u16 = 1420;
/// The time limit of the first packet through the tunnel.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of a run of `wg`.
const WG_TIMEOUT: Duration = Duration::from_secs(30);

/// One end of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The end of the clients.
    Near = 0,
    /// The end of the servers.
    Far = 1,
}

/// Both ends and their configurations.
pub(super) struct Pair<'p> {
    pub(super) program: &'p Program,
    namespaces: [Namespace; 2],
    devices: Option<[Device; 2]>,
    configs: [PathBuf; 2],
    directory: TempDir,
}

impl<'p> Pair<'p> {
    /// Creates the link and the configurations. Each end has so many peers: the other end and unused ones.
    pub(super) fn build(program: &'p Program, peers: usize) -> Result<Self> {
        let part = |part: &str| Namespace::create(&format!("{}-{part}", program.tag()));
        let namespaces = [part("near")?, part("far")?];
        let [near, far] = &namespaces;
        near.ip(&format!("link add name eth0 type veth peer name eth0 netns {}", far.name()))?;
        for (namespace, address) in namespaces.iter().zip(OUTSIDE) {
            namespace.ip(&format!("addr add {address}/24 dev eth0\nlink set eth0 up"))?;
        }
        let directory = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let mut random = fastrand::Rng::with_seed(7);
        let keys = [Keys::generate(&mut random), Keys::generate(&mut random)];
        let configs = ["near.conf", "far.conf"].map(|name| directory.path().join(name));
        for (this, other) in [(0, 1), (1, 0)] {
            let mut text = config::interface(&keys[this], PORT);
            let endpoint = SocketAddrV4::new(OUTSIDE[other], PORT);
            config::add_peer(&mut text, &keys[other].public, INSIDE[other], Some(endpoint));
            for (key, address) in config::unused_peers(&mut random).take(peers - 1) {
                config::add_peer(&mut text, &key, address, None);
            }
            std::fs::write(&configs[this], text)?;
        }
        Ok(Self { program, namespaces, devices: None, configs, directory })
    }

    pub(super) fn namespace(&self, end: End) -> &Namespace {
        &self.namespaces[end as usize]
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    pub(super) fn config(&self, end: End) -> &PathBuf {
        &self.configs[end as usize]
    }

    /// The running interface of an end.
    pub(super) fn device(&self, end: End) -> Result<&Device> {
        let devices = self.devices.as_ref().ok_or("the interfaces are not running")?;
        Ok(&devices[end as usize])
    }

    /// Starts new processes without a configuration, with their interfaces up.
    pub(super) fn start(&mut self) -> Result {
        self.devices = None;
        let start = |end: End, suffix: &str| -> Result<Device> {
            let namespace = self.namespace(end);
            let interface = format!("{}-{suffix}", self.program.tag());
            let device = Device::start(namespace, self.program, &interface, self.directory.path(), None)?;
            let address = INSIDE[end as usize];
            namespace.ip(&format!("addr add {address}/24 dev {interface}\nlink set dev {interface} mtu {MTU} up"))?;
            Ok(device)
        };
        self.devices = Some([start(End::Near, "near")?, start(End::Far, "far")?]);
        Ok(())
    }

    /// Configures an end with `wg setconf`, and returns its duration.
    pub(super) fn configure(&mut self, end: End) -> Result<Duration> {
        let config = self.config(end).to_string_lossy().into_owned();
        let took = self.wg(end, "setconf", &[&config])?;
        Ok(took)
    }

    /// Runs `wg COMMAND INTERFACE ARGUMENTS`, and returns its duration.
    pub(super) fn wg(&mut self, end: End, command: &str, arguments: &[&str]) -> Result<Duration> {
        let interface = self.device(end)?.interface().to_owned();
        let wg = self.namespace(end).command("wg").args([command, &interface]).args(arguments);
        let start = Instant::now();
        let child = wg.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let output = wait(child)?;
        let took = start.elapsed();
        self.check_running()?;
        if output.status.success() {
            return Ok(took);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!("wg {command} {interface}: {} {}", output.status, complaint.trim()).into())
    }

    /// Sends pings until one is answered, so that a session exists.
    pub(super) fn prime(&mut self) -> Result {
        let start = Instant::now();
        let once = Ping { timeout: Duration::from_millis(500), ..Ping::default() };
        while ping(self.namespace(End::Near), INSIDE[End::Far as usize], once)?.replies.is_empty() {
            self.check_running()?;
            if start.elapsed() > TIMEOUT {
                return Err(format!("no packet passed the tunnel within {} s", TIMEOUT.as_secs()).into());
            }
        }
        Ok(())
    }

    /// Starts new processes and waits for a session.
    pub(super) fn restart(&mut self) -> Result {
        self.start()?;
        self.configure(End::Near)?;
        self.configure(End::Far)?;
        self.prime()
    }

    /// Makes sure that the processes run and have a session; starts new ones if they do not run.
    pub(super) fn ensure_session(&mut self) -> Result {
        if self.devices.is_none() { self.restart() } else { self.prime() }
    }

    /// Fails if one of the processes has ended.
    pub(super) fn check_running(&mut self) -> Result {
        self.devices.iter_mut().flatten().try_for_each(Device::check_running)
    }

    /// Kills the processes.
    pub(super) fn stop(&mut self) {
        self.devices = None;
    }
}

/// Waits for the end of a process, and kills it after [`WG_TIMEOUT`].
fn wait(child: Child) -> Result<Output> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let (ended, end) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if end.recv_timeout(WG_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
                // If it has just been reaped, its process id is not in use again yet.
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let output = child.wait_with_output();
        drop(ended);
        Ok(output?)
    })
}
