//! The environment variables that wireguard-go knows, and one of our own between the two processes.

use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt};
use tracing::Level;

use super::Error;
use crate::syntax::decimal;
use crate::sys;

/// Stay in the foreground.
const FOREGROUND: &str = "WG_PROCESS_FOREGROUND";
/// How much is logged.
const LOG_LEVEL: &str = "LOG_LEVEL";
/// The interface's queues.
pub(super) const TUN: &str = "WG_TUN_FD";
/// The control socket.
pub(super) const CONTROL: &str = "WG_UAPI_FD";
/// A socket on which the background process reports that it runs, or why it does not. Only that process has it.
pub(super) const READY: &str = "BASTIOND_TUNNEL_READY_FD";

/// The settings of the process's environment.
#[derive(Debug)]
pub struct Environment {
    /// Whether it stays in the foreground.
    pub(super) foreground: bool,
    /// The least severe level that is logged; `None`: nothing is.
    pub(super) log_level: Option<Level>,
    /// The inherited descriptors.
    pub(super) descriptors: Descriptors,
}

/// Descriptors that the parent process handed over.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// The queues of the interface; empty: it has to be made.
    pub(super) tun: Vec<OwnedFd>,
    /// The control socket, if there is one.
    pub(super) control: Option<UnixListener>,
    /// Where to report that it runs.
    pub(super) ready: Option<UnixStream>,
}

/// The variables, before any descriptor is touched.
#[derive(Debug, PartialEq, Eq)]
struct Variables {
    foreground: bool,
    log_level: Option<Level>,
    tun: Vec<RawFd>,
    control: Option<RawFd>,
    ready: Option<RawFd>,
}

impl Environment {
    /// Reads the process's environment and takes over what it names: once, before anything else is opened.
    pub fn from_process() -> Result<Self, Error> {
        let words = Variables::read(|name| std::env::var(name).ok())?;
        let take = |variable| {
            move |number| sys::take_inherited(number).map_err(|source| Error::Descriptor { variable, source })
        };
        let descriptors = Descriptors {
            tun: words.tun.into_iter().map(take(TUN)).collect::<Result<_, _>>()?,
            control: words.control.map(take(CONTROL)).transpose()?.map(control_socket).transpose()?,
            ready: words.ready.map(take(READY)).transpose()?.map(UnixStream::from),
        };
        Ok(Self { foreground: words.foreground, log_level: words.log_level, descriptors })
    }
}

/// The descriptor as a socket that listens. Another one would never accept a client.
fn control_socket(descriptor: OwnedFd) -> Result<UnixListener, Error> {
    let wrong = |found| Error::ControlDescriptor { variable: CONTROL, found };
    match getsockopt(&descriptor, sockopt::AcceptConn) {
        Ok(true) => {}
        Ok(false) => return Err(wrong("a socket that does not listen")),
        Err(_) => return Err(wrong("no socket")),
    }
    let listener = UnixListener::from(descriptor);
    match listener.local_addr() {
        Ok(_) => Ok(listener),
        Err(_) => Err(wrong("a socket of another family")),
    }
}

impl Variables {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let numbers = |variable: &'static str| -> Result<Vec<RawFd>, Error> {
            let Some(value) = set(variable) else { return Ok(Vec::new()) };
            let numbers: Option<Vec<RawFd>> = value.split(',').map(decimal).collect();
            // Standard input and outputs are never handed over, and none is named twice.
            let is_list = |numbers: &Vec<RawFd>| {
                numbers.iter().enumerate().all(|(at, number)| *number > 2 && !numbers[..at].contains(number))
            };
            let expected = "the number of an open descriptor above 2, or several with commas between";
            numbers.filter(is_list).ok_or(Error::Variable { variable, value, expected })
        };
        let number = |variable: &'static str| match numbers(variable)?.as_slice() {
            [] => Ok(None),
            [number] => Ok(Some(*number)),
            _ => {
                let value = set(variable).unwrap_or_default();
                Err(Error::Variable { variable, value, expected: "the number of one open descriptor" })
            }
        };
        let log_level = match set(LOG_LEVEL).as_deref() {
            Some("silent") => None,
            Some("error") => Some(Level::ERROR),
            Some("info") => Some(Level::INFO),
            Some("verbose" | "debug") => Some(Level::DEBUG),
            // As wireguard-go does with an unknown level.
            _ => Some(Level::WARN),
        };
        let foreground = set(FOREGROUND).as_deref() == Some("1");
        Ok(Self { foreground, log_level, tun: numbers(TUN)?, control: number(CONTROL)?, ready: number(READY)? })
    }
}

/// Whether the environment asks for logs.
pub(super) fn wants_logs() -> bool {
    std::env::var_os(LOG_LEVEL).is_some_and(|level| !level.is_empty() && level != "silent")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Variables, String> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Variables::read(find).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_environment_sets_nothing() {
        let nothing =
            Variables { foreground: false, log_level: Some(Level::WARN), tun: vec![], control: None, ready: None };
        assert_eq!(read(&[]), Ok(nothing));
    }

    #[test]
    fn the_names_of_wireguard_go_are_known() {
        let variables = [(FOREGROUND, "1"), (LOG_LEVEL, "verbose"), (TUN, "3,5"), (CONTROL, "4"), (READY, "6")];
        let words = Variables {
            foreground: true,
            log_level: Some(Level::DEBUG),
            tun: vec![3, 5],
            control: Some(4),
            ready: Some(6),
        };
        assert_eq!(read(&variables), Ok(words));
        for (value, level) in [("silent", None), ("error", Some(Level::ERROR)), ("loud", Some(Level::WARN))] {
            assert_eq!(read(&[(LOG_LEVEL, value)]).map(|words| words.log_level), Ok(level), "{value}");
        }
        assert_eq!(read(&[(FOREGROUND, "0")]).map(|words| words.foreground), Ok(false));
    }

    #[test]
    fn a_variable_that_is_no_descriptor_is_reported() {
        let list = "the number of an open descriptor above 2, or several with commas between";
        for (variable, value, expected) in [
            (TUN, "x", list),
            (TUN, "-1", list),
            (TUN, "3,", list),
            (TUN, "3,3", list),
            (TUN, "2", list),
            (CONTROL, "3,4", "the number of one open descriptor"),
            (READY, "99999999999", list),
        ] {
            let message = format!("{variable} is `{value}`, which is not {expected}");
            assert_eq!(read(&[(variable, value)]), Err(message));
        }
    }
}
