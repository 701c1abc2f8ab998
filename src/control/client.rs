//! `bastionctl`'s end of the socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::protocol::{MAX_LINE, Request, Response};
use crate::printable::make_printable;

/// How long an answer may take: a pass of the cloud's component may wait a minute for an action of the API.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No daemon listens on the socket.
    #[error("no bastiond answers on {}", path.display())]
    NotRunning { path: PathBuf, source: io::Error },
    /// The socket cannot be used. A daemon may be running.
    #[error(
        "cannot ask bastiond on {} (root and members of group bastiond may; members of group bastiond-monitor may \
         read the status)",
        path.display()
    )]
    Unreachable { path: PathBuf, source: io::Error },
    /// The connection broke off, or the answer took too long.
    #[error("bastiond did not answer on {}", path.display())]
    NoAnswer { path: PathBuf, source: io::Error },
    /// The answer is not one of this version's protocol.
    #[error("bastiond's answer cannot be read; are bastionctl and bastiond of the same version?")]
    Unreadable(#[source] serde_json::Error),
}

/// Sends one request and waits for its answer.
pub(crate) fn call(path: &Path, request: &Request) -> Result<Response, Error> {
    let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
        // Only these two prove that no daemon listens. `plan` and `down` then run without one, and must not run beside
        // it.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Error::NotRunning { path: path.to_owned(), source }
        }
        _ => Error::Unreachable { path: path.to_owned(), source },
    })?;
    let line = exchange(stream, request).map_err(|source| Error::NoAnswer { path: path.to_owned(), source })?;
    parse_response(&line).map_err(Error::Unreadable)
}

/// Reads a response, and makes its texts printable: they quote other people's. A daemon of 0.1.0 calls the components
/// of a report `rooms`.
fn parse_response(line: &[u8]) -> Result<Response, serde_json::Error> {
    let mut response: Value = serde_json::from_slice(line)?;
    if let Some(report) = response.pointer_mut("/report").and_then(Value::as_object_mut) {
        if let Some(rooms) = report.remove("rooms") {
            report.entry("components").or_insert(rooms);
        }
    }
    make_printable(&mut response);
    serde_json::from_value(response)
}

fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_LINE as u64)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}
