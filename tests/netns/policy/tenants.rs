//! Several private networks behind one bastion: they reach each other only as `[tenants]` allows.

use libtest_mimic::Trial;
use sandbox::traffic::{self, HeldConnection, Reflector};
use sandbox::world::{Settings, World, addresses as at};

use super::Attempt::{Tcp, Udp};
use super::{counted, gateway, pings, reload, silent, tcp, udp};
use crate::gateway::{NEVER, Result, SOON, Server, egress, ensure, ensure_eq, open, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("tenants_do_not_reach_each_other_and_all_reach_the_internet", apart),
        trial("an_entry_lets_one_tenant_reach_one_port_of_another_in_one_direction", one_way),
        trial("an_entry_without_a_protocol_allows_every_protocol_between_tenants", every_protocol),
    ]
}

/// Listeners at both ends: TCP 5432 and 5433, UDP 5432.
fn services(world: &World) -> Result<Vec<Reflector>> {
    let mut reflectors = Vec::new();
    for (host, address) in [(world.web(), at::WEB), (world.tenant(), at::TENANT)] {
        for port in [5432, 5433] {
            reflectors.push(Reflector::tcp(host, (address, port))?);
        }
        reflectors.push(Reflector::udp(host, (address, 5432))?);
    }
    Ok(reflectors)
}

fn apart() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let services = services(&world)?;
    let (_installation, _daemon) = gateway(&world, "")?;
    let before = counted(&world, "dropped_tenant")?;
    silent([
        Tcp(world.web(), (at::TENANT, 5432)),
        Udp(world.web(), (at::TENANT, 5432)),
        Tcp(world.tenant(), (at::WEB, 5432)),
    ])?;
    ensure(!pings(world.tenant(), at::WORKER, NEVER)?, "a ping crosses between tenants")?;
    ensure(counted(&world, "dropped_tenant")? >= before + 4, "dropped packets are not counted")?;
    ensure(services.iter().all(|service| service.seen().is_empty()), "a service was reached")?;
    for host in [world.web(), world.tenant()] {
        ensure_eq(egress(host, &server, SOON)?, open())?;
    }
    Ok(())
}

fn one_way() -> Result {
    let world = World::start(Settings::default())?;
    let _services = services(&world)?;
    let section =
        "[tenants]\nallow = [{ from = [\"10.0.0.0/24\"], to = [\"10.2.0.0/16\"], protocol = \"tcp\", ports = [5432] }]";
    let (installation, mut daemon) = gateway(&world, section)?;
    // No address is translated, so the service sees the client's.
    ensure_eq(tcp(world.web(), (at::TENANT, 5432)), Ok(at::WEB.into()))?;
    ensure(counted(&world, "tenant_flows")? >= 1, "the flow is not counted")?;
    silent([Tcp(world.web(), (at::TENANT, 5433)), Udp(world.web(), (at::TENANT, 5432))])?;
    ensure(!pings(world.web(), at::TENANT, NEVER)?, "a ping crosses between tenants")?;
    // Other sources of the network and the other direction are closed.
    silent([Tcp(world.worker(), (at::TENANT, 5432)), Tcp(world.tenant(), (at::WEB, 5432))])?;
    let mut held = HeldConnection::open(world.web(), (at::TENANT, 5432), SOON)?;
    held.exchange(SOON)?;
    reload(&installation, &mut daemon, "")?;
    silent([Tcp(world.web(), (at::TENANT, 5432))])
}

fn every_protocol() -> Result {
    let world = World::start(Settings::default())?;
    let _services = services(&world)?;
    let lines = "[tenants]\nallow = [
        { from = [\"10.2.0.0/16\"], to = [\"10.0.0.0/16\"] },
        { from = [\"10.2.0.4\"], to = [\"10.0.0.4\"], protocol = \"tcp\", ports = [5433] },
    ]";
    let (_installation, _daemon) = gateway(&world, lines)?;
    ensure_eq(tcp(world.tenant(), (at::WEB, 5432)), Ok(at::TENANT.into()))?;
    ensure_eq(tcp(world.tenant(), (at::WEB, 5433)), Ok(at::TENANT.into()))?;
    ensure_eq(udp(world.tenant(), (at::WEB, 5432)), Ok(at::TENANT.into()))?;
    ensure(pings(world.tenant(), at::WORKER, SOON)?, "the ping is not answered")?;
    // ICMP errors come back too.
    ensure_eq(traffic::udp_probe(world.tenant(), (at::WEB, 9), SOON), Err(traffic::ProbeFailure::Refused))?;
    silent([Tcp(world.web(), (at::TENANT, 5432))])?;
    ensure(!pings(world.worker(), at::TENANT, NEVER)?, "a ping crosses in the other direction")
}
