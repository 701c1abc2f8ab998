use super::*;

fn empty() -> Config {
    parse("", &Environment::default()).unwrap()
}

#[test]
fn an_empty_file_is_a_configuration() {
    let c = empty();
    assert_eq!(c.hcloud.endpoint, "https://api.hetzner.cloud/v1");
}
