//! What the machine must offer beyond namespaces, tried out inside where nothing can break.

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

/// Every part of nftables that the world and a NAT gateway rest on.
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

/// Tries everything that the world needs, cheapest first.
pub(super) fn probe() -> Result<(), Error> {
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|program| !is_installed(program.name)).collect();
    if !missing.is_empty() {
        return Err(Error::MissingPrograms(missing));
    }
    let path = "/proc/sys/net/ipv4/ip_forward";
    OpenOptions::new().write(true).open(path).map_err(|source| Error::SysctlReadOnly { path, source })?;
    // Also of use: tests that talk over 127.0.0.1 find it here.
    tried("ip", &["link", "set", "lo", "up"], "")?.map_err(|stderr| Error::NetAdmin { stderr })?;
    tried("ip", &["-batch", "-"], "link add probe0 type veth peer name probe1\nlink del probe0\n")?
        .map_err(|stderr| Error::NoVeth { stderr })?;
    tried("nft", &["-f", "-"], RULES)?.map_err(|stderr| Error::NoNftables { stderr })
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| Path::is_file(&directory.join(program)))
}

/// Runs a program; the inner error is what it complained of.
fn tried(program: &str, arguments: &[&str], input: &str) -> Result<Result<(), String>, Error> {
    let failed = |source| Error::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A program that complains without reading has closed the pipe; its complaint says more.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(failed)?;
    Ok(if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) })
}
