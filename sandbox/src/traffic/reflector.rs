//! Servers that answer each client with the source address that they see, then echo the client's data.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::served::Served;
use super::wait::{is_poll_timeout, set_poll_interval, widen_receive_buffer};
use crate::namespace::{self, Namespace};

/// A server in a namespace that answers with the source address and port that it sees: over TCP in the first line of a
/// connection, over UDP in the first line of each answer. After that line it echoes what the client sent.
#[derive(Debug)]
pub struct Reflector {
    address: SocketAddr,
    served: Served<SocketAddr>,
}

impl Reflector {
    /// A TCP server. Port 0 picks a free port; the unspecified address listens on all addresses.
    pub fn tcp(namespace: &Namespace, address: impl Into<SocketAddr>) -> Result<Self, namespace::Error> {
        let address = address.into();
        let listener = namespace.listen_tcp(address)?;
        let bound = set_poll_interval(&listener).and_then(|()| listener.local_addr());
        let bound = bound.map_err(|source| listen_error(namespace, address, source))?;
        let served = Served::start(namespace, move |seen, stop| accept(&listener, seen, stop));
        Ok(Self { address: bound, served })
    }

    /// A UDP server for datagrams of up to 2000 bytes.
    pub fn udp(namespace: &Namespace, address: impl Into<SocketAddr>) -> Result<Self, namespace::Error> {
        let address = address.into();
        let socket = namespace.bind_udp(address)?;
        let bound =
            set_poll_interval(&socket).and_then(|()| widen_receive_buffer(&socket)).and_then(|()| socket.local_addr());
        let bound = bound.map_err(|source| listen_error(namespace, address, source))?;
        let served = Served::start(namespace, move |seen, stop| echo_datagrams(&socket, seen, stop));
        Ok(Self { address: bound, served })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The source addresses in the order of arrival, one for each connection or datagram.
    pub fn seen(&self) -> Vec<SocketAddr> {
        self.served.seen()
    }
}

fn listen_error(namespace: &Namespace, address: SocketAddr, source: io::Error) -> namespace::Error {
    namespace::Error::Listen { namespace: namespace.name().to_owned(), address, source }
}

fn record(seen: &Mutex<Vec<SocketAddr>>, peer: SocketAddr) {
    seen.lock().push(peer);
}

fn accept(listener: &TcpListener, seen: &Mutex<Vec<SocketAddr>>, stop: &AtomicBool) {
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            // accept() also returns errors of single connections (accept(2)).
            let Ok((stream, peer)) = listener.accept() else { continue };
            record(seen, peer);
            scope.spawn(move || echo_stream(stream, peer, stop));
        }
    });
}

fn echo_stream(mut stream: TcpStream, peer: SocketAddr, stop: &AtomicBool) {
    // Without delay, because a held connection exchanges single bytes.
    if stream.set_nodelay(true).and_then(|()| set_poll_interval(&stream)).is_err() {
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
            Err(error) if is_poll_timeout(&error) => {}
            Err(_) => return,
        }
    }
}

fn echo_datagrams(socket: &UdpSocket, seen: &Mutex<Vec<SocketAddr>>, stop: &AtomicBool) {
    let mut buffer = [0; 2000];
    while !stop.load(Ordering::Relaxed) {
        // recv also returns ICMP errors about earlier answers.
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        record(seen, peer);
        let mut answer = format!("{peer}\n").into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, peer);
    }
}
