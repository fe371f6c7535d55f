//! What the demo runs: python3's own web server, or, where there is no python3, a program of this
//! project's examples.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A client for python3, as short as can be.
const FETCH: &str = "\
import sys, urllib.request
print(urllib.request.urlopen(f'http://127.0.0.1:{sys.argv[1]}/').read().decode(), end='')
";

/// A web server and its client, and the file that is to be listed for both.
pub enum Programs {
    /// The interpreter behind the name python3, which may be a wrapper script.
    Python(PathBuf),
    /// `examples/page.rs`, built.
    Page(PathBuf),
}

impl Programs {
    /// Finds them, and puts what they need beside them in `directory`.
    pub fn find(directory: &Path) -> anyhow::Result<Self> {
        if let Some(python) = python() {
            std::fs::write(directory.join("fetch.py"), FETCH)?;
            return Ok(Self::Python(python));
        }
        let own = std::env::current_exe()?.canonicalize()?;
        let page = own.parent().context("no directory")?.join("examples/page");
        if !page.exists() {
            bail!(
                "the demo needs python3 (apt install python3), or {} (cargo build --release \
                 -p vipool-cli --example page)",
                page.display()
            );
        }
        Ok(Self::Page(page))
    }

    /// The farm file: the process list, and loopback addresses for two sessions.
    pub fn farm(&self) -> String {
        let (Self::Python(file) | Self::Page(file)) = self;
        format!(
            "[loopback]\n\
             ranges = \"127.200.0.2-127.200.0.5\"  # a session takes two\n\n\
             [sessions]\n\
             cool-down = 0\n\
             check-in-use = false\n\n\
             [[program]]\n\
             path = {:?}\n\
             features = [\"loopback\"]\n",
            file.display()
        )
    }

    /// The command that serves the directory `who` on 127.0.0.1.
    pub fn serve(&self, port: u16, who: &str) -> String {
        match self {
            Self::Python(_) => {
                format!("python3 -u -m http.server {port} --bind 127.0.0.1 --directory {who}")
            }
            Self::Page(page) => format!("{} serve {port} {who}/index.html", page.display()),
        }
    }

    /// The command that prints what is served on 127.0.0.1.
    pub fn fetch(&self, port: u16) -> String {
        match self {
            Self::Python(_) => format!("python3 fetch.py {port}"),
            Self::Page(page) => format!("{} fetch {port}", page.display()),
        }
    }
}

/// The interpreter that python3 leads to.
fn python() -> Option<PathBuf> {
    let code = "import sys; print(sys.executable)";
    let output = Command::new("python3").args(["-c", code]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    PathBuf::from(path.trim()).canonicalize().ok()
}
