//! Servers that were created with our user data, without any login.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use sandbox::world::addresses as at;

use crate::bastion::{Bastion, CONFIG, TOKEN, UNIT};
use crate::machine::{Layers, Machine};
use crate::package::Package;
use crate::release::{Link, Release};
use crate::shared::{NEVER, Result, SOON, egress, ensure, ensure_eq, is_shut, open, text, wait_for};
use crate::trial::{TIMEOUT, print_measurement, trial};

pub(crate) fn trials() -> Vec<Trial> {
    // What is not there is named among the ignored ones; scripts/test-system says why.
    let untested = Release::ALL.into_iter().filter(|release| !release.is_there()).map(|release| {
        let name = format!("the_first_boot_of_{}", release.name().to_lowercase().replace([' ', '.'], "_"));
        Trial::test(name, || Err("its file tree could not be built".into())).with_ignored_flag(true)
    });
    let trials = vec![
        trial("cloud_init_configures_a_gateway_and_a_private_host_on_every_release", every_release),
        trial("hardening_of_ssh_that_fails_is_reported_and_the_gateway_is_installed", not_hardened),
        trial("a_second_run_of_cloud_init_keeps_configuration_and_token", second_run),
        trial("cloud_init_installs_a_package_from_a_url_with_the_right_checksum", address),
        trial("a_package_with_a_wrong_checksum_is_not_installed", wrong_sum),
    ];
    trials.into_iter().chain(untested).collect()
}

/// The user data of the project.
fn user_data(name: &str) -> Result<String> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "packaging/cloud-init", name].iter().collect();
    Ok(fs::read_to_string(path)?)
}

/// Gives user data to a machine that has never been on.
fn seed(machine: &Machine, instance: &str, user_data: &str) -> Result {
    machine.write("/var/lib/cloud/seed/nocloud/user-data", 0o600, user_data)?;
    machine.write(
        "/var/lib/cloud/seed/nocloud/meta-data",
        0o644,
        format!("instance-id: {instance}\nlocal-hostname: {instance}\n"),
    )?;
    // systemd-nspawn has no DMI, by which cloud-init recognises Hetzner, so the network is configured by hand. The tree
    // has no other locale.
    machine.write("/etc/cloud/cloud.cfg.d/99-network.cfg", 0o644, "network: {config: disabled}\nlocale: C.UTF-8\n")
}

/// A new server with the bastion's user data; it is off. `fill` inserts the source of the package.
fn new_server(release: Release, fill: impl FnOnce(String) -> String) -> Result<Bastion> {
    let bastion = Bastion::new(&Layers::of(release)?)?;
    let filled = fill(user_data("bastion.yaml")?).replace("@HCLOUD_TOKEN@", bastion.world.token());
    seed(&bastion.machine, "bastion", &filled)?;
    // The address of the cloud, which is fixed on real servers.
    bastion.points_to_the_cloud()?;
    // A key that the console adds for root.
    bastion.machine.write(
        "/root/.ssh/authorized_keys",
        0o600,
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3k operator\n",
    )?;
    Ok(bastion)
}

/// A directory with the package that apt can use as a repository.
fn put_repository(machine: &Machine, package: &Package) -> Result {
    machine.write("/srv/repo/bastiond.deb", 0o644, fs::read(package.path())?)?;
    let mut scan = Command::new("dpkg-scanpackages");
    let output = scan.args(["--multiversion", "."]).current_dir(machine.path("/srv/repo")).output()?;
    ensure(output.status.success(), text(&output.stderr))?;
    machine.write("/srv/repo/Packages", 0o644, output.stdout)
}

/// Waits until cloud-init has finished. On an error the message contains its output.
fn is_done(machine: &Machine) -> Result {
    let output = machine.try_run(&["cloud-init", "status", "--wait", "--long"])?;
    let said = || fs::read_to_string(machine.path("/var/log/cloud-init-output.log")).unwrap_or_default();
    let status = text(&output.stdout);
    // Newer versions call it "degraded done" if there were warnings.
    ensure(status.contains("status: done") && !status.contains("degraded"), format!("{status}\n{}", said()))
}

