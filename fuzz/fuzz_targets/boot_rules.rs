//! Any bytes as the file of the last good rules: they are refused, or made into commands for our own table alone.
#![no_main]

use bastiond::internals::config::{Config, Environment, parse};
use bastiond::internals::nat::boot_commands;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

std::thread_local! {
    static CONFIG: Config = parse(include_str!("../seeds/config/limits.toml"), &Environment::default())
        .expect("the seed is a configuration");
}

fuzz_target!(|bytes: &[u8]| {
    let Some(commands) = CONFIG.with(|config| boot_commands(bytes, config)) else { return };
    let document: Value = serde_json::from_str(&commands).expect("the commands are JSON");
    for command in document["nftables"].as_array().expect("a list of commands") {
        let (_, objects) = command.as_object().and_then(|command| command.iter().next()).expect("a verb");
        let (kind, object) = objects.as_object().and_then(|objects| objects.iter().next()).expect("an object");
        let table = if kind == "table" { &object["name"] } else { &object["table"] };
        assert!(table == "bastiond" && object["family"] == "inet", "{command}");
    }
});
