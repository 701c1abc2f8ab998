//! The arguments of `bastionctl peer`.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::{has_ports, protocol_number};

/// A command about peers of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum PeerCommand {
    /// Add a peer, let it in, and print its configuration.
    ///
    /// The peer gets the next free address of the tunnel, and a file of its own in `peers.d`. The configuration is
    /// checked with that file before the file is written. The private key is printed in the client's configuration
    /// and kept nowhere.
    Add(AddPeer),
    /// List the peers.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Print public keys and all addresses too, however long the lines get.
        #[arg(long, conflicts_with = "json")]
        wide: bool,
    },
    /// Show all that is known about a peer.
    Show {
        /// The peer's name, or its public key.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a peer's access away and keep its file.
    Disable {
        /// The peer's name, or its public key.
        name: String,
    },
    /// Let a disabled peer in again.
    Enable {
        /// The peer's name, or its public key.
        name: String,
    },
    /// Remove a peer and its file.
    Remove {
        /// The peer's name, or its public key.
        name: String,
    },
    /// Give a peer another name. Its session goes on.
    Rename {
        /// The peer's name, or its public key.
        name: String,
        /// The new name.
        new_name: String,
    },
    /// Change when a peer's access ends.
    Extend {
        /// The peer's name, or its public key.
        name: String,
        /// From now on, like `30d` or `12h`; or a date like `2027-01-31`, or a time like `2027-01-31T18:00:00Z`; or
        /// `never`.
        #[arg(value_name = "TIME")]
        until: String,
    },
    /// Print a peer's configuration again, without the private key, which is kept nowhere.
    Export {
        /// The peer's name, or its public key.
        name: String,
        /// Send all of the client's traffic through the tunnel.
        #[arg(long)]
        full_tunnel: bool,
        /// Where the configuration goes.
        #[command(flatten)]
        output: ClientOutput,
    },
    /// Give a peer a new key, and print its configuration.
    ///
    /// The old key is out at once: with it goes the peer's session, until the client has the new configuration.
    Rotate {
        /// The peer's name, or its public key.
        name: String,
        /// The client's new public key. Default: a key pair is made, and the private key is printed and kept nowhere.
        #[arg(long, value_name = "KEY")]
        public_key: Option<String>,
        /// Make a new preshared key too. A peer that has one gets a new one in any case.
        #[arg(long)]
        psk: bool,
        /// Send all of the client's traffic through the tunnel.
        #[arg(long)]
        full_tunnel: bool,
        /// Where the configuration goes.
        #[command(flatten)]
        output: ClientOutput,
    },
    /// Add the peers of another WireGuard server: a file of wg-quick, or wg-easy's `wg0.json`.
    ///
    /// A comment above a `[Peer]`, or as its first line, is the peer's name. Nothing is written unless every peer can be
    /// added.
    Import {
        /// The file.
        file: PathBuf,
        /// Print what would be added, and write nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// List the peers that may open flows to a destination, with the lists that allow it.
    ///
    /// The running daemon answers by the configuration that it uses. Disabled and expired peers are not listed.
    WhoCanReach {
        /// An address or a name of `[hosts]`, with a port of TCP or a protocol: `10.0.1.5:5432`, `db:udp/53`, `db:icmp`.
        #[arg(value_parser = Destination::parse)]
        destination: Destination,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print who has access, for an audit.
    Report {
        /// Print comma-separated values (RFC 4180).
        #[arg(long)]
        csv: bool,
    },
}

/// Where a flow leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// An IPv4 address or a name.
    pub place: String,
    /// The protocol's number in the IP header.
    pub protocol: u8,
    /// The port, if the protocol has ports.
    pub port: Option<u16>,
}

impl Destination {
    fn parse(text: &str) -> Result<Self, String> {
        let (place, service) =
            text.split_once(':').ok_or("name a port or a protocol too: `10.0.1.5:5432`, `db:udp/53`, `db:icmp`")?;
        let (protocol, port) = match service.split_once('/') {
            Some((protocol, port)) => (protocol, Some(port)),
            None if service.starts_with(|first: char| first.is_ascii_digit()) => ("tcp", Some(service)),
            None => (service, None),
        };
        let port = port.map(|port| match port.parse() {
            Ok(0) | Err(_) => Err(format!("{port:?} is not a port, 1 to 65535")),
            Ok(port) => Ok(port),
        });
        let protocol = protocol_number(protocol)
            .ok_or_else(|| format!("{protocol:?} is not a protocol like tcp, udp, icmp or gre"))?;
        let port = port.transpose()?;
        if place.is_empty() {
            return Err("the address or name before `:` is missing".to_owned());
        }
        match (has_ports(protocol), port) {
            (true, None) => Err("name the port too: `tcp/5432`".to_owned()),
            (false, Some(_)) => Err("this protocol has no ports".to_owned()),
            _ => Ok(Self { place: place.to_owned(), protocol, port }),
        }
    }
}

/// A peer that is added.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct AddPeer {
    /// A name of letters, digits and `-`, `_`, `.`, `@`, `+`; devices of one person are `alice/phone` and
    /// `alice/laptop`.
    pub name: String,
    /// The client's public key, as `wg pubkey` prints it. Default: a key pair is made.
    #[arg(long, value_name = "KEY")]
    pub public_key: Option<String>,
    /// The client's address in the tunnel. Give it twice for an IPv4 and an IPv6 address. Default: the next free ones.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Vec<IpAddr>,
    /// When the access ends: from now on, like `30d` or `12h`; or a date like `2027-01-31` (its beginning, in UTC), or a
    /// time like `2027-01-31T18:00:00Z`. Default: never.
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// A `[[wireguard.group]]` that the peer belongs to. Repeatable.
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// What the peer may reach, like `10.0.1.0/24:tcp/5432`, `db:tcp/5432` or `bastion:ssh`: an entry of its `reach`.
    /// Repeatable. Without lists it reaches what `wireguard.default_reach` says.
    #[arg(long, value_name = "DESTINATION")]
    pub reach: Vec<String>,
    /// Send all of the client's traffic through the tunnel. Needs `wireguard.full_tunnel = true`.
    #[arg(long)]
    pub full_tunnel: bool,
    /// Make a preshared key, which is kept in the peer's file.
    #[arg(long)]
    pub psk: bool,
    /// Where the configuration goes.
    #[command(flatten)]
    pub output: ClientOutput,
}

/// Where a client's configuration goes, besides the standard output.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ClientOutput {
    /// Draw it as a QR code, for the WireGuard app of a phone.
    #[arg(long)]
    pub qr: bool,
    /// Write the QR code into this picture, which only you can read. An existing file is not replaced.
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Write the configuration into this file, which only you can read, and do not print it. An existing file is not
    /// replaced.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_a_port_or_a_protocol_without_ports() {
        let parsed = |text| Destination::parse(text).map(|to| (to.place, to.protocol, to.port));
        assert_eq!(parsed("10.0.1.5:5432"), Ok(("10.0.1.5".to_owned(), 6, Some(5432))));
        assert_eq!(parsed("db:udp/53"), Ok(("db".to_owned(), 17, Some(53))));
        assert_eq!(parsed("db:icmp"), Ok(("db".to_owned(), 1, None)));
        for wrong in ["10.0.1.5", ":22", "db:tcp", "db:icmp/8", "db:0", "db:99999", "db:udp/dns", "db:htcpcp", "db:"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
