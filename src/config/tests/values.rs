//! Single keys: their ranges, and what is said beyond them.

use super::*;

/// The poll interval that `text` means, or the problem it is.
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
            "number is too large or cannot be represented without a lack of precision (values below 1ns are not supported)",
        ),
    ] {
        let expected = format!("hcloud.poll_interval: `{text}` is no time span (like \"20s\" or \"5m\"): {reason}");
        assert_eq!(poll_interval(text), Err(expected));
    }
}

#[test]
fn every_level_is_taken_by_its_name_in_small_letters_only() {
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
        let expected = format!("log.level: `{upper}` is none of error, warn, info, debug, trace");
        assert_eq!(problems_of(&format!("log.level = \"{upper}\"")), [expected]);
    }
}

#[test]
fn every_known_key_is_known_to_its_section() {
    // No key takes a number with a fraction, so each must complain of it, under its own name.
    for key in KNOWN_KEYS {
        let (section, name) = key.rsplit_once('.').unwrap();
        let (text, shown) = match section {
            "site.private" | "wireguard.peer" | "nat.forward" | "network" | "firewall.service" | "nat.static" => {
                (format!("[[{section}]]\n{name} = 0.5"), format!("{section}[0].{name}"))
            }
            "nat.static.open" => {
                (format!("[[nat.static]]\nopen = [{{ {name} = 0.5 }}]"), format!("nat.static[0].open[0].{name}"))
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
        let problems = problems_of(&text);
        let complaint = problems.iter().find(|problem| problem.starts_with(&format!("{shown}: expected ")));
        assert!(complaint.is_some_and(|problem| problem.ends_with(", found 0.5")), "{key}: {problems:?}");
    }
}

#[test]
fn a_long_list_of_sources_takes_no_longer_than_its_length() {
    let addresses: Vec<Ipv4Addr> = (1..=50_000).map(|n| Ipv4Addr::from(0x0a00_0000 + n)).collect();
    let listed: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let config = parse(&format!("firewall.ssh_from = [{}]", listed.join(",")), &Environment::default()).unwrap();
    let expected: Vec<IpNet> =
        addresses.into_iter().map(|address| IpNet::from(std::net::IpAddr::V4(address))).collect();
    assert_eq!(config.firewall.ssh_from, expected);
}

#[test]
fn more_destinations_than_a_network_holds_routes_are_refused() {
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
fn a_problem_is_one_line_and_short_whatever_it_quotes() {
    assert_eq!(
        problems_of("log.level = \"a\\nb\\u001b[31m\""),
        ["log.level: `a\\nb\\u{1b}[31m` is none of error, warn, info, debug, trace"]
    );
    let problem = problems_of(&format!("log.level = \"{}\"", "ä".repeat(10_000))).remove(0);
    let kept = |count| "ä".repeat(count);
    let expected = format!("log.level: `{} … {}` is none of error, warn, info, debug, trace", kept(159), kept(116));
    assert_eq!(problem, expected);
}
