//! `bastiond-tunnel` as Debian's wg(8) and wg-quick(8) use it: started, configured, asked, stopped.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use bastiond_tunnel::endpoint::EndpointName;
use bastiond_tunnel::file::{self, File};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Ping};
use tempfile::TempDir;

use crate::gateway::{Result, SOON, ensure, ensure_eq, text, trial, wait_for};
use crate::tunnel_program;

/// The example in wg(8).
const EXAMPLE: &str = include_str!("../data/wireguard/wg-example.conf");
const KEYS: [(&str, &str); 2] = [
    // RFC 7748 §6.1: private and public keys of Alice and Bob.
    ("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="),
    ("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=", "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("wg_quick_creates_and_removes_a_tunnel_that_survives_wg_syncconf", wg_quick),
        trial("wg_showconf_prints_the_example_of_wg_unchanged", example),
        trial("wg_changes_a_running_tunnel", changes),
        trial("a_background_tunnel_leaves_the_session_of_its_caller", background),
        trial("a_tunnel_ends_on_a_signal_or_without_its_interface_or_socket", ends),
        trial("an_error_while_creating_a_tunnel_is_reported", refused),
        trial("a_tunnel_uses_inherited_descriptors", handed_over),
        trial("an_unreachable_address_inside_is_answered_from_the_interfaces_own_address", unreachable),
        trial("sixteen_silent_clients_do_not_keep_wg_show_waiting", silent_clients),
        trial("a_dead_peer_of_a_tunnel_alone_has_one_line_in_the_log", dead_peer),
    ]
}

/// A namespace with one tunnel. Names are the trial's own: all tunnels' sockets lie in one directory.
struct Place {
    namespace: Namespace,
    tunnel: &'static str,
    files: TempDir,
}

impl Place {
    fn create(tunnel: &'static str) -> Result<Self> {
        Ok(Self { namespace: Namespace::create(tunnel)?, tunnel, files: tempfile::tempdir()? })
    }

    /// `bastiond-tunnel TUNNEL ARGUMENTS`
    fn program(&self) -> sandbox::namespace::Command<'_> {
        self.namespace.command(&tunnel_program::path().to_string_lossy()).arg(self.tunnel)
    }

    /// Starts a tunnel in the background.
    fn start(&self) -> Result {
        let output = self.program().output()?;
        ensure(output.status.success(), text(&output.stderr))
    }

    /// Starts a tunnel in the foreground, and waits until it runs.
    fn start_in_front(&self) -> Result<Child> {
        let child = self.program().arg("--foreground").env("LOG_LEVEL", "info").stderr(Stdio::piped()).spawn()?;
        wait_for("the tunnel runs", SOON, || Ok(self.wg(&["show", self.tunnel])?.status.success()))?;
        Ok(child)
    }

    fn wg(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.namespace.command("wg").args(arguments).output()?)
    }

    /// What wg prints when it succeeds.
    fn printed(&self, arguments: &[&str]) -> Result<String> {
        let output = self.wg(arguments)?;
        ensure(output.status.success(), format!("wg {arguments:?}: {}", text(&output.stderr)))?;
        Ok(text(&output.stdout))
    }

    fn write(&self, name: &str, content: &str) -> Result<String> {
        let path = self.files.path().join(name);
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn socket(&self) -> PathBuf {
        Path::new("/run/wireguard").join(format!("{}.sock", self.tunnel))
    }

    fn has_interface(&self) -> Result<bool> {
        Ok(self.namespace.links()?.contains_key(self.tunnel))
    }

    /// Waits until nothing of the tunnel is left.
    fn ended(&self) -> Result {
        wait_for("the interface and its socket are gone", SOON, || {
            Ok(!self.has_interface()? && !self.socket().exists())
        })?;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A tunnel in the background of a failed trial. Err: there is none.
        let _ = self.namespace.ip(&format!("link del {}", self.tunnel));
    }
}

/// Debian's wg-quick, made to believe that the kernel has no WireGuard, where it does: its copy finds an `ip` beside it
/// that refuses to make such an interface.
fn wg_quick_without_kernel(place: &Place) -> Result<String> {
    let script = std::fs::read_to_string("/usr/bin/wg-quick")?;
    place.write("ip", "#!/bin/sh\ncase \"$*\" in *'type wireguard') exit 2;; esac\nexec /bin/ip \"$@\"\n")?;
    place.write("wg-quick", &script.replace("/sys/module/wireguard", "/nowhere"))
}

