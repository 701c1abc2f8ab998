//! ICMP echo, by iputils' `ping`.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::namespace::Namespace;
use crate::timeouts::scaled;

/// How to ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// How many requests.
    pub count: u32,
    /// Time between them, at least 2 ms.
    pub interval: Duration,
    /// How long to wait for the last answer.
    pub timeout: Duration,
    /// Bytes of data in each request; 28 more are in an IPv4 packet, 48 in an IPv6 one.
    pub size: u32,
    /// Whether routers may split it.
    pub fragmentation: Fragmentation,
    /// The TTL of the requests.
    pub ttl: u8,
}

/// Whether routers may split a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragmentation {
    /// They may.
    Allowed,
    /// They send an ICMP error instead.
    Forbidden,
}

impl Default for Ping {
    fn default() -> Self {
        Self {
            count: 1,
            interval: Duration::from_millis(200),
            timeout: Duration::from_secs(1),
            size: 56,
            fragmentation: Fragmentation::Allowed,
            ttl: 64,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// The answers.
    pub replies: Vec<Reply>,
    /// What routers and hosts said instead, such as `From 10.0.0.1 icmp_seq=1 Destination Net Unreachable`.
    pub complaints: Vec<String>,
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The number of the request, from 1.
    pub sequence: u32,
    /// The TTL that was left.
    pub ttl: u8,
}

/// Pings an address.
///
/// # Errors
/// `ping` could not be started, or said nothing that can be read.
pub fn ping(from: &Namespace, target: impl Into<IpAddr>, how: Ping) -> io::Result<PingReport> {
    let seconds = |duration: Duration| format!("{:.3}", duration.as_secs_f64());
    let mut command = from.command("ping").env("LC_ALL", "C").args(["-n", "-O"]);
    command = command.args(["-c".to_owned(), how.count.to_string(), "-t".to_owned(), how.ttl.to_string()]);
    command = command.args(["-i".to_owned(), seconds(how.interval), "-W".to_owned(), seconds(scaled(how.timeout))]);
    command = command.args(["-s".to_owned(), how.size.to_string()]);
    if how.fragmentation == Fragmentation::Forbidden {
        command = command.args(["-M", "do"]);
    }
    let output = command.arg(target.into().to_string()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    read(&said).ok_or_else(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        io::Error::new(io::ErrorKind::InvalidData, format!("ping said: {} {}", said.trim(), complaint.trim()))
    })
}

fn read(said: &str) -> Option<PingReport> {
    let sent = said.lines().find_map(|line| line.split_once(" packets transmitted")?.0.parse().ok())?;
    let replies = said.lines().filter_map(reply).collect();
    let complaints = said.lines().filter(|line| line.starts_with("From ")).map(str::to_owned).collect();
    Some(PingReport { sent, replies, complaints })
}

/// `64 bytes from 203.0.113.10: icmp_seq=1 ttl=61 time=0.236 ms`
fn reply(line: &str) -> Option<Reply> {
    line.split_once(" bytes from ")?;
    let value = |key: &str| line.split_once(key)?.1.split(' ').next();
    Some(Reply { sequence: value("icmp_seq=")?.parse().ok()?, ttl: value("ttl=")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_complaints_are_read() {
        let said = "PING 203.0.113.10 (203.0.113.10) 56(84) bytes of data.\n\
            64 bytes from 203.0.113.10: icmp_seq=1 ttl=61 time=0.236 ms\n\
            From 10.0.0.1 icmp_seq=2 Destination Net Unreachable\n\
            no answer yet for icmp_seq=3\n\
            \n\
            --- 203.0.113.10 ping statistics ---\n\
            3 packets transmitted, 1 received, +1 errors, 66% packet loss, time 401ms\n";
        let expected = PingReport {
            sent: 3,
            replies: vec![Reply { sequence: 1, ttl: 61 }],
            complaints: vec!["From 10.0.0.1 icmp_seq=2 Destination Net Unreachable".to_owned()],
        };
        assert_eq!(read(said), Some(expected));
        assert_eq!(read("ping: connect: Network is unreachable"), None);
    }
}
