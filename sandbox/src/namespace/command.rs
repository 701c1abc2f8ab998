//! Programs that run inside a namespace.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ExitStatus, Output, Stdio};

use command_fds::{CommandFdExt, FdMapping};

use super::enter::run_in;

/// A [`std::process::Command`] that runs in a namespace: a child process starts in the namespace of the thread that
/// spawns it.
#[derive(Debug)]
pub struct Command<'a> {
    namespace: &'a File,
    command: std::process::Command,
}

impl<'a> Command<'a> {
    pub(super) fn new(namespace: &'a File, program: &str) -> Self {
        Self { namespace, command: std::process::Command::new(program) }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes a variable from the environment.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Sets the standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Sets the standard output.
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    /// Sets the standard error.
    #[must_use]
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.command.stderr(stderr);
        self
    }

    /// Passes descriptors to the program, with the numbers from 3 on in this order.
    pub fn descriptors(mut self, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let mappings = (3..).zip(descriptors).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
        self.command.fd_mappings(mappings).map_err(io::Error::other)?;
        Ok(self)
    }

    /// Starts the program. A child that is dropped without waiting runs until the isolation ends.
    pub fn spawn(mut self) -> io::Result<Child> {
        run_in(self.namespace, || self.command.spawn())
    }

    /// Runs the program with an empty input and collects its output.
    pub fn output(mut self) -> io::Result<Output> {
        run_in(self.namespace, || self.command.stdin(Stdio::null()).output())
    }

    /// Runs the program with the input and output of the caller.
    pub fn status(mut self) -> io::Result<ExitStatus> {
        run_in(self.namespace, || self.command.status())
    }
}
