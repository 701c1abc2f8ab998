//! The peers, for people, as JSON and as comma-separated values. Pure.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use serde::Serialize;

use crate::config::{Peer, Wireguard};
use crate::printable::printable;
use crate::wireguard::status::TunnelReport;
use bastiond_tunnel::key::PublicKey;

/// The columns of a usual terminal.
const WIDTH: usize = 80;
/// A session without a handshake for so long has ended (`REJECT_AFTER_TIME` of WireGuard's paper, section 6.1).
const SESSION: Duration = Duration::from_secs(180);

/// What a peer's access is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// It has a session.
    Active,
    /// It had one since the tunnel started.
    Idle,
    /// It had none since then.
    Never,
    /// The configuration takes its access away.
    Disabled,
    /// Its access has ended.
    Expired,
    /// No daemon tells.
    Unknown,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Never => "never",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) name: Option<String>,
    pub(super) state: State,
    pub(super) public_key: PublicKey,
    /// Its addresses in the tunnel, and ranges behind it.
    pub(super) allowed_ips: Vec<IpNet>,
    pub(super) last_handshake_unix: Option<u64>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
    pub(super) expires_unix: Option<u64>,
}

impl Row {
    /// The name, or the key.
    pub(super) fn label(&self) -> String {
        self.name.as_deref().map_or_else(|| self.public_key.to_string(), |name| printable(name).into_owned())
    }

    /// Whether the operator means this peer.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name) || self.public_key.to_string() == name
    }
}

/// The peers of a running tunnel, sorted by name.
pub(super) fn rows_of(tunnel: &TunnelReport, now: SystemTime) -> Vec<Row> {
    let inside = tunnel.peers.iter().map(|peer| {
        let handshake = peer.last_handshake_unix.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        let state = match handshake.map(|handshake| now.duration_since(handshake).unwrap_or_default()) {
            None => State::Never,
            Some(age) if age < SESSION => State::Active,
            Some(_) => State::Idle,
        };
        Row {
            name: peer.name.clone(),
            state,
            public_key: peer.public_key,
            allowed_ips: peer.allowed_ips.clone(),
            last_handshake_unix: peer.last_handshake_unix,
            endpoint: peer.endpoint,
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            expires_unix: peer.expires_unix,
        }
    });
    let outside = tunnel.out.iter().map(|peer| Row {
        name: peer.name.clone(),
        state: if peer.is_disabled { State::Disabled } else { State::Expired },
        public_key: peer.public_key,
        allowed_ips: peer.allowed_ips.clone(),
        last_handshake_unix: None,
        endpoint: None,
        rx_bytes: 0,
        tx_bytes: 0,
        expires_unix: peer.expires_unix,
    });
    sorted(inside.chain(outside).collect())
}

/// The peers of a configuration, of which no daemon tells more.
pub(super) fn rows_of_configuration(tunnel: &Wireguard, now: SystemTime) -> Vec<Row> {
    let row = |peer: &Peer| Row {
        name: peer.name.clone(),
        state: match peer {
            Peer { enabled: false, .. } => State::Disabled,
            peer if !peer.is_in(now) => State::Expired,
            _ => State::Unknown,
        },
        public_key: peer.public_key,
        allowed_ips: peer.allowed_ips.clone(),
        last_handshake_unix: None,
        endpoint: None,
        rx_bytes: 0,
        tx_bytes: 0,
        expires_unix: peer.expires.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs()),
    };
    sorted(tunnel.peers.iter().map(row).collect())
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_cached_key(|row| (row.name.is_none(), row.name.clone(), row.public_key.to_string()));
    rows
}

/// A table that fits the usual terminal: long names and endpoints are shortened.
pub(super) fn format_rows(rows: &[Row], now: SystemTime) -> String {
    let titles = ["NAME", "STATE", "ADDRESS", "SEEN", "FROM", "RX", "TX", "EXPIRES"].map(str::to_owned);
    let cells = |row: &Row| {
        [
            row.label(),
            row.state.word().to_owned(),
            row.allowed_ips.first().map_or_else(|| "-".to_owned(), short_range),
            row.last_handshake_unix.map_or_else(|| "-".to_owned(), |then| span(seconds(now).saturating_sub(then))),
            row.endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.ip().to_string()),
            amount(row.rx_bytes),
            amount(row.tx_bytes),
            row.expires_unix.map_or_else(|| "-".to_owned(), |then| expiry(then, seconds(now))),
        ]
    };
    let table: Vec<[String; 8]> = std::iter::once(titles).chain(rows.iter().map(cells)).collect();
    format_table(&table, [0, 4, 2])
}

