//! Interfaces of this server that the gateway does not serve although something sends packets through it by them.

use super::Gateway;
use crate::config::{Config, DockerBridges};
use crate::nat;
use crate::outcome::Problem;
use crate::site::{Site, is_docker_bridge};

impl Gateway {
    /// Takes over by which interfaces packets come in or would leave that no rule lets pass.
    pub(crate) fn learn_refused_interfaces(&mut self, names: Vec<String>) {
        self.refused_interfaces = names;
    }
}

/// A hint for each of these interfaces that is not served: nothing new from there or to there is forwarded. Bridges are
/// named by the site already.
pub(super) fn hints(names: &[String], config: &Config, site: &Site) -> Vec<Problem> {
    let Some(public) = site.public.as_ref().filter(|_| !site.private.is_empty()) else { return Vec::new() };
    let is_served = |name: &str| {
        name == "lo"
            || nat::is_probe_interface(name)
            || public.interface.as_str() == name
            || site.private.iter().any(|link| link.interface.as_str() == name)
            || config.wireguard.as_ref().is_some_and(|tunnel| tunnel.interface.as_str() == name)
    };
    let is_named = |name: &str| {
        let mut known = site.hints.iter().chain(&site.conflicts).filter(|problem| problem.code == "bridge-not-served");
        let beginning = format!("{name} (");
        known.any(|problem| problem.what.starts_with(&beginning))
    };
    let is_ignored = |name: &str| config.site.docker == DockerBridges::Ignore && is_docker_bridge(name);
    let unserved = names.iter().filter(|name| !is_served(name) && !is_named(name) && !is_ignored(name));
    unserved.map(|name| hint(name)).collect()
}

fn hint(name: &str) -> Problem {
    Problem::new(
        "interface-not-served",
        format!("{name} is not served: what comes in by it for other hosts, or would leave by it, is dropped"),
        format!(
            "if its hosts are to use this gateway, and it has an address with its network, write the two lines \
             [[network]] and interface = \"{name}\" into the configuration; a WireGuard tunnel is better taken over \
             by [wireguard]; else route its hosts' packets elsewhere"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};
    use crate::site::{PrivateLink, PublicLink};

    fn site() -> Site {
        let private = PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16");
        let public = PublicLink::example("eth0", &[]);
        Site { public: Some(public), private: vec![private], ..Site::default() }
    }

    fn named(names: &[&str], text: &str, site: &Site) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let found = hints(&names, &parse(text, &Environment::default()).unwrap(), site);
        found.iter().map(|hint| hint.what.split(' ').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn only_interfaces_that_are_not_served_and_not_named_otherwise_are_named() {
        let all = ["docker0", "eth0", "eth1", "lo", "probe-0a000000", "virbr0", "wg0", "wg1"];
        let tunnel = "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n";
        assert_eq!(named(&all, tunnel, &site()), ["docker0", "virbr0", "wg1"]);
        assert_eq!(named(&all, "[site]\ndocker = false\n", &site()), ["virbr0", "wg0", "wg1"]);
        let bridge = Problem::new("bridge-not-served", "virbr0 (172.17.0.0/16) has guests and is not served", "");
        assert_eq!(named(&["virbr0", "vir"], "", &Site { hints: vec![bridge], ..site() }), ["vir"]);
        // A gateway that is closed for another reason serves nobody.
        assert_eq!(named(&["wg1"], "", &Site { public: None, ..site() }), Vec::<String>::new());
    }
}
