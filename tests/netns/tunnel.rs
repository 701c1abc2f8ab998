//! The tunnel: who gets where by it, and its data plane among other implementations.

mod allowed;
mod foreign;
mod hostile;
mod lasting;
mod live;
mod outside;
mod roaming;
mod site;

use bastiond::config::{Environment, parse};
use bastiond::nat::Nat;
use bastiond::site::{PrivateLink, PublicLink, Site};
use bastiond::wireguard::model::{WaysBack, tunnel};
use libtest_mimic::Trial;
use sandbox::namespace::Namespace;

use crate::gateway::{Result, ensure, ensure_eq, text, trial};
use crate::routes::inside;

pub(crate) fn trials() -> Vec<Trial> {
    let rules = trial("the_rules_of_a_tunnel_load_are_kept_and_are_those_of_the_document", rules_load);
    [
        vec![rules],
        foreign::trials(),
        roaming::trials(),
        allowed::trials(),
        live::trials(),
        outside::trials(),
        hostile::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Those that wait for the protocol's own times, which are minutes.
pub(crate) fn patient_trials() -> Vec<Trial> {
    lasting::trials()
}

/// A tunnel with a laptop and an office behind it.
const CONFIG: &str = r#"
[wireguard]
addresses = ["10.100.0.1/24", "fd00:100::1/64"]
full_tunnel = true
[[wireguard.peer]]
public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
allowed_ips = ["10.100.0.2", "fd00:100::2"]
[[wireguard.peer]]
public_key = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
allowed_ips = ["10.100.0.3", "192.168.178.0/24"]
"#;

fn one_network() -> Result<Site> {
    Ok(Site {
        public: Some(PublicLink { interface: "eth0".parse()?, mtu: 1500, addresses: vec!["198.51.100.2".parse()?] }),
        private: vec![PrivateLink {
            interface: "eth1".parse()?,
            mtu: 1450,
            address: "10.0.0.2".parse()?,
            address_present: true,
            aliases: std::collections::BTreeSet::new(),
            network: "10.0.0.0/16".parse()?,
            network_id: None,
            network_name: None,
        }],
        ..Site::default()
    })
}

fn rules_load() -> Result {
    let host = Namespace::create("tunnel-rules")?;
    let memory = tempfile::tempdir()?;
    let config = parse(CONFIG, &Environment::default()).map_err(|problems| format!("{problems:?}"))?;
    let site = one_network()?;
    let tunnel = tunnel(&config, &site, &WaysBack::new());
    let mut nat = Nat::remembered_in(memory.path());
    let loaded = inside(&host, nat.reconcile(&config, &site, tunnel.as_ref()));
    ensure_eq((loaded.changes.len(), loaded.problems), (1, Vec::new()))?;
    let kept = inside(&host, nat.reconcile(&config, &site, tunnel.as_ref()));
    ensure_eq(kept.changes, Vec::new())?;
    let listed = text(&host.command("nft").args(["-s", "list", "table", "inet", "bastiond"]).output()?.stdout);
    let document = include_str!("../../docs/traffic.md");
    for chain in ["from_tunnel", "to_tunnel"] {
        let start =
            listed.find(&format!("\tchain {chain} {{")).ok_or_else(|| format!("no chain {chain} in {listed}"))?;
        let end = listed[start..].find("\n\t}").map_or(listed.len(), |length| start + length);
        ensure(document.contains(&listed[start..end]), format!("not in docs/traffic.md: {}", &listed[start..end]))?;
    }
    // Without a tunnel, by the same room: nothing of it is left.
    let plain = inside(&host, nat.reconcile(&config, &site, None));
    ensure_eq((plain.changes.len(), plain.problems), (1, Vec::new()))?;
    let listed = text(&host.command("nft").args(["-s", "list", "table", "inet", "bastiond"]).output()?.stdout);
    ensure(!listed.contains("tunnel") && !listed.contains("wg0"), listed)
}
