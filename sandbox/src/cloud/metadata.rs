//! The metadata service of one server, which answers on 169.254.169.254 inside it. Plain HTTP, no token.
//!
//! Paths and forms from the Hetzner API documentation ("Server Metadata") and from what cloud-init's
//! `DataSourceHetzner` and afterburn read.

use std::fmt::Write as _;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use super::model::ids::ServerId;
use super::model::locations::HOME;
use super::model::resources::Server;
use super::project::Project;
use super::project::cloud::Cloud;
use super::project::settings::{EmptyList, MetadataAnswer};

/// The metadata still has `<location>-dcN`, although data centers were removed from the API.
const AVAILABILITY_ZONE: &str = "hel1-dc2";

/// How often a request that is not answered looks whether it may be.
const SILENCE: Duration = Duration::from_millis(200);

/// The answer of a path.
type Write = fn(&Project, &Server) -> String;

const PATHS: [(&str, Write); 11] = [
    ("/metadata", |_, server| summary(server)),
    ("/metadata/hostname", |_, server| server.name.clone()),
    ("/metadata/instance-id", |_, server| server.id.to_string()),
    ("/metadata/public-ipv4", |_, server| public_ipv4(server)),
    ("/metadata/local-ipv4", |_, _| String::new()),
    ("/metadata/public-keys", |_, _| "[]".into()),
    ("/metadata/availability-zone", |_, _| AVAILABILITY_ZONE.into()),
    ("/metadata/region", |_, _| HOME.network_zone.into()),
    ("/metadata/network-config", |_, server| network_config(server, "")),
    ("/metadata/private-networks", private_networks),
    ("/userdata", |_, _| String::new()),
];

impl Cloud {
    /// The metadata of one server, below `/hetzner/v1`. Changes of the server show at once.
    pub fn metadata_router(&self, server: ServerId) -> Router {
        PATHS.into_iter().fold(Router::new(), |router, (path, write)| {
            let cloud = self.clone();
            let answer = move || {
                let cloud = cloud.clone();
                async move {
                    tokio::time::sleep(cloud.with_project(|project, _| project.metadata_delay)).await;
                    cloud.metadata(server, write).await
                }
            };
            router.route(&format!("/hetzner/v1{path}"), get(answer))
        })
    }

    async fn metadata(&self, server: ServerId, write: Write) -> impl IntoResponse + use<> {
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        let answer = || self.with_project(|project, _| project.settings.metadata);
        let first = answer();
        while answer() == MetadataAnswer::Silent {
            tokio::time::sleep(SILENCE).await;
        }
        if first == MetadataAnswer::Unavailable {
            return (StatusCode::SERVICE_UNAVAILABLE, plain, String::new());
        }
        let text = self.with_project(|project, _| Some(write(project, project.resources.servers.get(&server)?)));
        let status = if text.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        (status, plain, text.unwrap_or_else(|| "not found".into()))
    }
}

fn public_ipv4(server: &Server) -> String {
    server.public_ipv4.map(|ip| ip.to_string()).unwrap_or_default()
}

fn summary(server: &Server) -> String {
    let public_ipv4 = public_ipv4(server);
    let public_ipv4 = if public_ipv4.is_empty() { "''" } else { &public_ipv4 };
    format!(
        "availability-zone: {AVAILABILITY_ZONE}\nhostname: {}\ninstance-id: {}\nlocal-ipv4: ''\nnetwork-config:\n{}\
         public-ipv4: {public_ipv4}\npublic-keys: []\nregion: {zone}\nvendor_data: ''\n",
        server.name,
        server.id,
        network_config(server, "  "),
        zone = HOME.network_zone,
    )
}

/// The network configuration of the public interface, in version 1 of cloud-init's format.
fn network_config(server: &Server, indent: &str) -> String {
    let (Some(_), Some(ipv6)) = (server.public_ipv4, server.public_ipv6) else {
        return format!("{indent}version: 1\n{indent}config: []\n");
    };
    let mac = &server.public_mac;
    let address = std::net::Ipv6Addr::from_bits(ipv6.network().to_bits() + 1);
    let lines = [
        "version: 1".to_owned(),
        "config:".into(),
        "- type: physical".into(),
        "  name: eth0".into(),
        format!("  mac_address: {mac}"),
        "  subnets:".into(),
        "  - type: dhcp".into(),
        "    ipv4: true".into(),
        "    dns_nameservers: [185.12.64.1, 185.12.64.2]".into(),
        "  - type: static".into(),
        "    ipv6: true".into(),
        format!("    address: {address}/64"),
        "    gateway: fe80::1".into(),
        "    dns_nameservers: ['2a01:4ff:ff00::add:1', '2a01:4ff:ff00::add:2']".into(),
    ];
    lines.iter().flat_map(|line| [indent, line, "\n"]).collect()
}

/// The private networks, the newest first, as cloud-init's maintainers observed (canonical/cloud-init#6224). Readers
/// must not rely on the order. The YAML is in block style with unquoted numbers, because
/// hcloud-cloud-controller-manager looks for the line `network_id: <id>`.
fn private_networks(project: &Project, server: &Server) -> String {
    let mut list = String::new();
    let shows_none = project.settings.metadata == MetadataAnswer::NoNetworks;
    let is_shown = |network| !shows_none && !project.hidden.contains(&(server.id, network));
    let shown = server.attachments.iter().filter(|held| is_shown(held.network));
    let mut shown: Vec<_> = shown.collect();
    shown.sort_by_key(|attachment| std::cmp::Reverse(attachment.interface_num));
    for attachment in shown {
        let Some(network) = project.resources.networks.get(&attachment.network) else { continue };
        let subnet = network.subnet_of(attachment.ip);
        let aliases: Vec<String> = attachment.alias_ips.iter().map(ToString::to_string).collect();
        write!(
            list,
            "- ip: {}\n  alias_ips: [{}]\n  interface_num: {}\n  mac_address: {}\n  network_id: {}\n  \
             network_name: {}\n  network: {}\n  subnet: {}\n  gateway: {}\n",
            attachment.ip,
            aliases.join(", "),
            attachment.interface_num,
            attachment.mac_address,
            network.id,
            network.name,
            network.ip_range,
            subnet.map_or(network.ip_range, |subnet| subnet.ip_range),
            network.gateway(),
        )
        .expect("writing to a string does not fail");
    }
    match project.settings.empty_list {
        _ if !list.is_empty() => list,
        EmptyList::Brackets => "[]\n".into(),
        EmptyList::Nothing => String::new(),
        EmptyList::Null => "null\n".into(),
    }
}
