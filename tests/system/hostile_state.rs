//! The daemon's account is taken over and writes what it likes into its own directories. Then root runs the program,
//! boots the machine, and removes the package.

use libtest_mimic::Trial;

use crate::bastion::{Bastion, UNIT};
use crate::shared::{Result, ensure, ensure_eq};
use crate::trial::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("root_writes_no_file_for_the_daemons_account", root_runs_the_program),
        trial("the_boot_loads_no_rules_that_the_daemons_account_wrote_as_text", rules_with_text),
        trial("a_member_of_the_group_does_not_keep_root_from_the_daemon", greedy_member),
        trial("a_member_of_the_monitoring_group_sees_the_status_and_nothing_else_of_the_package", monitors),
        trial("a_purge_restores_no_setting_that_the_daemon_does_not_write", purged),
    ]
}

/// A file that the daemon's account can neither read nor write.
const PRECIOUS: &str = "/etc/precious";
const CONTENT: &str = "the first line of a precious file\n";
/// Former values as the daemon keeps them, with settings that it never writes.
const HOSTILE_SETTINGS: &str = r##"{"boot":"BOOT","settings":{
    "/etc/cron.d/x":{"was":"* * * * * root touch /owned","became":"# default"},
    "/etc/precious":{"was":"1","became":"the first line of a precious file"},
    "net/../../../etc/precious":{"was":"1","became":"the first line of a precious file"},
    "net/../kernel/core_pattern":{"was":"|/owned","became":"core"},
    "net/ipv4/conf/../../../kernel/core_pattern":{"was":"1","became":"core"},
    "net/ipv4/conf/all/log_martians":{"was":"1","became":"0"}}}"##;

/// A shell's commands, as the daemon's account.
fn as_daemon(bastion: &Bastion, script: &str) -> Result<String> {
    bastion.machine.run(&[
        "setpriv",
        "--reuid",
        "bastiond",
        "--regid",
        "bastiond",
        "--clear-groups",
        "sh",
        "-ec",
        script,
    ])
}

/// A bastion whose daemon is stopped, with the file and the settings that an attack would change.
fn stopped() -> Result<Bastion> {
    let mut bastion = Bastion::installed("")?;
    bastion.machine.boot()?;
    bastion.becomes_healthy()?;
    bastion.machine.run(&["systemctl", "stop", UNIT])?;
    bastion.machine.write(PRECIOUS, 0o600, CONTENT)?;
    bastion.machine.write("/etc/cron.d/x", 0o600, "# default\n")?;
    Ok(bastion)
}

fn write_hostile_settings(bastion: &Bastion) -> Result {
    let boot_id = "$(cat /proc/sys/kernel/random/boot_id)";
    let file = "/var/lib/bastiond/sysctl.json";
    let script = format!("sed \"s/BOOT/{boot_id}/\" >{file} <<'END'\n{HOSTILE_SETTINGS}\nEND");
    as_daemon(bastion, &script).map(drop)
}

/// Nothing that the hostile files name has changed.
fn is_untouched(bastion: &Bastion, core_pattern: &str) -> Result {
    ensure_eq(bastion.machine.sh(&format!("cat {PRECIOUS}"))?.trim(), CONTENT.trim())?;
    ensure_eq(bastion.machine.sh("cat /etc/cron.d/x")?.trim(), "# default")?;
    ensure_eq(self::core_pattern(bastion)?.as_str(), core_pattern)?;
    ensure_eq(bastion.machine.sh("cat /proc/sys/net/ipv4/conf/all/log_martians")?.trim(), "0")
}

fn core_pattern(bastion: &Bastion) -> Result<String> {
    Ok(bastion.machine.sh("cat /proc/sys/kernel/core_pattern")?.trim().to_owned())
}

fn root_runs_the_program() -> Result {
    let bastion = stopped()?;
    let core_pattern = core_pattern(&bastion)?;
    write_hostile_settings(&bastion)?;
    // Files under the names that earlier versions wrote to, as links to a file of root's.
    as_daemon(
        &bastion,
        "link() { for name; do rm -f $name; ln -s /etc/precious $name; done; }
         cd /run/bastiond; link metadata.new flows.new nat.new metadata.json nat.json lock
         cd /var/lib/bastiond; link rules.new sysctl.new paths.json cloud-routes.json",
    )?;
    bastion.machine.try_run(&["bastionctl", "plan"])?;
    let refused = bastion.machine.try_run(&["bastionctl", "down"])?;
    let complaint = crate::shared::text(&refused.stderr);
    ensure(!refused.status.success() && complaint.contains("lock"), complaint)?;
    is_untouched(&bastion, &core_pattern)?;
    as_daemon(&bastion, "rm /run/bastiond/lock")?;
    bastion.machine.try_run(&["bastionctl", "down"])?;
    ensure(!bastion.machine.sh("nft list tables")?.contains("bastiond"), "`down` did not remove the rules")?;
    is_untouched(&bastion, &core_pattern)?;
    let owners =
        bastion.machine.sh("stat --format %U /var/lib/bastiond /run/bastiond $(find /run/bastiond -type f)")?;
    ensure(owners.lines().all(|owner| owner == "bastiond"), format!("files of root among the daemon's: {owners}"))
}

