//! The sockets that the tunnel's process cannot make: it asks the daemon for them ([`Supply`]), and the daemon makes
//! them ([`answer`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::connection::{Connection, errno_of};
use super::message::{Ask, Given};
use crate::device::probes::Probes;
use crate::device::socket::{Error, checked, set_mark};
use crate::device::socket_source::SocketSource;
use crate::device::udp::UdpPair;

/// How long the daemon may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most pairs that are made at once.
const MAX_PAIRS: usize = 16;

/// The daemon, for as long as there is one.
#[derive(Debug, Default)]
pub(super) struct Supply(Mutex<Option<Connection>>);

impl Supply {
    /// From now on asks through this connection.
    pub(super) fn connect(&self, connection: Connection) -> io::Result<()> {
        connection.set_timeout(TIMEOUT)?;
        *self.0.lock() = Some(connection);
        Ok(())
    }

    /// The daemon has gone.
    pub(super) fn disconnect(&self) {
        *self.0.lock() = None;
    }

    fn ask(&self, ask: &Ask, descriptors: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>, Error> {
        let failed = |source| Error::Supply { source };
        let mut place = self.0.lock();
        let Some(connection) = &*place else {
            return Err(failed(io::Error::from_raw_os_error(nix::libc::ENOTCONN)));
        };
        let answered = connection.send(ask, descriptors).and_then(|()| connection.receive::<Given>());
        match answered {
            Ok((Given::Done, given)) => Ok(given),
            Ok((Given::Refused { errno }, _)) => Err(failed(io::Error::from_raw_os_error(errno))),
            Err(error) => {
                // A late answer would be taken for that to the next question.
                *place = None;
                Err(failed(error))
            }
        }
    }
}

/// The source of one device's sockets.
#[derive(Debug)]
pub(super) struct SuppliedSockets {
    pub(super) supply: Arc<Supply>,
    pub(super) probes: Arc<Probes>,
}

impl SocketSource for SuppliedSockets {
    fn bind(&self, port: u16, fwmark: u32, pairs: usize) -> Result<Vec<Arc<UdpPair>>, Error> {
        let probes = self.probes.descriptors().map_err(|source| Error::Supply { source })?;
        let probes: Vec<_> = probes.iter().map(AsFd::as_fd).collect();
        let bound = UdpPair::adopt_all(self.supply.ask(&Ask::Bind { port, fwmark, pairs }, &probes)?)?;
        if bound.len() != pairs {
            return Err(Error::Supply { source: io::ErrorKind::InvalidData.into() });
        }
        Ok(bound.into_iter().map(|pair| Arc::new(pair.with_probes(&self.probes))).collect())
    }

    fn mark(&self, pairs: &[Arc<UdpPair>], fwmark: u32) -> Result<(), Error> {
        let probes = self.probes.descriptors().map_err(|source| Error::Supply { source })?;
        let sockets = pairs.iter().flat_map(|pair| pair.sockets()).map(|socket| socket.as_fd());
        let all: Vec<_> = sockets.chain(probes.iter().map(AsFd::as_fd)).collect();
        self.supply.ask(&Ask::Mark { fwmark }, &all).map(drop)
    }
}

/// Makes what a tunnel's process asks for, until the connection ends. It trusts nothing: what is marked is a UDP
/// socket, and few sockets are made at once. `keep` gets the pairs that were bound.
pub fn answer(connection: &Connection, mut keep: impl FnMut(Vec<Arc<UdpPair>>)) {
    loop {
        let (ask, descriptors) = match connection.receive::<Ask>() {
            Ok(asked) => asked,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(%error, "the tunnel's process asks for what cannot be had");
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "the tunnel's process asks no more");
                return;
            }
        };
        let sent = match make(&ask, descriptors) {
            Ok(pairs) => {
                let sockets: Vec<_> =
                    pairs.iter().flat_map(|pair| pair.sockets()).map(|socket| socket.as_fd()).collect();
                let sent = connection.send(&Given::Done, &sockets);
                if !pairs.is_empty() {
                    keep(pairs);
                }
                sent
            }
            Err(error) => {
                tracing::info!(error = crate::error::chain(&error), ?ask, "the tunnel's process gets no sockets");
                let errno = match &error {
                    Error::Foreign { source } | Error::Supply { source } => errno_of(source),
                    error => error.errno() as i32,
                };
                connection.send(&Given::Refused { errno }, &[])
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "the tunnel's process takes no answer");
            return;
        }
    }
}

fn make(ask: &Ask, descriptors: Vec<OwnedFd>) -> Result<Vec<Arc<UdpPair>>, Error> {
    let marked = descriptors.into_iter().map(checked).collect::<Result<Vec<_>, _>>()?;
    let mark = |fwmark| marked.iter().try_for_each(|(socket, _)| set_mark(socket, fwmark));
    match *ask {
        Ask::Bind { pairs, .. } if !(1..=MAX_PAIRS).contains(&pairs) => {
            Err(Error::Supply { source: io::Error::from_raw_os_error(nix::libc::EINVAL) })
        }
        Ask::Bind { port, fwmark, pairs } => {
            let bound = UdpPair::bind(port, fwmark, pairs)?;
            if fwmark != 0 {
                mark(fwmark)?;
            }
            Ok(bound)
        }
        Ask::Mark { fwmark } => mark(fwmark).map(|()| Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supplied() -> (SuppliedSockets, std::thread::JoinHandle<usize>) {
        let (ours, theirs) = Connection::pair().unwrap();
        let supply = Arc::new(Supply::default());
        supply.connect(ours).unwrap();
        let daemon = std::thread::spawn(move || {
            let mut kept = 0;
            answer(&theirs, |pairs| kept += pairs.len());
            kept
        });
        let probes = Arc::new(Probes::adopt(Probes::open(0).unwrap()).unwrap());
        (SuppliedSockets { supply, probes }, daemon)
    }

    #[test]
    fn sockets_are_bound_by_the_other_side_and_its_refusal_is_the_reason() {
        let (sockets, daemon) = supplied();
        let bound = sockets.bind(0, 0, 2).unwrap();
        assert_eq!(bound.len(), 2);
        assert!(bound[0].port() != 0 && bound[0].port() == bound[1].port());
        let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(sockets.bind(port, 0, 1).unwrap_err().errno(), nix::errno::Errno::EADDRINUSE);
        assert_eq!(sockets.bind(0, 0, MAX_PAIRS + 1).unwrap_err().errno(), nix::errno::Errno::EINVAL);
        assert_eq!(sockets.bind(0, 0, 1).unwrap().len(), 1, "it goes on after a refusal");
        sockets.supply.disconnect();
        assert_eq!(daemon.join().unwrap(), 3);
        assert_eq!(sockets.bind(0, 0, 1).unwrap_err().errno(), nix::errno::Errno::ENOTCONN);
    }

    #[test]
    fn only_udp_sockets_are_marked() {
        let (ours, theirs) = Connection::pair().unwrap();
        let daemon = std::thread::spawn(move || answer(&theirs, |_| panic!("nothing is bound")));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        ours.send(&Ask::Mark { fwmark: 1 }, &[listener.as_fd()]).unwrap();
        let (given, _) = ours.receive::<Given>().unwrap();
        assert!(matches!(given, Given::Refused { .. }), "{given:?}");
        ours.send(&"nonsense", &[]).unwrap();
        daemon.join().unwrap();
    }
}
