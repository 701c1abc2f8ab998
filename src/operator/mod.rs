//! The commands of `bastionctl`. They ask the running daemon; `plan` and `down` also work without one, with the same
//! code.

mod account;
mod firewall;
mod flow_table;
mod login;
mod offline;
mod paths;
mod peer;
mod plan;
mod show;
mod table;
mod tunnel;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::cli::{Bastionctl, Command, PeerCommand};
use crate::config::{self, Config, Environment, LastGood, Severity};
use crate::control::client::{self, Error};
use crate::control::{self, LOOK_ONLY, Request, Response, SOCKET};
use crate::exit;
use crate::site;

/// Runs the command.
pub fn run(arguments: &Bastionctl) -> ExitCode {
    let environment = Environment::from_process();
    let socket = match (&arguments.socket, socket_of_this_account(&environment.runtime_directory())) {
        (Some(socket), _) => socket.clone(),
        (None, Socket::Control(socket)) => socket,
        (None, Socket::Monitor(socket)) => match &arguments.command {
            Command::Check
            | Command::Status { .. }
            | Command::Peer {
                command: PeerCommand::List { .. } | PeerCommand::Show { .. } | PeerCommand::Report { .. },
            } => socket,
            // Before a file is read, which such an account may not read either.
            _ => return show(Ok(Response::Refused { reason: LOOK_ONLY.to_owned() }), false),
        },
    };
    match &arguments.command {
        Command::Check => check(arguments.config_path(), &environment),
        Command::Status { json } => show(ask(&socket, &Request::Status {}), *json),
        Command::Reconcile { json } => show(ask(&socket, &Request::Reconcile {}), *json),
        Command::Plan { json, exit_code } => {
            let answer = plan::ask(&socket, arguments, &environment);
            answer.map_or_else(|code| code, |answer| plan::print(answer, *json, *exit_code))
        }
        Command::Unban { address } => show(ask(&socket, &Request::Unban { address: *address }), false),
        Command::Peer { command } => peer::run(command, arguments, &environment, &socket),
        Command::Down => {
            let answer = down(&socket, arguments, &environment);
            answer.map_or_else(|code| code, |answer| show(Ok(answer), false))
        }
    }
}

/// The socket that the caller may use.
enum Socket {
    /// For every request.
    Control(PathBuf),
    /// For the status: the caller may use this one, and not the other.
    Monitor(PathBuf),
}

fn socket_of_this_account(runtime_directory: &Path) -> Socket {
    let (control, monitor) = (runtime_directory.join(SOCKET), control::monitor_socket(runtime_directory));
    // Without a daemon there may be neither. The call says so.
    let is_refused = access(&control, AccessFlags::W_OK) == Err(Errno::EACCES);
    if is_refused && access(&monitor, AccessFlags::W_OK).is_ok() {
        Socket::Monitor(monitor)
    } else {
        Socket::Control(control)
    }
}

fn ask(socket: &Path, request: &Request) -> Result<Response, Error> {
    client::call(socket, request)
}

/// Asks the daemon, or does it in this process if no daemon runs.
fn down(socket: &Path, arguments: &Bastionctl, environment: &Environment) -> Result<Response, ExitCode> {
    match ask(socket, &Request::Down {}) {
        Err(Error::NotRunning { .. }) => {
            let config = config_for_down(arguments.config_path(), environment);
            offline::down(config, environment).map_err(|error| exit::failure(&error))
        }
        answer => {
            let answer = answer.map_err(|error| exit::no_daemon(&error))?;
            // So that a daemon can be started at once.
            offline::await_end(socket);
            Ok(answer)
        }
    }
}

/// The configuration that says what `down` removes. What is ours is taken away with a wrong file, too, or without one:
/// then the one that was applied last says what that is.
fn config_for_down(path: &Path, environment: &Environment) -> Config {
    config::load(path, environment).unwrap_or_else(|error| {
        exit::wrong_configuration(&error);
        eprintln!("bastionctl: down works all the same, with the configuration that was applied last");
        let last = config::last_good(environment).map(|LastGood { config, .. }| config);
        last.unwrap_or_else(|| config::parse("", environment).expect("an empty configuration is valid"))
    })
}

fn check(path: &Path, environment: &Environment) -> ExitCode {
    match config::load(path, environment) {
        Ok(config) => {
            for warning in &config.warnings {
                eprintln!("{}", warning.excerpt(path, Severity::Warning));
            }
            if let Some(connection) = login::find_connection() {
                let discovered = || site::sshd_ports(&environment.runtime_directory()).0;
                for warning in login::warnings(&config, connection, discovered) {
                    eprintln!("bastionctl: warning: {warning}");
                }
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
        Ok(Response::Peers { .. } | Response::Reachers { .. } | Response::Reloaded { .. }) => {
            eprintln!("bastionctl: the daemon's answer is not one to this request");
            ExitCode::FAILURE
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
