//! Reads whole files that an operator, an editor or another program put there: only regular ones, of bounded size.
//!
//! To open a FIFO waits for its writer, a device may never end, and a core dump does not fit into memory. What is no
//! regular file is refused before it is opened, and once more on the opened file, which may be another one by then;
//! `O_NONBLOCK` keeps that open from waiting (open(2)).

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::libc;
use zeroize::Zeroizing;

/// A file's content, which may hold secrets.
#[derive(Debug)]
pub(crate) struct Content {
    /// What is in it.
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// Whether every user of this server may read the file.
    pub(crate) world_readable: bool,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system reports an error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is {kind}, not a regular file")]
    NotRegular {
        /// `a directory`, `a pipe`, `a socket` or `a device`.
        kind: &'static str,
    },
    /// The file is too large.
    #[error("the file has more than {max} bytes")]
    TooLarge {
        /// The largest size that is read, in bytes.
        max: u64,
    },
    /// It is text in an encoding that no program here reads.
    #[error("it is UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")]
    Utf16,
    /// It holds a byte of zero, as no text does.
    #[error("line {line} holds a byte of zero, so this is no text; save the file as UTF-8 text")]
    ZeroByte {
        /// The number of the first such line, from 1.
        line: usize,
    },
    /// It is text in another encoding, or no text.
    #[error("line {line} is not UTF-8 text; save the file as UTF-8")]
    NotText {
        /// The number of the first such line, from 1.
        line: usize,
    },
}

impl Error {
    /// The system's kind of error; `None` if the file could be opened and is not one of ours.
    pub(crate) fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(error) => Some(error.kind()),
            Self::NotRegular { .. }
            | Self::TooLarge { .. }
            | Self::Utf16
            | Self::ZeroByte { .. }
            | Self::NotText { .. } => None,
        }
    }

    /// Whether the file does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.kind() == Some(io::ErrorKind::NotFound)
    }

    /// The same as an error of the system, for callers whose own error holds one.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// Reads the regular file at `path` of at most `max` bytes. Symbolic links are followed.
pub(crate) fn read(path: &Path, max: u64) -> Result<Content, Error> {
    check_is_regular(&std::fs::metadata(path)?)?;
    read_opened(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?, max)
}

/// Reads a file that was opened with `O_NONBLOCK`, of at most `max` bytes.
pub(crate) fn read_opened(file: File, max: u64) -> Result<Content, Error> {
    let metadata = file.metadata()?;
    check_is_regular(&metadata)?;
    let bytes = read_all(file, metadata.len(), max)?;
    Ok(Content { bytes, world_readable: metadata.permissions().mode() & 0o004 != 0 })
}

/// The same as text.
pub(crate) fn read_text(path: &Path, max: u64) -> Result<Zeroizing<String>, Error> {
    let content = read(path, max)?;
    text(&content.bytes)
}

/// The bytes as text, without a byte order mark. What stands behind a `#` may be in any encoding: with all files that
/// are read so, that is a comment, and people write comments in what their editor has.
pub(crate) fn text(bytes: &[u8]) -> Result<Zeroizing<String>, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        if !text.contains('\0') {
            return Ok(Zeroizing::new(text.to_owned()));
        }
    }
    if is_utf_16(bytes) {
        return Err(Error::Utf16);
    }
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let content = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let line_number = index + 1;
        if content.contains(&0) {
            return Err(Error::ZeroByte { line: line_number });
        }
        if std::str::from_utf8(content).is_err() {
            return Err(Error::NotText { line: line_number });
        }
        text.push_str(&String::from_utf8_lossy(line));
    }
    Ok(text)
}

/// With a byte order mark, or with the first two characters in two bytes each.
fn is_utf_16(bytes: &[u8]) -> bool {
    match *bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, b, c, d, ..] => (b == 0 && d == 0 && a != 0 && c != 0) || (a == 0 && c == 0 && b != 0 && d != 0),
        _ => false,
    }
}

fn check_is_regular(metadata: &Metadata) -> Result<(), Error> {
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(Error::NotRegular { kind })
}

fn read_all(file: File, size: u64, max: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
    if size > max {
        return Err(Error::TooLarge { max });
    }
    // Room for all of it, so that no copy of a secret is left behind where the buffer grew.
    let room = usize::try_from(size).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    // The size is not enough: the file may grow meanwhile, and below /proc it is 0.
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(Error::TooLarge { max }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_regular_file_is_read_and_nothing_waits() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink(at("pipe"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nothing"), at("dangling")).unwrap();
        std::fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink(at("file"), at("good link")).unwrap();
        let refusal = |path: &Path| read(path, 100).unwrap_err().to_string();
        assert_eq!(refusal(&at("pipe")), "it is a pipe, not a regular file");
        assert_eq!(refusal(&at("link")), "it is a pipe, not a regular file");
        assert_eq!(refusal(&at("socket")), "it is a socket, not a regular file");
        assert_eq!(refusal(directory.path()), "it is a directory, not a regular file");
        assert_eq!(refusal(Path::new("/dev/zero")), "it is a device, not a regular file");
        assert!(read(&at("dangling"), 100).unwrap_err().is_not_found());
        assert_eq!(*read_text(&at("good link"), 100).unwrap(), "text");
    }

    #[test]
    fn comments_may_be_in_any_encoding_and_other_text_is_named_by_its_line() {
        let read = |bytes: &[u8]| text(bytes).map(|text| text.to_string()).map_err(|error| error.to_string());
        assert_eq!(read(b"\xef\xbb\xbfa = 1\r\n"), Ok("a = 1\r\n".to_owned()));
        assert_eq!(read(b"a = 1 # B\xfcro\nb = 2\n"), Ok("a = 1 # B\u{fffd}ro\nb = 2\n".to_owned()));
        let not_text = |line: usize| Err(format!("line {line} is not UTF-8 text; save the file as UTF-8"));
        assert_eq!(read(b"a = 1\nb = \"B\xfcro\"\n"), not_text(2));
        let zero = "line 3 holds a byte of zero, so this is no text; save the file as UTF-8 text";
        assert_eq!(read(b"a = 1\n\nb = \0\n"), Err(zero.to_owned()));
        let utf_16 = Err("it is UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)".to_owned());
        for bytes in [&b"\xff\xfea\0=\0"[..], b"\xfe\xff\0a\0=", b"a\0=\0", b"\0a\0="] {
            assert_eq!(read(bytes), utf_16, "{bytes:?}");
        }
    }

    #[test]
    fn a_file_beyond_the_largest_size_is_refused_and_one_of_that_size_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(*read_text(&path, 5).unwrap(), "12345");
        assert_eq!(read(&path, 4).unwrap_err().to_string(), "the file has more than 4 bytes");
        // Its size is 0, as of most files of the kernel.
        let endless = Path::new("/proc/self/maps");
        assert_eq!(read(endless, 10).unwrap_err().to_string(), "the file has more than 10 bytes");
    }
}
