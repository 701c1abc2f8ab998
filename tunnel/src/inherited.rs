//! Descriptors that the service manager handed over at the start (`sd_listen_fds(3)`), as owned ones.
//!
//! `sd-notify` reads the same variables, but gives numbers, and marks them in a way that hides which descriptors came
//! by exec(2). `listenfd` and others give a number to everybody who asks. Here each descriptor has one owner
//! (`sys.rs`).

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use crate::sys;

/// The first descriptor of those that are handed over (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// Takes all descriptors of `LISTEN_FDS`, with their names. Only the first call of a process gets them: one that is
/// taken already, or that is not open, is left out and logged.
pub fn listen_fds() -> io::Result<Vec<(String, OwnedFd)>> {
    let listed = listed(std::process::id(), |name| std::env::var(name).ok())?;
    let take = |(number, name): (RawFd, String)| match sys::take_inherited(number) {
        Ok(descriptor) => Some((name, descriptor)),
        Err(error) => {
            tracing::warn!(%error, "descriptor {number} (`{name}`) of LISTEN_FDS is not taken over");
            None
        }
    };
    Ok(listed.into_iter().filter_map(take).collect())
}

/// What the variables say; nothing if they are meant for another process.
fn listed(pid: u32, variable: impl Fn(&str) -> Option<String>) -> io::Result<Vec<(RawFd, String)>> {
    let invalid = |name: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{name} makes no sense"));
    let (Some(meant), Some(count)) = (variable("LISTEN_PID"), variable("LISTEN_FDS")) else { return Ok(Vec::new()) };
    if meant.parse::<u32>().map_err(|_| invalid("LISTEN_PID"))? != pid {
        return Ok(Vec::new());
    }
    let count: u16 = count.parse().map_err(|_| invalid("LISTEN_FDS"))?;
    let names: Vec<String> = match variable("LISTEN_FDNAMES") {
        Some(names) => names.split(':').map(str::to_owned).collect(),
        None => vec!["unknown".to_owned(); usize::from(count)],
    };
    if names.len() != usize::from(count) {
        return Err(invalid("LISTEN_FDNAMES"));
    }
    Ok((FIRST..).zip(names).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Option<Vec<(RawFd, String)>> {
        listed(7, |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())).ok()
    }

    #[test]
    fn the_variables_give_numbers_from_3_and_names_in_order() {
        let named = |list: &[(RawFd, &str)]| Some(list.iter().map(|&(fd, name)| (fd, name.to_owned())).collect());
        let (pid, two) = (("LISTEN_PID", "7"), ("LISTEN_FDS", "2"));
        assert_eq!(read(&[]), named(&[]));
        assert_eq!(read(&[("LISTEN_PID", "8"), two]), named(&[]), "they are another process's");
        assert_eq!(read(&[pid, two, ("LISTEN_FDNAMES", "tun-wg0:")]), named(&[(3, "tun-wg0"), (4, "")]));
        assert_eq!(read(&[pid, two]), named(&[(3, "unknown"), (4, "unknown")]));
        for wrong in [
            &[pid, two, ("LISTEN_FDNAMES", "one")][..],
            &[pid, ("LISTEN_FDS", "-1")],
            &[pid, ("LISTEN_FDS", "99999999")],
            &[("LISTEN_PID", "x"), two],
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
