//! Single keys: their ranges, and the errors for values outside.

use super::*;

/// The poll interval that `text` means, or its error.
fn poll_interval(text: &str) -> Result<Duration, String> {
    match parse(&format!("[hcloud]\npoll_interval = \"{text}\"\n"), &Environment::default()) {
        Ok(config) => Ok(config.hcloud.poll_interval),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

#[test]
fn a_poll_interval_is_from_one_second_to_a_day() {
    for (text, seconds) in [
        ("1s", 1),
        ("1000ms", 1),
        ("20s", 20),
        ("5m", 300),
        ("1m 30s", 90),
        ("1h", 3600),
        ("24h", 86400),
        ("1day", 86400),
    ] {
        assert_eq!(poll_interval(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    for text in ["0s", "999ms", "86401s", "2days", "100years"] {
        assert_eq!(poll_interval(text), Err(format!("hcloud.poll_interval: `{text}` is not between 1s and 24h")));
    }
    for (text, reason) in [
        ("", "value was empty"),
        ("20", "time unit needed, for example 20sec or 20ms"),
        ("-5s", "expected number at 0"),
        ("1.5", "time unit needed, for example 1sec or 1ms"),
        ("soon", "expected number at 0"),
        (
            "99999999999999999999999s",
            "number is too large or cannot be represented without a lack of precision (values below 1ns are not \
             supported)",
        ),
    ] {
        let expected = format!("hcloud.poll_interval: `{text}` is not a duration (like \"20s\" or \"5m\"): {reason}");
        assert_eq!(poll_interval(text), Err(expected));
    }
}

#[test]
fn a_log_level_is_written_in_lower_case() {
    use tracing::Level;
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    for (name, level) in levels {
        let config = parse(&format!("log.level = \"{name}\""), &Environment::default()).unwrap();
        assert_eq!(config.log, Log { level });
        let upper = name.to_uppercase();
        let expected = format!("log.level: `{upper}` is not one of error, warn, info, debug, trace");
        assert_eq!(problems_of(&format!("log.level = \"{upper}\"")), [expected]);
    }
}

#[test]
fn every_section_accepts_its_known_keys() {
    // No key accepts a fraction, so each must report it under its own name.
    for key in KNOWN_KEYS {
        let (section, name) = key.rsplit_once('.').unwrap();
        let (text, shown) = match section {
            "site.private" | "wireguard.peer" | "wireguard.group" | "nat.forward" | "network" | "firewall.service"
            | "nat.static" => (format!("[[{section}]]\n{name} = 0.5"), format!("{section}[0].{name}")),
            "nat.static.open" => {
                (format!("[[nat.static]]\nopen = [{{ {name} = 0.5 }}]"), format!("nat.static[0].open[0].{name}"))
            }
            "network.egress" => {
                (format!("[[network]]\n[[network.egress]]\n{name} = 0.5"), format!("network[0].egress[0].{name}"))
            }
            "network.allow" | "network.deny" => {
                let list = section.replace("network.", "");
                (format!("[[network]]\n{list} = [{{ {name} = 0.5 }}]"), format!("network[0].{list}[0].{name}"))
            }
            "egress.allow" | "egress.deny" | "tenants.allow" => {
                (format!("{section} = [{{ {name} = 0.5 }}]"), format!("{section}[0].{name}"))
            }
            _ => (format!("{key} = 0.5"), (*key).to_owned()),
        };
        let errors = problems_of(&text);
        let error = errors.iter().find(|error| error.starts_with(&format!("{shown}: expected ")));
        assert!(error.is_some_and(|error| error.ends_with(", found 0.5")), "{key}: {errors:?}");
    }
}

#[test]
fn a_list_of_50000_sources_is_accepted() {
    let addresses: Vec<Ipv4Addr> = (1..=50_000).map(|n| Ipv4Addr::from(0x0a00_0000 + n)).collect();
    let listed: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let config = parse(&format!("firewall.ssh_from = [{}]", listed.join(",")), &Environment::default()).unwrap();
    let expected: Vec<IpNet> =
        addresses.into_iter().map(|address| IpNet::from(std::net::IpAddr::V4(address))).collect();
    assert_eq!(config.firewall.ssh_from, expected);
}

#[test]
fn more_destinations_than_a_network_can_hold_routes_are_rejected() {
    let listed = |count: usize| -> String {
        let listed: Vec<String> = (0..count).map(|n| format!("\"10.{n}.0.0/16\"")).collect();
        format!("hcloud.destinations = [{}]", listed.join(","))
    };
    assert_eq!(problems_of(&listed(100)), [""; 0]);
    assert_eq!(
        problems_of(&listed(101)),
        ["hcloud.destinations: 101 destinations; a Hetzner Network holds at most 100 routes"]
    );
}

#[test]
fn an_error_is_one_short_line_even_if_it_quotes_a_long_value() {
    assert_eq!(
        problems_of("log.level = \"a\\nb\\u001b[31m\""),
        ["log.level: `a\\nb\\u{1b}[31m` is not one of error, warn, info, debug, trace"]
    );
    let problem = problems_of(&format!("log.level = \"{}\"", "ä".repeat(10_000))).remove(0);
    let kept = |count| "ä".repeat(count);
    let (head, tail) = (kept(159), kept(113));
    let expected = format!("log.level: `{head} … {tail}` is not one of error, warn, info, debug, trace");
    assert_eq!(problem, expected);
}
