//! The metadata service holds the server's user data: only root and the daemon may use it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Packet, Sniffer};
use sandbox::world::{Settings, UPSTREAM_METADATA, World, addresses as at};

use crate::gateway::{NEVER, Result, ensure, ensure_eq, text, trial};
use crate::policy::{counted, gateway, reload};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("user_data_is_for_root_and_for_named_users", users),
        trial("user_data_is_out_of_reach_of_other_users_by_any_link_and_protocol", links_and_protocols),
        trial("user_data_is_out_of_reach_of_guests_of_bridges", guests),
    ]
}

const ROOT: u32 = 0;
const NOBODY: u32 = 65_534;
const AGENT: u32 = 998;

/// A program of a user of the bastion.
fn run_as(world: &World, user: u32, script: &str) -> Result<(bool, String)> {
    let id = user.to_string();
    let command = world.bastion().command("setpriv");
    let command = command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", "bash", "-c", script]);
    let output = command.output()?;
    // Where only one user is mapped, as without root, there is no other user to attack.
    ensure(
        !text(&output.stderr).contains("setresuid failed"),
        "this machine maps no second user: run the test as root",
    )?;
    Ok((output.status.success(), text(&output.stdout) + &text(&output.stderr)))
}

/// What a user gets of the service: the answer, or how the connection failed.
fn asks(world: &World, user: u32) -> Result<std::result::Result<String, String>> {
    let script = "exec 3<>/dev/tcp/169.254.169.254/80 || exit
                  printf 'GET /hetzner/v1/metadata/instance-id HTTP/1.0\\r\\n\\r\\n' >&3; timeout 5 cat <&3";
    let (is_ok, said) = run_as(world, user, script)?;
    let body = said.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
    Ok(match body {
        Some(body) if is_ok => Ok(body),
        _ => Err(said),
    })
}

fn users() -> Result {
    let world = World::start(Settings::default())?;
    ensure(asks(&world, NOBODY)?.is_ok(), "without rules nobody gets no answer: the test proves nothing")?;
    let (installation, mut daemon) = gateway(&world, "")?;
    let number = asks(&world, ROOT)?.map_err(|error| format!("root gets no answer: {error}"))?;
    ensure_eq(number.parse::<u64>().is_ok(), true)?;
    ensure_eq(counted(&world, "dropped_metadata")?, 0)?;
    let begin = Instant::now();
    let refused = asks(&world, NOBODY)?;
    ensure(refused.as_ref().is_err_and(|error| error.contains("refused")), format!("nobody gets {refused:?}"))?;
    ensure(begin.elapsed() < Duration::from_secs(3), "the refusal is not noticed at once")?;
    ensure_eq(asks(&world, AGENT)?.is_ok(), false)?;
    ensure_eq(counted(&world, "dropped_metadata")?, 2)?;
    reload(&installation, &mut daemon, "[firewall]\nmetadata_users = [998]\n")?;
    ensure_eq([ROOT, AGENT, NOBODY].map(|user| asks(&world, user).is_ok_and(|got| got.is_ok())), [true, true, false])?;
    reload(&installation, &mut daemon, "[firewall]\nmetadata_users = []\n[egress]\nguard = false\n")?;
    ensure_eq([ROOT, AGENT, NOBODY].map(|user| asks(&world, user).is_ok_and(|got| got.is_ok())), [true, false, false])?;
    reload(&installation, &mut daemon, "[firewall]\nmetadata_users = false\n")?;
    ensure_eq([ROOT, AGENT, NOBODY].map(|user| asks(&world, user).is_ok_and(|got| got.is_ok())), [true, true, true])
}

fn links_and_protocols() -> Result {
    let world = World::start(Settings::default())?;
    let (_installation, daemon) = gateway(&world, "")?;
    // The rules stay without a daemon, and it does not ask in between.
    drop(daemon);
    // As on a real server, where it is one hop behind the public interface.
    world.bastion().ip(&format!("addr del {}/32 dev lo", at::METADATA))?;
    let upstream = UPSTREAM_METADATA.trim().to_owned();
    ensure_eq(asks(&world, ROOT)?, Ok(upstream))?;
    for link in ["eth0", "eth1"] {
        let left = sent_to_metadata(&world, link)?;
        let before = counted(&world, "dropped_metadata")?;
        ensure_eq(asks(&world, NOBODY)?.is_ok(), false)?;
        run_as(&world, NOBODY, "echo stolen > /dev/udp/169.254.169.254/80")?;
        ensure(counted(&world, "dropped_metadata")? >= before + 2, "the packets are not counted")?;
        ensure_eq((link, left.stop().len()), (link, 0))?;
    }
    Ok(())
}

/// The packets to the metadata service that leave by a link, which leads there from now on.
fn sent_to_metadata(world: &World, link: &str) -> Result<Sniffer> {
    if link == "eth1" {
        // The network's gateway leads to it too: DHCP of the private links says so.
        world.bastion().ip(&format!("route add {} via 10.0.0.1 dev eth1", at::METADATA))?;
    }
    let is_to_metadata = |packet: &Packet| packet.ip().is_some_and(|ip| ip.destination == at::METADATA);
    Ok(Sniffer::start(world.bastion(), link, is_to_metadata)?)
}

/// A bridge of the bastion with a guest, who has a way out and may reach every tenant.
fn guests() -> Result {
    let world = World::start(Settings::default())?;
    let guest = Namespace::create("at-guest")?;
    world.bastion().ip(&format!(
        "link add virbr0 type bridge\naddr add 172.17.0.1/16 dev virbr0\nlink set virbr0 up
         link add vguest type veth peer name eth0 netns {}\nlink set vguest master virbr0 up",
        guest.name()
    ))?;
    guest.ip("link set lo up\nlink set eth0 up\naddr add 172.17.0.2/16 dev eth0\nroute add default via 172.17.0.1")?;
    let sections = "[[network]]\ninterface = \"virbr0\"\n[egress]\nguard = false\n
                    [tenants]\nallow = [{ from = [\"172.17.0.0/16\"], to = [\"0.0.0.0/0\"] }]\n";
    let (_installation, daemon) = gateway(&world, sections)?;
    drop(daemon);
    let reached = |to: Ipv4Addr| traffic::tcp_connects(&guest, (to, 80), NEVER);
    world.bastion().ip(&format!("addr del {}/32 dev lo", at::METADATA))?;
    for link in ["eth0", "eth1"] {
        let left = sent_to_metadata(&world, link)?;
        let before = counted(&world, "dropped_unroutable")?;
        ensure(reached(at::METADATA).is_err(), "a guest reaches the metadata service")?;
        ensure(
            counted(&world, "dropped_unroutable")? > before,
            format!("the guest's packet for {link} is not counted"),
        )?;
        ensure_eq((link, left.stop().len()), (link, 0))?;
    }
    Ok(())
}
