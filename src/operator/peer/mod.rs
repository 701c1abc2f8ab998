//! `bastionctl peer`: people, devices and sites are let in, shown, changed and taken out.
//!
//! The files of `peers.d` are the only ones that are written. Each change is checked with the whole configuration before
//! it is written, and the daemon is asked to load it. Without a daemon it counts from the daemon's next start on.

mod address;
mod adopt;
mod change;
mod client;
mod edit;
mod error;
mod import;
mod list;
mod name;
mod output;
mod qr;
mod store;
mod until;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use crate::cli::{Bastionctl, Destination, PeerCommand};
use crate::config::{self, Config, Environment, Peer, PeerEdits, PeerPlace, Wireguard};
use crate::control::client as control;
use crate::control::{Request, Response};
use crate::exit;
use crate::printable::printable;
use crate::reconcile::WayIn;
use crate::wireguard::status::TunnelReport;
use error::Error;
use list::Row;
use name::PeerName;
use store::Store;

/// A name is suggested if it is more similar than this, a Jaro-Winkler similarity from 0 to 1.
const SIMILAR: f64 = 0.85;

/// Runs the command.
pub(super) fn run(command: &PeerCommand, arguments: &Bastionctl, environment: &Environment, socket: &Path) -> ExitCode {
    let operator = Operator { path: arguments.config_path(), environment, socket, now: SystemTime::now() };
    let done = match command {
        PeerCommand::Add(peer) => operator.add(peer),
        PeerCommand::List { json, wide } => operator.list(*json, *wide),
        PeerCommand::Show { name, json } => operator.show(name, *json),
        PeerCommand::Disable { name } => operator.set_enabled(name, false),
        PeerCommand::Enable { name } => operator.set_enabled(name, true),
        PeerCommand::Remove { name } => operator.remove(name),
        PeerCommand::Rename { name, new_name } => operator.rename(name, new_name),
        PeerCommand::Extend { name, until } => operator.extend(name, until),
        PeerCommand::Export { name, full_tunnel, output } => operator.export(name, *full_tunnel, output),
        PeerCommand::Rotate { name, public_key, psk, full_tunnel, output } => {
            operator.rotate(name, public_key.as_deref(), *psk, *full_tunnel, output)
        }
        PeerCommand::Import { file, dry_run } => operator.import(file, *dry_run),
        PeerCommand::WhoCanReach { destination, json } => operator.who_can_reach(destination, *json),
        PeerCommand::Report { csv } => operator.report(*csv),
    };
    done.unwrap_or_else(|error| error.exit())
}

/// Who asks, and when.
#[derive(Debug)]
struct Operator<'a> {
    /// The configuration file.
    path: &'a Path,
    environment: &'a Environment,
    socket: &'a Path,
    now: SystemTime,
}

/// A change that is written.
#[derive(Debug)]
struct Applied {
    /// The configuration with the change.
    config: Config,
    /// What clients have to know, as far as it is known.
    way_in: WayIn,
    in_use: InUse,
}

/// What the daemon makes of a change that is written.
#[derive(Debug)]
enum InUse {
    /// The daemon uses it.
    Yes,
    /// The daemon uses it, and these are in its way.
    With(Vec<String>),
    /// No daemon has loaded it.
    NoDaemon(control::Error),
    /// The daemon does not load this configuration.
    OtherDaemon(String),
}

