//! What can be broken at a virtual gateway, each part alone.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Gateway, PRIVATE_MTU, table};
use crate::cloud::ServerId;
use crate::namespace;

impl Gateway {
    /// Routes a destination otherwise than the cloud says: to the server with this address, or nowhere.
    pub(in super::super) fn override_route(&self, destination: Ipv4Net, gateway: Option<Ipv4Addr>) {
        let mut state = self.state();
        state.overridden.insert(destination, gateway);
        self.apply_latest(&mut state);
    }

    /// Routes a destination as the cloud says again.
    pub(in super::super) fn follow_cloud_again(&self, destination: Ipv4Net) {
        let mut state = self.state();
        state.overridden.remove(&destination);
        self.apply_latest(&mut state);
    }

    /// Takes the carrier from the link to a server.
    pub(in super::super) fn unplug(&self, server: ServerId) -> Result<(), namespace::Error> {
        let mut state = self.state();
        state.unplugged.insert(server);
        self.apply_latest(&mut state);
        self.namespace.ip(&format!("link set {} down", table::interface(server)))?;
        Ok(())
    }

    /// Gives the link to a server its carrier again, with its neighbour and its routes.
    pub(in super::super) fn plug_in(&self, server: ServerId) -> Result<(), namespace::Error> {
        let mut state = self.state();
        self.namespace.ip(&format!("link set {} up", table::interface(server)))?;
        state.unplugged.remove(&server);
        self.apply_latest(&mut state);
        Ok(())
    }

    /// Loses every packet from and to a server, while the link looks well.
    pub(in super::super) fn lose_packets(&self, server: ServerId) -> Result<(), namespace::Error> {
        let port = table::interface(server);
        self.namespace.nft(&format!(
            "table inet silent_{port} {{
                 chain in {{
                     type filter hook prerouting priority -400; policy accept;
                     iifname \"{port}\" drop
                 }}
                 chain out {{
                     type filter hook postrouting priority 400; policy accept;
                     oifname \"{port}\" drop
                 }}
             }}"
        ))?;
        Ok(())
    }

    /// The end of [`Gateway::lose_packets`].
    pub(in super::super) fn carry_packets(&self, server: ServerId) -> Result<(), namespace::Error> {
        self.namespace.nft(&format!("delete table inet silent_{}", table::interface(server)))?;
        Ok(())
    }

    /// Carries packets up to `mtu` bytes and loses longer ones, without a word to their senders.
    pub(in super::super) fn shrink(&self, mtu: u32) -> Result<(), namespace::Error> {
        self.set_mtu(mtu)?;
        self.namespace.nft(
            "table inet black_hole {
                 chain out {
                     type filter hook output priority 0; policy accept;
                     icmp type destination-unreachable icmp code frag-needed drop
                 }
             }",
        )?;
        Ok(())
    }

    /// The end of [`Gateway::shrink`].
    pub(in super::super) fn widen(&self) -> Result<(), namespace::Error> {
        self.set_mtu(PRIVATE_MTU)?;
        self.namespace.nft("delete table inet black_hole")?;
        Ok(())
    }

    fn set_mtu(&self, mtu: u32) -> Result<(), namespace::Error> {
        let connected = self.state().connected.clone();
        let lines: Vec<String> =
            connected.iter().map(|server| format!("link set {} mtu {mtu}", table::interface(*server))).collect();
        self.namespace.ip(&lines.join("\n"))?;
        Ok(())
    }
}
