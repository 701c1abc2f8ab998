mod environment;
mod example;
mod files;
mod laws;
mod loading;
mod values;

use super::*;

/// The configuration of an empty file in an empty environment, written out.
fn defaults() -> Config {
    Config {
        log: Log { level: tracing::Level::INFO },
        site: Site {
            public_interface: None,
            server_id: None,
            metadata_endpoint: "http://169.254.169.254".to_owned(),
            private: Vec::new(),
        },
        nat: Nat { random_ports: true },
        firewall: Firewall {
            ssh_ports: None,
            ssh_from: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            wireguard_port: Some(51820),
        },
        hcloud: Hcloud {
            enabled: true,
            endpoint: "https://api.hetzner.cloud/v1".to_owned(),
            token: TokenSource { files: vec!["/etc/bastiond/hcloud-token".into()], value: None },
            destinations: vec!["0.0.0.0/0".parse().unwrap()],
            take_over: false,
            poll_interval: Duration::from_secs(20),
            network: None,
        },
    }
}

/// A private link with nothing but what is needed.
fn link(interface: &str, network: &str) -> PrivateLink {
    PrivateLink {
        interface: interface.parse().unwrap(),
        network: network.parse().unwrap(),
        address: None,
        network_id: None,
    }
}

fn problems_of(text: &str) -> Vec<String> {
    match parse(text, &Environment::default()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}