impl Operator<'_> {
    fn load(&self) -> Result<Config, Error> {
        Ok(config::load(self.path, self.environment)?)
    }

    fn lock(&self) -> Result<Store, Error> {
        Ok(Store::lock(&config::peers_directory(self.path))?)
    }

    /// The tunnel of a configuration, which has to have one.
    fn tunnel<'c>(&self, config: &'c Config) -> Result<&'c Wireguard, Error> {
        config.wireguard.as_ref().ok_or_else(|| Error::NoTunnel { path: self.path.to_owned() })
    }

    /// Where a peer is written.
    fn place(&self, peer: &Peer) -> Option<PeerPlace> {
        let likely = peer.name.as_deref().and_then(|name| name.parse::<PeerName>().ok());
        let likely = likely.map(|name| config::peers_directory(self.path).join(name.file_name()));
        config::find_peer(self.path, peer.public_key, likely.as_deref())
    }

    fn place_in_words(&self, peer: &Peer) -> String {
        self.place(peer).map_or_else(|| "in the configuration".to_owned(), |place| place.to_string())
    }

    /// The peer's own file.
    fn own_file(&self, peer: &Peer) -> Result<PathBuf, Error> {
        let label = printable(&peer.label()).into_owned();
        match self.place(peer) {
            Some(PeerPlace::OwnFile(path)) => Ok(path),
            Some(place @ PeerPlace::Elsewhere { .. }) => Err(Error::Elsewhere { label, place }),
            None => Err(Error::Unknown { name: peer.label(), similar: None }),
        }
    }

    /// Checks the edits, writes them, and has them loaded. If they are wrong, nothing stays written.
    fn apply(&self, store: &Store, edits: &PeerEdits) -> Result<Applied, Error> {
        let config = config::load_edited(self.path, self.environment, edits)?;
        self.write(store, edits, config)
    }

    /// The same for a peer that differs in name, key and addresses from all others: its file alone is checked, since
    /// there may be ten thousand others. The daemon checks all of them in any case.
    fn apply_new(&self, store: &Store, edits: &PeerEdits) -> Result<Applied, Error> {
        let alone = config::load_edited_alone(self.path, self.environment, edits);
        // What is wrong with it alone may be right beside the others.
        let Ok(config) = alone else { return self.apply(store, edits) };
        let applied = self.write(store, edits, config)?;
        if matches!(applied.in_use, InUse::Yes | InUse::With(_)) {
            return Ok(applied);
        }
        let whole = config::load(self.path, self.environment);
        whole.map(|_| applied).map_err(|error| {
            let undone = edits.keys().map(|path| (path.clone(), None)).collect();
            // The error that matters is the one that is returned.
            let _ = store.write(&undone);
            error.into()
        })
    }

    fn write(&self, store: &Store, edits: &PeerEdits, config: Config) -> Result<Applied, Error> {
        let former = Store::former(edits)?;
        store.write(edits)?;
        self.have_loaded_or_undo(store, &former, config)
    }

    /// Has the daemon load what is written, or writes what was there if the daemon refuses that.
    fn have_loaded_or_undo(&self, store: &Store, former: &PeerEdits, config: Config) -> Result<Applied, Error> {
        self.have_loaded(config).inspect_err(|error| {
            if matches!(error, Error::Refused { .. }) {
                // The error that matters is the one that is returned.
                let _ = store.write(former);
                let _ = self.reload();
            }
        })
    }

    /// Has the daemon load what is written.
    fn have_loaded(&self, config: Config) -> Result<Applied, Error> {
        let known = || WayIn::of_configuration(&config).unwrap_or_default();
        let (way_in, in_use) = match self.reload() {
            Ok(Response::Reloaded { way_in, obstacles }) => {
                (way_in.unwrap_or_else(known), if obstacles.is_empty() { InUse::Yes } else { InUse::With(obstacles) })
            }
            Ok(Response::WrongConfiguration { reason, problems }) => return Err(Error::Refused { reason, problems }),
            Ok(Response::Refused { reason }) => (known(), InUse::OtherDaemon(reason)),
            Ok(_) => (known(), InUse::OtherDaemon("the daemon's answer is not one to this request".to_owned())),
            Err(error) => (known(), InUse::NoDaemon(error)),
        };
        Ok(Applied { config, way_in, in_use })
    }

    fn reload(&self) -> Result<Response, control::Error> {
        let path = std::fs::canonicalize(self.path).unwrap_or_else(|_| self.path.to_owned());
        control::call(self.socket, &Request::Reload { path })
    }

    /// The tunnel and the way in, from the daemon.
    fn ask(&self) -> Result<(Option<Box<TunnelReport>>, Option<WayIn>), Error> {
        match control::call(self.socket, &Request::Peers {})? {
            Response::Peers { tunnel, way_in } => Ok((tunnel, way_in)),
            Response::Refused { reason } => Err(Error::NotAllowed { reason }),
            _ => Err(Error::not_understood()),
        }
    }

    /// The peers as the daemon knows them, or as they are written, and the exit code for that.
    fn rows(&self) -> Result<(Vec<Row>, ExitCode), Error> {
        match self.ask() {
            Ok((Some(tunnel), _)) => Ok((list::rows_of(&tunnel, self.now), ExitCode::SUCCESS)),
            Ok((None, _)) => Ok((self.written_rows()?, ExitCode::SUCCESS)),
            Err(Error::NoDaemon(error)) => {
                let rows = self.written_rows()?;
                Ok((rows, exit::no_daemon(&error)))
            }
            Err(error) => Err(error),
        }
    }

    fn written_rows(&self) -> Result<Vec<Row>, Error> {
        let config = self.load()?;
        Ok(config.wireguard.map(|tunnel| list::rows_of_configuration(&tunnel, self.now)).unwrap_or_default())
    }

    fn list(&self, json: bool, wide: bool) -> Result<ExitCode, Error> {
        let (rows, code) = self.rows()?;
        if json {
            println!("{}", super::show::format_json(&rows));
        } else if wide {
            print!("{}", list::format_rows_wide(&rows));
        } else {
            print!("{}", list::format_rows(&rows, self.now));
        }
        Ok(code)
    }

    fn show(&self, name: &str, json: bool) -> Result<ExitCode, Error> {
        let (rows, code) = self.rows()?;
        let Some(row) = rows.iter().find(|row| row.is_called(name)) else {
            return Err(Error::Unknown { name: name.to_owned(), similar: None });
        };
        if json {
            println!("{}", super::show::format_json(row));
            return Ok(code);
        }
        // Who may not read the configuration does without the place.
        let likely = row.name.as_deref().and_then(|name| name.parse::<PeerName>().ok());
        let likely = likely.map(|name| config::peers_directory(self.path).join(name.file_name()));
        let place = config::find_peer(self.path, row.public_key, likely.as_deref());
        print!("{}", list::format_row(row, place.map(|place| place.to_string()).as_deref()));
        Ok(code)
    }

    fn who_can_reach(&self, destination: &Destination, json: bool) -> Result<ExitCode, Error> {
        let Destination { place, protocol, port } = destination.clone();
        let reachers = match control::call(self.socket, &Request::WhoCanReach { place, protocol, port })? {
            Response::Reachers { reachers } => reachers,
            Response::Refused { reason } => return Err(Error::NotAllowed { reason }),
            _ => return Err(Error::not_understood()),
        };
        if json {
            println!("{}", super::show::format_json(&reachers));
        } else if reachers.is_empty() {
            println!("no peer");
        }
        for reacher in reachers.iter().filter(|_| !json) {
            println!("{}: {}", printable(&reacher.peer), reacher.by.join(", "));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, csv: bool) -> Result<ExitCode, Error> {
        let (rows, code) = self.rows()?;
        if csv {
            print!("{}", list::format_csv(&rows));
        } else {
            print!("{}", list::format_rows_wide(&rows));
        }
        Ok(code)
    }
}