fn wg_quick() -> Result {
    let places = [Place::create("alone-q0")?, Place::create("alone-q1")?];
    places[0].namespace.ip("link add under0 type veth peer name under1\nlink set under1 netns alone-q1")?;
    for (number, place) in places.iter().enumerate() {
        let under = format!("under{number}");
        place.namespace.ip(&format!("addr add 192.0.2.{}/24 dev {under}\nlink set {under} up", number + 1))?;
        let (ours, theirs) = (KEYS[number].0, KEYS[1 - number].1);
        let configuration = format!(
            "[Interface]\nPrivateKey = {ours}\nListenPort = 51820\nAddress = 10.9.0.{}/24, fd09::{0}/64\n\
             [Peer]\nPublicKey = {theirs}\nAllowedIPs = 10.9.0.{}/32, fd09::{1}/128, 10.10.0.0/16\n\
         Endpoint = 192.0.2.{1}:51820\n",
            number + 1,
            2 - number,
        );
        let path = place.write(&format!("{}.conf", place.tunnel), &configuration)?;
        let up = place.namespace.command(&wg_quick_without_kernel(place)?).args(["up", &path]);
        let output = up.env("WG_QUICK_USERSPACE_IMPLEMENTATION", tunnel_program::path()).output()?;
        ensure(output.status.success(), text(&output.stderr))?;
        let shown = place.printed(&["show", place.tunnel, "allowed-ips"])?;
        ensure_eq(shown, format!("{theirs}\t10.9.0.{0}/32 10.10.0.0/16 fd09::{0}/128\n", 2 - number))?;
        let link = place.namespace.links()?.remove(place.tunnel).ok_or("no interface")?;
        ensure_eq((link.mtu, link.up), (1420, true))?;
    }
    let ping = Ping { timeout: SOON, ..Ping::default() };
    let answered = traffic::ping(&places[0].namespace, [10, 9, 0, 2], ping)?;
    ensure(!answered.replies.is_empty(), "nothing passes through the tunnel")?;
    let handshakes = places[1].printed(&["show", places[1].tunnel, "latest-handshakes"])?;
    ensure(!handshakes.trim_end().ends_with("\t0"), format!("no handshake: {handshakes}"))?;

    // The same again changes nothing: the session lives on, and its counters.
    let (place, path) = (&places[1], places[1].files.path().join(format!("{}.conf", places[1].tunnel)));
    let stripped = place.namespace.command(&wg_quick_without_kernel(place)?).arg("strip").arg(path).output()?;
    let path = place.write("stripped.conf", &text(&stripped.stdout))?;
    let shown = |what| place.printed(&["show", place.tunnel, what]);
    let before = (shown("latest-handshakes")?, shown("transfer")?, shown("allowed-ips")?);
    place.printed(&["syncconf", place.tunnel, &path])?;
    ensure_eq((shown("latest-handshakes")?, shown("transfer")?, shown("allowed-ips")?), before)?;
    let answered = traffic::ping(&places[0].namespace, [10, 9, 0, 2], ping)?;
    ensure(!answered.replies.is_empty(), "nothing passes through the tunnel after wg syncconf")?;
    ensure_eq(shown("latest-handshakes")?, handshakes)?;

    for place in &places {
        let path = place.files.path().join(format!("{}.conf", place.tunnel));
        let output = place.namespace.command(&wg_quick_without_kernel(place)?).arg("down").arg(path).output()?;
        ensure(output.status.success(), text(&output.stderr))?;
        place.ended()?;
    }
    Ok(())
}

/// The example with an address instead of the name, because there is no DNS here.
fn resolved_example() -> String {
    EXAMPLE.replace("test.wireguard.com", "192.0.2.9")
}

fn parsed(text: &str) -> Result<File> {
    // The example has a range with host bits, which wg prints without them.
    let parsed = file::parse(text.as_bytes()).map(|file| File { warnings: Vec::new(), ..file });
    parsed.map_err(|problems| format!("{problems:?}").into())
}

fn example() -> Result {
    let place = Place::create("alone-ex")?;
    place.start()?;
    let path = place.write("example.conf", &resolved_example())?;
    place.printed(&["setconf", place.tunnel, &path])?;
    let mut expected = parsed(EXAMPLE)?;
    expected.peers[2].endpoint = Some(EndpointName::Address("192.0.2.9:18981".parse()?));
    ensure_eq(parsed(&place.printed(&["showconf", place.tunnel])?)?, expected)
}

