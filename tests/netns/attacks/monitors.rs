//! Members of the monitoring group read the status, and do nothing else.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::unistd::{Gid, chown};
use sandbox::daemon::Installation;
use sandbox::world::{Settings, World};

use crate::gateway::{Result, ensure, ensure_eq, healthy, installation, programs, report, text, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_member_of_the_monitoring_group_reads_the_status_and_does_nothing_else", looks),
        trial("the_monitoring_socket_refuses_every_other_request_whoever_sends_it", refuses),
        trial("silent_monitors_keep_no_operator_waiting", silent),
    ]
}

/// Accounts as the package makes them; only their numbers matter.
const OPERATORS: u32 = 61_001;
const MONITORS: u32 = 61_002;

/// A directory for the second socket, as the package's tmpfiles make it, and a copy of `bastionctl` that others may
/// run.
fn with_monitors(world: &World) -> Result<(Installation<'_>, PathBuf)> {
    let installation = installation(world)?;
    let directory = installation.runtime_directory().with_file_name("run-monitor");
    fs::create_dir(&directory)?;
    // Another group than that of this process exists only for root.
    chown(&directory, None, Some(Gid::from_raw(MONITORS)))
        .map_err(|errno| format!("this machine maps no second group: run the test as root ({errno})"))?;
    fs::set_permissions(&directory, Permissions::from_mode(0o2750))?;
    let place = directory.parent().ok_or("no parent")?;
    fs::set_permissions(place, Permissions::from_mode(0o755))?;
    fs::copy(programs().join("bastionctl"), place.join("bastionctl"))?;
    Ok((installation, directory.join("status.sock")))
}

/// `bastionctl` by a member of one group.
fn ctl_as(world: &World, installation: &Installation<'_>, group: u32, arguments: &[&str]) -> Result<Output> {
    let program = installation.runtime_directory().with_file_name("bastionctl");
    let command = world.bastion().command("setpriv").args(["--reuid", "61003", "--regid", &group.to_string()]);
    let command = command.args(["--clear-groups", "--"]).arg(&program).args(arguments);
    Ok(command.env("RUNTIME_DIRECTORY", installation.runtime_directory()).output()?)
}

fn looks() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, _) = with_monitors(&world)?;
    let _daemon = healthy(&installation)?;
    // As the unit has it.
    let runtime = installation.runtime_directory();
    for path in [runtime.clone(), runtime.join("control.sock")] {
        chown(&path, None, Some(Gid::from_raw(OPERATORS)))?;
    }
    fs::set_permissions(&runtime, Permissions::from_mode(0o750))?;
    let passes = report(&installation)?.passes;
    let status = ctl_as(&world, &installation, MONITORS, &["status", "--json"])?;
    ensure_eq((status.status.code(), text(&status.stderr)), (Some(0), String::new()))?;
    let seen: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    ensure_eq(seen["health"].as_str(), Some("healthy"))?;
    let refused = "bastionctl: members of group bastiond-monitor may read the status and nothing else; this needs root, or \
                   membership of group bastiond\n";
    for command in [&["reconcile"][..], &["down"], &["plan"], &["unban", "192.0.2.7"]] {
        let output = ctl_as(&world, &installation, MONITORS, command)?;
        ensure_eq((output.status.code(), text(&output.stderr)), (Some(1), refused.to_owned()))?;
    }
    // The other socket and the other files stay closed.
    let forced = ctl_as(
        &world,
        &installation,
        MONITORS,
        &["--socket", &runtime.join("control.sock").to_string_lossy(), "down"],
    )?;
    ensure(text(&forced.stderr).contains("Permission denied"), text(&forced.stderr))?;
    ensure_eq(forced.status.code(), Some(3))?;
    let stranger = ctl_as(&world, &installation, 61_009, &["status"])?;
    ensure_eq((stranger.status.code(), stranger.stdout.len()), (Some(3), 0))?;
    let member = ctl_as(&world, &installation, OPERATORS, &["reconcile"])?;
    ensure_eq((member.status.code(), text(&member.stderr)), (Some(0), String::new()))?;
    let after = report(&installation)?;
    ensure(after.passes > passes, "a member's reconcile leads to no pass")
}

fn asks(path: &Path, request: &[u8]) -> Result<String> {
    let mut stream = UnixStream::connect(path)?;
    // Err: the daemon has answered already.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    Ok(answer)
}

fn refuses() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, socket) = with_monitors(&world)?;
    let _daemon = healthy(&installation)?;
    ensure(asks(&socket, b"{\"request\":\"status\"}\n")?.starts_with("{\"response\":\"report\""), "no status")?;
    let long = [b"{\"request\":\"status\"".as_slice(), &vec![b' '; 8192], b"}\n"].concat();
    let deep = vec![b'['; 4000];
    let requests = [
        &deep[..],
        b"{\"request\":\"reconcile\"}\n",
        b"{\"request\":\"down\"}\n",
        b"{\"request\":\"plan\"}\n",
        b"{\"request\":\"unban\",\"address\":\"192.0.2.7\"}\n",
        &long,
    ];
    for request in requests {
        let answer = asks(&socket, request)?;
        ensure(answer.starts_with("{\"response\":\"refused\""), format!("{answer:?}"))?;
    }
    // Deeper than a parser's stack, at the other socket, which takes more.
    let deeper = vec![b'['; 8 << 20];
    let answer = asks(&installation.runtime_directory().join("control.sock"), &deeper)?;
    ensure(answer.starts_with("{\"response\":\"refused\""), format!("{answer:?}"))?;
    ensure(crate::gateway::all_components_ok(&installation)?, "a request did something")?;
    ensure_eq(fs::metadata(&socket)?.permissions().mode() & 0o777, 0o660)
}

fn silent() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, socket) = with_monitors(&world)?;
    let _daemon = healthy(&installation)?;
    // As another account than root, which has a place at all times.
    let script = "import socket, sys, time\nheld = []\nfor _ in range(150):\n    client = socket.socket(socket.AF_UNIX)\n    \
                  try:\n        client.connect(sys.argv[1])\n    except OSError:\n        continue\n    held.append(client)\n\
                  print(len(held), flush=True)\ntime.sleep(30)\n";
    let group = MONITORS.to_string();
    let command = world.bastion().command("setpriv").args(["--reuid", "61003", "--regid", &group, "--clear-groups"]);
    let mut attacker =
        // Not that of a version manager, which may be for root alone.
        command.args(["--", "/usr/bin/python3", "-c", script]).arg(&socket).stdout(std::process::Stdio::piped()).spawn()?;
    // It says something as soon as its clients are connected.
    let mut output = attacker.stdout.take().ok_or("no output")?;
    output.read_exact(&mut [0])?;
    let runtime = installation.runtime_directory();
    fs::set_permissions(&runtime, Permissions::from_mode(0o755))?;
    chown(&runtime.join("control.sock"), None, Some(Gid::from_raw(OPERATORS)))?;
    let began = Instant::now();
    for _ in 0..5 {
        ensure_eq(ctl_as(&world, &installation, OPERATORS, &["status"])?.status.code(), Some(0))?;
        report(&installation)?;
    }
    let took = began.elapsed();
    ensure_eq(attacker.try_wait()?, None)?;
    attacker.kill()?;
    attacker.wait()?;
    // A client that waited for a silent one would wait for 5 s each time.
    ensure(took < Duration::from_secs(5), format!("{took:?} for ten reports"))
}
