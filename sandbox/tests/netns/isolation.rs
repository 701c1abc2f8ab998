//! The isolation from the machine, and its end.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::isolation::{Isolation, NetworkNamespaceId};

use crate::{Outcome, TIMEOUT, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        the_tests_run_in_namespaces_apart_from_the_machines,
        the_exit_code_passes_through_the_isolation,
        orphans_are_reaped,
        terminating_the_outer_process_ends_the_isolation,
        killing_the_outer_process_ends_all_processes_inside,
        check_reports_that_the_machine_can_run_the_sandbox,
    ]
}

fn the_tests_run_in_namespaces_apart_from_the_machines() -> Outcome {
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
    // Mounts do not propagate to the machine.
    assert!(!run.contains("shared:"), "{run}");
    Ok(())
}

/// Runs `sandbox shell` with a script as its shell.
fn sandbox_shell(script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    let shell = "/bin/sh";
    command.arg("shell").env_remove("SANDBOX_STAGE").env("SHELL", shell);
    let script = format!("exec 2>&1; {script}");
    command.stdin(text_pipe(&script)).stdout(Stdio::piped());
    command
}

/// A file with this text, for the standard input.
fn text_pipe(text: &str) -> Stdio {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it takes text");
    file.rewind().expect("it can be rewound");
    file.into()
}

fn the_exit_code_passes_through_the_isolation() -> Outcome {
    let output = sandbox_shell("exit 42").output()?;
    assert_eq!(output.status.code(), Some(42));
    Ok(())
}

fn orphans_are_reaped() -> Outcome {
    // The inner shell ends at once, so init becomes the parent of its child. Without a parent that waits, the child
    // would remain as a zombie with the name `orphan`.
    let script = "cp /bin/sh /run/orphan; sh -c '/run/orphan -c \"sleep 0.1; exit\" &'; sleep 0.4; \
                  grep -ls orphan /proc/[0-9]*/comm; echo orphans: done";
    let output = sandbox_shell(script).output()?;
    let output_text = String::from_utf8(output.stdout)?;
    let end = output_text.split_once("The network ends with this shell.").ok_or("the hints are printed")?.1;
    assert_eq!(end.trim(), "orphans: done");
    Ok(())
}

/// Starts a shell that prints `ready` and sleeps, and waits for that word.
fn sleeping_shell() -> Result<Child, libtest_mimic::Failed> {
    let mut child = sandbox_shell("echo shell: ready; sleep 60").spawn()?;
    let stdout = child.stdout.as_mut().ok_or("stdout is piped")?;
    let mut output_text = Vec::new();
    while !String::from_utf8_lossy(&output_text).contains("shell: ready") {
        let mut byte = [0];
        stdout.read_exact(&mut byte)?;
        output_text.push(byte[0]);
    }
    Ok(child)
}

fn terminating_the_outer_process_ends_the_isolation() -> Outcome {
    let mut child = sleeping_shell()?;
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
    let start = Instant::now();
    // 128 plus the number of SIGTERM, as in shells.
    assert_eq!(child.wait()?.code(), Some(143));
    assert!(start.elapsed() < TIMEOUT);
    Ok(())
}

fn killing_the_outer_process_ends_all_processes_inside() -> Outcome {
    let mut child = sleeping_shell()?;
    child.kill()?;
    child.wait()?;
    // The pipe ends with the last process that has it open, such as `sleep 60`.
    let start = Instant::now();
    let mut rest = Vec::new();
    child.stdout.take().ok_or("stdout is piped")?.read_to_end(&mut rest)?;
    assert!(start.elapsed() < Duration::from_secs(10));
    Ok(())
}

fn check_reports_that_the_machine_can_run_the_sandbox() -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_sandbox")).arg("check").env_remove("SANDBOX_STAGE").output()?;
    let output_text = String::from_utf8(output.stdout)?;
    assert!(
        output_text.starts_with("This machine can run the sandbox: 10 namespaces were ready after "),
        "{output_text}"
    );
    assert!(output.status.success());
    Ok(())
}
