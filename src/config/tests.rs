mod environment;
mod example;
mod files;
mod laws;
mod loading;
mod policy;
mod tunnel;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use ipnet::{IpNet, Ipv4Net};

use super::files::FileContent;
use super::model::Health;
use super::raw::KNOWN_KEYS;
use super::*;
use crate::net::{NetworkId, ServerId};

/// Files of a test, by path. Files in `peers.d` are peers.
#[derive(Debug, Default)]
struct InMemory(BTreeMap<PathBuf, String>);

impl<'a> FromIterator<(&'a str, &'a str)> for InMemory {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(files: I) -> Self {
        Self(files.into_iter().map(|(path, text)| (path.into(), text.to_owned())).collect())
    }
}

impl Files for InMemory {
    fn read(&self, path: &Path) -> Result<FileContent, ReadError> {
        let text = self.0.get(path).ok_or_else(|| std::io::Error::from_raw_os_error(2))?;
        Ok(FileContent { text: text.clone().into(), world_readable: path.ends_with("world-readable") })
    }

    fn peers(&self) -> std::io::Result<crate::config::files::PeerFiles> {
        let used = self.0.keys().filter(|path| path.starts_with("peers.d")).cloned().collect();
        Ok(crate::config::files::PeerFiles { used, ignored: Vec::new() })
    }
}

/// The tunnel of an empty `[wireguard]` section.
fn tunnel() -> Wireguard {
    Wireguard {
        interface: "wg0".parse().unwrap(),
        listen_port: 51820,
        private_key: None,
        private_key_file: "/var/lib/bastiond/wireguard.key".into(),
        is_key_in_wg_file: false,
        addresses: Vec::new(),
        mtu: None,
        fwmark: 0,
        backend: BackendChoice::Userspace,
        full_tunnel: false,
        routes: true,
        snat: Snat::Auto,
        endpoint: None,
        dns: Vec::new(),
        default_reach: None,
        groups: Vec::new(),
        peers: Vec::new(),
        out: Vec::new(),
    }
}

/// The configuration of an empty file in an empty environment.
fn defaults() -> Config {
    Config {
        log: Log { level: tracing::Level::INFO },
        site: Site {
            public_interface: None,
            server_id: None,
            metadata_endpoint: "http://169.254.169.254".to_owned(),
            docker: DockerBridges::Report,
            private: Vec::new(),
        },
        nat: Nat {
            random_ports: true,
            egress_addresses: Vec::new(),
            drain: BTreeSet::new(),
            fastpath: Fastpath::Auto,
            forwards: Vec::new(),
            statics: Vec::new(),
        },
        egress: Egress {
            guard: true,
            new_flows_per_second: Some(500),
            max_flows: Some(4096),
            network_new_flows_per_second: Some(10_000),
            lists: EgressLists { smtp: false, allow: None, deny: Vec::new() },
        },
        networks: Vec::new(),
        tenants: Vec::new(),
        firewall: Firewall {
            ssh_ports: None,
            ssh_from: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            ssh_only_by_tunnel: false,
            ssh_attempts: Some(60),
            ssh_ban: Duration::from_secs(600),
            wireguard_port: Some(51820),
            services: Vec::new(),
            pings_per_second: Some(100),
            syns_per_second: Some(200),
            new_flows_per_second: Some(2000),
            max_flows: Some(50_000),
            fair_share: true,
            blocklist: Vec::new(),
            log_drops: LogDrops::Journal,
            metadata_users: Some(BTreeSet::new()),
        },
        hcloud: Hcloud {
            enabled: true,
            endpoint: "https://api.hetzner.cloud/v1".to_owned(),
            token: TokenSource { credential: None, files: vec!["/etc/bastiond/hcloud-token".into()], value: None },
            destinations: vec!["0.0.0.0/0".parse().unwrap()],
            take_over: false,
            poll_interval: Duration::from_secs(20),
            network: None,
        },
        health: Health {
            enabled: true,
            targets: vec!["185.12.64.1:53".parse().unwrap(), "185.12.64.2:53".parse().unwrap()],
        },
        wireguard: None,
        hosts: BTreeMap::new(),
        warnings: Vec::new(),
    }
}

/// A private link with only the required keys.
fn link(interface: &str, network: &str) -> PrivateLink {
    PrivateLink {
        interface: interface.parse().unwrap(),
        network: network.parse().unwrap(),
        address: None,
        network_id: None,
        also: Vec::new(),
    }
}

/// A forward of one TCP port with only the required keys.
fn forward(index: usize, public: &str, port: u16, to: &str) -> Forward {
    Forward {
        key: format!("nat.forward[{index}]"),
        name: None,
        public: vec![public.parse().unwrap()],
        transports: Transports::Tcp,
        ports: ports(port, port),
        to: to.parse().unwrap(),
        to_port: None,
        from: Vec::new(),
        snat: false,
    }
}

fn ports(first: u16, last: u16) -> Ports {
    Ports { first, last }
}

fn net_v4(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// From everywhere to everywhere.
fn tcp(ports: &[Ports]) -> Acl {
    Acl { protocol: Protocol::Tcp, ports: ports.to_vec(), ..Acl::default() }
}

fn problems_of(text: &str) -> Vec<String> {
    match parse(text, &Environment::default()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn warnings_of(text: &str) -> Vec<String> {
    parse(text, &Environment::default()).unwrap().warnings.iter().map(ToString::to_string).collect()
}
