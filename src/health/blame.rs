//! Which part is to blame: the combination of paths that are lost names the place. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::path::{Path, PathReport, PathState};

/// What is lost of a network's paths.
#[derive(Debug, Default)]
struct Lost {
    private: bool,
    whole: bool,
    nat: usize,
}

/// Adds to each lost path where packets are lost, as far as the other paths tell.
pub(super) fn blame(reports: &mut [PathReport]) {
    let mut lost: BTreeMap<Ipv4Net, Lost> = BTreeMap::new();
    for report in reports.iter().filter(|report| report.state == PathState::Lost) {
        let Some(network) = report.path.network() else { continue };
        let of_network = lost.entry(network).or_default();
        match report.path {
            Path::Private { .. } => of_network.private = true,
            Path::Whole { .. } => of_network.whole = true,
            Path::Nat { .. } => of_network.nat += 1,
            Path::Part { .. } | Path::Static { .. } | Path::Tunnel { .. } => {}
        }
    }
    let is_ok =
        |path: &dyn Fn(&Path) -> bool| reports.iter().any(|report| report.state == PathState::Ok && path(&report.path));
    let other_address_is_ok = is_ok(&|path| path.egress().is_some());
    let working: BTreeSet<Ipv4Addr> = reports
        .iter()
        .filter(|report| report.state == PathState::Ok)
        .filter_map(|report| report.path.egress())
        .collect();
    let address_works = |path: &Path| path.egress().is_some_and(|egress| working.contains(&egress));
    let whole_is_ok: BTreeSet<Ipv4Net> =
        lost.keys().copied().filter(|network| is_ok(&|path| *path == Path::Whole { network: *network })).collect();
    let nat_is_ok: BTreeSet<Ipv4Net> = lost
        .keys()
        .copied()
        .filter(|network| is_ok(&|path| matches!(path, Path::Nat { .. }) && path.network() == Some(*network)))
        .collect();
    let places: Vec<Option<&'static str>> = reports
        .iter()
        .map(|report| {
            let of_network = lost.get(&report.path.network()?).filter(|_| report.state == PathState::Lost)?;
            Some(match report.path {
                Path::Private { .. } => PRIVATE,
                Path::Whole { .. } if of_network.private => PRIVATE_TOO,
                Path::Whole { .. } if of_network.nat > 0 => NAT_TOO,
                Path::Whole { .. } => WHOLE_ONLY,
                // The network's other hosts have the same fault.
                Path::Part { network, .. } | Path::Static { network, .. }
                    if of_network.nat > 0 && !nat_is_ok.contains(&network) =>
                {
                    NAT_TOO
                }
                Path::Nat { network, .. } if whole_is_ok.contains(&network) || address_works(&report.path) => NAT_ONLY,
                _ if other_address_is_ok && report.path.egress().is_some() => ADDRESS,
                _ => NAT,
            })
        })
        .collect();
    for (report, place) in reports.iter_mut().zip(places) {
        let Some(place) = place else { continue };
        report.detail = if report.detail.is_empty() { place.to_owned() } else { format!("{}; {place}", report.detail) };
    }
}

const PRIVATE: &str = "the private link, the network's gateway, or its route to this server in the data plane";
const PRIVATE_TOO: &str = "as the private path";
const NAT_TOO: &str = "as the path to the internet";
const WHOLE_ONLY: &str = "forwarding of the private link is off, or another program's rule (nft, iptables, ip rule) \
                          stops what comes in by it";
const NAT_ONLY: &str = "another program's rule (nft, iptables, ip rule, ip xfrm policy) for this network's addresses";
const ADDRESS: &str = "this public address: the provider does not route it here, or something stops its packets";
const NAT: &str = "the public link, the way back to it, the rules or the translation";

#[cfg(test)]
mod tests {
    use super::*;

    fn private() -> Path {
        Path::Private { network: network(0) }
    }

    fn whole() -> Path {
        Path::Whole { network: network(0) }
    }

