//! The UDP port of the tunnel, which connection tracking does not see.

use std::ops::RangeInclusive;

use crate::config::Config;

/// The first port that source NAT gives to flows.
const FIRST: u16 = 1024;

/// The tunnel's UDP port, if packets to it and from it are not tracked: an attacker could fill the connection table
/// with them. `None`: there is no tunnel, or nobody may begin a flow to it, so answers are known by their flows.
pub(crate) fn untracked_port(config: &Config) -> Option<u16> {
    let port = config.wireguard.as_ref()?.listen_port;
    config.firewall.wireguard_port.filter(|open| *open == port)
}

/// The UDP source ports that translated flows may have beside the tunnel: an answer to its port would be taken for one
/// of the tunnel's packets. The wider part, of ports from 1024 on.
pub(crate) fn source_ports_beside(tunnel: u16) -> RangeInclusive<u16> {
    let (below, above) = (FIRST..=tunnel.saturating_sub(1), tunnel.saturating_add(1).max(FIRST)..=u16::MAX);
    if below.len() >= above.len() { below } else { above }
}

#[cfg(test)]
mod tests {
    use super::source_ports_beside;

    #[test]
    fn translated_flows_have_the_wider_part_beside_the_tunnel() {
        assert_eq!(source_ports_beside(51820), 1024..=51819);
        assert_eq!(source_ports_beside(2000), 2001..=65535);
        assert_eq!(source_ports_beside(443), 1024..=65535);
        assert_eq!(source_ports_beside(1024), 1025..=65535);
        assert_eq!(source_ports_beside(u16::MAX), 1024..=65534);
    }
}