fn changes() -> Result {
    let place = Place::create("alone-ch")?;
    place.start()?;
    let path = place.write("example.conf", &resolved_example())?;
    place.printed(&["setconf", place.tunnel, &path])?;
    let state = |place: &Place| parsed(&place.printed(&["showconf", place.tunnel])?);
    let mut expected = state(&place)?;
    let [first, second, third] = [0, 1, 2].map(|index: usize| expected.peers[index].public_key.to_string());

    let secret = place.write("secret", KEYS[0].0)?;
    let mut arguments = vec!["set", place.tunnel, "listen-port", "51999", "fwmark", "0x7"];
    arguments.extend(["peer", &first, "remove", "peer", &second, "preshared-key", &secret, "endpoint", "192.0.2.8:5"]);
    // What one peer gets, another loses.
    arguments.extend(["persistent-keepalive", "25", "allowed-ips", "10.10.10.230/32,2001:db8::/32"]);
    place.printed(&arguments)?;
    expected.listen_port = Some(51999);
    expected.fwmark = Some(7);
    expected.peers.remove(0);
    expected.peers[0].preshared_key = Some(KEYS[0].0.parse()?);
    expected.peers[0].endpoint = Some("192.0.2.8:5".parse()?);
    expected.peers[0].persistent_keepalive = Some(25);
    expected.peers[0].allowed_ips = vec!["10.10.10.230/32".parse()?, "2001:db8::/32".parse()?];
    expected.peers[1].allowed_ips = vec![];
    ensure_eq(state(&place)?, expected)?;

    let synchronized = format!("[Interface]\nPrivateKey={}\nListenPort=51820\n[Peer]\nPublicKey={third}\n", KEYS[1].0);
    let path = place.write("synchronized.conf", &synchronized)?;
    place.printed(&["syncconf", place.tunnel, &path])?;
    ensure_eq(place.printed(&["show", place.tunnel, "peers"])?, format!("{third}\n"))?;
    ensure_eq(place.printed(&["show", place.tunnel, "listen-port"])?, "51820\n".to_owned())?;
    ensure_eq(place.printed(&["show", place.tunnel, "public-key"])?, format!("{}\n", KEYS[1].1))?;

    // A peer with the interface's own key is passed over, and a key of zeroes takes the interface's away.
    place.printed(&["set", place.tunnel, "peer", KEYS[1].1, "allowed-ips", "10.0.0.0/8"])?;
    ensure_eq(place.printed(&["show", place.tunnel, "peers"])?, format!("{third}\n"))?;
    place.printed(&["set", place.tunnel, "private-key", "/dev/null"])?;
    ensure_eq(place.printed(&["show", place.tunnel, "private-key"])?, "(none)\n".to_owned())?;

    let held = place.namespace.bind_udp(([0, 0, 0, 0], 51777))?;
    let output = place.wg(&["set", place.tunnel, "listen-port", "51777"])?;
    ensure_eq(text(&output.stderr), "Unable to modify interface: Address already in use\n".to_owned())?;
    drop(held);
    ensure_eq(place.printed(&["show", place.tunnel, "listen-port"])?, "51820\n".to_owned())
}

fn background() -> Result {
    let place = Place::create("alone-bg")?;
    place.start()?;
    let pid = pid_of(place.tunnel)?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // proc(5): after the name in parentheses come state, parent, process group and session.
    let fields: Vec<_> = status.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    ensure_eq((fields[2].parse::<i32>()?, fields[3].parse::<i32>()?), (pid, pid))?;
    for descriptor in 0..=2 {
        ensure_eq(std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}"))?, "/dev/null".into())?;
    }
    ensure_eq(std::fs::read_link(format!("/proc/{pid}/cwd"))?, "/".into())?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    place.ended()
}

/// The process whose last argument is the tunnel.
fn pid_of(tunnel: &str) -> Result<i32> {
    for process in std::fs::read_dir("/proc")? {
        let process = process?;
        let Ok(pid) = process.file_name().to_string_lossy().parse() else { continue };
        // Err: it has ended meanwhile.
        let arguments = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if arguments.contains("bastiond-tunnel") && arguments.trim_end_matches('\0').ends_with(tunnel) {
            return Ok(pid);
        }
    }
    Err(format!("no process serves {tunnel}").into())
}

/// An operation on a tunnel.
type End = dyn Fn(&Place, &Child) -> Result;

