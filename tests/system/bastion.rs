//! A world whose bastion is a booted Debian or Ubuntu.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use bastiond::internals::report::{Health, Report};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sandbox::namespace::Namespace;
use sandbox::traffic::flush_conntrack;
use sandbox::world::{Settings, World};

use crate::machine::{Layers, Machine, required};
use crate::release::{Link, Release};
use crate::shared::{Result, SOON, Server, egress, ensure, ensure_eq, open, text, wait_for};
use crate::trial::TIMEOUT;

/// The unit of the service.
pub(crate) const UNIT: &str = "bastiond.service";
/// The configuration file.
pub(crate) const CONFIG: &str = "/etc/bastiond/config.toml";
/// The token file.
pub(crate) const TOKEN: &str = "/etc/bastiond/hcloud-token";

/// A world, and the machine of its bastion.
pub(crate) struct Bastion {
    // Dropped first, because it uses a namespace of the world.
    pub(crate) machine: Machine,
    pub(crate) internet: Server,
    pub(crate) world: World,
}

impl Bastion {
    /// A bastion that has never been on: its disk and links exist, but nothing is configured.
    pub(crate) fn new(layers: &Layers) -> Result<Self> {
        let world = World::start(Settings::default())?;
        let internet = Server::start(&world)?;
        let machine = Machine::new(layers, world.bastion().name())?;
        let bastion = Self { machine, internet, world };
        layers.release().configure(&bastion.machine, &Link::of_bastion(&bastion.world))?;
        // There is no download here, and the machine would wait for it.
        bastion.machine.write("/etc/apt/sources.list", 0o644, "")?;
        bastion.unplug()?;
        Ok(bastion)
    }

    /// A bastion with the package, the world's endpoints and token, and more configuration; it is off.
    pub(crate) fn installed(config: &str) -> Result<Self> {
        let bastion = Self::new(&installed()?)?;
        bastion.configure(config)?;
        bastion.machine.write(TOKEN, 0o600, bastion.world.token())?;
        Ok(bastion)
    }

    /// Such a bastion, booted and healthy.
    pub(crate) fn healthy(config: &str) -> Result<Self> {
        let mut bastion = Self::installed(config)?;
        bastion.machine.boot()?;
        bastion.becomes_healthy()?;
        Ok(bastion)
    }

    /// Writes the configuration: the address of the world's cloud, and `more`.
    pub(crate) fn configure(&self, more: &str) -> Result {
        let endpoint = self.world.api_endpoint();
        let text = format!("[hcloud]\nendpoint = \"{endpoint}\"\npoll_interval = \"1s\"\n{more}");
        self.machine.write(CONFIG, 0o640, text)
    }

    /// Sets the address of the world's cloud without changing the configuration file.
    pub(crate) fn points_to_the_cloud(&self) -> Result {
        let endpoint = self.world.api_endpoint();
        let text = format!("[Service]\nEnvironment=HCLOUD_ENDPOINT={endpoint}\n");
        self.machine.write("/etc/systemd/system/bastiond.service.d/world.conf", 0o644, text)
    }

    /// Removes the network state that a machine loses when it is off: rules, flows, addresses, settings, links that are
    /// up. The links themselves stay.
    pub(crate) fn unplug(&self) -> Result {
        let place = self.world.bastion();
        place.nft("flush ruleset")?;
        place.sysctls(&[("net.ipv4.ip_forward", "0"), ("net.ipv6.conf.all.forwarding", "0")])?;
        for link in ["eth0", "eth1", "eth2"] {
            place.ip(&format!("link set {link} down\naddr flush dev {link}\n"))?;
        }
        Ok(flush_conntrack(place)?)
    }

    /// Waits until the daemon reports that it is healthy.
    pub(crate) fn becomes_healthy(&self) -> Result<Duration> {
        let mut last = None;
        let healthy = wait_for("bastiond is healthy", TIMEOUT, || {
            last = self.report().ok();
            Ok(last.as_ref().is_some_and(|report| report.health == Health::Healthy))
        });
        healthy.map_err(|error| {
            let journal = self.machine.journal(UNIT).unwrap_or_default();
            format!("{}\n{last:#?}\n{journal}", error.message().unwrap_or_default()).into()
        })
    }

    /// The daemon's report.
    pub(crate) fn report(&self) -> Result<Report> {
        let output = self.machine.try_run(&["bastionctl", "status", "--json"])?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}{}", text(&output.stdout), text(&output.stderr)).into())
    }

    /// Checks that a private host reaches the internet.
    pub(crate) fn serves(&self) -> Result {
        ensure_eq(egress(self.world.web(), &self.internet, SOON)?, open())
    }

    /// The routes of the private network in the fake cloud.
    pub(crate) fn cloud_routes(&self) -> Vec<String> {
        let routes = self.world.cloud().routes(self.world.private_network_id());
        routes.iter().map(|route| format!("{} via {}", route.destination, route.gateway)).collect()
    }

    /// The process id of the daemon, by the machine's systemd; 0 means none.
    pub(crate) fn main_pid(&self) -> Result<u32> {
        Ok(self.machine.property(UNIT, "MainPID")?.parse()?)
    }

    /// The number of automatic restarts of the daemon.
    pub(crate) fn restarts(&self) -> Result<u32> {
        Ok(self.machine.property(UNIT, "NRestarts")?.parse()?)
    }

    /// Waits until another process than `former` is the daemon and is ready.
    pub(crate) fn is_replaced(&self, former: u32, timeout: Duration) -> Result<Duration> {
        wait_for("another daemon is running", timeout, || {
            let pid = self.main_pid()?;
            Ok(pid != 0 && pid != former && self.machine.property(UNIT, "ActiveState")? == "active")
        })
    }

    /// The namespace of the machine.
    pub(crate) fn network(&self) -> &Namespace {
        self.world.bastion()
    }
}

/// Debian with the package installed, as in an image: it has never run.
pub(crate) fn installed() -> Result<Layers> {
    static INSTALLED: OnceLock<std::result::Result<Layers, String>> = OnceLock::new();
    let made = INSTALLED.get_or_init(|| {
        let package = required("BASTIOND_SYSTEM_PACKAGE");
        let made = package
            .and_then(|package| Layers::of(Release::Debian12)?.changed("installed", |root| install(root, &package)));
        made.map_err(|error| error.message().unwrap_or("no reason given").to_owned())
    });
    Ok(made.clone()?)
}

/// Installs a package into a tree that is not booted.
fn install(root: &Path, package: &Path) -> Result {
    std::fs::copy(package, root.join("package.deb"))?;
    let proc = root.join("proc");
    mount(Some("proc"), &proc, Some("proc"), MsFlags::empty(), None::<&str>)?;
    let output = Command::new("chroot").arg(root).args(["dpkg", "--install", "/package.deb"]).output();
    umount2(&proc, MntFlags::empty())?;
    std::fs::remove_file(root.join("package.deb"))?;
    let output = output?;
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    ensure(output.status.success(), format!("the package cannot be installed:\n{said}"))
}