/// The same without a limit, with public keys and all ranges.
pub(super) fn format_rows_wide(rows: &[Row]) -> String {
    let titles = ["NAME", "STATE", "PUBLIC KEY", "ALLOWED IPS", "HANDSHAKE", "ENDPOINT", "RX", "TX", "EXPIRES"]
        .map(str::to_owned);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let cells = |row: &Row| {
        [
            row.label(),
            row.state.word().to_owned(),
            row.public_key.to_string(),
            ranges(row, ","),
            or_dash(row.last_handshake_unix.map(time)),
            or_dash(row.endpoint.map(|endpoint| endpoint.to_string())),
            row.rx_bytes.to_string(),
            row.tx_bytes.to_string(),
            or_dash(row.expires_unix.map(time)),
        ]
    };
    let table: Vec<[String; 9]> = std::iter::once(titles).chain(rows.iter().map(cells)).collect();
    format_table(&table, [])
}

/// Columns with a space between them. Those in `narrowed` get narrower, in this order, until a line fits.
fn format_table<const COLUMNS: usize, const NARROWED: usize>(
    table: &[[String; COLUMNS]],
    narrowed: [usize; NARROWED],
) -> String {
    /// What is left of a column that gets narrower.
    const LEAST: usize = 10;
    let mut widths = [0; COLUMNS];
    for row in table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for column in narrowed {
        let line = widths.iter().sum::<usize>() + COLUMNS - 1;
        widths[column] = widths[column].saturating_sub(line.saturating_sub(WIDTH)).max(LEAST.min(widths[column]));
    }
    let mut text = String::new();
    for row in table {
        let start = text.len();
        for (cell, width) in row.iter().zip(widths) {
            if cell.chars().count() > width {
                text.extend(cell.chars().take(width.saturating_sub(1)).chain(['…', ' ']));
            } else {
                write!(text, "{cell:<width$} ").expect("writing to a string does not fail");
            }
        }
        text.truncate(start + text[start..].trim_end().len());
        text.push('\n');
    }
    text
}

/// All that is known about a peer, a line each.
pub(super) fn format_row(row: &Row, written_in: Option<&str>) -> String {
    let mut lines = vec![
        ("name", row.name.as_deref().map_or_else(|| "-".to_owned(), |name| printable(name).into_owned())),
        ("state", row.state.word().to_owned()),
        ("public key", row.public_key.to_string()),
        ("allowed ips", ranges(row, ", ")),
        ("expires", row.expires_unix.map_or_else(|| "never".to_owned(), time)),
        ("handshake", row.last_handshake_unix.map_or_else(|| "never".to_owned(), time)),
        ("endpoint", row.endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string())),
        ("received", format!("{} bytes", row.rx_bytes)),
        ("sent", format!("{} bytes", row.tx_bytes)),
    ];
    lines.extend(written_in.map(|place| ("written in", place.to_owned())));
    lines.iter().map(|(key, value)| format!("{key:<11} {value}\n")).collect::<Vec<_>>().concat()
}

/// Comma-separated values with a header (RFC 4180).
pub(super) fn format_csv(rows: &[Row]) -> String {
    let mut text =
        "name,state,public_key,allowed_ips,last_handshake,endpoint,received_bytes,sent_bytes,expires\r\n".to_owned();
    for row in rows {
        let or_empty = |text: Option<String>| text.unwrap_or_default();
        let fields = [
            or_empty(row.name.as_deref().map(|name| printable(name).into_owned())),
            row.state.word().to_owned(),
            row.public_key.to_string(),
            ranges(row, " "),
            or_empty(row.last_handshake_unix.map(time)),
            or_empty(row.endpoint.map(|endpoint| endpoint.to_string())),
            row.rx_bytes.to_string(),
            row.tx_bytes.to_string(),
            or_empty(row.expires_unix.map(time)),
        ];
        text.push_str(&fields.map(|field| csv_field(&field)).join(","));
        text.push_str("\r\n");
    }
    text
}

