//! A machine: Debian or Ubuntu, booted with systemd as PID 1 in an existing network namespace.
//!
//! Its disk is an overlay over a shared tree, in memory and of limited size, so that a test can fill it. Nothing
//! remains after the test: processes and mounts end with the isolation, and the control groups are removed here.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::release::Release;
use crate::shared::{Result, ensure, text, wait_for};

/// The directory of the disks. The isolation has a /run of its own.
const DISKS: &str = "/run/machines";
/// The size of a disk: enough for several packages, and quickly filled.
const DISK_SIZE: &str = "size=256m,mode=755";
/// The time limit of a boot, including cloud-init on a busy machine.
const BOOT: Duration = Duration::from_secs(120);
/// The time limit of a power-off. systemd's limit for a unit is 90 s.
const POWER_OFF: Duration = Duration::from_secs(60);
/// The time limit of a command in the machine, in seconds.
const COMMAND_SECONDS: &str = "90";

/// The lower layers of the machines' disks: the tree of a release and installed packages.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    release: Release,
    trees: Vec<PathBuf>,
}

impl Layers {
    /// A fresh system.
    pub(crate) fn of(release: Release) -> Result<Self> {
        Ok(Self { release, trees: vec![required(release.variable())?] })
    }

    /// The release.
    pub(crate) fn release(&self) -> Release {
        self.release
    }

    /// This system after `change`, which modifies the tree from outside. The changes are a new top layer.
    pub(crate) fn changed(&self, name: &str, change: impl FnOnce(&Path) -> Result) -> Result<Self> {
        let disk = Disk::mount(name, self)?;
        change(&disk.root())?;
        umount2(&disk.root(), MntFlags::empty())?;
        let mut layers = vec![disk.0.join("upper")];
        // It exists as long as the isolation.
        std::mem::forget(disk);
        layers.extend(self.trees.iter().cloned());
        Ok(Self { release: self.release, trees: layers })
    }
}

/// A path in an environment variable that scripts/test-system sets.
pub(crate) fn required(variable: &str) -> Result<PathBuf> {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.map(PathBuf::from).ok_or_else(|| format!("{variable} is not set: run scripts/test-system").into())
}

/// A file system with the root directory of a machine.
#[derive(Debug)]
struct Disk(PathBuf);

impl Disk {
    fn mount(name: &str, layers: &Layers) -> Result<Self> {
        let disk = Self(Path::new(DISKS).join(name));
        fs::create_dir_all(&disk.0)?;
        mount(Some("tmpfs"), &disk.0, Some("tmpfs"), MsFlags::empty(), Some(DISK_SIZE))?;
        let (upper, work) = (disk.0.join("upper"), disk.0.join("work"));
        for directory in [&upper, &work, &disk.root()] {
            fs::create_dir(directory)?;
        }
        let lower: Vec<_> = layers.trees.iter().map(|layer| layer.to_string_lossy()).collect();
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), upper.display(), work.display());
        mount(Some("overlay"), &disk.root(), Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
        Ok(disk)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A failure is harmless: the end of the isolation removes everything.
        let _ = umount2(&self.root(), MntFlags::MNT_DETACH);
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A machine, on or off. Dropping the value cuts its power.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    /// The name of its network namespace for `ip netns`.
    network: String,
    power: Option<Power>,
    disk: Disk,
}

/// The state of a machine that is on.
#[derive(Debug)]
struct Power {
    nspawn: Child,
    /// The process id of the machine's PID 1 in this namespace.
    init: Pid,
    groups: Vec<PathBuf>,
}

impl Machine {
    /// A machine that is off.
    pub(crate) fn new(layers: &Layers, network: &str) -> Result<Self> {
        static MACHINES: AtomicU32 = AtomicU32::new(0);
        let name = format!("m{}", MACHINES.fetch_add(1, Ordering::Relaxed) + 1);
        let disk = Disk::mount(&name, layers)?;
        let machine = Self { name, network: network.to_owned(), power: None, disk };
        // Empty, because "uninitialized" would be a first boot, which enables units such as
        // systemd-networkd-wait-online.
        machine.write("/etc/machine-id", 0o444, "")?;
        machine.write("/etc/hostname", 0o644, "bastion\n")?;
        Ok(machine)
    }

