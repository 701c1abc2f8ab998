//! Writes the manual pages and shell completions: `manual DIRECTORY` creates `man/`, `bash/`, `zsh/` and `fish/` in it.
//!
//! They cannot contradict `--help` and `config.example.toml`, because they are generated from them: from the arguments
//! in `bastiond::cli`, and from the comments of that file.

mod example;
mod page;
mod programs;
mod settings;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bastiond::cli::{Bastionctl, Bastiond, BastiondFastpath};
use bastiond_tunnel::cli::BastiondTunnel;
use clap::{Command, CommandFactory, Parser};
use clap_complete::{Generator, shells};

/// Writes the manual pages and shell completions.
#[derive(Debug, Parser)]
struct Arguments {
    /// The directory to write to. It is created if it does not exist.
    directory: PathBuf,
}

/// Why the files cannot be written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("config.example.toml: {0}")]
    Example(#[from] example::Error),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

fn main() -> ExitCode {
    match write(&Arguments::parse().directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> Result<(), Error> {
    for (name, text) in pages()? {
        put(&directory.join("man"), &name, text.as_bytes())?;
    }
    for mut command in
        [Bastiond::command(), Bastionctl::command(), BastiondTunnel::command(), BastiondFastpath::command()]
    {
        let name = command.get_name().to_owned();
        put(&directory.join("bash"), &name, &completion(shells::Bash, &mut command))?;
        put(&directory.join("zsh"), &format!("_{name}"), &completion(shells::Zsh, &mut command))?;
        put(&directory.join("fish"), &format!("{name}.fish"), &completion(shells::Fish, &mut command))?;
    }
    Ok(())
}

/// All pages, each with its file name.
fn pages() -> Result<Vec<(String, String)>, Error> {
    Ok(vec![
        ("bastiond.8".to_owned(), programs::bastiond(Bastiond::command())),
        ("bastionctl.1".to_owned(), programs::bastionctl(Bastionctl::command())),
        ("bastiond-tunnel.8".to_owned(), programs::tunnel(BastiondTunnel::command())),
        ("bastiond-fastpath.8".to_owned(), programs::fastpath(BastiondFastpath::command())),
        ("bastiond.toml.5".to_owned(), settings::page(&example::parse(example::TEXT)?)),
    ])
}

fn completion(shell: impl Generator, command: &mut Command) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    script
}

fn put(directory: &Path, name: &str, content: &[u8]) -> Result<(), Error> {
    let path = directory.join(name);
    let written = fs::create_dir_all(directory)
        .and_then(|()| File::create(&path))
        .and_then(|mut file| io::Write::write_all(&mut file, content));
    written.map_err(|source| Error::Write { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_page_and_completions_for_three_shells() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let mut files = Vec::new();
        for place in ["man", "bash", "zsh", "fish"] {
            for file in fs::read_dir(directory.path().join(place)).unwrap() {
                let file = file.unwrap();
                assert!(file.metadata().unwrap().len() > 200, "{file:?}");
                files.push(format!("{place}/{}", file.file_name().into_string().unwrap()));
            }
        }
        files.sort();
        let wanted = [
            "bash/bastionctl",
            "bash/bastiond",
            "bash/bastiond-fastpath",
            "bash/bastiond-tunnel",
            "fish/bastionctl.fish",
            "fish/bastiond-fastpath.fish",
            "fish/bastiond-tunnel.fish",
            "fish/bastiond.fish",
            "man/bastionctl.1",
            "man/bastiond-fastpath.8",
            "man/bastiond-tunnel.8",
            "man/bastiond.8",
            "man/bastiond.toml.5",
            "zsh/_bastionctl",
            "zsh/_bastiond",
            "zsh/_bastiond-fastpath",
            "zsh/_bastiond-tunnel",
        ];
        assert_eq!(files, wanted);
    }

    #[test]
    fn completions_contain_every_command() {
        for shell in
            [completion(shells::Bash, &mut Bastionctl::command()), completion(shells::Fish, &mut Bastionctl::command())]
        {
            let script = String::from_utf8(shell).unwrap();
            for command in Bastionctl::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{}", command.get_name());
            }
        }
    }
}