/// A field in quotes where it needs them. A spreadsheet takes what begins with one of these characters for a formula,
/// which a name must not become.
fn csv_field(field: &str) -> String {
    let field = if field.starts_with(['=', '+', '-', '@']) { format!("'{field}") } else { field.to_owned() };
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

fn ranges(row: &Row, between: &str) -> String {
    row.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// A single address without its prefix.
fn short_range(range: &IpNet) -> String {
    if range.prefix_len() == range.max_prefix_len() { range.addr().to_string() } else { range.to_string() }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `2027-01-31T18:00:00Z`
fn time(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// `50s`, `19m`, `7h`, `30d`
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long the access goes on.
fn expiry(then: u64, now: u64) -> String {
    if then <= now { "over".to_owned() } else { span(then - now) }
}

/// `512`, `1.2M`
fn amount(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1000 {
        return bytes.to_string();
    }
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    if tenths < 100 {
        format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{}{}", tenths / 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: Option<&str>, state: State) -> Row {
        Row {
            name: name.map(str::to_owned),
            state,
            public_key: PublicKey([1; 32]),
            allowed_ips: vec!["10.100.0.2/32".parse().unwrap(), "fd00::2/128".parse().unwrap()],
            last_handshake_unix: (state == State::Active).then_some(1_799_999_990),
            endpoint: (state == State::Active).then(|| "192.0.2.7:50000".parse().unwrap()),
            rx_bytes: 1_234_567,
            tx_bytes: 300,
            expires_unix: Some(1_800_000_000 + 30 * 86_400),
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn the_list_shows_state_address_session_transfer_and_expiry() {
        let rows = [row(Some("alice/phone"), State::Active), row(None, State::Disabled)];
        let expected = "\
NAME                         STATE    ADDRESS    SEEN FROM      RX   TX  EXPIRES
alice/phone                  active   10.100.0.2 10s  192.0.2.7 1.1M 300 30d
AQEBAQEBAQEBAQEBAQEBAQEBAQE… disabled 10.100.0.2 -    -         1.1M 300 30d
";
        let shown = format_rows(&rows, now());
        assert_eq!(shown, expected);
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
    }

    #[test]
    fn no_line_is_longer_than_a_terminal_whatever_is_in_it() {
        let long = Row {
            allowed_ips: vec!["2001:db8:1111:2222:3333:4444:5555:6666/128".parse().unwrap()],
            endpoint: Some("[2001:db8:1111:2222:3333:4444:5555:6666]:50000".parse().unwrap()),
            rx_bytes: u64::MAX,
            tx_bytes: 1_047_527_424,
            ..row(Some(&"ä".repeat(64)), State::Disabled)
        };
        let shown = format_rows(&[long], now());
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
    }

    #[test]
    fn names_of_others_move_no_cursor_and_make_no_formula() {
        let hostile = row(Some("=cmd|' /C calc'!A0,\"\u{1b}[2J\u{202e}"), State::Never);
        for shown in [
            format_rows(std::slice::from_ref(&hostile), now()),
            format_rows_wide(std::slice::from_ref(&hostile)),
            format_row(&hostile, None),
            format_csv(std::slice::from_ref(&hostile)),
        ] {
            assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
        }
        let csv = format_csv(&[hostile]);
        assert!(csv.lines().nth(1).unwrap().starts_with("\"'=cmd|' /C calc'!A0,\"\"\\u{1b}[2J"), "{csv}");
    }

    #[test]
    fn amounts_take_five_characters_at_most() {
        let shown = [0, 999, 1000, 1023, 1024, 10_239, 10_240, 1_048_575, 5_000_000_000, u64::MAX].map(amount);
        assert_eq!(shown, ["0", "999", "0.9K", "0.9K", "1.0K", "9.9K", "10K", "0.9M", "4.6G", "15E"]);
    }
}