fn ends() -> Result {
    let place = Place::create("alone-en")?;
    let signal = |signal| move |_: &Place, child: &Child| Ok(kill(Pid::from_raw(i32::try_from(child.id())?), signal)?);
    let cases: [(&str, Box<End>); 5] = [
        ("SIGTERM", Box::new(signal(Signal::SIGTERM))),
        ("SIGINT", Box::new(signal(Signal::SIGINT))),
        ("SIGHUP", Box::new(signal(Signal::SIGHUP))),
        ("the interface is gone", Box::new(|place, _| Ok(place.namespace.ip("link del alone-en").map(drop)?))),
        ("its control socket was removed", Box::new(|place, _| Ok(std::fs::remove_file(place.socket())?))),
    ];
    for (reason, end) in cases {
        let child = place.start_in_front()?;
        end(&place, &child)?;
        place.ended()?;
        let output = child.wait_with_output()?;
        ensure_eq(output.status.code(), Some(0))?;
        let log = text(&output.stderr);
        ensure(log.contains(&format!("alone-en ends: {reason}")), log)?;
    }
    Ok(())
}

fn refused() -> Result {
    let place = Place::create("alone-re")?;
    place.start()?;
    let twice = place.program().output()?;
    let message = "bastiond-tunnel: no interface (another process holds this interface: stop it, or choose another \
                   name): cannot make the TUN interface alone-re: Device or resource busy (os error 16)\n";
    ensure_eq((twice.status.code(), text(&twice.stderr)), (Some(1), message.to_owned()))?;
    ensure(place.wg(&["show", place.tunnel])?.status.success(), "the first one does not run any more")?;

    std::fs::create_dir_all("/run/wireguard")?;
    let taken = Place::create("alone-re2")?;
    std::fs::write(taken.socket(), "")?;
    let output = taken.program().output()?;
    let message = "bastiond-tunnel: /var/run/wireguard/alone-re2.sock is in the way: it is no socket\n";
    ensure_eq((output.status.code(), text(&output.stderr)), (Some(1), message.to_owned()))?;
    ensure(!taken.has_interface()?, "the interface was left behind")?;
    std::fs::remove_file(taken.socket())?;

    let output = taken.program().env("WG_TUN_FD", "9").output()?;
    let message = "bastiond-tunnel: WG_TUN_FD names a descriptor that is not open: Bad file descriptor (os error 9)\n";
    ensure_eq((output.status.code(), text(&output.stderr)), (Some(1), message.to_owned()))
}

fn handed_over() -> Result {
    let place = Place::create("alone-fd")?;
    // A shell opens the descriptors for the program. A TUN node without an interface is reported.
    let script =
        format!("exec 7<>/dev/net/tun; WG_TUN_FD=7 exec {} {}", tunnel_program::path().display(), place.tunnel);
    let output = place.namespace.command("sh").args(["-c", &script]).output()?;
    ensure_eq(output.status.code(), Some(1))?;
    ensure(
        text(&output.stderr).contains("the descriptor handed over for alone-fd is no TUN interface"),
        text(&output.stderr),
    )?;

    // What is no control socket, and what is no TUN interface: an error with what it has to be, and nothing stays.
    let wrong = |setting: &str, python: &str, expected: &str| -> Result {
        let python = format!(
            "import os, socket, sys\n{python}\nos.set_inheritable(fd, True)\n\
             os.environ['{setting}'] = str(fd)\nos.execv(sys.argv[1], sys.argv[1:])\n"
        );
        let command = place.namespace.command("timeout").args(["10", "python3", "-c", &python]);
        let output = command.arg(tunnel_program::path()).args([place.tunnel, "--foreground"]).output()?;
        ensure_eq((output.status.code(), text(&output.stderr)), (Some(1), format!("bastiond-tunnel: {expected}\n")))?;
        ensure(!place.has_interface()?, "the interface was left behind")
    };
    let listening = "; it has to be a listening Unix socket (or unset: then one is made)";
    for (python, found) in [
        ("fd = os.open('/dev/null', os.O_RDWR)", "no socket"),
        ("fd = os.open('/tmp', os.O_RDONLY)", "no socket"),
        ("s = socket.socket(socket.AF_UNIX); fd = s.fileno()", "a socket that does not listen"),
        ("s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); fd = s.fileno()", "a socket of another family"),
    ] {
        wrong("WG_UAPI_FD", python, &format!("WG_UAPI_FD names {found}{listening}"))?;
    }
    let tun = "WG_TUN_FD has to name the queues of a TUN interface with the tunnel's name (or be unset: then one is \
               made): the descriptor handed over for alone-fd is no TUN interface";
    for (python, reason) in [
        ("fd = os.open('/dev/null', os.O_RDWR)", "Inappropriate ioctl for device (os error 25)"),
        ("fd = os.open('/tmp', os.O_RDONLY)", "Inappropriate ioctl for device (os error 25)"),
        ("s = socket.socket(socket.AF_UNIX); fd = s.fileno()", "Inappropriate ioctl for device (os error 25)"),
    ] {
        wrong("WG_TUN_FD", python, &format!("{tun} ({reason})"))?;
    }

    let python = "import fcntl, os, socket, struct, sys\n\
                  tun = os.open('/dev/net/tun', os.O_RDWR)\n\
                  fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'alone-fd', 0x0001 | 0x1000))\n\
                  control = socket.socket(socket.AF_UNIX)\n\
                  os.makedirs('/run/wireguard', exist_ok=True)\n\
                  control.bind('/run/wireguard/alone-fd.sock')\n\
                  control.listen()\n\
                  os.set_inheritable(tun, True)\n\
                  control.set_inheritable(True)\n\
                  os.environ.update(WG_TUN_FD=str(tun), WG_UAPI_FD=str(control.fileno()))\n\
                  os.execv(sys.argv[1], sys.argv[1:])\n";
    let command = place.namespace.command("python3").args(["-c", python]).arg(tunnel_program::path());
    let output = command.arg(place.tunnel).output()?;
    ensure(output.status.success(), text(&output.stderr))?;
    ensure_eq(place.printed(&["show", place.tunnel, "peers"])?, String::new())?;
    place.namespace.ip("link del alone-fd")?;
    place.ended()
}

