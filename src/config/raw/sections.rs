//! The sections of the file, each key with its shape.

use toml::{Table, Value};

use super::shape::{Entry, NumberOrAuto, PortAutoOrClosed, PortsOrAuto, Section, Shape, SwitchOrAuto};

/// A section: its keys, and whatever else stands in it. Keys are taken from the table one by one: serde's `flatten`, which
/// would also collect the rest, copies every value twice, which shows with ten thousand blocks.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $shape:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(in crate::config) struct $name {
            $(pub $field: Entry<$shape>,)+
            pub unknown: Table,
        }

        impl Section for $name {
            fn of_table(mut table: Table) -> Self {
                Self {
                    $($field: table.remove(stringify!($field)).map_or(Entry::Absent, Entry::from),)+
                    unknown: table,
                }
            }
        }
    };
}

/// Blocks in double brackets.
macro_rules! blocks {
    ($name:ident of $block:ident, $key:literal) => {
        #[derive(Debug)]
        pub(in crate::config) struct $name(pub Vec<Entry<$block>>);

        impl Shape for $name {
            const EXPECTED: &'static str = concat!("[[", $key, "]] blocks, in double brackets");

            fn of(value: Value) -> Result<Self, Value> {
                Vec::of(value).map(Self)
            }
        }
    };
}

section! {
    RawConfig {
        log: RawLog,
        site: RawSite,
        nat: RawNat,
        firewall: RawFirewall,
        hcloud: RawHcloud,
        wireguard: RawWireguard,
    }
}

section! {
    RawLog {
        level: String,
    }
}

section! {
    RawSite {
        public_interface: String,
        server_id: NumberOrAuto,
        metadata_endpoint: String,
        private: RawPrivateLinks,
    }
}

blocks!(RawPrivateLinks of RawPrivateLink, "site.private");

section! {
    RawPrivateLink {
        interface: String,
        network: String,
        address: String,
        network_id: i64,
    }
}

section! {
    RawNat {
        random_ports: bool,
    }
}

section! {
    RawFirewall {
        ssh_ports: PortsOrAuto,
        ssh_from: Vec<Entry<String>>,
        wireguard_port: PortAutoOrClosed,
    }
}

section! {
    RawHcloud {
        enabled: bool,
        endpoint: String,
        token_file: String,
        destinations: Vec<Entry<String>>,
        take_over: bool,
        poll_interval: String,
    }
}

section! {
    RawWireguard {
        enabled: bool,
        interface: String,
        listen_port: i64,
        private_key_file: String,
        addresses: Vec<Entry<String>>,
        mtu: NumberOrAuto,
        fwmark: i64,
        backend: String,
        full_tunnel: bool,
        snat: SwitchOrAuto,
        file: String,
        peer: RawPeers,
    }
}

blocks!(RawPeers of RawPeer, "wireguard.peer");

section! {
    /// A peer: a block of the file, or a file of `peers.d`.
    RawPeer {
        name: String,
        public_key: String,
        preshared_key: String,
        preshared_key_file: String,
        allowed_ips: Vec<Entry<String>>,
        endpoint: String,
        persistent_keepalive: i64,
    }
}