    /// The path of a file of the machine, seen from outside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.disk.root().join(path.trim_start_matches('/'))
    }

    /// Writes a file of the machine with these permissions, and creates its directory. The machine may be on or off.
    pub(crate) fn write(&self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Result {
        let path = self.path(path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&path, content)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(mode))?)
    }

    /// Switches it on, waits until it has booted, and returns the duration.
    pub(crate) fn boot(&mut self) -> Result<Duration> {
        self.switch_on()?;
        self.booted()
    }

    /// Switches it on.
    pub(crate) fn switch_on(&mut self) -> Result {
        ensure(self.power.is_none(), format!("{} is on already", self.name))?;
        let groups = make_groups(&self.name)?;
        let console = fs::File::options().create(true).append(true).open(self.console())?;
        let mut command = Command::new("bash");
        // systemd-nspawn creates the machine's control group beside itself, so it gets a parent group of its own first.
        let script = "for group in $GROUPS_OF_IT; do echo $$ >\"$group/cgroup.procs\" || exit; done\n\
                      unset GROUPS_OF_IT; exec \"$@\"";
        let list: Vec<_> = groups.iter().map(|group| group.to_string_lossy()).collect();
        command.args(["-c", script, "bash", "setsid", "systemd-nspawn", "--quiet", "--boot"]);
        command.arg("--directory").arg(self.disk.root()).args(["--machine", &self.name]);
        command.arg(format!("--network-namespace-path=/run/netns/{}", self.network));
        // There is no machined and no journal of the host to link. The console is a file.
        command.args(["--register=no", "--keep-unit", "--console=pipe", "--link-journal=no"]);
        command.args(["--resolv-conf=off", "--timezone=off"]);
        // Capabilities over its network namespace, and BPF, by which systemd restricts devices and addresses.
        command.args(["--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON", "--system-call-filter=bpf"]);
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1").env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network");
        command.env("GROUPS_OF_IT", list.join(" "));
        let nspawn = command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console).spawn()?;
        self.power = Some(Power { nspawn, init: Pid::from_raw(0), groups });
        Ok(())
    }

    /// Waits until it has booted, and returns the duration of the wait.
    pub(crate) fn booted(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.find_init()?;
        let mut state = String::new();
        while start.elapsed() < BOOT {
            self.is_on()?;
            text(&self.try_run(&["systemctl", "is-system-running"])?.stdout).trim().clone_into(&mut state);
            if matches!(state.as_str(), "running" | "degraded") {
                return Ok(start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let jobs = self.try_run(&["systemctl", "list-jobs"]).map(|output| text(&output.stdout)).unwrap_or_default();
        Err(format!("not booted within {BOOT:?}, but {state}:\n{jobs}\n{}", self.console_text()).into())
    }

    /// Waits until systemd runs as PID 1 of the machine.
    pub(crate) fn find_init(&mut self) -> Result {
        let Some(power) = &self.power else { return Err("the machine is off".into()) };
        let nspawn = power.nspawn.id();
        let mut found = None;
        let started = wait_for("the machine has a PID 1", BOOT, || {
            self.is_on()?;
            found = child_of(nspawn, "systemd");
            Ok(found.is_some())
        });
        started.map_err(|error| format!("{}\n{}", error.message().unwrap_or_default(), self.console_text()))?;
        if let (Some(power), Some(init)) = (&mut self.power, found) {
            power.init = init;
        }
        Ok(())
    }

    fn is_on(&self) -> Result {
        let alive =
            self.power.as_ref().is_some_and(|power| Path::new(&format!("/proc/{}/fd/0", power.nspawn.id())).exists());
        ensure(alive, format!("the machine has gone off:\n{}", self.console_text()))
    }

    /// Its control group in the unified hierarchy, while it is on.
    pub(crate) fn group(&self) -> PathBuf {
        self.power.as_ref().map_or_else(PathBuf::new, |power| power.groups[0].clone())
    }

    fn console(&self) -> PathBuf {
        self.disk.0.join("console")
    }

    /// The output of the machine's console.
    pub(crate) fn console_text(&self) -> String {
        fs::read(self.console()).map(|bytes| text(&bytes)).unwrap_or_default()
    }

    /// Runs a command in the machine as root; it may fail.
    pub(crate) fn try_run(&self, words: &[&str]) -> Result<Output> {
        let Some(power) = &self.power else { return Err("the machine is off".into()) };
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", COMMAND_SECONDS, "nsenter", "--target", &power.init.to_string()]);
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", "env", "--ignore-environment"]);
        command.args([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "LANG=C.UTF-8",
        ]);
        command.args(["TERM=dumb", "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"]);
        Ok(command.args(words).stdin(Stdio::null()).output()?)
    }

    /// Runs a command that must succeed, and returns its output.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.try_run(words)?;
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(format!("{}: {}\n{}{}", words.join(" "), output.status, text(&output.stdout), text(&output.stderr)).into())
    }

    /// Runs a shell script that must succeed, and returns its output.
    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        self.run(&["sh", "-e", "-c", script])
    }

    /// A property of a unit.
    pub(crate) fn property(&self, unit: &str, property: &str) -> Result<String> {
        Ok(self.run(&["systemctl", "show", "--value", "--property", property, unit])?.trim().to_owned())
    }

    /// The journal of the unit since this boot, one message per line.
    pub(crate) fn journal(&self, unit: &str) -> Result<String> {
        self.run(&["journalctl", "--no-pager", "-b", "-o", "short-monotonic", "-u", unit])
    }

    /// The units that have failed.
    pub(crate) fn failed_units(&self) -> Result<Vec<String>> {
        let listed = self.run(&["systemctl", "list-units", "--failed", "--plain", "--no-legend"])?;
        Ok(listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// Powers it off.
    pub(crate) fn power_off(&mut self) -> Result {
        let Some(power) = &mut self.power else { return Ok(()) };
        // systemd-nspawn passes it on as the signal for power-off.
        kill(pid_of(&power.nspawn), Signal::SIGTERM)?;
        let nspawn = &mut power.nspawn;
        wait_for("the machine is off", POWER_OFF, || Ok(nspawn.try_wait()?.is_some()))?;
        self.cut_power();
        Ok(())
    }

    /// Cuts the power, which kills all its processes at once.
    pub(crate) fn cut_power(&mut self) {
        let Some(mut power) = self.power.take() else { return };
        // Killing systemd-nspawn itself would leave the machine running.
        if let Some(init) = child_of(power.nspawn.id(), "systemd") {
            // An error means that it is off already.
            let _ = kill(init, Signal::SIGKILL);
        }
        let waited = wait_for("systemd-nspawn ends", Duration::from_secs(5), || Ok(power.nspawn.try_wait()?.is_some()));
        if waited.is_err() {
            let _ = power.nspawn.kill();
            let _ = power.nspawn.wait();
        }
        power.groups.iter().for_each(|group| remove_group(group));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut_power();
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("Linux' process numbers are below 2^22"))
}

/// The child of a process with this name. systemd-nspawn has other short-lived children.
fn child_of(parent: u32, name: &str) -> Option<Pid> {
    let entries = fs::read_dir("/proc").ok()?;
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()).find_map(|pid| {
        // `4711 (systemd) S 4242 …` (proc(5)).
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (before, after) = stat.rsplit_once(") ")?;
        let is_child = after.split(' ').nth(1)?.parse() == Ok(parent);
        (is_child && before.split_once('(')?.1 == name).then(|| Pid::from_raw(pid))
    })
}

/// The machine's control group in the unified hierarchy, and in systemd's if that is another one.
fn make_groups(name: &str) -> Result<Vec<PathBuf>> {
    let prefix = required("BASTIOND_SYSTEM_GROUPS")?;
    let root = Path::new("/sys/fs/cgroup");
    let unified = if root.join("cgroup.procs").exists() { root.to_owned() } else { root.join("unified") };
    let legacy = Some(root.join("systemd")).filter(|_| unified != root);
    let mut groups = Vec::new();
    for hierarchy in std::iter::once(unified).chain(legacy.filter(|hierarchy| hierarchy.exists())) {
        let group = hierarchy.join(format!("{}-{name}", prefix.display()));
        fs::create_dir_all(&group)
            .map_err(|error| format!("cannot make the control group {}: {error}", group.display()))?;
        groups.push(group);
    }
    Ok(groups)
}

/// Removes an empty control group and its children.
fn remove_group(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_group(&entry.path());
    }
    // An error means that a process is still ending in it. scripts/test-system retries.
    let _ = fs::remove_dir(group);
}

/// Checks whether this machine can boot others.
pub(crate) fn can_boot() -> Result {
    // In a user namespace the map has other lines or a shorter one.
    let map = fs::read_to_string("/proc/self/uid_map")?;
    let all: Vec<&str> = map.split_whitespace().collect();
    ensure(
        nix::unistd::geteuid().is_root() && all == ["0", "0", "4294967295"],
        "only real root may boot containers (run it as root, not in a rootless container)",
    )?;
    for (program, package) in
        [("systemd-nspawn", "systemd-container"), ("nsenter", "util-linux"), ("chroot", "coreutils")]
    {
        let there = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
            .iter()
            .any(|directory| Path::new(directory).join(program).exists());
        ensure(there, format!("{program} is missing: apt install {package}"))?;
    }
    ensure(Path::new("/dev/net/tun").exists(), "there is no /dev/net/tun: modprobe tun")?;
    make_groups("probe")?.iter().for_each(|group| remove_group(group));
    required("BASTIOND_SYSTEM_ROOT").and(required("BASTIOND_SYSTEM_PACKAGE")).map(drop)
}
