//! The environment variables, and which of two sources is used.

use super::*;

fn with(change: impl FnOnce(&mut Environment)) -> Environment {
    let mut environment = Environment::default();
    change(&mut environment);
    environment
}

#[test]
fn an_endpoint_in_the_environment_overrides_the_file() {
    let text =
        "[hcloud]\nendpoint = \"https://file.example/v1\"\n[site]\nmetadata_endpoint = \"http://file.example\"\n";
    let environment = with(|environment| {
        environment.hcloud_endpoint = Some("http://127.0.0.1:8080/v1/".to_owned());
        environment.hcloud_metadata_endpoint = Some("http://127.0.0.1:8081".to_owned());
    });
    let mut config = defaults();
    config.hcloud.endpoint = "https://file.example/v1".to_owned();
    config.site.metadata_endpoint = "http://file.example".to_owned();
    assert_eq!(parse(text, &Environment::default()), Ok(config));

    let mut config = defaults();
    config.hcloud.endpoint = "http://127.0.0.1:8080/v1".to_owned();
    config.site.metadata_endpoint = "http://127.0.0.1:8081".to_owned();
    assert_eq!(parse(text, &environment), Ok(config.clone()));
    assert_eq!(parse("", &environment), Ok(config));
}

#[test]
fn a_wrong_endpoint_is_reported_under_its_key_or_variable() {
    let environment = with(|environment| {
        environment.hcloud_endpoint = Some("localhost".to_owned());
        environment.hcloud_metadata_endpoint = Some("file:///etc/passwd".to_owned());
    });
    let problems = parse("[hcloud]\nendpoint = \"https://u:p@h\"\n", &environment).unwrap_err();
    let expected = [
        Diagnostic::new("HCLOUD_ENDPOINT", "is not a URL: relative URL without a base"),
        Diagnostic::new("HCLOUD_METADATA_ENDPOINT", "`file:///etc/passwd` is not an http or https URL"),
        Diagnostic::new("hcloud.endpoint", "must not contain a user name or password; remove them"),
    ];
    assert_eq!(problems, expected);
}

#[test]
fn the_token_comes_from_credential_file_variable_file_and_variable_in_this_order() {
    let environment = with(|environment| {
        environment.credentials_directory = Some("/run/credentials/bastiond.service".into());
        environment.hcloud_token_file = Some("/root/token".into());
        environment.hcloud_token = Some(Secret::new("the-token".to_owned()));
    });
    let config = parse("[hcloud]\ntoken_file = \"/srv/token\"\n", &environment).unwrap();
    let expected = TokenSource {
        credential: Some("/run/credentials/bastiond.service/hcloud-token".into()),
        files: vec!["/srv/token".into(), "/root/token".into()],
        value: Some(Secret::new("the-token".to_owned())),
    };
    assert_eq!(config.hcloud.token, expected);
    assert_eq!(config.hcloud.token.value.as_ref().map(Secret::expose), Some("the-token"));
}

#[test]
fn each_token_source_can_be_the_only_one() {
    let default = || PathBuf::from("/etc/bastiond/hcloud-token");
    let cases: [(Environment, TokenSource); 4] = [
        (Environment::default(), TokenSource { credential: None, files: vec![default()], value: None }),
        (
            with(|environment| environment.credentials_directory = Some("/run/c".into())),
            TokenSource { credential: Some("/run/c/hcloud-token".into()), files: vec![default()], value: None },
        ),
        (
            with(|environment| environment.hcloud_token_file = Some("/root/token".into())),
            TokenSource { credential: None, files: vec![default(), "/root/token".into()], value: None },
        ),
        (
            with(|environment| environment.hcloud_token = Some(Secret::new("t".to_owned()))),
            TokenSource { credential: None, files: vec![default()], value: Some(Secret::new("t".to_owned())) },
        ),
    ];
    for (environment, expected) in cases {
        assert_eq!(parse("", &environment).unwrap().hcloud.token, expected, "{environment:?}");
    }
}

#[test]
fn the_network_in_the_environment_is_kept_unchanged() {
    for network in ["1234", "production"] {
        let environment = with(|environment| environment.hcloud_network = Some(network.to_owned()));
        let mut config = defaults();
        config.hcloud.network = Some(network.to_owned());
        assert_eq!(parse("", &environment), Ok(config));
    }
}

#[test]
fn debug_output_never_contains_the_token() {
    let environment = with(|environment| environment.hcloud_token = Some(Secret::new("s3cr3t".to_owned())));
    let config = parse("", &environment).unwrap();
    for text in [format!("{config:?}"), format!("{environment:#?}"), format!("{:?}", config.hcloud.token)] {
        assert!(text.contains("[redacted]") && !text.contains("s3cr3t"), "{text}");
    }
}

#[test]
fn the_directories_come_from_systemd_or_are_those_of_the_package() {
    let environment = with(|environment| {
        environment.runtime_directory = Some("/run/other".into());
        environment.state_directory = Some("/srv/state".into());
    });
    let default = Environment::default();
    assert_eq!(
        [default.runtime_directory(), default.state_directory()],
        ["/run/bastiond", "/var/lib/bastiond"].map(PathBuf::from)
    );
    assert_eq!(
        [environment.runtime_directory(), environment.state_directory()],
        ["/run/other", "/srv/state"].map(PathBuf::from)
    );
}

#[test]
fn an_endpoint_that_shows_the_token_to_others_is_warned_of() {
    let warnings = |endpoint: &str| warnings_of(&format!("hcloud.endpoint = \"{endpoint}\""));
    for good in ["https://api.example.org/v1", "http://127.0.0.1:8080/v1", "http://[::1]/v1", "http://localhost:1/v1"] {
        assert_eq!(warnings(good), [""; 0], "{good}");
    }
    for (bad, host) in [
        ("http://api.hetzner.cloud/v1", "api.hetzner.cloud"),
        ("http://10.0.0.9/v1", "10.0.0.9"),
        ("http://[2001:db8::1]/v1", "[2001:db8::1]"),
        ("http://localhost.example.org/v1", "localhost.example.org"),
    ] {
        let expected = format!(
            "hcloud.endpoint: the API token goes to {host} unencrypted, and everybody on the way can take it; write \
             https://, or reach it by loopback"
        );
        assert_eq!(warnings(bad), [expected], "{bad}");
    }
}
