//! Servers that tell everybody who they seem to be, and then repeat what they hear.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{only_waited, wait_briefly};
use crate::namespace::{self, Namespace};

/// A server in a namespace that answers with the source address and port that it sees: over TCP as the first line of a
/// connection, over UDP as the first line of each answer. What a client sends comes back after that.
#[derive(Debug)]
pub struct Reflector {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reflector {
    /// A reflector of TCP connections. Port 0 takes a free one; an unspecified address takes all.
    pub fn tcp(namespace: &Namespace, address: impl Into<SocketAddr>) -> Result<Self, namespace::Error> {
        let address = address.into();
        let listener = namespace.listen_tcp(address)?;
        let bound = wait_briefly(&listener).and_then(|()| listener.local_addr());
        let bound = bound.map_err(|source| listen_error(namespace, address, source))?;
        Ok(Self::start(namespace, bound, move |seen, stop| accept(&listener, seen, stop)))
    }

    /// A reflector of UDP datagrams, up to 2000 bytes each.
    pub fn udp(namespace: &Namespace, address: impl Into<SocketAddr>) -> Result<Self, namespace::Error> {
        let address = address.into();
        let socket = namespace.bind_udp(address)?;
        let bound = wait_briefly(&socket).and_then(|()| socket.local_addr());
        let bound = bound.map_err(|source| listen_error(namespace, address, source))?;
        Ok(Self::start(namespace, bound, move |seen, stop| repeat_datagrams(&socket, seen, stop)))
    }

    fn start(
        namespace: &Namespace,
        address: SocketAddr,
        serve: impl FnOnce(&Arc<Mutex<Vec<SocketAddr>>>, &Arc<AtomicBool>) + Send + 'static,
    ) -> Self {
        let (seen, stop) = (Arc::default(), Arc::default());
        let theirs = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = namespace.spawn(move || serve(&theirs.0, &theirs.1));
        Self { address, seen, stop, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who came, in order: one entry a connection, or a datagram.
    pub fn seen(&self) -> Vec<SocketAddr> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

fn listen_error(namespace: &Namespace, address: SocketAddr, source: io::Error) -> namespace::Error {
    namespace::Error::Listen { namespace: namespace.name().to_owned(), address, source }
}

fn note(seen: &Mutex<Vec<SocketAddr>>, peer: SocketAddr) {
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
}

fn accept(listener: &TcpListener, seen: &Mutex<Vec<SocketAddr>>, stop: &AtomicBool) {
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            // Errors of single connections come out of accept as well (accept(2)).
            let Ok((stream, peer)) = listener.accept() else { continue };
            note(seen, peer);
            scope.spawn(move || repeat_stream(stream, peer, stop));
        }
    });
}

fn repeat_stream(mut stream: TcpStream, peer: SocketAddr, stop: &AtomicBool) {
    // Without delay: a held connection exchanges single bytes.
    if stream.set_nodelay(true).and_then(|()| wait_briefly(&stream)).is_err() {
        return;
    }
    if writeln!(stream, "{peer}").is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(error) if only_waited(&error) => {}
            Err(_) => return,
        }
    }
}

fn repeat_datagrams(socket: &UdpSocket, seen: &Mutex<Vec<SocketAddr>>, stop: &AtomicBool) {
    let mut buffer = [0; 2000];
    while !stop.load(Ordering::Relaxed) {
        // An ICMP error for an earlier answer is none of the reflector's business.
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        note(seen, peer);
        let mut answer = format!("{peer}\n").into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, peer);
    }
}
