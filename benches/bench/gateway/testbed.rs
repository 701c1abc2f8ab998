//! A test bed: client, bastion and server, directly connected, because another hop would reduce the differences.

use std::net::{IpAddr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use sandbox::daemon::{Daemon, Installation};
use sandbox::namespace::Namespace;
use sandbox::traffic::{Reflector, tcp_probe};

use super::addresses::{BASTION, BASTION_MAC, CLIENT, SERVER};
use super::config::Policy;
use crate::run::Result;

/// The server of [`Testbed::check_reachability`].
const WEB: SocketAddrV4 = SocketAddrV4::new(SERVER, 8080);
const SOON: Duration = Duration::from_secs(2);

/// The rules of the usual tutorial.
const FOUR_LINES: [&str; 4] = [
    "-t nat -A POSTROUTING -s 10.0.0.0/16 -o eth0 -j MASQUERADE",
    "-A FORWARD -i eth1 -o eth0 -j ACCEPT",
    "-A FORWARD -i eth0 -o eth1 -m state --state RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -i eth0 -o eth1 -j DROP",
];

/// The rules of a bastion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// No rules: the bastion forwards, and the server has a return route.
    None,
    /// [`FOUR_LINES`], with the nftables variant of iptables.
    IptablesNft,
    /// The table that the daemon loads for a configuration.
    Bastiond(Policy),
    /// The same with this fast path.
    BastiondBy(FastPath, Policy),
}

/// The values of `nat.fastpath`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FastPath {
    None,
    Flowtable,
    Bpf,
}

impl FastPath {
    fn setting(self) -> &'static str {
        match self {
            Self::None => "false",
            Self::Flowtable => "\"flowtable\"",
            Self::Bpf => "\"bpf\"",
        }
    }
}

/// Whether the kernel has flowtables.
pub(crate) fn has_flowtables() -> Result<bool> {
    let host = Namespace::create("flowtables")?;
    let probe = "add table inet f\nadd flowtable inet f f { hook ingress priority 0; devices = { lo }; }";
    Ok(host.nft(probe).is_ok())
}

impl Rules {
    /// The configuration of the daemon, if one runs.
    pub(crate) fn policy(self) -> Option<Policy> {
        match self {
            Self::None | Self::IptablesNft => None,
            Self::Bastiond(policy) | Self::BastiondBy(_, policy) => Some(policy),
        }
    }

    pub(crate) fn has_bpf(self) -> bool {
        matches!(self, Self::BastiondBy(FastPath::Bpf, _))
    }
}

/// Where the BPF file system is mounted, in the `/run` of the benchmark.
const BPFFS: &str = "/run/bpf";

/// The three namespaces.
#[derive(Debug)]
pub(crate) struct Testbed {
    rules: Rules,
    client: Namespace,
    bastion: Namespace,
    server: Namespace,
}

impl Testbed {
    pub(crate) fn build(name: &str, rules: Rules) -> Result<Self> {
        let part = |part: &str| Namespace::create(&format!("{name}-{part}"));
        let testbed = Self { rules, client: part("client")?, bastion: part("bastion")?, server: part("server")? };
        // The default of systemd for new links (50-default.conf), as on real servers.
        testbed.bastion.sysctls(&[("net.ipv4.conf.all.rp_filter", "0"), ("net.ipv4.conf.default.rp_filter", "2")])?;
        // While any program on the machine listens to flows, the kernel's default makes new ones dearer in all
        // namespaces, and the daemons of other test beds listen. A daemon that counts flows needs no other value.
        testbed.bastion.sysctl("net.netfilter.nf_conntrack_events", "0")?;
        let mac = BASTION_MAC.map(|byte| format!("{byte:02x}")).join(":");
        testbed.bastion.ip(&format!(
            "link add name eth1 address {mac} type veth peer name eth0 netns {client}
             link add name eth0 type veth peer name eth0 netns {server}
             addr add 10.0.0.2/16 dev eth1
             addr add {BASTION}/24 dev eth0
             link set eth0 up
             link set eth1 up",
            client = testbed.client.name(),
            server = testbed.server.name(),
        ))?;
        testbed
            .client
            .ip(&format!("addr add {CLIENT}/16 dev eth0\nlink set eth0 up\nroute add default via 10.0.0.2 dev eth0"))?;
        testbed.server.ip(&format!(
            "addr add {SERVER}/24 dev eth0\nlink set eth0 up\nroute add 10.0.0.0/16 via {BASTION} dev eth0"
        ))?;
        if matches!(rules, Rules::None | Rules::IptablesNft) {
            testbed.bastion.sysctl("net.ipv4.ip_forward", "1")?;
        }
        if rules == Rules::IptablesNft {
            for words in FOUR_LINES {
                let output = testbed.bastion.command("iptables-nft").args(words.split(' ')).output();
                let output = output.map_err(|error| format!("cannot start iptables-nft: {error}"))?;
                if !output.status.success() {
                    return Err(format!("iptables-nft {words}: {}", String::from_utf8_lossy(&output.stderr)).into());
                }
            }
        }
        Ok(testbed)
    }

    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    pub(crate) fn client(&self) -> &Namespace {
        &self.client
    }

