//! The manual pages of the programs: their arguments as clap knows them, and signals, exit codes, variables and files.

use clap::{Arg, ArgAction, Command};
use roff::{Inline, bold, italic, roman};

use crate::page::{Page, typed};

/// bastiond(8).
pub(crate) fn bastiond(command: Command) -> String {
    let mut page = program(command, "8");
    page.section("SIGNALS");
    page.entry(typed("SIGHUP", None), "Reload the configuration. A configuration with errors changes nothing.");
    page.entry(
        typed("SIGTERM", None),
        "Stop. Rules, settings and routes stay in place, and the tunnel's process carries packets on.",
    );
    page.section("EXIT STATUS");
    page.entry(typed("0", None), "Stopped by a signal.");
    page.entry(typed("1", None), "An error other than a wrong configuration.");
    page.entry(typed("64", None), "Wrong arguments.");
    page.entry(
        typed("78", None),
        "The configuration is wrong. Nothing was changed, and the unit does not restart the daemon.",
    );
    page.section("ENVIRONMENT");
    page.entry(
        typed("HCLOUD_TOKEN", None),
        "Token of the Cloud API, used if there is no credential and no file with a token.",
    );
    page.entry(typed("HCLOUD_TOKEN_FILE", None), "File with that token, used if the configured file does not exist.");
    page.entry(
        typed("HCLOUD_NETWORK", None),
        "Number or name of the Hetzner Network of a private link without network_id.",
    );
    page.entry(typed("HCLOUD_ENDPOINT", None), "Base URL of the Cloud API; overrides the configuration.");
    page.entry(
        typed("HCLOUD_METADATA_ENDPOINT", None),
        "Base URL of the metadata service; overrides the configuration.",
    );
    page.section("FILES");
    page.entry(typed("/etc/bastiond/config.toml", None), "The configuration, bastiond.toml(5).");
    page.entry(typed("/etc/bastiond/peers.d/*.toml", None), "Peers of the tunnel, one per file.");
    page.entry(
        typed("/etc/bastiond/hcloud-token", None),
        "Token of the Cloud API, readable only by root. `bastiond.service` passes it on as the credential \
         `hcloud-token`.",
    );
    page.entry(
        typed("/var/lib/bastiond", None),
        "State that survives a reboot: the last good rules, the tunnel's private key, earlier values of kernel \
         settings.",
    );
    page.entry(typed("/run/bastiond", None), "State that survives a restart, and the control socket of `bastionctl`.");
    page.see_also(&["bastionctl(1)", "bastiond.toml(5)", "bastiond-tunnel(8)", "nft(8)", "wg(8)", "systemd.exec(5)"]);
    page.finish()
}

/// bastionctl(1), with all of its commands.
pub(crate) fn bastionctl(command: Command) -> String {
    let mut page = program(command, "1");
    page.section("EXIT STATUS");
    page.entry(typed("0", None), "Done; for `status` and `reconcile`: the gateway is healthy.");
    page.entry(typed("1", None), "Not done, or not all of it; for `status` and `reconcile`: the gateway is waiting.");
    page.entry(typed("2", None), "For `status` and `reconcile`: the gateway is degraded.");
    page.entry(typed("3", None), "The daemon does not answer.");
    page.entry(typed("64", None), "Wrong arguments.");
    page.entry(typed("78", None), "The configuration is wrong.");
    page.section("FILES");
    page.entry(typed("/etc/bastiond/config.toml", None), "The configuration, bastiond.toml(5).");
    page.entry(
        typed("/run/bastiond/control.sock", None),
        "The daemon's control socket, for root and the group `bastiond`.",
    );
    page.see_also(&["bastiond(8)", "bastiond.toml(5)", "nft(8)", "wg(8)", "conntrack(8)"]);
    page.finish()
}

/// bastiond-tunnel(8).
pub(crate) fn tunnel(command: Command) -> String {
    let mut page = program(command, "8");
    page.see_also(&["wg(8)", "wg-quick(8)", "bastiond(8)"]);
    page.finish()
}

