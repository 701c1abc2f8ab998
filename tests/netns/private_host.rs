//! The script of packaging/cloud-init/private-host.yaml for servers without a public address.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use ipnet::Ipv4Net;
use libtest_mimic::Trial;
use sandbox::namespace::Namespace;

use crate::gateway::{Result, SOON, ensure_eq, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_default_route_of_a_private_host_is_restored_after_dhcp", route_comes_back),
        trial("a_private_host_with_another_default_route_keeps_it", other_ways_win),
        trial("a_private_host_beside_overlays_and_vpns_takes_the_gateway_of_its_private_interface", strangers),
        trial("a_private_host_without_routes_from_dhcp_gets_no_default_route_by_a_vpn", nothing_yet),
        trial("a_private_host_in_two_networks_takes_the_lower_one_in_any_order", two_networks),
    ]
}

/// The default route that the script sets.
const OURS: &str = "default via 10.0.0.1 dev enp7s0 metric 4096";

/// The script of the document, with another file of resolvers, so that this machine's is not changed.
fn script(resolvers: &Path) -> Result<String> {
    let document =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/cloud-init/private-host.yaml"))?;
    let (_, script) = document.split_once("      #!/bin/bash\n").ok_or("no script in the document")?;
    let (script, _) = script.split_once("\n  - path:").ok_or("nothing follows the script")?;
    let lines: Vec<&str> = script.lines().map(|line| line.strip_prefix("      ").unwrap_or(line)).collect();
    let script = lines.join("\n").replace("settings=/etc/default/private-default-route", "settings=/dev/null");
    let script = script.replace("nameservers=\n", "nameservers='185.12.64.1 185.12.64.2'\n");
    Ok(script.replace("/etc/resolv.conf", &resolvers.to_string_lossy()))
}

/// A host in a private network of Hetzner, on which the script runs. There is no gateway, because routes need only its
/// address.
struct Host {
    namespace: Namespace,
    program: Child,
    directory: tempfile::TempDir,
}

impl Host {
    fn start(name: &str) -> Result<Self> {
        Self::start_beside(name, |_| Ok(()))
    }

    /// A host that `others` has prepared before the script runs.
    fn start_beside(name: &str, others: impl FnOnce(&Namespace) -> Result) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        namespace.ip("link set lo up")?;
        add_nic(&namespace, "enp7s0")?;
        others(&namespace)?;
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("script");
        std::fs::write(&file, script(&directory.path().join("resolv.conf"))?)?;
        let command = namespace.command("bash").arg(file.to_string_lossy().as_ref());
        let program = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
        Ok(Self { namespace, program, directory })
    }

    /// Configures what Hetzner's DHCP sends: a /32, and routes by option 121.
    fn dhcp(&self) -> Result {
        self.namespace.ip("addr add 10.0.0.4/32 dev enp7s0\nroute add 10.0.0.1 dev enp7s0 scope link\n\
             route add 10.0.0.0/16 via 10.0.0.1 dev enp7s0\nroute add 169.254.169.254 via 10.0.0.1 dev enp7s0")?;
        Ok(())
    }

    fn default_routes(&self) -> Result<Vec<String>> {
        let shown = self.namespace.ip("route show default")?;
        Ok(shown.lines().map(|line| line.trim().to_owned()).collect())
    }

    fn has(&self, what: &str, routes: &[&str]) -> Result {
        wait_for(what, SOON, || Ok(self.default_routes()? == routes))?;
        Ok(())
    }
}

/// Adds an Ethernet interface that is up.
fn add_nic(place: &Namespace, name: &str) -> Result {
    place.ip(&format!("link add {name} type veth peer name far-{name}\nlink set far-{name} up\nlink set {name} up"))?;
    Ok(())
}

