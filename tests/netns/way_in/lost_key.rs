//! The private key's file is lost or replaced: reported, and no peer is cut off.

use bastiond::internals::outcome::{ComponentName, State};
use bastiond_tunnel::key::PrivateKey;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::Installation;

use super::{INSIDE, pings, with_laptop, world};
use crate::gateway::{NEVER, Result, SOON, component, ensure, ensure_eq, report, text, trial, wait_for, wait_until_ok};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_tunnel_whose_key_file_is_lost_keeps_its_key_and_reports_it", lost),
        trial("a_start_without_the_key_makes_no_new_one_until_a_person_asks_for_it", lost_at_start),
        trial("a_key_that_was_replaced_before_a_start_is_reported", replaced),
    ]
}

fn public_key(installation: &Installation<'_>) -> Result<Option<String>> {
    Ok(report(installation)?.tunnel.and_then(|tunnel| tunnel.public_key).map(|key| key.to_string()))
}

/// Waits until the tunnel's first problem begins so; every other component is as it was.
fn is_reported(installation: &Installation<'_>, what: &str) -> Result {
    let reported = || -> Result<bool> {
        let problems = component(installation, ComponentName::Wireguard)?.problems;
        Ok(problems.iter().any(|problem| problem.what.contains(what)))
    };
    wait_for(&format!("{what:?} is reported"), SOON, reported)
        .map_err(|error| format!("{error:?}: {:?}", component(installation, ComponentName::Wireguard)))?;
    Ok(())
}

fn lost() -> Result {
    let world = world()?;
    let (installation, daemon, ada) = with_laptop(&world, "wi-lost", "", "10.100.0.0/24,10.0.0.0/16")?;
    let before = public_key(&installation)?;
    let file = installation.state_directory().join("wireguard.key");
    let key = std::fs::read_to_string(&file)?;
    let other = format!("{}\n", PrivateKey::generate().to_base64().as_str());
    for (content, what) in [
        (None, "wireguard.key is gone; the tunnel goes on with the key that it has"),
        (Some(""), "wireguard.key holds no private key"),
        (Some("my diary"), "wireguard.key holds no private key"),
        (Some(other.as_str()), "wireguard.key holds another key"),
    ] {
        match content {
            None => std::fs::remove_file(&file)?,
            Some(text) => std::fs::write(&file, text)?,
        }
        // Before anything happens.
        let plan = text(&installation.ctl(&["plan"])?.stdout);
        ensure(plan.contains(what), format!("{content:?}: {plan}"))?;
        // And after a pass, and after a reload. A reload with a whole key takes it: see `rotate`.
        installation.ctl(&["reconcile"])?;
        is_reported(&installation, what)?;
        if content != Some(other.as_str()) {
            let passes = report(&installation)?.passes;
            daemon.signal(Signal::SIGHUP)?;
            wait_for("the reload is done", SOON, || Ok(report(&installation)?.passes > passes))?;
            is_reported(&installation, what)?;
        }
        ensure_eq(public_key(&installation)?, before.clone())?;
        // A new session, too.
        ada.wg(&format!("peer {} remove", before.as_deref().unwrap_or_default()))?;
        ada.meets(before.as_deref().unwrap_or_default().parse()?, "10.100.0.0/24,10.0.0.0/16")?;
        ensure(pings(world.laptop(), INSIDE, SOON)?, format!("{content:?}: the tunnel does not go on"))?;
    }
    std::fs::write(&file, &key)?;
    ensure(installation.ctl(&["reconcile"])?.status.success(), "reconcile")?;
    wait_until_ok("every component is ok again", SOON, &installation)?;
    ensure_eq(public_key(&installation)?, before)
}

fn lost_at_start() -> Result {
    let world = world()?;
    let (installation, daemon, _ada) = with_laptop(&world, "wi-lost2", "", "10.100.0.0/24,10.0.0.0/16")?;
    let before = public_key(&installation)?.ok_or("no key")?;
    let known = installation.state_directory().join("wireguard.pub");
    ensure_eq(std::fs::read_to_string(&known)?, format!("{before}\n"))?;
    drop(daemon);
    // As after a reboot. A running process would keep its key.
    installation.kill_tunnel()?;
    wait_for("the tunnel's process has ended", SOON, || Ok(installation.tunnel_processes()?.is_empty()))?;
    let file = installation.state_directory().join("wireguard.key");
    std::fs::remove_file(&file)?;
    let plan = text(&installation.ctl(&["plan"])?.stdout);
    let what = format!("wireguard.key is gone; peers know this server by {before}");
    ensure(plan.contains(&what) && !plan.contains("make a private key"), plan)?;
    let _daemon = installation.start()?;
    wait_for("the daemon answers", SOON, || Ok(report(&installation).is_ok()))?;
    is_reported(&installation, &what)?;
    ensure_eq(component(&installation, ComponentName::Wireguard)?.state, State::Failed)?;
    ensure_eq(component(&installation, ComponentName::Nat)?.state, State::Ok)?;
    ensure(!file.exists(), "a new key was made")?;
    // The person's decision.
    std::fs::remove_file(&known)?;
    // A pass that failed is repeated after 2 s, and the data plane has a process to start.
    wait_for("a new key is made", 2 * SOON, || Ok(public_key(&installation)?.is_some_and(|key| key != before)))?;
    wait_until_ok("every component is ok", SOON, &installation)?;
    Ok(())
}

fn replaced() -> Result {
    let world = world()?;
    let (installation, daemon, ada) = with_laptop(&world, "wi-lost3", "", "10.100.0.0/24,10.0.0.0/16")?;
    let before = public_key(&installation)?.ok_or("no key")?;
    drop(daemon);
    // As after a reboot. A running process would keep its key.
    installation.kill_tunnel()?;
    wait_for("the tunnel's process has ended", SOON, || Ok(installation.tunnel_processes()?.is_empty()))?;
    let key = PrivateKey::generate();
    let file = installation.state_directory().join("wireguard.key");
    std::fs::write(&file, format!("{}\n", key.to_base64().as_str()))?;
    let _daemon = installation.start()?;
    wait_for("the daemon answers", SOON, || Ok(report(&installation).is_ok()))?;
    let what =
        format!("wireguard.key holds another key than before: the public key is {}, and was {before}", key.public());
    is_reported(&installation, &what)?;
    ensure(!pings(world.laptop(), INSIDE, NEVER)?, "the former key is let in")?;
    // A peer with the new key shows that it is intended.
    ada.wg(&format!("peer {before} remove"))?;
    ada.meets(key.public(), "10.100.0.0/24,10.0.0.0/16")?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the new key is not let in")?;
    ensure(installation.ctl(&["reconcile"])?.status.success(), "reconcile")?;
    wait_until_ok("every component is ok", SOON, &installation)?;
    Ok(())
}
