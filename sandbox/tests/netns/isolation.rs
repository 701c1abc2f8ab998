//! The isolation: apart from the machine, and gone without a trace.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::isolation::{Isolation, NetworkNamespaceId};

use crate::{Outcome, PATIENCE, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        nothing_here_is_the_machines_own,
        the_exit_code_passes_through_the_enclave,
        orphans_are_reaped,
        a_termination_from_outside_ends_the_enclave,
        a_killed_outside_takes_everything_inside_along,
        a_machine_that_can_host_the_world_is_told_so,
    ]
}

fn nothing_here_is_the_machines_own() -> Outcome {
    let isolation = Isolation::current().ok_or("the tests run in an isolation")?;
    assert_ne!(NetworkNamespaceId::of_this_thread()?, isolation.machine_network());
    let links: Vec<_> = fs::read_to_string("/proc/net/dev")?
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next().map(|name| name.trim().to_owned()))
        .collect();
    assert_eq!(links, ["lo"]);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let run = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/run")).ok_or("/run is mounted")?;
    assert!(run.contains(" - tmpfs "), "{run}");
    // Nothing that is mounted here can appear outside.
    assert!(!run.contains("shared:"), "{run}");
    Ok(())
}

/// The program in an isolation of its own, with a script for its shell.
fn sandbox_shell(script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    let shell = "/bin/sh";
    command.arg("shell").env_remove("SANDBOX_STAGE").env("SHELL", shell);
    let script = format!("exec 2>&1; {script}");
    command.stdin(text_pipe(&script)).stdout(Stdio::piped());
    command
}

/// A file to be read as an input; a pipe would need somebody to write.
fn text_pipe(text: &str) -> Stdio {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it takes text");
    file.rewind().expect("it can be rewound");
    file.into()
}

fn the_exit_code_passes_through_the_enclave() -> Outcome {
    let output = sandbox_shell("exit 42").output()?;
    assert_eq!(output.status.code(), Some(42));
    Ok(())
}

fn orphans_are_reaped() -> Outcome {
    // The inner shell ends at once and leaves its child to init. Without a parent that waits, the child would stay as a
    // zombie under its own name, that of the program's file.
    let script = "cp /bin/sh /run/orphan; sh -c '/run/orphan -c \"sleep 0.1; exit\" &'; sleep 0.4; \
                  grep -ls orphan /proc/[0-9]*/comm; echo orphans: done";
    let output = sandbox_shell(script).output()?;
    let said = String::from_utf8(output.stdout)?;
    let end = said.split_once("The world ends with this shell.").ok_or("the greeting is printed")?.1;
    assert_eq!(end.trim(), "orphans: done");
    Ok(())
}

/// Starts a shell that says `ready` and sleeps, and waits for the word.
fn sleeping_shell() -> Result<Child, libtest_mimic::Failed> {
    let mut child = sandbox_shell("echo shell: ready; sleep 60").spawn()?;
    let stdout = child.stdout.as_mut().ok_or("stdout is piped")?;
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("shell: ready") {
        let mut byte = [0];
        stdout.read_exact(&mut byte)?;
        said.push(byte[0]);
    }
    Ok(child)
}

fn a_termination_from_outside_ends_the_enclave() -> Outcome {
    let mut child = sleeping_shell()?;
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
    let start = Instant::now();
    // 128 and the number of SIGTERM, as shells say it.
    assert_eq!(child.wait()?.code(), Some(143));
    assert!(start.elapsed() < PATIENCE);
    Ok(())
}

fn a_killed_outside_takes_everything_inside_along() -> Outcome {
    let mut child = sleeping_shell()?;
    child.kill()?;
    child.wait()?;
    // The pipe ends when the last process that could write to it is gone, `sleep 60` among them.
    let start = Instant::now();
    let mut rest = Vec::new();
    child.stdout.take().ok_or("stdout is piped")?.read_to_end(&mut rest)?;
    assert!(start.elapsed() < Duration::from_secs(10));
    Ok(())
}

fn a_machine_that_can_host_the_world_is_told_so() -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_sandbox")).arg("check").env_remove("SANDBOX_STAGE").output()?;
    let said = String::from_utf8(output.stdout)?;
    assert!(said.starts_with("This machine can run the sandbox: 10 namespaces were ready after "), "{said}");
    assert!(output.status.success());
    Ok(())
}