/// bastiond-fastpath(8).
pub(crate) fn fastpath(command: Command) -> String {
    let mut page = program(command, "8");
    page.section("FILES");
    page.entry(
        typed("/sys/fs/bpf/bastiond", None),
        "The loaded programs and their maps, which a reboot clears. Packets are carried only while the daemon has attached \
         them.",
    );
    page.see_also(&["bastiond(8)", "tc-bpf(8)"]);
    page.finish()
}

/// The sections that `--help` has too.
fn program(mut command: Command, section: &str) -> Page {
    command.build();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = Page::new(command.get_name(), section, about.trim_end_matches('.'));
    page.section("SYNOPSIS");
    page.line(synopsis(&command));
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    page.section("DESCRIPTION");
    page.text(long.split_once("\n\n").map_or(&sentence(command.get_about()), |(_, rest)| rest));
    if command.has_subcommands() {
        page.section("COMMANDS");
        for subcommand in command.get_subcommands().filter(|it| it.get_name() != "help") {
            describe(&mut page, synopsis(subcommand), subcommand);
            for nested in subcommand.get_subcommands().filter(|it| it.get_name() != "help") {
                let mut words = vec![bold(subcommand.get_name()), roman(" ")];
                words.extend(synopsis(nested));
                describe(&mut page, words, nested);
            }
        }
    }
    page.section("OPTIONS");
    arguments(&mut page, command.get_arguments());
    if let Some(after) = command.get_after_long_help() {
        table(&mut page, &after.to_string());
    }
    page
}

/// A command with its arguments.
fn describe(page: &mut Page, synopsis: Vec<Inline>, command: &Command) {
    page.entry(synopsis, &sentence(command.get_long_about().or(command.get_about())));
    page.indent();
    arguments(page, command.get_arguments().filter(|it| !it.is_global_set() && !is_built_in(it)));
    page.outdent();
}

fn arguments<'a>(page: &mut Page, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments.filter(|it| !it.is_hide_set()) {
        let mut text = sentence(argument.get_long_help().or(argument.get_help()));
        let defaults = if argument.get_action().takes_values() { argument.get_default_values() } else { &[] };
        if let [default] = defaults {
            text = format!("{text} [default: {}]", default.to_string_lossy());
        }
        page.entry(tag(argument), text.trim());
    }
}

