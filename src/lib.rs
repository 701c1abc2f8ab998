//! NAT gateway, firewall and way in for private Hetzner Cloud networks.
