//! Reading a configuration from a path.

use super::*;

/// The error with its causes, as in the journal.
fn load_error(path: &Path) -> String {
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
fn the_error_for_a_wrong_file_has_its_path_and_diagnostics() {
    let (_directory, path) = file_with(b"[log]\nlevel = \"loud\"\nlvel = 1\n");
    let error = load(&path, &Environment::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("the configuration {} has 2 problem(s)", path.display()));
    let lines: Vec<String> = error.diagnostics().iter().map(ToString::to_string).collect();
    let expected = [
        "line 2, column 9: log.level: `loud` is not one of error, warn, info, debug, trace",
        "line 3, column 1: log.lvel: unknown key; did you mean `log.level`?",
    ];
    assert_eq!(lines, expected);
    let excerpt = "\
error: log.level: `loud` is not one of error, warn, info, debug, trace
 --> /etc/bastiond/config.toml:2:9
  |
2 | level = \"loud\"
  |         ^^^^^^";
    assert_eq!(error.diagnostics()[0].excerpt(Path::new("/etc/bastiond/config.toml"), Severity::Error), excerpt);
}

#[test]
fn a_problem_names_the_block_and_shows_no_secret() {
    let forward = "[[nat.forward]]\nname = \"web\"\nport = 443\nto = \"10.0.0.4/33\"\n";
    let peer = "[[wireguard.peer]]\nname = \"ada\"\npreshared_key = \"secret\"\n";
    let (_directory, path) = file_with(format!("{forward}{peer}").as_bytes());
    let error = load(&path, &Environment::default()).unwrap_err();
    let all: Vec<String> = error.diagnostics().iter().map(|problem| problem.excerpt(&path, Severity::Error)).collect();
    let all = all.join("\n");
    assert!(all.contains("nat.forward \"web\".to: "), "{all}");
    assert!(all.contains("wireguard.peer \"ada\".preshared_key: "), "{all}");
    assert!(!all.contains("secret"), "{all}");
    let (_directory, path) = file_with(b"[[wireguard.peer]]\npreshared_key = secret\n");
    let error = load(&path, &Environment::default()).unwrap_err();
    let shown = error.diagnostics()[0].excerpt(&path, Severity::Error) + &error.diagnostics()[0].to_string();
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn a_peers_file_is_named_with_the_line() {
    let (directory, path) = file_with(b"[wireguard]\n");
    std::fs::create_dir(directory.path().join("peers.d")).unwrap();
    std::fs::write(directory.path().join("peers.d/ada.toml"), "\nendpoint = \"here\"\n").unwrap();
    std::fs::write(directory.path().join("peers.d/ada-2.toml"), "\n\nendpoint = \"there\"\n").unwrap();
    std::fs::write(directory.path().join("peers.d/bob.toml"), "allowed_ips = [10.100.0.3]\n").unwrap();
    let error = load(&path, &Environment::default()).unwrap_err();
    let lines: Vec<String> = error.diagnostics().iter().map(ToString::to_string).collect();
    let starts = [
        "peers.d/ada-2.toml: line 1, column 1: public_key: is missing",
        "peers.d/ada-2.toml: line 3, column 12: endpoint: `there` is not",
        "peers.d/ada.toml: line 1, column 1: public_key: is missing",
        "peers.d/ada.toml: line 2, column 12: endpoint: `here` is not",
        "peers.d/bob.toml: line 1, column 16: 10.100.0.3 is an address; put addresses in quotes",
    ];
    assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{lines:?}");
    assert_eq!(lines.len(), starts.len());
}

#[test]
fn the_error_for_an_unreadable_file_has_its_path_and_cause() {
    let (directory, path) = file_with(b"[log]\nlevel = \"\xff\"\n");
    let missing = directory.path().join("missing.toml");
    for (path, cause) in [
        (missing.as_path(), "No such file or directory (os error 2)"),
        (directory.path(), "it is a directory, not a regular file"),
        (path.as_path(), "line 2 is not UTF-8 text; save the file as UTF-8"),
    ] {
        assert_eq!(load_error(path), format!("cannot read the configuration {}: {cause}", path.display()));
        assert_eq!(load(path, &Environment::default()).unwrap_err().diagnostics(), []);
    }
}

#[test]
fn the_error_for_a_file_without_permission_has_the_command_that_helps() {
    let denied = ReadError::from(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
    let remedy = |path: &str| crate::config::files::remedy(&denied, Path::new(path));
    assert_eq!(
        remedy("/etc/wireguard/wg0.conf"),
        "; let the user bastiond read it: `install -g bastiond -m 0640 /etc/wireguard/wg0.conf /etc/bastiond/` and \
         name the copy"
    );
    // install(1) does not copy a file onto itself.
    assert_eq!(
        remedy("/etc/bastiond/ada.psk"),
        "; let the user bastiond read it: `chgrp bastiond /etc/bastiond/ada.psk && chmod 640 /etc/bastiond/ada.psk`"
    );
    let large = ReadError::TooLarge { max: 1 };
    assert_eq!(crate::config::files::remedy(&large, Path::new("/etc/bastiond/ada.psk")), "");
}

#[test]
fn a_file_of_more_than_16_mib_is_rejected_without_reading_all_of_it() {
    let (_directory, path) = file_with(&vec![b'#'; 20 * 1024 * 1024]);
    let expected = |path: &Path| {
        format!("cannot read the configuration {}: the file has more than 16777216 bytes", path.display())
    };
    assert_eq!(load_error(&path), expected(&path));
    // A device reports no size and never ends.
    let endless = Path::new("/dev/zero");
    let refused = "cannot read the configuration /dev/zero: it is a device, not a regular file";
    assert_eq!(load_error(endless), refused);
}

#[test]
fn a_file_of_16_mib_is_read() {
    let mut text = b"log.level = \"debug\"\n#".to_vec();
    text.resize(16 * 1024 * 1024, b'x');
    let (_directory, path) = file_with(&text);
    assert_eq!(load(&path, &Environment::default()).unwrap().log, Log { level: tracing::Level::DEBUG });
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_accepted() {
    let (_directory, path) = file_with("\u{feff}[log]\r\nlevel = \"debug\"\r\n".as_bytes());
    assert_eq!(load(&path, &Environment::default()).unwrap().log, Log { level: tracing::Level::DEBUG });
    assert_eq!(
        problems_of("\u{feff}[log]\r\nlevel = \"debug\r\n"),
        ["line 2, column 16: invalid basic string, expected `\"`"]
    );
}

#[test]
fn control_characters_are_a_syntax_error() {
    assert_eq!(problems_of("\0"), ["line 1, column 2: key with no value, expected `=`"]);
    assert_eq!(
        problems_of("[log]\nlevel = \"in\0fo\"\n"),
        ["line 2, column 12: invalid basic string, expected non-double-quote visible characters, `\\`"]
    );
}

#[test]
fn a_deeply_nested_file_is_rejected() {
    let deep = |open: &str, close: &str| format!("a = {}1{}", open.repeat(100_000), close.repeat(100_000));
    let too_deep = "cannot recurse further; max recursion depth met";
    assert_eq!(problems_of(&deep("[", "]")), [format!("line 1, column 85: {too_deep}")]);
    assert_eq!(problems_of(&deep("{a=", "}")), [format!("line 1, column 245: {too_deep}")]);
    assert_eq!(problems_of(&format!("{}b = 1", "a.".repeat(100_000))), ["the file: recursion limit"]);
    assert_eq!(problems_of(&format!("[{}b]", "a.".repeat(100_000))), ["the file: recursion limit"]);
}

#[test]
fn every_file_may_have_a_byte_order_mark_and_comments_in_any_encoding() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    std::fs::write(
        at("wg7.conf"),
        [b"\xef\xbb\xbf# B\xfcro\r\n[Interface]\r\n", format!("PrivateKey = {key}\r\n").as_bytes()].concat(),
    )
    .unwrap();
    std::fs::create_dir(at("peers.d")).unwrap();
    let peer = "public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nallowed_ips = [\"10.100.0.2\"]\n";
    std::fs::write(at("peers.d/ada.toml"), [b"\xef\xbb\xbf# f\xfcr Ada\n", peer.as_bytes()].concat()).unwrap();
    let text = |more: &str| [b"\xef\xbb\xbf# B\xfcro\r\n[wireguard]\r\n".as_slice(), more.as_bytes()].concat();
    std::fs::write(at("config.toml"), text("")).unwrap();
    let tunnel = || load(&at("config.toml"), &Environment::default()).unwrap().wireguard.unwrap();
    assert_eq!(tunnel().peers[0].name.as_deref(), Some("ada"));
    std::fs::remove_dir_all(at("peers.d")).unwrap();
    std::fs::write(at("config.toml"), text(&format!("file = {:?}\n", at("wg7.conf")))).unwrap();
    assert_eq!(tunnel().private_key.unwrap().to_base64().as_str(), key);
}
