//! The `hcloud` commands of the installation guide: each command and flag must exist in the installed `hcloud`, and the
//! commands about the network are run. The fake cloud cannot create servers, keys and firewalls.

use std::collections::BTreeSet;

use sandbox::cloud::Cloud;
use serde_json::json;

use crate::common::Served;
use crate::{DEFAULT, World, net, route};

/// The commands in the shell blocks of the document, split into words.
fn commands() -> Vec<Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/install.md");
    let document = std::fs::read_to_string(path).expect("the document");
    let mut shell = false;
    let mut commands = Vec::new();
    for line in document.lines() {
        match line {
            "```sh" => shell = true,
            line if line.starts_with("```") => shell = false,
            _ => {}
        }
        let Some(start) = line.find("hcloud ").filter(|_| shell) else { continue };
        // Quotes around a command substitution, as in "$(hcloud server ip bastion)".
        let words = line[start..].split(|c: char| c.is_whitespace() || "()\"".contains(c));
        commands.push(words.filter(|word| !word.is_empty()).map(str::to_owned).collect());
    }
    commands
}

/// A world with the bastion and nothing else.
fn empty_project() -> World {
    let mut world = World::new();
    let cloud = Cloud::default();
    world.bastion = cloud.create_server("bastion", Some([203, 0, 113, 2].into()));
    world.served = Served::start(cloud);
    world
}

#[tokio::test]
async fn every_documented_command_and_flag_is_one_of_this_version() {
    let world = World::new();
    let commands = commands();
    let subjects: BTreeSet<&str> = commands.iter().map(|words| words[1].as_str()).collect();
    assert_eq!(subjects, BTreeSet::from(["firewall", "network", "server", "ssh-key"]), "all were found");
    for words in commands {
        let output_text = world.cli(&[words[1].as_str(), words[2].as_str(), "--help"]).await.expect("help");
        // For an unknown subcommand, hcloud prints the help of its parent.
        assert!(output_text.contains(&format!("\n  hcloud {} {} ", words[1], words[2])), "{words:?}: {output_text}");
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            assert!(output_text.contains(&format!(" {flag} ")), "{words:?}: no {flag} in\n{output_text}");
        }
    }
}

#[tokio::test]
async fn the_documented_commands_create_the_network_and_remove_its_route() {
    let mut world = empty_project();
    let of_the_network = commands().into_iter().filter(|words| words[1] == "network");
    for words in of_the_network {
        let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        if words[1] == "remove-route" {
            assert_eq!(world.routes(), [route(DEFAULT)], "it is bastiond's");
        }
        world.cli(&words).await.unwrap_or_else(|output_text| panic!("{words:?}: {output_text}"));
        if words[1] == "add-subnet" {
            let described = world.cli_json(&["network", "describe", "private"]).await;
            assert_eq!(described["ip_range"], "10.0.0.0/16");
            assert_eq!(described["subnets"][0]["ip_range"], "10.0.0.0/24");
            assert_eq!(described["subnets"][0]["gateway"], "10.0.0.1");
            assert_eq!(described["routes"], json!([]));
            world.network =
                serde_json::from_value(described["id"].clone()).map(sandbox::cloud::NetworkId).expect("an id");
            world.cloud().attach(world.bastion, world.network, [10, 0, 0, 2].into(), "86:00:00:2a:7d:e0");
            world.cloud().put_route(world.network, net(DEFAULT[0]), [10, 0, 0, 2].into());
        }
    }
    assert_eq!(world.routes(), []);
    world.check_requests("hcloud-go/");
}