    pub(crate) fn bastion(&self) -> &Namespace {
        &self.bastion
    }

    pub(crate) fn server(&self) -> &Namespace {
        &self.server
    }

    /// An installation of the daemon on the bastion.
    pub(crate) fn installation(&self, programs: &Path) -> Result<Installation<'_>> {
        let installation = Installation::new(&self.bastion, programs)?;
        let Some(policy) = self.rules.policy() else { return Ok(installation) };
        let Rules::BastiondBy(path, _) = self.rules else {
            installation.write_config(&policy.config())?;
            return Ok(installation);
        };
        installation.write_config(&format!("[nat]\nfastpath = {}\n{}", path.setting(), policy.config()))?;
        if path != FastPath::Bpf {
            return Ok(installation);
        }
        let directory = Path::new(BPFFS).join(self.bastion.name());
        load_bpf(programs, &directory)?;
        Ok(installation.env("BASTIOND_BPF_DIRECTORY", &directory.to_string_lossy()))
    }

    /// Checks that the fast path is the one that is to be measured.
    fn check_fast_path(&self) -> Result {
        let words = ["filter", "show", "dev", "eth1", "ingress"];
        let listed = self.bastion.command("tc").args(words).output()?;
        let stands = String::from_utf8_lossy(&listed.stdout).contains("bastiond-forward");
        if stands != self.rules.has_bpf() {
            return Err(format!("{:?}: BPF stands: {stands}", self.rules).into());
        }
        let Rules::BastiondBy(path, _) = self.rules else { return Ok(()) };
        let has_flowtable = self.bastion.nft("list table inet bastiond")?.contains("flow add");
        if has_flowtable == (path == FastPath::Flowtable) {
            Ok(())
        } else {
            Err(format!("{:?}: the table has a flowtable: {has_flowtable}", self.rules).into())
        }
    }

    /// Checks that the client reaches the server with the source address of the rules, and the server the client
    /// through a forward. Otherwise the benchmark would measure something else.
    pub(crate) fn check_reachability(&self) -> Result {
        let _reflector = Reflector::tcp(&self.server, WEB)?;
        let seen = tcp_probe(&self.client, WEB, SOON)?.ip();
        let expected = IpAddr::from(if self.rules == Rules::None { CLIENT } else { BASTION });
        if seen != expected {
            return Err(format!("{:?}: the server sees {seen} instead of {expected}", self.rules).into());
        }
        self.check_fast_path()?;
        let Some(policy) = self.rules.policy() else { return Ok(()) };
        // The last entry works, so all are loaded.
        policy.last_port().map_or(Ok(()), |port| {
            let _reflector = Reflector::tcp(&self.client, (CLIENT, port))?;
            tcp_probe(&self.server, (BASTION, port), SOON)
                .map(drop)
                .map_err(|error| format!("port {port}: {error}").into())
        })
    }
}

/// Loads the programs of the flow cache into a directory of a BPF file system, which it mounts first.
fn load_bpf(programs: &Path, directory: &Path) -> Result {
    if !Path::new(BPFFS).exists() {
        std::fs::create_dir(BPFFS)?;
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)?;
    }
    let loader = Command::new(programs.join("bastiond-fastpath")).arg("--directory").arg(directory).output()?;
    if loader.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&loader.stderr).into_owned().into()) }
}

/// Starts a daemon and waits until its table is loaded.
pub(crate) fn start_daemon(installation: &Installation<'_>) -> Result<Daemon> {
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    Ok(daemon)
}