/// The source of the package in a machine that has it as a repository.
fn by_repository(text: &str) -> String {
    text.replace("@APT_SOURCE@", "deb [trusted=yes] file:/srv/repo ./")
}

/// The first boots on all releases that are there, side by side.
fn every_release() -> Result {
    std::thread::scope(|scope| {
        let boots: Vec<_> = Release::ALL
            .into_iter()
            .filter(|release| release.is_there())
            .map(|release| (release, scope.spawn(move || repository(release))))
            .collect();
        let failures: Vec<String> = boots
            .into_iter()
            .filter_map(|(release, boot)| {
                let result = boot.join().unwrap_or_else(|_| Err("the test panicked".into()));
                let error = result.err()?;
                Some(format!("{}: {}", release.name(), error.message().unwrap_or_default()))
            })
            .collect();
        ensure(failures.is_empty(), failures.join("\n"))
    })
}

/// sshd answers a stranger from the internet. On Ubuntu ssh.socket starts it for that.
fn ssh_answers(bastion: &Bastion) -> Result {
    let greeting = format!("exec 3<>/dev/tcp/{}/22 && timeout 5 head -c 8 <&3", at::BASTION);
    let output = bastion.world.server().command("bash").args(["-c", &greeting]).output()?;
    ensure_eq(text(&output.stdout).as_str(), "SSH-2.0-")
}

fn repository(release: Release) -> Result {
    let mut bastion = new_server(release, |text| by_repository(&text))?;
    put_repository(&bastion.machine, &Package::given()?)?;
    let mut host = new_private_host(release, &bastion)?;
    let start = std::time::Instant::now();
    // The private host does not wait for the bastion.
    host.switch_on()?;
    bastion.machine.boot()?;
    is_done(&bastion.machine)?;
    bastion.becomes_healthy()?;
    let what = format!("{}: from power to a healthy gateway, by cloud-init", release.name());
    print_measurement(&what, format!("{:?}", start.elapsed()));
    ensure_eq(bastion.cloud_routes(), vec!["0.0.0.0/0 via 10.0.0.2".to_owned()])?;
    ensure_eq(bastion.machine.failed_units()?, Vec::new())?;
    let modes =
        bastion.machine.sh("stat --format='%n %U:%G %a' /etc/bastiond/config.toml /etc/bastiond/hcloud-token")?;
    let wanted = ["/etc/bastiond/config.toml root:bastiond 640", "/etc/bastiond/hcloud-token root:root 600"];
    ensure_eq(modes.lines().collect::<Vec<_>>(), wanted.to_vec())?;
    ensure(
        fs::read_to_string(bastion.machine.path(CONFIG))?.starts_with("# Written by cloud-init"),
        "the package's own configuration came over it",
    )?;
    let sshd = bastion.machine.run(&["/usr/sbin/sshd", "-T"])?;
    ensure(sshd.contains("passwordauthentication no") && sshd.contains("permitrootlogin without-password"), sshd)?;
    ssh_answers(&bastion)?;
    private_host(release, &bastion, &mut host)?;
    // After a reboot everything is unchanged, and nothing is installed again.
    bastion.machine.power_off()?;
    bastion.unplug()?;
    bastion.machine.boot()?;
    bastion.becomes_healthy()?;
    ssh_answers(&bastion)?;
    // The host stayed on meanwhile.
    bastion.serves()
}

/// sshd refuses its configuration for a reason that is none of ours.
fn not_hardened() -> Result {
    let mut bastion = new_server(Release::Debian12, |text| by_repository(&text))?;
    put_repository(&bastion.machine, &Package::given()?)?;
    let broken = "# A key that this version does not know.\nPasswordsAreFine yes\n";
    bastion.machine.write("/etc/ssh/sshd_config.d/60-image.conf", 0o644, broken)?;
    bastion.machine.boot()?;
    let output = bastion.machine.try_run(&["cloud-init", "status", "--wait", "--long"])?;
    ensure(text(&output.stdout).contains("status: error"), text(&output.stdout))?;
    let log = fs::read_to_string(bastion.machine.path("/var/log/cloud-init-output.log"))?;
    let report = "bastiond is installed, but sshd is not hardened: sshd does not accept its configuration as it was";
    ensure(log.contains(report), log)?;
    ensure(!bastion.machine.path("/etc/ssh/sshd_config.d/10-bastiond.conf").exists(), "the file was left there")?;
    bastion.becomes_healthy()?;
    bastion.serves()
}

