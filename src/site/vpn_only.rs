//! A server whose purpose is the tunnel alone: nobody needs its NAT, so nothing is wrong without a public IPv4 address.

use super::model::Site;
use crate::config::Config;

/// What is wrong only for a NAT gateway.
const OF_NAT: [&str; 2] = ["no-public-address", "no-default-route"];
/// What is wrong only for a server that has private networks.
const OF_NETWORKS: &str = "no-private-network";

/// Makes hints of the problems that do not matter to a server with this configuration.
pub(super) fn settle(config: &Config, site: &mut Site) {
    let Some(tunnel) = &config.wireguard else { return };
    let lets_out = |allow: &Option<Vec<_>>| allow.as_ref().is_none_or(|allow| !allow.is_empty());
    let lists = config.networks.iter().map(|network| &network.lists).chain([&config.egress.lists]);
    let is_nat_off = !lists.into_iter().any(|lists| lets_out(&lists.allow));
    // A network that has no interface yet needs NAT once it has one.
    let has_networks = !site.private.is_empty() || !site.problems.iter().any(|problem| problem.code == OF_NETWORKS);
    site.needs_no_nat = !tunnel.full_tunnel && (is_nat_off || !has_networks);
    let needs_no_nat = site.needs_no_nat;
    let is_hint = |code: &str| code == OF_NETWORKS || (needs_no_nat && OF_NAT.contains(&code));
    let (hints, problems) = std::mem::take(&mut site.problems).into_iter().partition(|it| is_hint(&it.code));
    site.problems = problems;
    site.hints.extend::<Vec<_>>(hints);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};
    use crate::outcome::Problem;
    use crate::site::PrivateLink;

    fn settled(text: &str, codes: &[&'static str], has_network: bool) -> (Vec<String>, Vec<String>, bool) {
        let link = PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16");
        let problems = codes.iter().map(|code| Problem::new(code, "", "")).collect();
        let mut site = Site { private: has_network.then_some(link).into_iter().collect(), problems, ..Site::default() };
        settle(&parse(text, &Environment::default()).unwrap(), &mut site);
        let codes = |problems: &[Problem]| problems.iter().map(|problem| problem.code.to_string()).collect();
        (codes(&site.problems), codes(&site.hints), site.needs_no_nat)
    }

    #[test]
    fn without_anybody_who_needs_nat_a_server_without_ipv4_may_be_healthy() {
        let none = ["no-private-network", "no-public-address"];
        let texts = |codes: &[&str]| codes.iter().map(|&code| code.to_owned()).collect::<Vec<_>>();
        let (tunnel, off) = ("[wireguard]", "[egress]\nallow = []\n[wireguard]");
        assert_eq!(settled("", &none, false), (texts(&none), vec![], false), "no tunnel: it is a gateway to be");
        assert_eq!(settled(tunnel, &none, false), (vec![], texts(&none), true));
        assert_eq!(settled(off, &none[1..], true), (vec![], texts(&none[1..]), true));
        assert_eq!(settled(tunnel, &none[1..], true), (texts(&none[1..]), vec![], false), "its hosts need NAT");
        let full = "[wireguard]\nfull_tunnel = true";
        assert_eq!(settled(full, &none, false), (texts(&none[1..]), texts(&none[..1]), false), "its peers need NAT");
        let other = ["link-without-address"];
        assert_eq!(settled(off, &other, true), (texts(&other), vec![], true));
    }
}
