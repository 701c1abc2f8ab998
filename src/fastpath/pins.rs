//! The files that stand for the loaded programs and maps (bpffs). They belong to the daemon's account, which may open
//! them without any right to load programs.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use aya::programs::{ProgramError, SchedClassifier};

use super::Error;
use super::load;
use super::model::{Counters, Generation, Hook, LinkIndex, Loaded, ProgramId};
use super::object::{CONTROL, COUNTERS, FORWARD, LEARN, version};

/// The directory whose entries name the links whose clsact this component made. bpffs holds no other notes, and a
/// reboot clears both.
const QDISCS: &str = "qdiscs";
/// The first number is the generation, the second one the last that was not [`Generation::OFF`].
type Control = [u32; 2];
/// `struct counters` of the programs.
type CounterValues = [u64; 8];

/// The directory with the files of all versions.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    directory: PathBuf,
}

impl Pins {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn of_this_version(&self) -> PathBuf {
        self.directory.join(version())
    }

    /// The programs of this version; `None` if they are not loaded.
    pub(super) fn loaded(&self) -> Result<Option<Loaded>, Error> {
        if !exists(&self.of_this_version())? {
            return Ok(None);
        }
        let id = |hook| {
            let program = self.program(hook)?;
            let id = program.info().map_err(|source| self.unusable_program(hook, source))?.id();
            Ok(ProgramId(id))
        };
        let [generation, _] = self.control()?;
        Ok(Some(Loaded {
            forward: id(Hook::Ingress)?,
            learn: id(Hook::Egress)?,
            generation: Generation(generation),
            counters: self.counters()?,
        }))
    }

    /// The program of a hook.
    pub(super) fn program(&self, hook: Hook) -> Result<SchedClassifier, Error> {
        SchedClassifier::from_pin(self.path_of(hook)).map_err(|source| self.unusable_program(hook, source))
    }

    fn path_of(&self, hook: Hook) -> PathBuf {
        self.of_this_version().join(match hook {
            Hook::Ingress => FORWARD,
            Hook::Egress => LEARN,
        })
    }

    pub(super) fn unusable_program(&self, hook: Hook, source: ProgramError) -> Error {
        Error::Program { path: self.path_of(hook), source: Box::new(source) }
    }

    /// Ends all entries, and begins another generation.
    pub(super) fn raise_generation(&self) -> Result<(), Error> {
        let [_, last] = self.control()?;
        let next = Generation(last).next().0;
        self.set_control([next, next])
    }

    /// Ends all entries, and no other is made.
    pub(super) fn switch_off(&self) -> Result<(), Error> {
        let [_, last] = self.control()?;
        self.set_control([Generation::OFF.0, last])
    }

    fn control(&self) -> Result<Control, Error> {
        self.with_map(CONTROL, |map| Array::<_, Control>::try_from(map)?.get(&0, 0))
    }

    fn set_control(&self, control: Control) -> Result<(), Error> {
        self.with_map(CONTROL, |map| Array::<_, Control>::try_from(map)?.set(0, control, 0))
    }

    fn counters(&self) -> Result<Counters, Error> {
        let read = |map| {
            let map = PerCpuArray::<_, CounterValues>::try_from(Map::PerCpuArray(map))?;
            map.get(&0, 0)
        };
        let path = self.of_this_version().join(COUNTERS);
        let values = MapData::from_pin(&path).and_then(read);
        let values = values.map_err(|source| Error::Map { path, source: Box::new(source) })?;
        let sum = |index: usize| values.iter().fold(0_u64, |sum, values| sum.wrapping_add(values[index]));
        Ok(Counters { carried: sum(0), carried_bytes: sum(1), full_path: sum(2), crowded: sum(4), lost: sum(5) })
    }

    fn with_map<T>(&self, name: &str, read: impl FnOnce(Map) -> Result<T, MapError>) -> Result<T, Error> {
        let path = self.of_this_version().join(name);
        let result = MapData::from_pin(&path).and_then(|map| read(Map::Array(map)));
        result.map_err(|source| Error::Map { path, source: Box::new(source) })
    }

    /// What is there of other versions.
    pub(super) fn other_versions(&self) -> Result<BTreeSet<String>, Error> {
        let mut names = entries(&self.directory)?;
        names.retain(|name| *name != version() && name != QDISCS);
        Ok(names)
    }

    /// Removes the files of another version.
    pub(super) fn remove_version(&self, name: &str) -> Result<(), Error> {
        load::remove_pins(&self.directory.join(name)).map_err(Error::Remove)
    }

    /// Removes the files of this version.
    pub(super) fn remove_this_version(&self) -> Result<(), Error> {
        load::remove_pins(&self.of_this_version()).map_err(Error::Remove)
    }

    /// The links whose clsact this component made.
    pub(super) fn made_qdiscs(&self) -> Result<BTreeSet<LinkIndex>, Error> {
        let names = entries(&self.directory.join(QDISCS))?;
        Ok(names.iter().filter_map(|name| name.parse().ok().map(LinkIndex)).collect())
    }

    /// Notes that the clsact of a link is of this component.
    pub(super) fn note_qdisc(&self, link: LinkIndex) -> Result<(), Error> {
        let path = self.directory.join(QDISCS).join(link.0.to_string());
        std::fs::create_dir_all(&path).map_err(|source| Error::Note { path, source })
    }

    /// Forgets the note, and the directory of the last one.
    pub(super) fn forget_qdisc(&self, link: LinkIndex) -> Result<(), Error> {
        let directory = self.directory.join(QDISCS);
        let path = directory.join(link.0.to_string());
        match std::fs::remove_dir(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(Error::Note { path, source }),
            _ => {}
        }
        // It is not empty while there are others.
        let _ = std::fs::remove_dir(&directory);
        Ok(())
    }
}

/// A directory that this process may not look into counts as missing: `/sys/fs/bpf` itself is root's alone, and the
/// daemon's unit shows the daemon its part of it elsewhere.
fn exists(path: &Path) -> Result<bool, Error> {
    match path.try_exists() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        exists => exists.map_err(|source| Error::Note { path: path.to_owned(), source }),
    }
}

/// The names in a directory; none if it does not exist.
fn entries(directory: &Path) -> Result<BTreeSet<String>, Error> {
    let failed = |source| Error::Note { path: directory.to_owned(), source };
    let listed = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        // As in `exists`.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(BTreeSet::new()),
        listed => listed.map_err(failed)?,
    };
    let mut names = BTreeSet::new();
    for entry in listed {
        names.insert(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
