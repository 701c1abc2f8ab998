//! ICMP echo with iputils' `ping`.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::namespace::Namespace;
use crate::timeouts::scaled;

/// The options of [`ping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// The number of requests.
    pub count: u32,
    /// The time between two requests, at least 2 ms.
    pub interval: Duration,
    /// How long to wait for the last reply.
    pub timeout: Duration,
    /// Bytes of data in each request. The IPv4 packet is 28 bytes longer, the IPv6 packet 48.
    pub size: u32,
    /// Whether routers may fragment the requests.
    pub fragmentation: Fragmentation,
    /// The TTL of the requests.
    pub ttl: u8,
}

/// Whether routers may fragment a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragmentation {
    /// They may fragment it.
    Allowed,
    /// They must send an ICMP error instead.
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

/// The result of [`ping`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingReport {
    /// The number of requests sent.
    pub sent: u32,
    /// The replies in the order of arrival.
    pub replies: Vec<Reply>,
    /// The lines about ICMP errors, such as `From 10.0.0.1 icmp_seq=1 Destination Net Unreachable`.
    pub icmp_errors: Vec<String>,
}

/// One echo reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The sequence number of the request, from 1.
    pub sequence: u32,
    /// The TTL of the reply when it arrived.
    pub ttl: u8,
}

/// Pings an address.
///
/// # Errors
/// `ping` could not be started, or its output could not be parsed.
pub fn ping(from: &Namespace, target: impl Into<IpAddr>, options: Ping) -> io::Result<PingReport> {
    let seconds = |duration: Duration| format!("{:.3}", duration.as_secs_f64());
    let mut command = from.command("ping").env("LC_ALL", "C").args(["-n", "-O"]);
    command = command.args(["-c".to_owned(), options.count.to_string(), "-t".to_owned(), options.ttl.to_string()]);
    command =
        command.args(["-i".to_owned(), seconds(options.interval), "-W".to_owned(), seconds(scaled(options.timeout))]);
    command = command.args(["-s".to_owned(), options.size.to_string()]);
    if options.fragmentation == Fragmentation::Forbidden {
        command = command.args(["-M", "do"]);
    }
    let output = command.arg(target.into().to_string()).output()?;
    let output_text = String::from_utf8_lossy(&output.stdout);
    parse(&output_text).ok_or_else(|| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        io::Error::new(io::ErrorKind::InvalidData, format!("ping printed: {} {}", output_text.trim(), stderr.trim()))
    })
}

fn parse(output: &str) -> Option<PingReport> {
    let sent = output.lines().find_map(|line| line.split_once(" packets transmitted")?.0.parse().ok())?;
    let replies = output.lines().filter_map(parse_reply).collect();
    let icmp_errors = output.lines().filter(|line| line.starts_with("From ")).map(str::to_owned).collect();
    Some(PingReport { sent, replies, icmp_errors })
}

/// `64 bytes from 203.0.113.10: icmp_seq=1 ttl=61 time=0.236 ms`
fn parse_reply(line: &str) -> Option<Reply> {
    line.split_once(" bytes from ")?;
    let value = |key: &str| line.split_once(key)?.1.split(' ').next();
    Some(Reply { sequence: value("icmp_seq=")?.parse().ok()?, ttl: value("ttl=")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_and_icmp_errors_are_parsed() {
        let output = "PING 203.0.113.10 (203.0.113.10) 56(84) bytes of data.\n\
            64 bytes from 203.0.113.10: icmp_seq=1 ttl=61 time=0.236 ms\n\
            From 10.0.0.1 icmp_seq=2 Destination Net Unreachable\n\
            no answer yet for icmp_seq=3\n\
            \n\
            --- 203.0.113.10 ping statistics ---\n\
            3 packets transmitted, 1 received, +1 errors, 66% packet loss, time 401ms\n";
        let expected = PingReport {
            sent: 3,
            replies: vec![Reply { sequence: 1, ttl: 61 }],
            icmp_errors: vec!["From 10.0.0.1 icmp_seq=2 Destination Net Unreachable".to_owned()],
        };
        assert_eq!(parse(output), Some(expected));
        assert_eq!(parse("ping: connect: Network is unreachable"), None);
    }
}
