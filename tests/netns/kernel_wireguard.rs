//! The kernel's own WireGuard, on whatever kernel this is: with one, it is configured and `wg` shows the same; without,
//! that is said clearly. Which of the two it has to be is asked of iproute2.

use std::future::Future;

use bastiond::ComponentError as _;
use bastiond::internals::config::BackendChoice;
use bastiond::internals::net::InterfaceName;
use bastiond::internals::wireguard::BackendKind;
use bastiond::internals::wireguard::kernel::{self, Error, Made};
use bastiond_tunnel::key::PresharedKey;
use bastiond_tunnel::model::{AllowedIp, PeerUpdate, Snapshot, Update};
use libtest_mimic::Trial;
use sandbox::namespace::Namespace;

use crate::gateway::{Result, ensure, ensure_eq, text, trial};

/// The keys of the example in wg(8).
const OURS: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const FIRST: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const SECOND: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const THIRD: &str = "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=";
const SHARED: &str = "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak=";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_kernel_without_wireguard_says_so_and_one_with_it_takes_a_configuration", configures),
        trial("a_link_of_another_kind_is_neither_taken_nor_removed", spares_strangers),
    ]
}

/// Runs in the namespace, whose sockets the kernel's back end opens.
fn inside<T: Send>(namespace: &Namespace, task: impl Future<Output = T> + Send) -> Result<T> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(namespace.run(|| Ok::<_, std::io::Error>(runtime()?.block_on(task)))?)
}

/// Whether `ip link add` can make one.
fn kernel_has_wireguard(namespace: &Namespace) -> Result<bool> {
    let made = namespace.command("ip").args(["link", "add", "probe", "type", "wireguard"]).output()?;
    if made.status.success() {
        namespace.ip("link del probe")?;
    } else {
        let said = text(&made.stderr);
        ensure(said.contains("Unknown device type") || said.contains("not supported"), said)?;
    }
    Ok(made.status.success())
}

fn configures() -> Result {
    let namespace = Namespace::create("kernel-wg")?;
    let expected = kernel_has_wireguard(&namespace)?;
    let available = inside(&namespace, kernel::is_available())??;
    ensure_eq(available, expected)?;
    if available { takes_a_configuration(&namespace) } else { says_so(&namespace) }
}

fn says_so(namespace: &Namespace) -> Result {
    let wg0: InterfaceName = "wg0".parse()?;
    let failures = inside(namespace, async {
        [
            kernel::make(&wg0).await.map(drop),
            kernel::set(&wg0, Update::default()).await,
            kernel::snapshot(&wg0).await.map(drop),
            kernel::choose(BackendChoice::Kernel, false).map(drop),
        ]
    })?;
    for failure in failures {
        let Err(error) = failure else { return Err("it worked without WireGuard in the kernel".into()) };
        ensure(matches!(error, Error::Unavailable), format!("{error:?}"))?;
        ensure_eq(error.to_string(), "this kernel has no WireGuard".to_owned())?;
        ensure(error.advice().contains("wireguard.backend = \"userspace\""), error.advice())?;
    }
    ensure_eq(inside(namespace, kernel::remove(&wg0))??, false)?;
    ensure_eq(kernel::choose(BackendChoice::Auto, false)?, BackendKind::Userspace)
}

fn peer(key: &str, allowed_ips: &[&str], endpoint: &str) -> Result<PeerUpdate> {
    let add = |net: &&str| Ok::<_, ipnet::AddrParseError>(AllowedIp { net: net.parse()?, remove: false });
    Ok(PeerUpdate {
        endpoint: Some(endpoint.parse()?),
        replace_allowed_ips: true,
        allowed_ips: allowed_ips.iter().map(add).collect::<std::result::Result<_, _>>()?,
        ..PeerUpdate::new(key.parse()?)
    })
}

/// The three peers of the example in wg(8).
fn example() -> Result<Update> {
    Ok(Update {
        private_key: Some(Some(OURS.parse()?)),
        listen_port: Some(51820),
        fwmark: Some(0xca6c),
        replace_peers: true,
        peers: vec![
            peer(FIRST, &["10.192.122.3/32", "10.192.124.0/24"], "192.95.5.67:1234")?,
            PeerUpdate {
                preshared_key: Some(SHARED.parse::<PresharedKey>()?),
                persistent_keepalive: Some(25),
                ..peer(SECOND, &["10.192.122.4/32", "192.168.0.0/16"], "[2607:5300:60:6b0::c05f:543]:2468")?
            },
            peer(THIRD, &["10.10.10.230/32", "2001:db8::/32"], "192.0.2.1:18981")?,
        ],
    })
}

