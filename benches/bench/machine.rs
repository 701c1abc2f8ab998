//! The machine of the measurements.

use std::process::Command;

/// The machine in two lines.
pub(crate) fn description() -> String {
    let cores = std::thread::available_parallelism().map_or_else(|_| "?".to_owned(), |cores| cores.to_string());
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} cores ({}), kernel {}\n{}; {}; {}",
        model.unwrap_or("unknown model"),
        kernel.trim(),
        version("nft"),
        version("iptables-nft"),
        load(),
    )
}

/// The load of the machine, which makes every value worse.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let last_minute = text.split(' ').next().unwrap_or("?");
    format!("load of the last minute: {last_minute}")
}

fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { format!("no {program}") } else { text }
}
