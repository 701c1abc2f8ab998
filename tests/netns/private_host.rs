//! The script of packaging/cloud-init/private-host.yaml for servers without a public address.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use sandbox::namespace::Namespace;

use crate::gateway::{Result, SOON, ensure_eq, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_default_route_of_a_private_host_is_restored_after_dhcp", route_comes_back),
        trial("a_private_host_with_another_default_route_keeps_it", other_ways_win),
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
        let namespace = Namespace::create(name)?;
        namespace.ip("link set lo up\nlink add enp7s0 type veth peer name far\nlink set far up\nlink set enp7s0 up")?;
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