fn rules_with_text() -> Result {
    let bastion = stopped()?;
    as_daemon(
        &bastion,
        "printf '%s' '{\"format\":1,\"skeleton\":\"include \\\"/etc/precious\\\"\",\"commands\":[]}' \
         >/var/lib/bastiond/rules.json",
    )?;
    bastion.machine.sh("nft delete table inet bastiond; systemctl restart bastiond-boot")?;
    let journal = bastion.machine.journal("bastiond-boot")?;
    ensure(!journal.contains("precious"), journal)?;
    ensure(bastion.machine.sh("nft list table inet bastiond")?.contains("chain forward"), "no rules stand")
}

fn purged() -> Result {
    let bastion = stopped()?;
    let core_pattern = core_pattern(&bastion)?;
    write_hostile_settings(&bastion)?;
    bastion.machine.run(&["dpkg", "--purge", "bastiond"])?;
    is_untouched(&bastion, &core_pattern)?;
    ensure(bastion.machine.sh("ls /run")?.lines().all(|name| !name.starts_with("bastiond")), "files stay in /run")
}

fn monitors() -> Result {
    let mut bastion = Bastion::installed("")?;
    bastion.machine.boot()?;
    bastion.becomes_healthy()?;
    bastion.machine.sh("useradd --groups bastiond-monitor watch")?;
    let watch = |command: &str| bastion.machine.sh(&format!("runuser -u watch -- {command} 2>&1 || true"));
    let health = watch("bastionctl status --json")?;
    ensure(health.contains("\"health\": \"healthy\""), health)?;
    let refused = watch("bastionctl reconcile")?;
    ensure(refused.contains("may read the status and nothing else"), refused)?;
    for path in ["/run/bastiond/nat.json", "/etc/bastiond/config.toml", "/var/lib/bastiond/wireguard.key"] {
        let read = watch(&format!("cat {path}"))?;
        ensure(read.contains("Permission denied"), read)?;
    }
    // What systemd, cloud-init and the daemon ask of the metadata service is not refused.
    let refused = bastion.machine.sh("nft list counter inet bastiond dropped_metadata")?;
    ensure(refused.contains("packets 0 "), refused)?;
    let stolen = watch("bash -c 'exec 3<>/dev/tcp/169.254.169.254/80'")?;
    ensure(stolen.contains("refused"), stolen)
}

/// 150 silent clients, and as many reconciles as the daemon takes.
const GREEDY: &str = r#"
import socket, threading, time
PATH = "/run/bastiond/control.sock"
held = []
for _ in range(150):
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(PATH)
        held.append(client)
    except OSError:
        pass
end = time.time() + 20
def reconcile():
    while time.time() < end:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(PATH)
                client.sendall(b'{"request":"reconcile"}\n')
                client.recv(1)
        except OSError:
            pass
threads = [threading.Thread(target=reconcile) for _ in range(16)]
[thread.start() for thread in threads]
print("attacking", flush=True)
[thread.join() for thread in threads]
"#;

fn greedy_member() -> Result {
    const ASKED: u32 = 10;
    let mut bastion = Bastion::installed("")?;
    bastion.machine.boot()?;
    bastion.becomes_healthy()?;
    bastion.machine.write("/root/greedy.py", 0o644, GREEDY)?;
    let before = bastion.report()?.passes;
    bastion.machine.sh(
        "cp /root/greedy.py /tmp/greedy.py; setpriv --reuid nobody --regid bastiond --clear-groups python3 \
         /tmp/greedy.py >/tmp/greedy.out 2>&1 & for _ in $(seq 100); do grep -q attacking /tmp/greedy.out && break; \
         sleep 0.1; done; grep attacking /tmp/greedy.out",
    )?;
    let began = std::time::Instant::now();
    for _ in 0..ASKED {
        bastion.report()?;
    }
    // A client that waited for a silent one would wait for 5 s each time.
    ensure(began.elapsed().as_secs() < 10, format!("{ASKED} reports took {:?}", began.elapsed()))?;
    let passes = bastion.report()?.passes - before;
    let most = began.elapsed().as_millis() / 250 + 40;
    ensure(u128::from(passes) <= most, format!("{passes} passes in {:?}", began.elapsed()))
}