/// Lets ssh.socket start sshd at the first connection, as Ubuntu does. Debian 12 creates /run/sshd then too, and not
/// before.
fn start_ssh_by_socket(machine: &Machine) -> Result {
    let units = machine.path("/etc/systemd/system");
    for service in ["multi-user.target.wants/ssh.service", "sshd.service"] {
        fs::remove_file(units.join(service))?;
    }
    fs::create_dir_all(units.join("sockets.target.wants"))?;
    std::os::unix::fs::symlink("/lib/systemd/system/ssh.socket", units.join("sockets.target.wants/ssh.socket"))?;
    Ok(())
}

/// A server whose token was installed by SSH, and whose sshd is started by a socket. cloud-init treats it as new, as
/// with a server from a snapshot.
fn second_run() -> Result {
    let mut bastion = new_server(Release::Debian12, |text| by_repository(&text).replace("@HCLOUD_TOKEN@", ""))?;
    put_repository(&bastion.machine, &Package::given()?)?;
    start_ssh_by_socket(&bastion.machine)?;
    bastion.machine.boot()?;
    is_done(&bastion.machine)?;
    // It was hardened although nothing had started sshd before.
    ensure(bastion.machine.path("/etc/ssh/sshd_config.d/10-bastiond.conf").exists(), "sshd is not hardened")?;
    ssh_answers(&bastion)?;
    ensure(!bastion.machine.path(TOKEN).exists(), "an empty token was put into place")?;
    let edited = "# edited by its owner\n[firewall]\nssh_attempts = 30\n";
    bastion.machine.write(CONFIG, 0o640, edited)?;
    bastion.machine.write(TOKEN, 0o600, bastion.world.token())?;
    bastion.machine.run(&["systemctl", "restart", UNIT])?;
    bastion.becomes_healthy()?;
    bastion.machine.run(&["cloud-init", "clean", "--logs"])?;
    bastion.machine.power_off()?;
    bastion.unplug()?;
    bastion.machine.boot()?;
    is_done(&bastion.machine)?;
    let log = fs::read_to_string(bastion.machine.path("/var/log/cloud-init-output.log"))?;
    ensure(log.contains("/etc/bastiond/config.toml exists already and stays unchanged"), log)?;
    ensure_eq(fs::read_to_string(bastion.machine.path(CONFIG))?.as_str(), edited)?;
    ensure_eq(fs::read_to_string(bastion.machine.path(TOKEN))?.as_str(), bastion.world.token())?;
    ensure(!bastion.machine.path("/run/bastiond-install/hcloud-token").exists(), "a copy of the token is left")?;
    bastion.becomes_healthy()?;
    bastion.serves()
}

/// A server without a public address with its user data; it is off.
fn new_private_host(release: Release, bastion: &Bastion) -> Result<Machine> {
    let place = bastion.world.web();
    let host = Machine::new(&Layers::of(release)?, place.name())?;
    release.configure(&host, &[Link::Private { name: "eth0", address: at::WEB, network: at::PRIVATE }])?;
    seed(&host, "web", &user_data("private-host.yaml")?)?;
    place.ip("link set eth0 down\naddr flush dev eth0\n")?;
    Ok(host)
}

