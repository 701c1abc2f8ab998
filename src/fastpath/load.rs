//! Loads the programs, for the short-lived program `bastiond-fastpath`, which is root. The daemon has no right to load
//! programs: it owns the files that stand for them, attaches them to links, and writes the generation.
//!
//! By `aya`: it loads objects without a C library and a compiler, and needs no unsafe code of ours. It has no wrapper
//! for filters of clsact that stay when their owner ends, so those are made by route netlink ([`super::filters`]).

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};

use aya::maps::Map;
use aya::programs::{ProgramError, SchedClassifier};
use aya::{EbpfError, EbpfLoader};
use nix::unistd::{Gid, Uid};

use super::object::{CONTROL, COUNTERS, FLOWS, FORWARD, LEARN, OBJECT, version};
use super::offsets;

/// The fewest and the most buckets of two entries each; an entry has 64 bytes, and a flow takes two.
const BUCKETS: (u64, u64) = (1 << 14, 1 << 18);
/// Bytes of memory for each bucket: the table takes less than 1 % of the memory.
const BYTES_PER_BUCKET: u64 = 16 * 1024;

/// Why the programs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This kernel's structures are not known.
    #[error("the kernel's structures are not known")]
    Offsets(#[from] offsets::Error),
    /// The kernel's verifier refuses a program, or this process may not load any.
    #[error("the kernel does not load the program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The kernel's answer.
        source: Box<ProgramError>,
    },
    /// The maps cannot be made, or the object is damaged.
    #[error("the kernel does not load the object")]
    Object(#[source] Box<EbpfError>),
    /// The object lacks something that it must have.
    #[error("the object has no {what}")]
    Incomplete {
        /// The name of a program or a map.
        what: &'static str,
    },
    /// A file below the directory cannot be made, changed or removed.
    #[error("cannot {operation} {}: is a BPF file system mounted there?", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A program or a map cannot be pinned.
    #[error("cannot pin {what} below {}", directory.display())]
    Pin {
        /// The name of a program or a map.
        what: &'static str,
        /// The directory.
        directory: PathBuf,
        /// The kernel's answer.
        source: Box<aya::pin::PinError>,
    },
}

/// Who owns the files: the daemon's user and group.
pub type Owner = (Uid, Gid);

/// Loads the programs of this version and pins them in `directory`, where they stay when this process ends. Does
/// nothing but give them to `owner` if they are there. `owner`: `None` for the caller itself. Returns whether they
/// were loaded.
pub fn load(directory: &Path, owner: Option<Owner>) -> Result<bool, Error> {
    make_directory(directory, owner)?;
    let place = directory.join(version());
    if place.exists() {
        give_all(&place, owner)?;
        return Ok(false);
    }
    // A BPF file system takes no names with dots.
    let unfinished = directory.join(format!("{}-unfinished", version()));
    // What an earlier attempt left.
    remove_pins(&unfinished)?;
    make_directory(&unfinished, owner)?;
    pin_all(&unfinished, owner)?;
    std::fs::rename(&unfinished, &place).map_err(|source| Error::File { operation: "make", path: place, source })?;
    Ok(true)
}

/// Removes the files of one version, which ends programs that are not attached to a link.
pub(super) fn remove_pins(place: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { operation: "remove", path, source }
    };
    let entries = match std::fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed(place))?,
    };
    for entry in entries {
        let path = entry.map_err(failed(place))?.path();
        std::fs::remove_file(&path).map_err(failed(&path))?;
    }
    std::fs::remove_dir(place).map_err(failed(place))
}

fn make_directory(path: &Path, owner: Option<Owner>) -> Result<(), Error> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(|source| Error::File { operation: "make", path: path.to_owned(), source })?,
    }
    give(path, owner)
}

fn give(path: &Path, owner: Option<Owner>) -> Result<(), Error> {
    let Some((user, group)) = owner else { return Ok(()) };
    chown(path, Some(user.as_raw()), Some(group.as_raw())).map_err(|source| Error::File {
        operation: "give away",
        path: path.to_owned(),
        source,
    })
}

/// Gives a directory and what is in it.
fn give_all(directory: &Path, owner: Option<Owner>) -> Result<(), Error> {
    let failed = |source| Error::File { operation: "read", path: directory.to_owned(), source };
    give(directory, owner)?;
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        give(&entry.map_err(failed)?.path(), owner)?;
    }
    Ok(())
}

/// Loads everything, and pins it in an empty directory.
fn pin_all(directory: &Path, owner: Option<Owner>) -> Result<(), Error> {
    let constants = offsets::of_this_kernel()?;
    let buckets = buckets(memory());
    let (mask, seed) = (buckets - 1, fastrand::u32(..));
    let mut loader = EbpfLoader::new();
    loader.set_max_entries(FLOWS, buckets).set_global("bucket_mask", &mask, true).set_global("seed", &seed, true);
    for (name, value) in &constants {
        loader.set_global(name, value, true);
    }
    let mut object = loader.load(OBJECT).map_err(|error| Error::Object(Box::new(error)))?;
    for program in [FORWARD, LEARN] {
        let missing = || Error::Incomplete { what: program };
        let found = object.program_mut(program).ok_or_else(missing)?;
        let classifier = <&mut SchedClassifier>::try_from(found).map_err(|_| missing())?;
        let failed = |source| Error::Program { program, source: Box::new(source) };
        classifier.load().map_err(failed)?;
        let path = directory.join(program);
        classifier.pin(&path).map_err(|source| pin_failed(program, directory, source))?;
        give(&path, owner)?;
    }
    for map in [CONTROL, COUNTERS] {
        let found: &Map = object.map(map).ok_or(Error::Incomplete { what: map })?;
        let path = directory.join(map);
        found.pin(&path).map_err(|source| pin_failed(map, directory, source))?;
        give(&path, owner)?;
    }
    Ok(())
}

fn pin_failed(what: &'static str, directory: &Path, source: aya::pin::PinError) -> Error {
    Error::Pin { what, directory: directory.to_owned(), source: Box::new(source) }
}

/// Buckets for this many bytes of memory: a power of two.
fn buckets(memory: Option<u64>) -> u32 {
    let wanted = memory.unwrap_or_default() / BYTES_PER_BUCKET;
    let (fewest, most) = BUCKETS;
    let bounded = wanted.clamp(fewest, most);
    // The power of two below.
    u32::try_from(1_u64 << bounded.ilog2()).unwrap_or(u32::MAX)
}

/// Bytes of memory of this machine.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    kilobytes?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_takes_less_than_a_hundredth_of_the_memory() {
        let mib = |mib: u64| buckets(Some(mib << 20));
        assert_eq!(
            [buckets(None), mib(256), mib(1900), mib(3800), mib(64_000)].map(|buckets| buckets / 1024),
            [16, 16, 64, 128, 256]
        );
        for memory in [1900_u64, 3800, 7700, 64_000] {
            assert!(u64::from(mib(memory)) * 128 * 100 < memory << 20, "{memory} MiB");
        }
    }
}
