//! The commands of `bastionctl`. They ask the running daemon; `plan` and `down` also work without one, with the same
//! code.

mod firewall;
mod flow_table;
mod offline;
mod plan;
mod show;
mod table;
mod tunnel;

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use ipnet::IpNet;

use crate::cli::{Bastionctl, Command};
use crate::config::{self, Config, Environment, LastGood, Severity, Wireguard};
use crate::control::client::{self, Error};
use crate::control::{Request, Response, SOCKET};
use crate::exit;

/// Runs the command.
pub fn run(arguments: &Bastionctl) -> ExitCode {
    let environment = Environment::from_process();
    let socket = arguments.socket.clone().unwrap_or_else(|| environment.runtime_directory().join(SOCKET));
    match arguments.command {
        Command::Check => check(arguments.config_path(), &environment),
        Command::Status { json } => show(ask(&socket, &Request::Status {}), json),
        Command::Reconcile { json } => show(ask(&socket, &Request::Reconcile {}), json),
        Command::Plan { json, exit_code } => {
            let answer = plan::ask(&socket, arguments, &environment);
            answer.map_or_else(|code| code, |answer| plan::print(answer, json, exit_code))
        }
        Command::Unban { address } => show(ask(&socket, &Request::Unban { address }), false),
        Command::Down => {
            let answer = down(&socket, arguments, &environment);
            answer.map_or_else(|code| code, |answer| show(Ok(answer), false))
        }
    }
}

fn ask(socket: &Path, request: &Request) -> Result<Response, Error> {
    client::call(socket, request)
}

/// Asks the daemon, or does it in this process if no daemon runs.
fn down(socket: &Path, arguments: &Bastionctl, environment: &Environment) -> Result<Response, ExitCode> {
    match ask(socket, &Request::Down {}) {
        Err(Error::NotRunning { .. }) => {
            let config = config::load(arguments.config_path(), environment);
            let config = config.map_err(|error| exit::wrong_configuration(&error))?;
            offline::down(&config, environment).map_err(|error| exit::failure(&error))
        }
        answer => answer.map_err(|error| exit::no_daemon(&error)),
    }
}

fn check(path: &Path, environment: &Environment) -> ExitCode {
    match config::load(path, environment) {
        Ok(config) => {
            for warning in &config.warnings {
                eprintln!("{}", warning.excerpt(path, Severity::Warning));
            }
            if let Some(warning) = locks_caller_out(&config, std::env::var("SSH_CONNECTION").ok().as_deref()) {
                eprintln!("bastionctl: {warning}");
            }
            println!("{}: good", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = exit::wrong_configuration(&error);
            // Only root and the daemon may see it.
            if let Some(LastGood { applied, .. }) = config::last_good(environment) {
                let applied = humantime::format_rfc3339_seconds(applied);
                eprintln!("bastionctl: with this file a start uses the configuration of {applied}");
            }
            code
        }
    }
}

/// A warning if the configuration would refuse a new SSH login from the address that the caller is logged in from.
/// `SSH_CONNECTION` is `client port server port` (ssh(1)).
fn locks_caller_out(config: &Config, ssh_connection: Option<&str>) -> Option<String> {
    let client: IpAddr = ssh_connection?.split_whitespace().next()?.parse().ok()?;
    let firewall = &config.firewall;
    let holds_client = |range: &IpNet| range.contains(&client);
    // Peers may always log in, whatever the rest of the section says.
    if config.wireguard.iter().flat_map(Wireguard::networks).any(|range| holds_client(&range)) {
        return None;
    }
    let key = if firewall.ssh_only_by_tunnel {
        "firewall.ssh_only_by_tunnel is true, and the tunnel's networks do not contain"
    } else if !firewall.ssh_from.iter().any(holds_client) {
        "firewall.ssh_from does not contain"
    } else if firewall.blocklist.iter().any(holds_client) {
        "firewall.blocklist contains"
    } else {
        return None;
    };
    Some(format!("warning: {key} {client}, from where you are logged in: a new login from there would be refused"))
}

fn show(answer: Result<Response, Error>, json: bool) -> ExitCode {
    match answer {
        Ok(Response::Report { report }) => {
            if json {
                println!("{}", show::format_report_json(&report));
            } else {
                print!("{}", show::format_report(&report, std::time::SystemTime::now()));
            }
            exit::health(report.health)
        }
        Ok(Response::Steps { steps, problems }) => {
            if json {
                println!("{}", show::format_json(&serde_json::json!({"steps": steps, "problems": problems})));
            } else {
                print!("{}", show::format_steps(&steps, &problems));
            }
            if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Response::Plan(plan)) => plan::print(Response::Plan(plan), json, false),
        Ok(Response::WrongConfiguration { reason, problems }) => exit::refused_configuration(&reason, &problems),
        Ok(Response::Refused { reason }) => {
            eprintln!("bastionctl: {reason}");
            ExitCode::FAILURE
        }
        Err(error) => exit::no_daemon(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_outside_of_ssh_from_is_warned() {
        let config = config::parse("[firewall]\nssh_from = [\"203.0.113.0/24\"]", &Environment::default()).unwrap();
        let warned = |connection| locks_caller_out(&config, connection).is_some();
        assert!(warned(Some("198.51.100.7 50000 198.51.100.2 22")));
        assert!(warned(Some("2001:db8::7 50000 2001:db8::2 22")));
        assert!(!warned(Some("203.0.113.7 50000 198.51.100.2 22")));
        assert!(!warned(None));
        assert!(!warned(Some("")));
    }

    #[test]
    fn a_caller_in_the_tunnel_is_not_warned_and_one_on_the_blocklist_is() {
        let tunnel = "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n[[wireguard.peer]]\n\
                      public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nallowed_ips = [\"10.100.0.2\"]\n";
        let warning = |firewall: &str, client: &str| {
            let config = config::parse(&format!("[firewall]\n{firewall}\n{tunnel}"), &Environment::default()).unwrap();
            locks_caller_out(&config, Some(&format!("{client} 50000 198.51.100.2 22")))
        };
        let refused = |reason: &str| {
            Some(format!("warning: {reason}, from where you are logged in: a new login from there would be refused"))
        };
        let only_by_tunnel = "ssh_only_by_tunnel = true";
        assert_eq!(
            warning(only_by_tunnel, "198.51.100.7"),
            refused("firewall.ssh_only_by_tunnel is true, and the tunnel's networks do not contain 198.51.100.7")
        );
        assert_eq!(warning(only_by_tunnel, "10.100.0.2"), None);
        assert_eq!(warning("ssh_from = [\"203.0.113.7\"]", "10.100.0.2"), None);
        let blocklist = "blocklist = [\"198.51.100.0/24\"]";
        assert_eq!(warning(blocklist, "198.51.100.7"), refused("firewall.blocklist contains 198.51.100.7"));
        assert_eq!(warning(blocklist, "203.0.113.7"), None);
    }
}
