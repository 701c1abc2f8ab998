//! The queries of the documents: every pipeline with `jq` works on what the programs really print.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use bastiond::internals::report::Report;
use libtest_mimic::Trial;
use sandbox::daemon::Installation;
use sandbox::world::{Metadata, Settings, World};

use crate::gateway::{FAST, Result, SOON, ensure, healthy, installation, text, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("every_jq_query_of_the_documents_works_with_and_without_a_tunnel", with_and_without_a_tunnel),
        trial("every_jq_query_of_the_documents_works_before_anything_is_known", before_anything_is_known),
    ]
}

/// A pipeline of a document.
struct Query {
    place: String,
    text: String,
}

/// Every pipeline with jq in the documents: a line of a shell block, or a piece of a line in back-quotes.
fn documented() -> Result<Vec<Query>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories = vec![root.join("docs")];
    let mut files = vec![root.join("README.md")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for path in files {
        for (number, line) in fs::read_to_string(&path)?.lines().enumerate() {
            // In text every second piece is in back-quotes; a line of a block has none.
            let pieces: Vec<&str> = line.split('`').collect();
            let pieces = if pieces.len() == 1 { pieces } else { pieces.into_iter().skip(1).step_by(2).collect() };
            found.extend(pieces.into_iter().filter(|piece| piece.contains("| jq ")).map(|piece| Query {
                place: format!("{}:{}", path.strip_prefix(root).unwrap_or(&path).display(), number + 1),
                text: piece.trim().to_owned(),
            }));
        }
    }
    Ok(found)
}

/// Two lines of a journal: one with the fields of a drop, and one without.
const JOURNAL: &str = "{\"MESSAGE\":\"dropped\",\"BASTIOND_REASON\":\"dropped_forward\",\"PRIORITY\":\"6\"}\n\
                       {\"MESSAGE\":\"pass 2 ended\",\"PRIORITY\":\"6\"}\n";

/// Runs each query in a shell that finds this daemon's answers under the names of the programs. jq is the real one.
fn all_work(installation: &Installation<'_>, when: &str) -> Result {
    let shown = |arguments: &[&str]| -> Result<Vec<u8>> { Ok(installation.ctl(arguments)?.stdout) };
    all_work_on(&shown(&["status", "--json"])?, &shown(&["plan", "--json"])?, when)
}

/// The same with these answers.
fn all_work_on(status: &[u8], plan: &[u8], when: &str) -> Result {
    let queries = documented()?;
    ensure(queries.len() >= 5, format!("the documents have only {} queries", queries.len()))?;
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("status"), status)?;
    fs::write(directory.path().join("plan"), plan)?;
    fs::write(directory.path().join("journal"), JOURNAL)?;
    let here = directory.path().display();
    for (name, script) in [
        ("bastionctl", format!("#!/bin/sh\nexec cat \"{here}/$1\"\n")),
        ("journalctl", format!("#!/bin/sh\nexec cat \"{here}/journal\"\n")),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    for query in queries {
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", &query.text]).env("PATH", format!("{here}:{path}"));
        let output = shell.output()?;
        let said = text(&output.stderr);
        ensure(
            output.status.success() && said.is_empty(),
            format!("{}, {when}: {}\n{}: {said}", query.place, query.text, output.status),
        )?;
    }
    Ok(())
}

fn with_and_without_a_tunnel() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    all_work(&installation, "without a tunnel")?;
    drop(daemon);
    let peer = "name = \"laptop\"\npublic_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\n\
                allowed_ips = [\"10.100.0.2/32\"]\n";
    let tunnel = "[wireguard]\ninterface = \"wg-queries\"\naddresses = [\"10.100.0.1/24\"]\n";
    installation.write_config(&format!("{FAST}{tunnel}"))?;
    let daemon = healthy(&installation)?;
    all_work(&installation, "with a tunnel that has no peers")?;
    drop(daemon);
    installation.write_config(&format!("{FAST}{tunnel}[[wireguard.peer]]\n{peer}"))?;
    let _daemon = healthy(&installation)?;
    all_work(&installation, "with a peer that has never been seen")
}

fn before_anything_is_known() -> Result {
    let world = World::start(Settings { metadata: Metadata::Absent, ..Settings::default() })?;
    let installation = installation(&world)?;
    let _daemon = installation.start()?;
    wait_for("the daemon answers", SOON, || Ok(!installation.ctl(&["status", "--json"])?.stdout.is_empty()))?;
    all_work(&installation, "before anything is known")?;
    // Every unknown value is null, as where the kernel tracks no flows.
    all_work_on(&serde_json::to_vec(&Report::new())?, b"{\"steps\":[],\"problems\":[]}", "with nothing but nulls")
}