    fn nat(last: u8) -> Path {
        Path::Nat { network: network(0), egress: Some([198, 51, 100, last].into()) }
    }

    fn network(second: u8) -> Ipv4Net {
        format!("10.{second}.0.0/16").parse().unwrap()
    }

    /// What is said of each lost path, in the order of the paths, if these are lost and all others ok.
    fn blamed(paths: &[Path], lost: &[Path]) -> Vec<String> {
        let report = |path: &Path| PathReport {
            path: path.clone(),
            state: if lost.contains(path) { PathState::Lost } else { PathState::Ok },
            since_unix: 0,
            round_trip_us: None,
            detail: String::new(),
        };
        let mut reports: Vec<PathReport> = paths.iter().map(report).collect();
        blame(&mut reports);
        reports.into_iter().map(|report| report.detail).filter(|detail| !detail.is_empty()).collect()
    }

    #[test]
    fn the_combination_of_lost_paths_names_the_place() {
        let all = [nat(2), nat(50), private(), whole()];
        assert_eq!(blamed(&all, &[private(), whole()]), [PRIVATE, PRIVATE_TOO]);
        assert_eq!(blamed(&all, &[nat(2), nat(50), whole()]), [NAT, NAT, NAT_TOO]);
        assert_eq!(blamed(&all, &[whole()]), [WHOLE_ONLY]);
        assert_eq!(blamed(&all, &[nat(50), whole()]), [ADDRESS, NAT_TOO]);
        assert_eq!(blamed(&all, &[nat(2), nat(50)]), [NAT_ONLY, NAT_ONLY]);
        assert_eq!(blamed(&all, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_lost_address_of_a_part_or_of_a_host_is_blamed_unless_the_network_is_cut_off() {
        let network = network(0);
        let host = Path::Static { network, host: [10, 0, 0, 7].into(), egress: [198, 51, 100, 51].into() };
        let part = Path::Part { network, hosts: "10.0.2.0/24".parse().unwrap(), egress: [198, 51, 100, 52].into() };
        let all = [nat(2), host.clone(), part.clone(), private(), whole()];
        assert_eq!(blamed(&all, std::slice::from_ref(&host)), [ADDRESS]);
        assert_eq!(blamed(&all, std::slice::from_ref(&part)), [ADDRESS]);
        assert_eq!(blamed(&all, &[nat(2), host.clone(), part.clone(), whole()]), [NAT, NAT_TOO, NAT_TOO, NAT_TOO]);
        assert_eq!(blamed(std::slice::from_ref(&host), std::slice::from_ref(&host)), [NAT]);
        // The first address alone: the others prove that it is not the link.
        assert_eq!(blamed(&all, &[nat(2), whole()]), [ADDRESS, NAT_TOO]);
    }

    #[test]
    fn another_networks_paths_do_not_count() {
        let other = Path::Private { network: network(2) };
        assert_eq!(blamed(&[whole(), other.clone()], &[whole(), other]), [WHOLE_ONLY, PRIVATE]);
    }

    #[test]
    fn an_address_by_which_another_network_reaches_the_internet_is_not_blamed() {
        let other = Path::Nat { network: network(2), egress: Some([198, 51, 100, 2].into()) };
        let all = [nat(2), nat(50), other.clone(), private(), whole()];
        assert_eq!(blamed(&all, &[nat(2), whole()]), [NAT_ONLY, NAT_TOO]);
        assert_eq!(blamed(&all, &[nat(50), whole()]), [ADDRESS, NAT_TOO]);
        assert_eq!(blamed(&all, &[nat(2), other, whole()]), [ADDRESS, ADDRESS, NAT_TOO]);
    }

    #[test]
    fn what_is_known_already_stays_in_front() {
        let mut reports = [PathReport {
            path: private(),
            state: PathState::Lost,
            since_unix: 0,
            round_trip_us: None,
            detail: "nothing comes back".to_owned(),
        }];
        blame(&mut reports);
        assert_eq!(reports[0].detail, format!("nothing comes back; {PRIVATE}"));
    }
}
