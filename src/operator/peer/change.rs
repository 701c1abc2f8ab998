//! The commands that change peers.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use ipnet::IpNet;

use super::client::{self, Client};
use super::edit::{self, Change, NewPeer};
use super::error::Error;
use super::name::PeerName;
use super::output::Output;
use super::store::Store;
use super::{Applied, Operator, address, find, until};
use crate::cli::{AddPeer, ClientOutput};
use crate::config::{self, Config, Peer, PeerEdits, Wireguard};
use crate::printable::printable;
use crate::reconcile::WayIn;
use bastiond_tunnel::key::{PresharedKey, PrivateKey, PublicKey};

/// A client's keys: its own pair, or only the public half.
struct Keys {
    private: Option<PrivateKey>,
    public: PublicKey,
}

impl Keys {
    /// The given public key, or a new pair.
    fn new(given: Option<&str>) -> Result<Self, Error> {
        if let Some(text) = given {
            let public = text.trim().parse();
            let public = public.map_err(|source| Error::PublicKey { text: text.to_owned(), source })?;
            return Ok(Self { private: None, public });
        }
        let private = PrivateKey::generate();
        Ok(Self { public: private.public(), private: Some(private) })
    }
}

impl Operator<'_> {
    pub(super) fn add(&self, wanted: &AddPeer) -> Result<ExitCode, Error> {
        let name: PeerName = wanted.name.parse()?;
        let expires = wanted.expires.as_deref().map(|text| until::parse(text, self.now)).transpose()?.flatten();
        let keys = Keys::new(wanted.public_key.as_deref())?;
        let output = Output::prepare(&wanted.output, keys.private.is_some())?;
        let store = self.lock()?;
        let config = self.load()?;
        let tunnel = self.tunnel(&config)?;
        self.check_is_new(&store, tunnel, &name, keys.public)?;
        if wanted.full_tunnel && !tunnel.full_tunnel {
            return Err(Error::NoFullTunnel);
        }
        let addresses = address::choose(tunnel, &wanted.address).map_err(|error| self.with_place(error))?;
        let peer = NewPeer {
            public_key: keys.public,
            preshared_key: wanted.psk.then(PresharedKey::generate),
            allowed_ips: addresses.iter().copied().map(IpNet::from).collect(),
            endpoint: None,
            persistent_keepalive: None,
            expires,
            enabled: true,
            groups: wanted.group.clone(),
            reach: wanted.reach.clone(),
            name,
        };
        let path = store.file(&peer.name.file_name());
        let edits = PeerEdits::from([(path, Some(peer.text(&self.remark("added by `bastionctl peer add`"))))]);
        let applied = self.apply_new(&store, &edits)?;
        drop(store);
        let client = Client {
            label: peer.name.as_str(),
            addresses,
            private_key: keys.private,
            preshared_key: peer.preshared_key.as_ref(),
            full_tunnel: wanted.full_tunnel,
            way_in: &applied.way_in,
        };
        let until =
            expires.map_or_else(String::new, |time| format!(" until {}", humantime::format_rfc3339_seconds(time)));
        let code = applied.tell(&format!("{} is added: {}{until}", peer.name, list(&client.addresses)));
        output.emit(&client)?;
        Ok(code)
    }

    /// `added … on 2026-12-01`
    pub(super) fn remark(&self, done: &str) -> String {
        let today = humantime::format_rfc3339_seconds(self.now).to_string();
        format!("{done} on {}", today.split('T').next().unwrap_or_default())
    }

    /// That no other peer has the name, the file or the key.
    fn check_is_new(&self, store: &Store, tunnel: &Wireguard, name: &PeerName, key: PublicKey) -> Result<(), Error> {
        let named = tunnel.peers.iter().find(|peer| peer.name.as_deref() == Some(name.as_str()));
        let file = store.file(&name.file_name());
        if let Some(place) = named.map(|peer| self.place_in_words(peer)) {
            return Err(Error::NameInUse { name: name.to_string(), place });
        }
        if file.symlink_metadata().is_ok() {
            return Err(Error::NameInUse { name: name.to_string(), place: file.display().to_string() });
        }
        self.check_key_is_new(tunnel, key)
    }

    fn check_key_is_new(&self, tunnel: &Wireguard, key: PublicKey) -> Result<(), Error> {
        let Some(peer) = tunnel.peers.iter().find(|peer| peer.public_key == key) else { return Ok(()) };
        Err(Error::KeyInUse { label: printable(&peer.label()).into_owned(), place: self.place_in_words(peer) })
    }

    /// An error with the place of the peer that it is about.
    fn with_place(&self, error: address::Error) -> Error {
        let place = if let address::Error::InUse { peer, .. } = &error { self.place(peer) } else { None };
        match place {
            Some(place) => Error::AddressInUse { error, place },
            None => Error::Address(error),
        }
    }

    /// Changes keys of a peer's own file.
    fn change(&self, name: &str, changes: impl FnOnce(&Peer) -> Vec<Change>) -> Result<(Applied, Peer), Error> {
        let store = self.lock()?;
        let config = self.load()?;
        let peer = find(&config, name)?;
        let path = self.own_file(peer)?;
        let text = changed(&path, &changes(peer))?;
        let applied = self.apply(&store, &PeerEdits::from([(path, Some(text))]))?;
        Ok((applied, peer.clone()))
    }

    pub(super) fn set_enabled(&self, name: &str, enabled: bool) -> Result<ExitCode, Error> {
        let (applied, peer) = self.change(name, |_| vec![Change::Enabled(enabled)])?;
        let word = match (enabled, peer.expires.filter(|expires| *expires <= self.now)) {
            (true, Some(_)) => "enabled, but its access has expired: `bastionctl peer extend`",
            (true, None) => "enabled",
            (false, _) => "disabled",
        };
        Ok(applied.tell(&format!("{} is {word}", printable(&peer.label()))))
    }

    pub(super) fn extend(&self, name: &str, text: &str) -> Result<ExitCode, Error> {
        let expires = until::parse(text, self.now)?;
        let (applied, peer) = self.change(name, |_| vec![Change::Expires(expires)])?;
        let until = expires.map_or_else(
            || "has access without an end".to_owned(),
            |time| format!("has access until {}", humantime::format_rfc3339_seconds(time)),
        );
        let but = if peer.enabled { "" } else { ", but is disabled: `bastionctl peer enable`" };
        Ok(applied.tell(&format!("{} {until}{but}", printable(&peer.label()))))
    }

    pub(super) fn remove(&self, name: &str) -> Result<ExitCode, Error> {
        let store = self.lock()?;
        let (path, label) = match self.load() {
            Ok(config) => {
                let peer = find(&config, name)?;
                (self.own_file(peer)?, printable(&peer.label()).into_owned())
            }
            // The file itself may be what is wrong.
            Err(error) => {
                let path = name.parse::<PeerName>().ok().map(|name| store.file(&name.file_name()));
                (path.filter(|path| path.exists()).ok_or(error)?, name.to_owned())
            }
        };
        let applied = self.apply(&store, &PeerEdits::from([(path, None)]))?;
        Ok(applied.tell(&format!("{label} is removed")))
    }

    pub(super) fn rename(&self, name: &str, new_name: &str) -> Result<ExitCode, Error> {
        let new_name: PeerName = new_name.parse()?;
        let store = self.lock()?;
        let config = self.load()?;
        let peer = find(&config, name)?;
        let path = self.own_file(peer)?;
        let new_path = store.file(&new_name.file_name());
        let named = self.tunnel(&config)?.peers.iter().find(|peer| peer.name.as_deref() == Some(new_name.as_str()));
        if let Some(place) = named.map(|peer| self.place_in_words(peer)) {
            return Err(Error::NameInUse { name: new_name.to_string(), place });
        }
        if new_path != path && new_path.symlink_metadata().is_ok() {
            return Err(Error::NameInUse { name: new_name.to_string(), place: new_path.display().to_string() });
        }
        // The name is written first, so that the configuration is right between the two steps.
        let text = changed(&path, &[Change::Name(Some(new_name.to_string()))])?;
        let config =
            config::load_edited(self.path, self.environment, &PeerEdits::from([(path.clone(), Some(text.clone()))]))?;
        let former = Store::former(&PeerEdits::from([(path.clone(), None), (new_path.clone(), None)]))?;
        store.write(&PeerEdits::from([(path.clone(), Some(text))]))?;
        store.rename(&path, &new_path)?;
        if !new_name.has_to_be_written() {
            let text = changed(&new_path, &[Change::Name(None)])?;
            store.write(&PeerEdits::from([(new_path, Some(text))]))?;
        }
        let applied = self.have_loaded_or_undo(&store, &former, config)?;
        Ok(applied.tell(&format!("{} is called {new_name} now", printable(&peer.label()))))
    }

    pub(super) fn export(&self, name: &str, full_tunnel: bool, output: &ClientOutput) -> Result<ExitCode, Error> {
        let output = Output::prepare(output, false)?;
        let config = self.load()?;
        let (peer, tunnel) = (find(&config, name)?, self.tunnel(&config)?);
        if full_tunnel && !tunnel.full_tunnel {
            return Err(Error::NoFullTunnel);
        }
        let known = || WayIn::of_configuration(&config).unwrap_or_default();
        let (way_in, code) = match self.ask() {
            Ok((_, way_in)) => (way_in.unwrap_or_else(known), ExitCode::SUCCESS),
            Err(Error::NoDaemon(error)) => (known(), crate::exit::no_daemon(&error)),
            Err(error) => return Err(error),
        };
        output.emit(&Client {
            label: &printable(&peer.label()),
            addresses: client::addresses(peer, tunnel),
            private_key: None,
            preshared_key: peer.preshared_key.as_ref(),
            full_tunnel,
            way_in: &way_in,
        })?;
        Ok(code)
    }

    pub(super) fn rotate(
        &self,
        name: &str,
        public_key: Option<&str>,
        psk: bool,
        full_tunnel: bool,
        output: &ClientOutput,
    ) -> Result<ExitCode, Error> {
        let keys = Keys::new(public_key)?;
        let output = Output::prepare(output, keys.private.is_some())?;
        let store = self.lock()?;
        let config = self.load()?;
        let (peer, tunnel) = (find(&config, name)?, self.tunnel(&config)?);
        if full_tunnel && !tunnel.full_tunnel {
            return Err(Error::NoFullTunnel);
        }
        let path = self.own_file(peer)?;
        self.check_key_is_new(tunnel, keys.public)?;
        let text = Store::read(&path)?.unwrap_or_default();
        let is_psk_elsewhere = edit::has_key(&text, "preshared_key_file");
        if psk && is_psk_elsewhere {
            return Err(Error::PresharedKeyFile { path });
        }
        let preshared_key =
            if is_psk_elsewhere { None } else { (psk || peer.preshared_key.is_some()).then(PresharedKey::generate) };
        let mut changes = vec![Change::PublicKey(keys.public)];
        changes.extend(preshared_key.clone().map(Change::PresharedKey));
        let text = changed(&path, &changes)?;
        let applied = self.apply(&store, &PeerEdits::from([(path, Some(text))]))?;
        drop(store);
        let label = printable(&peer.label()).into_owned();
        let code = applied.tell(&format!("{label} has a new key; the old one is out"));
        output.emit(&Client {
            label: &label,
            addresses: addresses_in(&applied.config, keys.public),
            private_key: keys.private,
            preshared_key: preshared_key.as_ref().or(peer.preshared_key.as_ref()),
            full_tunnel,
            way_in: &applied.way_in,
        })?;
        Ok(code)
    }
}

/// A file's text with the changes.
fn changed(path: &Path, changes: &[Change]) -> Result<zeroize::Zeroizing<String>, Error> {
    let text = Store::read(path)?.unwrap_or_default();
    edit::changed(&text, changes).map_err(|source| Error::Edit { path: path.to_owned(), source })
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The addresses in the tunnel of the peer with this key.
fn addresses_in(config: &Config, key: PublicKey) -> Vec<IpAddr> {
    let tunnel = config.wireguard.as_ref();
    let found = tunnel.and_then(|tunnel| Some((tunnel, tunnel.peers.iter().find(|peer| peer.public_key == key)?)));
    found.map(|(tunnel, peer)| client::addresses(peer, tunnel)).unwrap_or_default()
}