fn takes_a_configuration(namespace: &Namespace) -> Result {
    let wg0: InterfaceName = "wg0".parse()?;
    let wg = |command: &str| -> Result<String> {
        let output = namespace.command("wg").args([command, "wg0"]).output()?;
        ensure(output.status.success(), text(&output.stderr))?;
        Ok(text(&output.stdout))
    };
    ensure_eq(kernel::choose(BackendChoice::Kernel, true)?, BackendKind::Kernel)?;
    ensure_eq(inside(namespace, kernel::make(&wg0))??, Made::New)?;
    inside(namespace, kernel::set(&wg0, example()?))??;
    ensure_eq(inside(namespace, kernel::make(&wg0))??, Made::Found)?;
    let configuration = |second: &str| {
        format!(
            "[Interface]\nListenPort = 51820\nFwMark = 0xca6c\nPrivateKey = {OURS}\n\n\
             [Peer]\nPublicKey = {FIRST}\nAllowedIPs = 10.192.122.3/32, 10.192.124.0/24\n\
             Endpoint = 192.95.5.67:1234\n\n\
             [Peer]\nPublicKey = {SECOND}\nPresharedKey = {SHARED}\nAllowedIPs = {second}\n\
             Endpoint = [2607:5300:60:6b0::c05f:543]:2468\nPersistentKeepalive = 25\n\n\
             [Peer]\nPublicKey = {THIRD}\nAllowedIPs = 10.10.10.230/32, 2001:db8::/32\nEndpoint = 192.0.2.1:18981\n",
        )
    };
    ensure_eq(wg("showconf")?, configuration("10.192.122.4/32, 192.168.0.0/16"))?;
    ensure_eq(inside(namespace, kernel::snapshot(&wg0))??, in_words(&example()?))?;
    // A single allowed-ip goes, by whichever way this kernel knows.
    let net = "192.168.0.0/16".parse()?;
    let removal = PeerUpdate { allowed_ips: vec![AllowedIp { net, remove: true }], ..PeerUpdate::new(SECOND.parse()?) };
    inside(namespace, kernel::set(&wg0, Update { peers: vec![removal], ..Update::default() }))??;
    ensure_eq(wg("showconf")?, configuration("10.192.122.4/32"))?;
    // The same configuration again changes nothing but that.
    inside(namespace, kernel::set(&wg0, example()?))??;
    ensure_eq(inside(namespace, kernel::snapshot(&wg0))??, in_words(&example()?))?;
    crowd(namespace, &wg0)?;
    ensure_eq(inside(namespace, kernel::remove(&wg0))??, true)?;
    let gone = inside(namespace, kernel::snapshot(&wg0))?;
    ensure(matches!(gone, Err(Error::Absent { .. })), format!("{gone:?}"))
}

/// Many messages in both directions: 200 peers, of which one has 5000 prefixes.
fn crowd(namespace: &Namespace, wg0: &InterfaceName) -> Result {
    let mut peers = Vec::new();
    for number in 1..=200_u16 {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        let nets = if number == 100 { 0..5000 } else { 0..1 };
        let net = |low: u32| ipnet::Ipv4Net::new((u32::from(number) << 16 | low).into(), 32);
        let allowed_ips = nets.map(|low| Ok(AllowedIp { net: net(low)?.into(), remove: false }));
        let allowed_ips = allowed_ips.collect::<std::result::Result<_, ipnet::PrefixLenError>>()?;
        let key = bastiond_tunnel::key::PublicKey(key);
        peers.push(PeerUpdate { replace_allowed_ips: true, allowed_ips, ..PeerUpdate::new(key) });
    }
    let update = Update { replace_peers: true, peers, ..example()? };
    inside(namespace, kernel::set(wg0, update.clone()))??;
    let found = inside(namespace, kernel::snapshot(wg0))??;
    ensure(found == in_words(&update), format!("{} peers do not come back as they were set", found.peers.len()))
}

/// What an interface is after this, which says everything.
fn in_words(update: &Update) -> Snapshot {
    let peers = update.peers.iter().map(|peer| {
        let mut allowed_ips: Vec<_> = peer.allowed_ips.iter().map(|allowed_ip| allowed_ip.net).collect();
        allowed_ips.sort_unstable();
        bastiond_tunnel::model::PeerSnapshot {
            public_key: peer.public_key,
            preshared_key: peer.preshared_key.clone(),
            endpoint: peer.endpoint,
            persistent_keepalive: peer.persistent_keepalive.unwrap_or(0),
            allowed_ips,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    });
    Snapshot {
        private_key: update.private_key.clone().flatten(),
        listen_port: update.listen_port.unwrap_or(0),
        fwmark: update.fwmark.unwrap_or(0),
        peers: peers.collect(),
    }
}

fn spares_strangers() -> Result {
    let namespace = Namespace::create("kernel-wg-other")?;
    namespace.ip("link add wg0 type veth peer name wg1")?;
    let wg0: InterfaceName = "wg0".parse()?;
    let made = inside(&namespace, kernel::make(&wg0))?.map(drop);
    let removed = inside(&namespace, kernel::remove(&wg0))?.map(drop);
    for outcome in [made, removed] {
        let Err(error) = outcome else { return Err("a foreign link was taken for ours".into()) };
        let expected = "wg0 is there, but no WireGuard interface of the kernel's: its kind is veth";
        ensure_eq(error.to_string(), expected.to_owned())?;
    }
    ensure(namespace.ip("link show wg0")?.contains("wg0"), "the foreign link is gone")
}