/// `--help` and `--version`, which every command has.
fn is_built_in(argument: &Arg) -> bool {
    let action = argument.get_action();
    matches!(action, ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

fn sentence(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    // clap removes the last full stop.
    if text.ends_with(|letter: char| letter.is_alphanumeric()) { text + "." } else { text }
}

/// `-f, --foreground`, `--config PATH`, `INTERFACE`.
fn tag(argument: &Arg) -> Vec<Inline> {
    let short = argument.get_short().map(|letter| format!("-{letter}"));
    let long = argument.get_long().map(|word| format!("--{word}"));
    let mut words = Vec::new();
    for name in short.into_iter().chain(long) {
        if !words.is_empty() {
            words.push(roman(", "));
        }
        words.push(bold(name));
    }
    if let Some(place) = place(argument) {
        if !words.is_empty() {
            words.push(roman(" "));
        }
        words.push(italic(place));
    }
    words
}

/// What stands for the argument's value.
fn place(argument: &Arg) -> Option<String> {
    let takes_one = argument.get_action().takes_values();
    let named = argument.get_value_names().and_then(<[_]>::first).map(ToString::to_string);
    takes_one.then(|| named.unwrap_or_else(|| argument.get_id().as_str().to_uppercase()))
}

/// The name, and the arguments that it takes.
fn synopsis(command: &Command) -> Vec<Inline> {
    let mut words = vec![bold(command.get_name())];
    let (global, own): (Vec<&Arg>, Vec<&Arg>) = command.get_arguments().partition(|it| it.is_global_set());
    // Those of the program stand with the program.
    let is_program = command.get_version().is_some();
    let shown = own.into_iter().filter(|it| !is_built_in(it)).chain(global.into_iter().filter(|_| is_program));
    for argument in shown {
        let (before, after) = if argument.is_required_set() { (" ", "") } else { (" [", "]") };
        words.push(roman(before));
        match (argument.get_long(), place(argument)) {
            (Some(long), place) => words.extend(typed(&format!("--{long}"), place.as_deref())),
            (None, place) => words.push(italic(place.unwrap_or_default())),
        }
        words.push(roman(after));
    }
    if command.has_subcommands() {
        let (before, after) = if command.is_subcommand_required_set() { (" ", "") } else { (" [", "]") };
        words.extend([roman(before), italic("COMMAND"), roman(after)]);
    }
    words
}

/// The section at the end of `--help`: a title with a colon, then names, two spaces or more, and their meaning, further
/// lines of it under the first.
fn table(page: &mut Page, text: &str) {
    let (title, lines) = text.split_once('\n').unwrap_or((text, ""));
    page.section(&title.trim_end_matches(':').to_uppercase());
    let mut entries: Vec<(&str, String)> = Vec::new();
    for line in lines.lines() {
        let line = line.strip_prefix("  ").unwrap_or(line);
        match (line.split_once("  "), entries.last_mut()) {
            (Some((name, meaning)), _) if !name.is_empty() => entries.push((name, meaning.trim().to_owned())),
            (_, Some((_, meaning))) => {
                meaning.push(' ');
                meaning.push_str(line.trim());
            }
            _ => {}
        }
    }
    for (name, meaning) in entries {
        page.entry(typed(name, None), &meaning);
    }
}

#[cfg(test)]
mod tests {
    use bastiond::cli::{Bastionctl, Bastiond};
    use bastiond_tunnel::cli::BastiondTunnel;
    use clap::CommandFactory;

    use super::*;

    /// What a reader sees, roughly: without fonts and escapes.
    fn read(page: &str) -> String {
        page.replace("\\fB", "")
            .replace("\\fI", "")
            .replace("\\fR", "")
            .replace("\\-", "-")
            .replace("\\&", "")
            .replace("\\*(Aq", "'")
    }

    #[test]
    fn a_page_says_everything_that_help_says() {
        let programs = [
            (Bastiond::command(), bastiond as fn(Command) -> String),
            (Bastionctl::command(), bastionctl),
            (BastiondTunnel::command(), tunnel),
        ];
        for (mut command, page) in programs {
            let page = read(&page(command.clone()));
            command.build();
            let mut commands = vec![&command];
            commands.extend(command.get_subcommands().filter(|it| it.get_name() != "help"));
            for it in commands {
                assert!(page.contains(it.get_name()), "{}", it.get_name());
                for argument in it.get_arguments().filter(|it| !is_built_in(it)) {
                    let name = argument.get_long().map_or_else(|| place(argument), |long| Some(format!("--{long}")));
                    let name = name.unwrap_or_default();
                    assert!(page.contains(&name), "{} {name}", it.get_name());
                    let help = sentence(argument.get_long_help().or(argument.get_help())).replace('`', "");
                    assert!(page.contains(help.trim()), "{} {name}: {help}", it.get_name());
                }
            }
        }
    }

    #[test]
    fn every_variable_that_the_daemon_reads_is_in_its_page() {
        let source = include_str!("../../../src/config/environment.rs");
        let page = bastiond(Bastiond::command());
        let mut found = 0;
        for name in source.split('"').filter(|part| part.starts_with("HCLOUD_")) {
            assert!(read(&page).contains(name), "{name}");
            found += 1;
        }
        assert_eq!(found, 5);
    }

    #[test]
    fn the_table_that_closes_help_becomes_a_section() {
        let mut page = Page::new("x", "8", "y");
        table(&mut page, "Environment:\n  ONE=1    the first,\n           and more\n  TWO      the second");
        let page = page.finish();
        let (_, end) = page.split_once("ENVIRONMENT").unwrap();
        assert_eq!(read(end), "\n.TP\nONE=1\nthe first, and more\n.TP\nTWO\nthe second\n");
    }
}