fn silent_clients() -> Result {
    let place = Place::create("alone-si")?;
    place.start()?;
    let connect = || std::os::unix::net::UnixStream::connect(place.socket());
    let clients: Vec<_> = (0..16).map(|_| connect()).collect::<std::io::Result<_>>()?;
    let asked = std::time::Instant::now();
    ensure_eq(place.printed(&["show", place.tunnel, "peers"])?, String::new())?;
    ensure(asked.elapsed() < std::time::Duration::from_secs(3), format!("{:?}", asked.elapsed()))?;
    drop(clients);
    place.namespace.ip("link del alone-si")?;
    place.ended()
}

/// A far side that is not there: one line, with the peer's key.
fn dead_peer() -> Result {
    let place = Place::create("alone-de")?;
    let child = place.start_in_front()?;
    let key = place.write("key", KEYS[0].0)?;
    let peer = KEYS[1].1;
    let arguments = ["set", place.tunnel, "private-key", &key, "peer", peer, "endpoint", "192.0.2.1:9"];
    place.printed(&[&arguments[..], &["persistent-keepalive", "1"]].concat())?;
    std::thread::sleep(std::time::Duration::from_secs(35));
    place.namespace.ip("link del alone-de")?;
    let log = text(&child.wait_with_output()?.stderr);
    ensure_eq(log.matches(&format!("alone-de: peer {peer} (192.0.2.1:9) does not answer")).count(), 1)?;
    ensure(log.lines().count() < 6, log)
}

/// A ping to an address of nobody, and one to a peer without an endpoint.
fn unreachable() -> Result {
    let place = Place::create("alone-un")?;
    place.start()?;
    place
        .namespace
        .ip("addr add 10.9.0.1/24 dev alone-un\naddr add fd09::1/64 dev alone-un nodad\nlink set alone-un up")?;
    let key = place.write("key", KEYS[0].0)?;
    let peer = ["peer", KEYS[1].1, "allowed-ips", "10.9.0.2/32,fd09::2/128"];
    place.printed(&[&["set", place.tunnel, "private-key", &key][..], &peer].concat())?;
    for (target, own) in [
        ("10.9.0.99", "From 10.9.0.1 icmp_seq=1 Destination Host Unreachable"),
        ("10.9.0.2", "From 10.9.0.1 icmp_seq=1 Destination Host Unreachable"),
        ("fd09::99", "From fd09::1 icmp_seq=1 Destination unreachable: Address unreachable"),
        ("fd09::2", "From fd09::1 icmp_seq=1 Destination unreachable: Address unreachable"),
    ] {
        let output = place.namespace.command("ping").args(["-n", "-c", "1", "-W", "2", target]).output()?;
        ensure(text(&output.stdout).contains(own), text(&output.stdout))?;
    }
    place.namespace.ip("link del alone-un")?;
    place.ended()
}
