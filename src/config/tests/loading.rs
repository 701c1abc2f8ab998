//! From a path to a configuration, or to why not.

use super::*;

/// What the whole chain of an error says, as a service's journal shows it.
fn refusal(path: &Path) -> String {
    crate::error::chain(&load(path, &Environment::default()).unwrap_err())
}

fn file_with(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, bytes).unwrap();
    (directory, path)
}

#[test]
fn a_file_is_read_and_checked() {
    let (_directory, path) = file_with(b"[log]\nlevel = \"debug\"\n");
    let mut config = defaults();
    config.log.level = tracing::Level::DEBUG;
    assert_eq!(load(&path, &Environment::default()).unwrap(), config);
}

#[test]
fn a_wrong_file_is_named_with_its_problems() {
    let (_directory, path) = file_with(b"[log]\nlevel = \"loud\"\nlvel = 1\n");
    let error = load(&path, &Environment::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("the configuration {} has 2 problem(s)", path.display()));
    let expected = [
        Problem::new("log.level", "`loud` is none of error, warn, info, debug, trace"),
        Problem::new("log.lvel", "unknown key; did you mean `log.level`?"),
    ];
    assert_eq!(error.problems(), expected);
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_path_and_cause() {
    let (directory, path) = file_with(b"[log]\nlevel = \"\xff\"\n");
    let missing = directory.path().join("missing.toml");
    for (path, cause) in [
        (missing.as_path(), "No such file or directory (os error 2)"),
        (directory.path(), "Is a directory (os error 21)"),
        (path.as_path(), "invalid utf-8 sequence of 1 bytes from index 15"),
    ] {
        assert_eq!(refusal(path), format!("cannot read the configuration {}: {cause}", path.display()));
        assert_eq!(load(path, &Environment::default()).unwrap_err().problems(), []);
    }
}

#[test]
fn whoever_may_not_read_a_file_is_told_what_helps() {
    let denied = Unreadable::from(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
    let told = |path: &str| denied.remedy(Path::new(path));
    assert_eq!(
        told("/etc/wireguard/wg0.conf"),
        "; the daemon reads it as user bastiond: `install -g bastiond -m 0640 /etc/wireguard/wg0.conf /etc/bastiond/` and \
         name the copy"
    );
    // install(1) does not copy a file onto itself.
    assert_eq!(
        told("/etc/bastiond/ada.psk"),
        "; the daemon reads it as user bastiond: `chgrp bastiond /etc/bastiond/ada.psk && chmod 640 /etc/bastiond/ada.psk`"
    );
    assert_eq!(Unreadable::TooLarge.remedy(Path::new("/etc/bastiond/ada.psk")), "");
}

#[test]
fn a_file_too_large_is_refused_before_it_is_read_as_a_whole() {
    let (_directory, path) = file_with(&vec![b'#'; 20 * 1024 * 1024]);
    let expected =
        |path: &Path| format!("cannot read the configuration {}: has more than 16777216 bytes", path.display());
    assert_eq!(refusal(&path), expected(&path));
    // A device tells no size and never ends.
    let endless = Path::new("/dev/zero");
    assert_eq!(refusal(endless), expected(endless));
}

#[test]
fn the_largest_file_is_read() {
    let mut text = b"log.level = \"debug\"\n#".to_vec();
    text.resize(16 * 1024 * 1024, b'x');
    let (_directory, path) = file_with(&text);
    assert_eq!(load(&path, &Environment::default()).unwrap().log, Log { level: tracing::Level::DEBUG });
}

#[test]
fn windows_editors_do_no_harm() {
    let (_directory, path) = file_with("\u{feff}[log]\r\nlevel = \"debug\"\r\n".as_bytes());
    assert_eq!(load(&path, &Environment::default()).unwrap().log, Log { level: tracing::Level::DEBUG });
    assert_eq!(
        problems_of("\u{feff}[log]\r\nlevel = \"debug\r\n"),
        ["line 2, column 16: invalid basic string, expected `\"`"]
    );
}

#[test]
fn bytes_that_no_text_has_are_a_syntax_error() {
    assert_eq!(problems_of("\0"), ["line 1, column 2: key with no value, expected `=`"]);
    assert_eq!(
        problems_of("[log]\nlevel = \"in\0fo\"\n"),
        ["line 2, column 12: invalid basic string, expected non-double-quote visible characters, `\\`"]
    );
}

#[test]
fn a_file_nested_without_end_is_refused() {
    let deep = |open: &str, close: &str| format!("a = {}1{}", open.repeat(100_000), close.repeat(100_000));
    let too_deep = "cannot recurse further; max recursion depth met";
    assert_eq!(problems_of(&deep("[", "]")), [format!("line 1, column 85: {too_deep}")]);
    assert_eq!(problems_of(&deep("{a=", "}")), [format!("line 1, column 245: {too_deep}")]);
    assert_eq!(problems_of(&format!("{}b = 1", "a.".repeat(100_000))), ["the file: recursion limit"]);
    assert_eq!(problems_of(&format!("[{}b]", "a.".repeat(100_000))), ["the file: recursion limit"]);
}
