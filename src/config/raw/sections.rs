//! The sections of the file, and the type of each key.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::shape::{
    Entry, FastpathChoice, JournalGroupOrOff, LimitOrNone, NameOrNumber, NumberOrAuto, NumbersOrOff, PortAutoOrClosed,
    PortOrRange, PortsOrAuto, Section, Shape, SwitchOrAuto, TextOrTexts, TextsOrAuto, Timestamp,
};

/// The key of a field: the field's name, unless that is a reserved word in Rust.
macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

/// A section: its keys, and the names of unknown keys in it. serde's derive would do for a plain struct, but copies
/// every value twice, which takes noticeable time with ten thousand blocks.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident $(= $key:literal)?: $shape:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(in crate::config) struct $name {
            $(pub $field: Entry<$shape>,)+
            pub unknown: Vec<String>,
        }

        impl Section for $name {
            fn from_table(table: DeTable<'_>) -> Self {
                let mut section = Self::default();
                for (key, value) in table {
                    match &**key.get_ref() {
                        $(name if name == key!($field $($key)?) => section.$field = Entry::from(value.into_inner()),)+
                        other => section.unknown.push(other.to_owned()),
                    }
                }
                section
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

            fn from_value(value: DeValue<'_>) -> Result<Self, DeValue<'_>> {
                Vec::from_value(value).map(Self)
            }
        }
    };
}

section! {
    RawConfig {
        log: RawLog,
        site: RawSite,
        nat: RawNat,
        egress: RawEgress,
        network: RawNetworks,
        tenants: RawTenants,
        firewall: RawFirewall,
        hcloud: RawHcloud,
        health: RawHealth,
        wireguard: RawWireguard,
        hosts: RawHosts,
    }
}

/// `[hosts]`: its keys are names that the operator chooses.
#[derive(Debug, Default)]
pub(in crate::config) struct RawHosts(pub Vec<(String, Entry<TextOrTexts>)>);

impl Section for RawHosts {
    fn from_table(table: DeTable<'_>) -> Self {
        let entry = |(key, value): (Spanned<Cow<'_, str>>, Spanned<DeValue<'_>>)| {
            (key.into_inner().into_owned(), Entry::from(value.into_inner()))
        };
        Self(table.into_iter().map(entry).collect())
    }
}

section! {
    RawHealth {
        enabled: bool,
        targets: Vec<Entry<String>>,
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
        docker: SwitchOrAuto,
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
        also: Vec<Entry<String>>,
    }
}

section! {
    RawNat {
        random_ports: bool,
        egress_addresses: TextsOrAuto,
        drain: Vec<Entry<String>>,
        fastpath: FastpathChoice,
        forward: RawForwards,
        statics = "static": RawStatics,
    }
}

blocks!(RawForwards of RawForward, "nat.forward");

section! {
    RawForward {
        name: String,
        public: TextsOrAuto,
        protocol: NameOrNumber,
        port: PortOrRange,
        to: String,
        to_port: i64,
        from: Vec<Entry<String>>,
        snat: bool,
    }
}

blocks!(RawStatics of RawStatic, "nat.static");

section! {
    RawStatic {
        name: String,
        public: String,
        private: String,
        open: Vec<Entry<RawAcl>>,
    }
}

section! {
    /// An entry of any access list. Not every list accepts every key.
    RawAcl {
        from: Vec<Entry<String>>,
        to: Vec<Entry<String>>,
        protocol: NameOrNumber,
        ports: Vec<Entry<PortOrRange>>,
    }
}

section! {
    RawEgress {
        guard: bool,
        smtp: bool,
        new_flows_per_second: LimitOrNone,
        max_flows: LimitOrNone,
        network_new_flows_per_second: LimitOrNone,
        allow: Vec<Entry<RawAcl>>,
        deny: Vec<Entry<RawAcl>>,
    }
}

blocks!(RawNetworks of RawNetwork, "network");

section! {
    RawNetwork {
        name: String,
        range: String,
        interface: String,
        also: Vec<Entry<String>>,
        egress_addresses: TextsOrAuto,
        egress: RawNetworkEgresses,
        smtp: bool,
        allow: Vec<Entry<RawAcl>>,
        deny: Vec<Entry<RawAcl>>,
    }
}

blocks!(RawNetworkEgresses of RawNetworkEgress, "network.egress");

section! {
    RawNetworkEgress {
        from: Vec<Entry<String>>,
        addresses: TextsOrAuto,
    }
}

section! {
    RawTenants {
        allow: Vec<Entry<RawAcl>>,
    }
}

section! {
    RawFirewall {
        ssh_ports: PortsOrAuto,
        ssh_from: Vec<Entry<String>>,
        wireguard_port: PortAutoOrClosed,
        ssh_only_by_tunnel: bool,
        ssh_attempts: LimitOrNone,
        ssh_ban: String,
        pings_per_second: LimitOrNone,
        syns_per_second: LimitOrNone,
        new_flows_per_second: LimitOrNone,
        max_flows: LimitOrNone,
        fair_share: bool,
        blocklist: Vec<Entry<String>>,
        log_drops: JournalGroupOrOff,
        metadata_users: NumbersOrOff,
        service: RawServices,
    }
}

blocks!(RawServices of RawService, "firewall.service");

section! {
    RawService {
        name: String,
        protocol: NameOrNumber,
        ports: Vec<Entry<PortOrRange>>,
        from: Vec<Entry<String>>,
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
        routes: bool,
        snat: SwitchOrAuto,
        endpoint: String,
        dns: Vec<Entry<String>>,
        file: String,
        default_reach: Vec<Entry<String>>,
        group: RawGroups,
        peer: RawPeers,
    }
}

blocks!(RawGroups of RawGroup, "wireguard.group");

section! {
    RawGroup {
        name: String,
        reach: Vec<Entry<String>>,
        deny: Vec<Entry<String>>,
        from: Vec<Entry<String>>,
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
        in_private_network: bool,
        endpoint: String,
        persistent_keepalive: i64,
        enabled: bool,
        expires: Timestamp,
        groups: Vec<Entry<String>>,
        reach: Vec<Entry<String>>,
        deny: Vec<Entry<String>>,
        from: Vec<Entry<String>>,
    }
}
