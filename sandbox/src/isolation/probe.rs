//! Checks what the sandbox needs besides namespaces. It runs in the isolated process, where nothing can break.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::{Error, Program};

const PROGRAMS: [Program; 3] = [
    Program { name: "ip", package: "iproute2" },
    Program { name: "nft", package: "nftables" },
    Program { name: "ping", package: "iputils-ping" },
];

/// Every feature of nftables that the sandbox and a NAT gateway need.
const RULES: &str = "
    table inet probe {
        chain prerouting {
            type filter hook prerouting priority raw; policy accept;
            fib saddr . iif oif missing counter drop
        }
        chain forward {
            type filter hook forward priority filter; policy drop;
            ct state established,related accept
            tcp flags syn tcp option maxseg size set rt mtu
        }
        chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            oifname \"probe0\" masquerade
        }
    }
    delete table inet probe
";

/// Checks everything that the sandbox needs, cheapest first.
pub(super) fn check_machine() -> Result<(), Error> {
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|program| !is_installed(program.name)).collect();
    if !missing.is_empty() {
        return Err(Error::MissingPrograms(missing));
    }
    let path = "/proc/sys/net/ipv4/ip_forward";
    OpenOptions::new().write(true).open(path).map_err(|source| Error::SysctlReadOnly { path, source })?;
    // The loopback interface stays up: tests use 127.0.0.1.
    try_program("ip", &["link", "set", "lo", "up"], "")?.map_err(|stderr| Error::NetAdmin { stderr })?;
    try_program("ip", &["-batch", "-"], "link add probe0 type veth peer name probe1\nlink del probe0\n")?
        .map_err(|stderr| Error::NoVeth { stderr })?;
    try_program("nft", &["-f", "-"], RULES)?.map_err(|stderr| Error::NoNftables { stderr })
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| Path::is_file(&directory.join(program)))
}

/// Runs a program. The inner error is its standard error.
fn try_program(program: &str, arguments: &[&str], input: &str) -> Result<Result<(), String>, Error> {
    let failed = |source| Error::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A program that fails before reading closes the pipe; its standard error says why.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(failed)?;
    Ok(if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) })
}