/// Configures what Hetzner's DHCP sends for a network: a /32, and routes by option 121.
fn lease(place: &Namespace, link: &str, network: Ipv4Net, metric: u32) -> Result {
    let hosts: Vec<_> = network.hosts().take(4).collect();
    let (gateway, address) = (hosts[0], hosts[3]);
    place.ip(&format!(
        "addr add {address}/32 dev {link}\nroute add {gateway} dev {link} scope link metric {metric}\n\
         route add {network} via {gateway} dev {link} metric {metric}\n\
         route add 169.254.169.254 via {gateway} dev {link} metric {metric}"
    ))?;
    Ok(())
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its `ip monitor` ends with the reader of the pipe, or with the isolation.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn route_comes_back() -> Result {
    let host = Host::start("private-host")?;
    ensure_eq(host.default_routes()?, Vec::<String>::new())?;
    host.dhcp()?;
    host.has("the route is there", &[OURS])?;
    let resolvers = host.directory.path().join("resolv.conf");
    let expected = "nameserver 185.12.64.1\nnameserver 185.12.64.2\n";
    wait_for("resolvers", SOON, || Ok(std::fs::read_to_string(&resolvers).is_ok_and(|found| found == expected)))?;
    // As dhclient does when it gets another address, or after a restart of the network.
    host.namespace.ip("addr flush dev enp7s0")?;
    host.has("the address went, and all routes with it", &[])?;
    host.dhcp()?;
    host.has("the route is back after a renewal", &[OURS])?;
    host.namespace.ip("route del default")?;
    host.has("the route is back after a deletion", &[OURS])?;
    host.namespace.ip("link set enp7s0 down\nlink set enp7s0 up")?;
    host.namespace.ip("addr flush dev enp7s0")?;
    host.dhcp()?;
    host.has("the route is back after the link was down", &[OURS])
}

fn other_ways_win() -> Result {
    let host = Host::start("public-host")?;
    host.namespace.ip(
        "link add eth0 type veth peer name isp\nlink set isp up\nlink set eth0 up\naddr add 198.51.100.9/32 dev eth0\n\
         route add 172.31.1.1 dev eth0 scope link\nroute add default via 172.31.1.1 dev eth0",
    )?;
    host.dhcp()?;
    let theirs = "default via 172.31.1.1 dev eth0";
    host.has("both are there", &[theirs, OURS])?;
    std::thread::sleep(Duration::from_millis(200));
    let way = host.namespace.ip("route get 1.1.1.1")?;
    ensure_eq(way.contains("via 172.31.1.1"), true)?;
    // Once the public default route is gone, the private one is in use.
    host.namespace.ip("link set eth0 down")?;
    host.has("ours alone is left", &[OURS])
}

/// What other programs put beside the private interface: its name, and the commands for `ip`. Each of them sorts before
/// the network 192.168.0.0/16 or 172.16.0.0/16.
const STRANGERS: [(&str, &str); 8] = [
    // flannel with VXLAN, which every k3s has.
    (
        "flannel",
        "link add flannel.1 type vxlan id 1 dstport 8472 dev enp7s0\nlink set flannel.1 up\n\
         addr add 10.42.0.0/32 dev flannel.1\nroute add 10.42.1.0/24 via 10.42.1.0 dev flannel.1 onlink",
    ),
    // flannel with its back end host-gw, and Calico without encapsulation: routes by other servers.
    ("host-gw", "route add 10.42.1.0/24 via 192.168.0.5 dev enp7s0 onlink"),
    // OpenVPN in the topology net30: its peer has an on-link host route too.
    (
        "openvpn",
        "tuntap add dev tun0 mode tun\nlink set tun0 up\naddr add 10.8.0.6 peer 10.8.0.5 dev tun0\n\
         route add 10.8.0.1 via 10.8.0.5 dev tun0\nroute add 10.9.0.0/24 via 10.8.0.5 dev tun0",
    ),
    // A VPN in Ethernet frames whose routes look exactly like Hetzner's.
    (
        "tap",
        "tuntap add dev tap0 mode tap\nlink set tap0 up\naddr add 10.8.0.6/32 dev tap0\n\
         route add 10.8.0.1 dev tap0 scope link\nroute add 10.8.0.0/24 via 10.8.0.1 dev tap0",
    ),
    // Cilium: its gateway is an address of this server.
    (
        "cilium",
        "link add cilium_host type veth peer name cilium_net\nlink set cilium_net up\nlink set cilium_host up\n\
         addr add 10.0.2.1/32 dev cilium_host\nroute add 10.0.2.1 dev cilium_host scope link\n\
         route add 10.0.2.0/24 via 10.0.2.1 dev cilium_host\nroute add 10.0.3.0/24 via 10.0.2.1 dev cilium_host",
    ),
    // Calico: a host route for each pod.
    (
        "calico",
        "link add cali1 type veth peer name pod1\nlink set pod1 up\nlink set cali1 up\n\
         route add 10.244.0.5 dev cali1 scope link\nroute add blackhole 10.244.0.0/26",
    ),
    // Docker's bridges, and a route by a container.
    (
        "docker",
        "link add docker0 type bridge\nlink set docker0 up\naddr add 172.17.0.1/16 dev docker0\n\
         link add br-1 type bridge\nlink set br-1 up\naddr add 10.1.0.1/16 dev br-1\n\
         route add 10.3.0.0/16 via 10.1.0.9 dev br-1",
    ),
    // Another private interface, with a router of one's own.
    (
        "router",
        "link add eth5 type veth peer name far5\nlink set far5 up\nlink set eth5 up\naddr add 10.5.0.4/24 dev eth5\n\
         route add 10.6.0.0/16 via 10.5.0.1 dev eth5",
    ),
];

fn strangers() -> Result {
    for (name, commands) in STRANGERS {
        for network in ["192.168.0.0/16", "172.16.0.0/16"] {
            let network: Ipv4Net = network.parse().expect("a literal");
            let host = Host::start_beside(&format!("{name}-{}", network.addr().octets()[0]), |place| {
                lease(place, "enp7s0", network, 1002)?;
                place.ip(commands)?;
                Ok(())
            })?;
            let gateway = network.hosts().next().ok_or("the network has addresses")?;
            let ours = format!("default via {gateway} dev enp7s0 metric 4096");
            host.has(&format!("beside {name} the default route is that of {network}"), &[&ours])?;
            std::thread::sleep(Duration::from_millis(100));
            ensure_eq(host.default_routes()?, vec![ours])?;
        }
    }
    Ok(())
}

fn nothing_yet() -> Result {
    let vpn = "tuntap add dev tun0 mode tun\nlink set tun0 up\naddr add 10.8.0.6 peer 10.8.0.5 dev tun0\n\
               route add 10.8.0.1 via 10.8.0.5 dev tun0\nroute add 10.9.0.0/24 via 10.8.0.5 dev tun0";
    let host = Host::start_beside("no-lease", |place| Ok(place.ip(vpn).map(drop)?))?;
    // The script looks again after each change.
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(200));
        ensure_eq(host.default_routes()?, Vec::<String>::new())?;
    }
    host.dhcp()?;
    host.has("the lease came, and the route with it", &[OURS])
}

fn two_networks() -> Result {
    let host = Host::start("two-networks")?;
    let place = &host.namespace;
    add_nic(place, "enp8s0")?;
    lease(place, "enp8s0", "10.2.0.0/16".parse().expect("a literal"), 1003)?;
    host.has("the only network has the route", &["default via 10.2.0.1 dev enp8s0 metric 4096"])?;
    host.dhcp()?;
    // A server that boots in the other order must not end elsewhere.
    host.has("the lower network has the route", &[OURS])?;
    place.ip("link set enp7s0 down")?;
    host.has("the other network takes over", &["default via 10.2.0.1 dev enp8s0 metric 4096"])
}