/// The peer with this name or key.
fn find<'c>(config: &'c Config, name: &str) -> Result<&'c Peer, Error> {
    let peers = config.wireguard.as_ref().map_or(&[][..], |tunnel| &tunnel.peers);
    let is_called = |peer: &&Peer| peer.name.as_deref() == Some(name) || peer.public_key.to_string() == name;
    let similar = || {
        let names = peers.iter().filter_map(|peer| peer.name.as_deref());
        let similar = names.map(|known| (strsim::jaro_winkler(name, known), known));
        let best =
            similar.filter(|(similarity, _)| *similarity > SIMILAR).max_by(|one, other| one.0.total_cmp(&other.0));
        best.map(|(_, name)| name.to_owned())
    };
    peers.iter().find(is_called).ok_or_else(|| Error::Unknown { name: name.to_owned(), similar: similar() })
}

impl Applied {
    /// Says what was done, and what the daemon makes of it.
    fn tell(&self, done: &str) -> ExitCode {
        eprintln!("bastionctl: {done}");
        match &self.in_use {
            InUse::Yes => ExitCode::SUCCESS,
            InUse::With(obstacles) => {
                for obstacle in obstacles {
                    eprintln!("bastionctl: the daemon uses it, but {obstacle}");
                }
                ExitCode::FAILURE
            }
            InUse::NoDaemon(error) => {
                let code = exit::no_daemon(error);
                eprintln!("bastionctl: the change is written, and counts when the daemon has loaded it");
                code
            }
            InUse::OtherDaemon(reason) => {
                eprintln!("bastionctl: the change is written and not in use: {reason}");
                ExitCode::FAILURE
            }
        }
    }
}
