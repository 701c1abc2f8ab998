//! The pages of the programs: what clap knows of their arguments, and what no argument tells.

use clap::{Arg, ArgAction, Command};
use roff::{Inline, bold, italic, roman};

use crate::page::{Page, typed};

/// bastiond(8).
pub(crate) fn bastiond(command: Command) -> String {
    let mut page = program(command, "8");
    page.section("SIGNALS");
    page.entry(typed("SIGHUP", None), "Reads the configuration anew. A wrong one changes nothing.");
    page.entry(
        typed("SIGTERM", None),
        "Ends. Rules, settings and routes stay; what the next start needs of the tunnel is left with systemd.",
    );
    page.section("EXIT STATUS");
    page.entry(typed("0", None), "It was told to end.");
    page.entry(typed("1", None), "Something failed.");
    page.entry(
        typed("78", None),
        "The configuration is wrong. Nothing was touched, and the unit does not start it again.",
    );
    page.section("ENVIRONMENT");
    page.entry(typed("HCLOUD_TOKEN", None), "The token of the Cloud API, unless a credential or a file has one.");
    page.entry(
        typed("HCLOUD_TOKEN_FILE", None),
        "A file with that token, unless there is the one of the configuration.",
    );
    page.entry(typed("HCLOUD_NETWORK", None), "Number or name of the network of a private link that names none.");
    page.entry(typed("HCLOUD_ENDPOINT", None), "Base URL of the Cloud API; wins over the configuration.");
    page.entry(
        typed("HCLOUD_METADATA_ENDPOINT", None),
        "Base URL of the metadata service; wins over the configuration.",
    );
    page.section("FILES");
    page.entry(typed("/etc/bastiond/config.toml", None), "The configuration, bastiond.toml(5).");
    page.entry(typed("/etc/bastiond/peers.d/*.toml", None), "Peers of the tunnel, one a file.");
    page.entry(
        typed("/etc/bastiond/hcloud-token", None),
        "The token of the Cloud API, for root alone. `bastiond.service` hands it over as the credential `hcloud-token`.",
    );
    page.entry(
        typed("/var/lib/bastiond", None),
        "What outlives a reboot: the rules that were good last, the tunnel's private key, what settings were before.",
    );
    page.entry(typed("/run/bastiond", None), "What outlives a restart, and the socket of `bastionctl`.");
    page.see_also(&["bastionctl(1)", "bastiond.toml(5)", "bastiond-tunnel(8)", "nft(8)", "wg(8)", "systemd.exec(5)"]);
    page.finish()
}

/// bastionctl(1), with all of its commands.
pub(crate) fn bastionctl(command: Command) -> String {
    let mut page = program(command, "1");
    page.section("EXIT STATUS");
    page.entry(typed("0", None), "All is well.");
    page.entry(typed("1", None), "Something is not: what was asked for failed, or the gateway is not healthy.");
    page.entry(typed("78", None), "The configuration is wrong.");
    page.section("FILES");
    page.entry(typed("/etc/bastiond/config.toml", None), "The configuration, bastiond.toml(5).");
    page.entry(typed("/run/bastiond/control.sock", None), "The daemon's socket, for root and the group `bastiond`.");
    page.see_also(&["bastiond(8)", "bastiond.toml(5)", "nft(8)", "wg(8)", "conntrack(8)"]);
    page.finish()
}

/// bastiond-tunnel(8).
pub(crate) fn tunnel(command: Command) -> String {
    let mut page = program(command, "8");
    page.see_also(&["wg(8)", "wg-quick(8)", "bastiond(8)"]);
    page.finish()
}

/// What `--help` says.
fn program(mut command: Command, section: &str) -> Page {
    command.build();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = Page::new(command.get_name(), section, about.trim_end_matches('.'));
    page.section("SYNOPSIS");
    page.line(synopsis(&command));
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    page.section("DESCRIPTION");
    page.text(long.split_once("\n\n").map_or(&told(command.get_about()), |(_, rest)| rest));
    if command.has_subcommands() {
        page.section("COMMANDS");
        for subcommand in command.get_subcommands().filter(|it| it.get_name() != "help") {
            page.entry(synopsis(subcommand), &told(subcommand.get_long_about().or(subcommand.get_about())));
            page.indent();
            arguments(&mut page, subcommand.get_arguments().filter(|it| !it.is_global_set() && !is_built_in(it)));
            page.outdent();
        }
    }
    page.section("OPTIONS");
    arguments(&mut page, command.get_arguments());
    if let Some(after) = command.get_after_long_help() {
        table(&mut page, &after.to_string());
    }
    page
}

fn arguments<'a>(page: &mut Page, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments.filter(|it| !it.is_hide_set()) {
        let mut text = told(argument.get_long_help().or(argument.get_help()));
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

fn told(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    // clap takes the last full stop away.
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

/// A section of the kind that closes `--help`: a title with a colon, then names, two spaces or more, and what they mean, further
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
                    let help = told(argument.get_long_help().or(argument.get_help())).replace('`', "");
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
