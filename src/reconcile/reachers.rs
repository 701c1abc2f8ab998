//! Which peers reach something, as the configuration that runs says it.

use std::net::Ipv4Addr;

use super::Gateway;
use crate::config::Config;
use crate::inputs::{Reacher, Target, tunnel, who_can_reach};

impl Gateway {
    /// The peers that may open flows to this address or name of `[hosts]`.
    ///
    /// # Errors
    /// The reason, for the operator: there is no such name, it stands for more than one address, or there is no tunnel.
    pub(crate) fn who_can_reach(
        &self,
        config: &Config,
        place: &str,
        protocol: u8,
        port: Option<u16>,
    ) -> Result<Vec<Reacher>, String> {
        let address = address_of(config, place)?;
        let tunnel = tunnel(config, &self.site, &self.seen_return_routes).ok_or("there is no tunnel")?;
        Ok(who_can_reach(config, &self.site, &tunnel, Target { address, protocol, port }))
    }
}

/// The address that an address or a name stands for.
fn address_of(config: &Config, place: &str) -> Result<Ipv4Addr, String> {
    if let Ok(address) = place.parse() {
        return Ok(address);
    }
    let Some(ranges) = config.hosts.get(place) else {
        return Err(format!("{place:?} is neither an IPv4 address nor a name of [hosts]"));
    };
    match ranges.as_slice() {
        [host] if host.prefix_len() == 32 => Ok(host.addr()),
        _ => Err(format!("{place} of [hosts] is more than one address; ask for one of them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};

    #[test]
    fn a_place_is_an_address_or_the_name_of_one() {
        let config = parse("[hosts]\ndb = \"10.0.1.5\"\nweb = \"10.0.2.0/24\"", &Environment::default()).unwrap();
        assert_eq!(address_of(&config, "10.9.9.9"), Ok(Ipv4Addr::new(10, 9, 9, 9)));
        assert_eq!(address_of(&config, "db"), Ok(Ipv4Addr::new(10, 0, 1, 5)));
        assert!(address_of(&config, "web").unwrap_err().contains("more than one address"));
        assert!(address_of(&config, "dbs").unwrap_err().contains("neither"));
    }
}