/// A private host, booted with its user data, restores its default route after changes of its routes.
fn private_host(release: Release, bastion: &Bastion, host: &mut Machine) -> Result {
    let place = bastion.world.web();
    host.booted()?;
    is_done(host)?;
    ensure_eq(host.failed_units()?, Vec::new())?;
    let reaches = || {
        wait_for("the private host reaches the internet", TIMEOUT, || {
            // An error means that there is no route.
            Ok(egress(place, &bastion.internet, SOON).is_ok_and(|ways| ways == open()))
        })
    };
    reaches()?;
    // The effect of a renewed lease on many servers.
    place.ip("route del default\n")?;
    let what = format!("{}: a lost default route is back after", release.name());
    print_measurement(&what, format!("{:?}", reaches()?));
    host.run(release.restart_network())?;
    reaches()?;
    if release == Release::Ubuntu2404 {
        let resolvers = host.run(&["resolvectl", "dns"])?;
        ensure(resolvers.contains("185.12.64.1 185.12.64.2"), resolvers)?;
    }
    host.power_off()?;
    place.ip("link set eth0 down\naddr flush dev eth0\n")?;
    ensure(
        egress(place, &bastion.internet, NEVER).map_or(true, |ways| is_shut(&ways)),
        "a host without a network reaches the internet",
    )?;
    host.boot()?;
    reaches().map(drop)
}

fn sum(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output()?;
    let sum = text(&output.stdout).split_whitespace().next().map(str::to_owned);
    sum.ok_or_else(|| text(&output.stderr).into())
}

/// Holds the lock of apt's lists, as apt-daily may at a first boot, until apt has reported it.
const HOLD_LOCK: &str = "\
#!/usr/bin/python3
import fcntl, os, time
os.makedirs('/var/lib/apt/lists', exist_ok=True)
lock = open('/var/lib/apt/lists/lock', 'w')
fcntl.lockf(lock, fcntl.LOCK_EX)
log = '/var/log/cloud-init-output.log'
while not (os.path.exists(log) and 'Could not get lock' in open(log).read()):
    time.sleep(0.2)
";

fn at_address(sum: &str) -> Result<Bastion> {
    let sum = sum.to_owned();
    let mut bastion = new_server(Release::Debian12, |text| {
        text.replace("@PACKAGE_URL@", "copy:///srv/bastiond.deb").replace("@PACKAGE_SHA256@", &sum)
    })?;
    bastion.machine.write("/srv/bastiond.deb", 0o644, fs::read(Package::given()?.path())?)?;
    bastion.machine.write("/usr/local/sbin/hold-lock", 0o755, HOLD_LOCK)?;
    bastion.machine.write(
        "/etc/systemd/system/hold-lock.service",
        0o644,
        "[Service]\nExecStart=/usr/local/sbin/hold-lock\n",
    )?;
    let wants = bastion.machine.path("/etc/systemd/system/basic.target.wants");
    fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink("../hold-lock.service", wants.join("hold-lock.service"))?;
    bastion.machine.boot()?;
    Ok(bastion)
}

fn address() -> Result {
    let bastion = at_address(&sum(Package::given()?.path())?)?;
    is_done(&bastion.machine)?;
    let log = fs::read_to_string(bastion.machine.path("/var/log/cloud-init-output.log"))?;
    let (_, after) =
        log.split_once("Could not get lock /var/lib/apt/lists/lock").ok_or("no process held the lock of the lists")?;
    // The installation reads the lists too.
    ensure(after.matches("Reading package lists...").count() >= 2, "the lists were not tried for again")?;
    bastion.becomes_healthy()?;
    bastion.serves()
}

fn wrong_sum() -> Result {
    let bastion = at_address(&"0".repeat(64))?;
    let output = bastion.machine.try_run(&["cloud-init", "status", "--wait", "--long"])?;
    ensure(text(&output.stdout).contains("status: error"), text(&output.stdout))?;
    let log = fs::read_to_string(bastion.machine.path("/var/log/cloud-init-output.log"))?;
    ensure(log.contains("could not get copy:///srv/bastiond.deb with SHA-256 0000"), log)?;
    ensure(
        !bastion.machine.try_run(&["systemctl", "cat", UNIT])?.status.success()
            || !bastion.machine.path("/usr/sbin/bastiond").exists(),
        "it was installed",
    )
}
