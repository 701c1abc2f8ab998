//! The resolvers of the provider: they answer every question with "no such name".

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;

/// Hetzner's recursive resolvers, which its images use.
pub const RESOLVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(185, 12, 64, 1), Ipv4Addr::new(185, 12, 64, 2)];
/// DNS (RFC 1035).
pub(super) const PORT: u16 = 53;
/// The length of a DNS header.
const HEADER: usize = 12;
/// The second word of an answer's header: a response, recursion available, NXDOMAIN (RFC 1035 section 4.1.1). The bit
/// "recursion desired" is copied from the question.
const ANSWER: [u8; 2] = [0x80, 0x83];

/// Answers until the socket fails.
pub(super) async fn serve(socket: std::net::UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    let mut buffer = [0; 1500];
    loop {
        let (length, from): (usize, SocketAddr) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error about an earlier answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        // Shorter ones are no questions.
        if length > HEADER {
            buffer[2] = ANSWER[0] | (buffer[2] & 1);
            buffer[3] = ANSWER[1];
            // Err: the way back is broken on purpose.
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    }
}
