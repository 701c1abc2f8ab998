//! Client – bastion – server, with nothing between them: another hop would dilute what is compared.

use std::net::{IpAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use sandbox::daemon::{Daemon, Installation};
use sandbox::namespace::Namespace;
use sandbox::traffic::{Reflector, tcp_probe};

use super::addresses::{BASTION, BASTION_MAC, CLIENT, SERVER};
use super::config::Policy;
use crate::Result;

/// What [`Line::prove`] asks.
const PROOF: SocketAddrV4 = SocketAddrV4::new(SERVER, 8080);
const SOON: Duration = Duration::from_secs(2);

/// The hand-made way, as tutorials have it.
const FOUR_LINES: [&str; 4] = [
    "-t nat -A POSTROUTING -s 10.0.0.0/16 -o eth0 -j MASQUERADE",
    "-A FORWARD -i eth1 -o eth0 -j ACCEPT",
    "-A FORWARD -i eth0 -o eth1 -m state --state RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -i eth0 -o eth1 -j DROP",
];

/// What a bastion does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Forwards, nothing else: the server knows the way back.
    None,
    /// [`FOUR_LINES`], with the iptables that is made of nftables.
    IptablesNft,
    /// What the daemon loads for a configuration.
    Bastiond(Policy),
}

/// Three namespaces.
#[derive(Debug)]
pub(crate) struct Line {
    rules: Rules,
    client: Namespace,
    bastion: Namespace,
    server: Namespace,
}

impl Line {
    pub(crate) fn lay(name: &str, rules: Rules) -> Result<Self> {
        let part = |part: &str| Namespace::create(&format!("{name}-{part}"));
        let line = Self { rules, client: part("client")?, bastion: part("bastion")?, server: part("server")? };
        // systemd's default for new links (50-default.conf), which is what such servers have.
        line.bastion.sysctls(&[("net.ipv4.conf.all.rp_filter", "0"), ("net.ipv4.conf.default.rp_filter", "2")])?;
        let mac = BASTION_MAC.map(|byte| format!("{byte:02x}")).join(":");
        line.bastion.ip(&format!(
            "link add name eth1 address {mac} type veth peer name eth0 netns {client}
             link add name eth0 type veth peer name eth0 netns {server}
             addr add 10.0.0.2/16 dev eth1
             addr add {BASTION}/24 dev eth0
             link set eth0 up
             link set eth1 up",
            client = line.client.name(),
            server = line.server.name(),
        ))?;
        line.client
            .ip(&format!("addr add {CLIENT}/16 dev eth0\nlink set eth0 up\nroute add default via 10.0.0.2 dev eth0"))?;
        line.server.ip(&format!(
            "addr add {SERVER}/24 dev eth0\nlink set eth0 up\nroute add 10.0.0.0/16 via {BASTION} dev eth0"
        ))?;
        if matches!(rules, Rules::None | Rules::IptablesNft) {
            line.bastion.sysctl("net.ipv4.ip_forward", "1")?;
        }
        if rules == Rules::IptablesNft {
            for words in FOUR_LINES {
                let output = line.bastion.command("iptables-nft").args(words.split(' ')).output();
                let output = output.map_err(|error| format!("cannot start iptables-nft: {error}"))?;
                if !output.status.success() {
                    return Err(format!("iptables-nft {words}: {}", String::from_utf8_lossy(&output.stderr)).into());
                }
            }
        }
        Ok(line)
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

    /// A place for the real daemon on this line's bastion.
    pub(crate) fn installation(&self, programs: &Path) -> Result<Installation<'_>> {
        let installation = Installation::new(&self.bastion, programs)?;
        if let Rules::Bastiond(policy) = self.rules {
            installation.write_config(&policy.config())?;
        }
        Ok(installation)
    }

    /// Fails unless the client reaches the server under the address that the rules give it, and the server the client
    /// where there are forwards: what did not work, or worked in another way, must not be measured.
    pub(crate) fn prove(&self) -> Result {
        let _reflector = Reflector::tcp(&self.server, PROOF)?;
        let seen = tcp_probe(&self.client, PROOF, SOON)?.ip();
        let expected = IpAddr::from(if self.rules == Rules::None { CLIENT } else { BASTION });
        if seen != expected {
            return Err(format!("{:?}: the server sees {seen} instead of {expected}", self.rules).into());
        }
        let Rules::Bastiond(policy) = self.rules else { return Ok(()) };
        // The last of the entries is there, so the others are.
        policy.last_port().map_or(Ok(()), |port| {
            let _reflector = Reflector::tcp(&self.client, (CLIENT, port))?;
            tcp_probe(&self.server, (BASTION, port), SOON)
                .map(drop)
                .map_err(|error| format!("port {port}: {error}").into())
        })
    }
}

/// A daemon whose table is loaded.
pub(crate) fn ready(installation: &Installation<'_>) -> Result<Daemon> {
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    Ok(daemon)
}
