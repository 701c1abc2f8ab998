//! `Table = off`: somebody else routes, such as a routing daemon.

use std::net::SocketAddr;

use libtest_mimic::Trial;
use sandbox::traffic::{self, Reflector};
use sandbox::world::addresses as at;

use super::{ADA, Client, OFFICE_HOST, seen, serving, world};
use crate::gateway::{FAST, Result, SOON, ensure, ensure_eq, installation, our_routes, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("table_off_adds_no_route_here_or_in_the_cloud_and_masquerades_no_range_behind_a_peer", table_off)]
}

fn table_off() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let dns = Reflector::udp(world.web(), (at::WEB, 53))?;
    let ada = Client::start(world.laptop(), "wi-off-ada", ADA)?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("wi-off.conf");
    let key = bastiond_tunnel::key::PrivateKey::generate();
    std::fs::write(
        &file,
        format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51820\nAddress = 10.100.0.1/24\nTable = off\n[Peer]\n\
             PublicKey = {}\nAllowedIPs = {ADA}/32, 192.168.0.0/16, 172.20.0.0/14\n",
            key.to_base64().as_str(),
            ada.public_key()
        ),
    )?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[wireguard]\nfile = \"{}\"\n", file.display()))?;
    let (_daemon, bastion) = serving(&installation)?;
    ada.meets(bastion, "10.100.0.0/24,10.0.0.0/16")?;
    // People are masqueraded, because the cloud has no route to them.
    ensure_eq(seen(world.laptop(), &web), Ok(at::BASTION_PRIVATE.into()))?;
    ensure_eq(our_routes(&world)?, String::new())?;
    let destinations = || -> Vec<String> {
        world.cloud().routes(world.private_network_id()).iter().map(|route| route.destination.to_string()).collect()
    };
    ensure_eq(destinations(), vec!["0.0.0.0/0".to_owned()])?;
    // Somebody else's routes, here and in the cloud: the site keeps its addresses.
    world.bastion().ip("route add 192.168.0.0/16 dev wi-off proto bird")?;
    world.put_route("192.168.0.0/16".parse()?, at::BASTION_PRIVATE);
    world.laptop().ip(&format!("addr add {OFFICE_HOST}/32 dev lo"))?;
    let from = SocketAddr::from((OFFICE_HOST, 0));
    let office_seen = || traffic::udp_probe_from(world.laptop(), from, dns.address(), SOON).map(|seen| seen.ip());
    wait_for("the site's own address is seen", SOON, || Ok(office_seen() == Ok(OFFICE_HOST.into())))?;
    // The daemon leaves them alone.
    installation.ctl(&["reconcile"])?;
    ensure(world.bastion().ip("route show proto bird")?.contains("192.168.0.0/16"), "the route is gone")?;
    ensure(destinations().contains(&"192.168.0.0/16".to_owned()), "the cloud's route is gone")
}
