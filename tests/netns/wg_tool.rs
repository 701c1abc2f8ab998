//! Debian's wg(8) at our control socket: its changes arrive, and it understands our answers. The interface behind
//! the socket is a fake that remembers; the isolation's `/run` is its own.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bastiond_tunnel::key::{PresharedKey, PrivateKey, PublicKey};
use bastiond_tunnel::model::{AllowedIp, PeerSnapshot, PeerUpdate, Snapshot, Update};
use bastiond_tunnel::uapi::{DIRECTORY, Interface, Server};
use libtest_mimic::Trial;
use nix::errno::Errno;

use crate::gateway::{Result, ensure, ensure_eq, lone_trial, text, trial};

/// The keys of the example in wg(8).
const OURS: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const FIRST: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const SECOND: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const SHARED: &str = "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak=";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("wg_show_prints_what_the_control_socket_tells", shows),
        trial("wg_showconf_prints_a_configuration", shows_configuration),
        trial("wg_set_changes_what_it_names", sets),
        trial("wg_setconf_replaces_everything", replaces),
        trial("wg_syncconf_removes_only_the_peers_that_are_gone", synchronizes),
        trial("wg_prints_the_reason_of_a_failure", fails),
        lone_trial("wg_shows_ten_thousand_peers", crowd),
    ]
}

/// Answers with one snapshot, records the changes that it gets, and refuses the port 1.
#[derive(Default)]
struct Fake {
    snapshot: Snapshot,
    updates: Mutex<Vec<Update>>,
}

impl Interface for Fake {
    fn set(&self, update: Update) -> std::result::Result<(), Errno> {
        let taken = update.listen_port == Some(1);
        self.updates.lock().unwrap_or_else(PoisonError::into_inner).push(update);
        if taken { Err(Errno::EADDRINUSE) } else { Ok(()) }
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }
}

/// An interface with a control socket where wg looks for it. Its name is the trial's own, since trials run side by
/// side.
struct Tunnel {
    name: &'static str,
    fake: Arc<Fake>,
    _server: Server,
}

impl Tunnel {
    fn start(name: &'static str, snapshot: Snapshot) -> Result<Self> {
        let fake = Arc::new(Fake { snapshot, ..Fake::default() });
        let server = Server::bind(Path::new(DIRECTORY), &name.parse()?, Arc::<Fake>::clone(&fake))?;
        Ok(Self { name, fake, _server: server })
    }

    /// `wg COMMAND INTERFACE ARGUMENTS`
    fn wg(&self, command: &str, arguments: &[&str]) -> Result<Output> {
        Ok(Command::new("wg").arg(command).arg(self.name).args(arguments).output()?)
    }

    /// What wg prints when it succeeds.
    fn printed(&self, command: &str, arguments: &[&str]) -> Result<String> {
        let output = self.wg(command, arguments)?;
        ensure(output.status.success(), format!("wg {command} {arguments:?}: {}", text(&output.stderr)))?;
        Ok(text(&output.stdout))
    }

