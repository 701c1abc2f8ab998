//! The metadata service of a server.

use std::net::TcpListener;

use sandbox::cloud::{Cloud, EmptyList, ServerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::{World, instant, net};

/// The metadata service of one server, on a loopback socket.
struct Metadata {
    address: std::net::SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

impl Metadata {
    fn start(cloud: &Cloud, server: ServerId) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let address = listener.local_addr().expect("it is bound");
        let cloud = cloud.clone();
        Self { address, task: tokio::spawn(async move { cloud.serve_metadata(listener, server).await }) }
    }

    /// The status and the body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        let request = format!("GET /hetzner/v1{path} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the server reads it");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("UTF-8 text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        (head["HTTP/1.1 ".len()..][..3].parse().expect("a status"), body.into())
    }

    async fn text(&self, path: &str) -> String {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}");
        body
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn the_metadata_describe_the_server() {
    let world = World::new(instant());
    let metadata = Metadata::start(world.cloud(), world.bastion);
    for (path, expected) in [
        ("/metadata/hostname", "bastion".to_owned()),
        ("/metadata/instance-id", world.bastion.to_string()),
        ("/metadata/public-ipv4", "203.0.113.2".into()),
        ("/metadata/availability-zone", "hel1-dc2".into()),
        ("/metadata/region", "eu-central".into()),
        ("/metadata/public-keys", "[]".into()),
        ("/userdata", String::new()),
    ] {
        assert_eq!(metadata.text(path).await, expected, "{path}");
    }
    let summary = metadata.text("/metadata").await;
    for line in ["hostname: bastion", &format!("instance-id: {}", world.bastion), "public-ipv4: 203.0.113.2"] {
        assert!(summary.lines().any(|other| other == line), "{line} in {summary}");
    }
    assert_eq!(metadata.get("/metadata/nothing").await.0, 404);
    let private = Metadata::start(world.cloud(), world.host);
    assert_eq!(private.text("/metadata/public-ipv4").await, "");
    assert_eq!(private.text("/metadata/network-config").await, "version: 1\nconfig: []\n");
}

#[tokio::test]
async fn private_networks_are_block_style_yaml_with_the_newest_first() {
    let world = World::new(instant());
    let second = world.cloud().create_network("tenant", net("10.2.0.0/16"), &[net("10.2.1.0/24")]);
    world.cloud().attach(world.bastion, second, [10, 2, 1, 2].into(), "86:00:00:2a:7d:e9");
    world.cloud().set_alias_ips(world.bastion, world.network, &[[10, 0, 0, 3].into(), [10, 0, 0, 5].into()]);
    let metadata = Metadata::start(world.cloud(), world.bastion);
    let expected = format!(
        "- ip: 10.2.1.2
  alias_ips: []
  interface_num: 2
  mac_address: 86:00:00:2a:7d:e9
  network_id: {second}
  network_name: tenant
  network: 10.2.0.0/16
  subnet: 10.2.1.0/24
  gateway: 10.2.0.1
- ip: 10.0.0.2
  alias_ips: [10.0.0.3, 10.0.0.5]
  interface_num: 1
  mac_address: 86:00:00:2a:7d:e0
  network_id: {}
  network_name: private
  network: 10.0.0.0/16
  subnet: 10.0.0.0/24
  gateway: 10.0.0.1
",
        world.network
    );
    assert_eq!(metadata.text("/metadata/private-networks").await, expected);
}

#[tokio::test]
async fn a_network_may_show_late_in_the_metadata_and_the_empty_list_has_three_forms() {
    let world = World::new(instant());
    world.cloud().metadata_hide_network(world.bastion, world.network);
    let metadata = Metadata::start(world.cloud(), world.bastion);
    for (form, expected) in [(EmptyList::Brackets, "[]\n"), (EmptyList::Nothing, ""), (EmptyList::Null, "null\n")] {
        world.cloud().update_settings(|settings| settings.empty_list = form);
        assert_eq!(metadata.text("/metadata/private-networks").await, expected, "{form:?}");
    }
    world.cloud().metadata_show_network(world.bastion, world.network);
    let line = format!("  network_id: {}", world.network);
    assert!(metadata.text("/metadata/private-networks").await.lines().any(|other| other == line));
    world.cloud().detach(world.bastion, world.network);
    assert_eq!(metadata.text("/metadata/private-networks").await, "null\n");
}

#[tokio::test]
async fn a_stopped_service_is_unreachable_and_can_be_started_again() {
    let world = World::new(instant());
    let metadata = Metadata::start(world.cloud(), world.bastion);
    assert_eq!(metadata.get("/metadata/region").await.0, 200);
    let address = metadata.address;
    drop(metadata);
    let refused = async || TcpStream::connect(address).await.map_err(|error| error.kind()).err();
    for _ in 0..200 {
        if refused().await.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(refused().await, Some(std::io::ErrorKind::ConnectionRefused));
    let metadata = Metadata::start(world.cloud(), world.bastion);
    assert_eq!(metadata.get("/metadata/region").await.0, 200);
}
