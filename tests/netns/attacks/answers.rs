//! A hostile API and a hostile metadata service.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bastiond::internals::outcome::{ComponentName, Problem, State};
use libtest_mimic::Trial;
use sandbox::world::{Settings, World};

use crate::gateway::{
    FAST, Result, SOON, Server, component, egress, ensure, ensure_eq, healthy, installation, open, table, text, trial,
    wait_for,
};

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("hostile_answers_of_the_api_and_of_the_metadata_change_nothing_and_forge_no_line", hostile)]
}

/// What a terminal would act on, and what would begin a line of its own.
const ESCAPES: &str = "\\u001b[2J\\nhealth healthy\\u202e";

/// The answers, one after the other.
const ANSWERS: [fn(&mut TcpStream) -> std::io::Result<()>; 6] = [nested, endless, slow, escapes, everything, garbage];

fn answer(stream: &mut TcpStream, status: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")?;
    stream.write_all(body)
}

/// Deeper than any parser's stack.
fn nested(stream: &mut TcpStream) -> std::io::Result<()> {
    answer(stream, "200 OK", &vec![b'['; 60_000])
}

/// Larger than the memory.
fn endless(stream: &mut TcpStream) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")?;
    let block = vec![b' '; 65_536];
    // Until the client hangs up, or after a gibibyte.
    (0..16_384).try_for_each(|_| stream.write_all(&block))
}

/// A byte at a time.
fn slow(stream: &mut TcpStream) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
    (0..100).try_for_each(|_| {
        std::thread::sleep(Duration::from_millis(200));
        stream.write_all(b"[")
    })
}

fn escapes(stream: &mut TcpStream) -> std::io::Result<()> {
    let body = format!("{{\"error\":{{\"code\":\"{ESCAPES}\",\"message\":\"{ESCAPES}\"}}}}");
    answer(stream, "403 Forbidden", body.as_bytes())
}

/// Every range of the internet as a private network, on one link.
fn everything(stream: &mut TcpStream) -> std::io::Result<()> {
    let network = |first: u8| {
        format!(
            "- ip: {first}.0.0.2\n  alias_ips: []\n  interface_num: 1\n  mac_address: 86:00:00:2a:00:02\n  \
             network_id: {first}\n  network_name: \"{ESCAPES}\"\n  network: {first}.0.0.0/8\n  \
             subnet: {first}.0.0.0/8\n  gateway: {first}.0.0.1\n"
        )
    };
    let networks: String = (1..=222).map(network).collect();
    answer(stream, "200 OK", networks.as_bytes())
}

fn garbage(stream: &mut TcpStream) -> std::io::Result<()> {
    answer(stream, "200 OK", &[0xff, 0x00, b'\n', 0x1b, b'[', 0xc2])
}

/// Answers every request by the one of [`ANSWERS`] that `chosen` says.
fn serve(listener: TcpListener, chosen: Arc<AtomicUsize>) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let chosen = chosen.load(Ordering::Relaxed);
            std::thread::spawn(move || {
                // The request fits into one segment; Err: the client has gone.
                let _ = stream.read(&mut [0; 4096]);
                let _ = ANSWERS[chosen % ANSWERS.len()](&mut stream);
            });
        }
    });
}

fn hostile() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    installation.write_config(&format!("{FAST}[health]\nenabled = false\n"))?;
    drop(healthy(&installation)?);
    let before = table(&world, "inet bastiond")?;
    let routes = world.cloud().routes(world.private_network_id());
    let listener = world.bastion().listen_tcp((Ipv4Addr::LOCALHOST, 0))?;
    let place = format!("http://{}", listener.local_addr()?);
    let chosen = Arc::<AtomicUsize>::default();
    serve(listener, Arc::clone(&chosen));
    let installation =
        installation.env("HCLOUD_ENDPOINT", &format!("{place}/v1")).env("HCLOUD_METADATA_ENDPOINT", &place);
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    for answer in 0..ANSWERS.len() {
        chosen.store(answer, Ordering::Relaxed);
        installation.ctl(&["reconcile"])?;
        std::thread::sleep(Duration::from_millis(1500));
        let began = Instant::now();
        let status = installation.ctl(&["status"])?;
        ensure(began.elapsed() < SOON, format!("answer {answer}: the status takes {:?}", began.elapsed()))?;
        let (status, log) = (text(&status.stdout), daemon.log());
        let is_printed = |character: char| character == '\n' || !character.is_control() && character != '\u{202e}';
        ensure(status.chars().all(is_printed), format!("answer {answer}: {status:?}"))?;
        ensure(log.chars().all(is_printed), format!("answer {answer}: {log:?}"))?;
        let forged = |text: &str| text.lines().any(|line| line.starts_with("health healthy"));
        ensure(!forged(&status) && !forged(&log), format!("answer {answer}: {status}\n{log}"))?;
        ensure_eq(table(&world, "inet bastiond")?, before.clone())?;
        ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    }
    // It says what is wrong.
    wait_for("both services are reported", Duration::from_secs(30), || {
        let is_silent = |problem: &Problem| problem.code == "metadata-silent";
        let site = component(&installation, ComponentName::Site)?;
        Ok(site.problems.iter().any(is_silent) && component(&installation, ComponentName::Hcloud)?.state != State::Ok)
    })?;
    ensure_eq(world.cloud().routes(world.private_network_id()), routes)?;
    let peak: u64 = daemon.status_field("VmHWM")?.trim_end_matches(" kB").parse()?;
    ensure(peak < 100_000, format!("the daemon took {peak} kB"))
}
