//! The tested package, and variants of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::required;
use crate::shared::{Result, ensure, text};

/// A Debian package.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    path: PathBuf,
    version: String,
}

impl Package {
    /// The package to test.
    pub(crate) fn given() -> Result<Self> {
        Self::at(required("BASTIOND_SYSTEM_PACKAGE")?)
    }

    fn at(path: PathBuf) -> Result<Self> {
        let output = Command::new("dpkg-deb").arg("--field").arg(&path).arg("Version").output()?;
        ensure(output.status.success(), format!("{}: {}", path.display(), text(&output.stderr)))?;
        Ok(Self { path, version: text(&output.stdout).trim().to_owned() })
    }

    /// A variant with a suffix of the version: `+1` is newer, `~1` is older.
    pub(crate) fn next(&self, suffix: &str) -> Result<Self> {
        self.changed(suffix, |_| Ok(()))
    }

    /// A variant with changed files.
    pub(crate) fn changed(&self, suffix: &str, change: impl FnOnce(&Path) -> Result) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let tree = directory.path().join("tree");
        must(Command::new("dpkg-deb").arg("--raw-extract").arg(&self.path).arg(&tree))?;
        let version = format!("{}{suffix}", self.version);
        let control = tree.join("DEBIAN/control");
        let text = fs::read_to_string(&control)?;
        fs::write(&control, text.replace(&format!("Version: {}\n", self.version), &format!("Version: {version}\n")))?;
        change(&tree)?;
        let path = Path::new("/run").join(format!("bastiond_{version}.deb"));
        // Without compression, because it is used only once.
        must(Command::new("dpkg-deb").args(["--build", "--root-owner-group", "-Znone"]).arg(&tree).arg(&path))?;
        let package = Self::at(path)?;
        ensure(package.version == version, format!("the version is {}, not {version}", package.version))?;
        Ok(package)
    }

    /// The path of the package.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the package.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

fn must(command: &mut Command) -> Result {
    let output = command.output()?;
    ensure(output.status.success(), format!("{command:?}: {}", text(&output.stderr)))
}