    fn updates(&self) -> Vec<Update> {
        std::mem::take(&mut *self.fake.updates.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn peer(key: &str) -> Result<PeerSnapshot> {
    Ok(PeerSnapshot {
        public_key: key.parse()?,
        preshared_key: None,
        endpoint: None,
        persistent_keepalive: 0,
        allowed_ips: vec![],
        last_handshake: None,
        rx_bytes: 0,
        tx_bytes: 0,
    })
}

fn every_field() -> Result<Snapshot> {
    Ok(Snapshot {
        private_key: Some(OURS.parse()?),
        listen_port: 51820,
        fwmark: 0xca6c,
        peers: vec![
            PeerSnapshot {
                preshared_key: Some(SHARED.parse()?),
                endpoint: Some("[2607:5300:60:6b0::c05f:543]:2468".parse()?),
                persistent_keepalive: 25,
                allowed_ips: vec!["10.192.122.4/32".parse()?, "2001:db8::/32".parse()?],
                last_handshake: Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
                rx_bytes: u64::MAX,
                tx_bytes: 7,
                ..peer(SECOND)?
            },
            peer(FIRST)?,
        ],
    })
}

fn added(net: &str) -> Result<AllowedIp> {
    Ok(AllowedIp { net: net.parse()?, remove: false })
}

fn shows() -> Result {
    let tunnel = Tunnel::start("wg-shows", every_field()?)?;
    let public = OURS.parse::<PrivateKey>()?.public();
    let dump = format!(
        "{OURS}\t{public}\t51820\t0xca6c\n\
         {SECOND}\t{SHARED}\t[2607:5300:60:6b0::c05f:543]:2468\t10.192.122.4/32,2001:db8::/32\t1700000000\t{}\t7\t25\n\
         {FIRST}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n",
        u64::MAX,
    );
    ensure_eq(tunnel.printed("show", &["dump"])?, dump)?;
    let interfaces = text(&Command::new("wg").args(["show", "interfaces"]).output()?.stdout);
    ensure(interfaces.split_whitespace().any(|name| name == tunnel.name), interfaces)?;
    let empty = Tunnel::start("wg-shows-none", Snapshot::default())?;
    ensure_eq(empty.printed("show", &["dump"])?, "(none)\t(none)\t0\toff\n".to_owned())
}

fn shows_configuration() -> Result {
    let tunnel = Tunnel::start("wg-showconf", every_field()?)?;
    let configuration = format!(
        "[Interface]\nListenPort = 51820\nFwMark = 0xca6c\nPrivateKey = {OURS}\n\n\
         [Peer]\nPublicKey = {SECOND}\nPresharedKey = {SHARED}\nAllowedIPs = 10.192.122.4/32, 2001:db8::/32\n\
         Endpoint = [2607:5300:60:6b0::c05f:543]:2468\nPersistentKeepalive = 25\n\n\
         [Peer]\nPublicKey = {FIRST}\n",
    );
    ensure_eq(tunnel.printed("showconf", &[])?, configuration)
}

fn sets() -> Result {
    let tunnel = Tunnel::start("wg-set", Snapshot::default())?;
    let (ours, shared) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    std::fs::write(&ours, OURS)?;
    std::fs::write(&shared, SHARED)?;
    let [ours, shared] = [&ours, &shared].map(|file| file.path().to_string_lossy().into_owned());
    let mut arguments = vec!["listen-port", "51821", "fwmark", "0x10", "private-key", &ours];
    arguments.extend(["peer", FIRST, "preshared-key", &shared, "endpoint", "[fe80::1%lo]:51820"]);
    arguments.extend(["persistent-keepalive", "25", "allowed-ips", "10.1.2.3/8,2001:db8::1/64"]);
    arguments.extend(["peer", SECOND, "remove"]);
    tunnel.printed("set", &arguments)?;
    let loopback = std::net::SocketAddrV6::new("fe80::1".parse()?, 51820, 0, 1);
    let first = PeerUpdate {
        preshared_key: Some(SHARED.parse::<PresharedKey>()?),
        endpoint: Some(loopback.into()),
        persistent_keepalive: Some(25),
        replace_allowed_ips: true,
        allowed_ips: vec![added("10.0.0.0/8")?, added("2001:db8::/64")?],
        ..PeerUpdate::new(FIRST.parse()?)
    };
    let update = Update {
        private_key: Some(Some(OURS.parse()?)),
        listen_port: Some(51821),
        fwmark: Some(16),
        replace_peers: false,
        peers: vec![first, PeerUpdate { remove: true, ..PeerUpdate::new(SECOND.parse()?) }],
    };
    ensure_eq(tunnel.updates(), vec![update])?;
    tunnel.printed("set", &["private-key", "/dev/null", "fwmark", "off"])?;
    ensure_eq(tunnel.updates(), vec![Update { private_key: Some(None), fwmark: Some(0), ..Update::default() }])
}

fn replaces() -> Result {
    let tunnel = Tunnel::start("wg-setconf", Snapshot::default())?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(&file, format!("[Interface]\nPrivateKey={OURS}\n[Peer]\nPublicKey={FIRST}\nAllowedIPs=10.0.0.1\n"))?;
    tunnel.printed("setconf", &[&file.path().to_string_lossy()])?;
    let peer = PeerUpdate {
        replace_allowed_ips: true,
        allowed_ips: vec![added("10.0.0.1/32")?],
        ..PeerUpdate::new(FIRST.parse()?)
    };
    let update = Update {
        private_key: Some(Some(OURS.parse()?)),
        listen_port: Some(0),
        fwmark: Some(0),
        replace_peers: true,
        peers: vec![peer],
    };
    ensure_eq(tunnel.updates(), vec![update])
}

fn synchronizes() -> Result {
    let tunnel = Tunnel::start("wg-syncconf", every_field()?)?;
    let file = tempfile::NamedTempFile::new()?;
    // Whether a key that is missing here is taken away differs from version to version of wg, so both are here.
    let second = format!("[Peer]\nPublicKey={SECOND}\nPresharedKey={SHARED}\nPersistentKeepalive=off\n");
    std::fs::write(&file, format!("[Interface]\nPrivateKey={OURS}\n{second}"))?;
    tunnel.printed("syncconf", &[&file.path().to_string_lossy()])?;
    let second = PeerUpdate {
        preshared_key: Some(SHARED.parse()?),
        persistent_keepalive: Some(0),
        replace_allowed_ips: true,
        ..PeerUpdate::new(SECOND.parse()?)
    };
    let update = Update {
        private_key: Some(Some(OURS.parse()?)),
        listen_port: Some(0),
        fwmark: Some(0),
        replace_peers: false,
        peers: vec![PeerUpdate { remove: true, ..PeerUpdate::new(FIRST.parse()?) }, second],
    };
    ensure_eq(tunnel.updates(), vec![update])
}

fn fails() -> Result {
    let tunnel = Tunnel::start("wg-fails", Snapshot::default())?;
    let output = tunnel.wg("set", &["listen-port", "1"])?;
    ensure_eq(
        (output.status.code(), text(&output.stderr)),
        (Some(1), "Unable to modify interface: Address already in use\n".to_owned()),
    )
}

fn crowd() -> Result {
    let mut snapshot = every_field()?;
    for number in 0..10_000_u32 {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        snapshot.peers.push(PeerSnapshot {
            public_key: PublicKey(key),
            allowed_ips: vec![address.into()],
            ..peer(FIRST)?
        });
    }
    let tunnel = Tunnel::start("wg-crowd", snapshot)?;
    let printed = tunnel.printed("show", &["allowed-ips"])?;
    ensure_eq(printed.lines().count(), 10_002)?;
    let last = PublicKey({
        let mut key = [7; 32];
        key[..4].copy_from_slice(&9_999_u32.to_be_bytes());
        key
    });
    ensure(printed.contains(&format!("{last}\t10.0.39.15/32\n")), "the last peer is missing")
}
