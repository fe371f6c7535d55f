//! The programs of the demo: the web server of python3, or an example of this project if python3 is
//! not installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A Python program that prints the page of the server on port `argv[1]` of 127.0.0.1.
const FETCH_SCRIPT: &str = "\
import sys, urllib.request
print(urllib.request.urlopen(f'http://127.0.0.1:{sys.argv[1]}/').read().decode(), end='')
";

/// A web server and a client. Both use the same executable file, which the farm file lists.
pub enum Programs {
    /// The executable file of the Python interpreter. The command `python3` may be a wrapper
    /// script.
    Python(PathBuf),
    /// The example `page`.
    Page(PathBuf),
}

impl Programs {
    /// Finds the programs. For python3, writes the client's script to `directory`.
    ///
    /// # Errors
    /// Neither python3 nor the example exists, or the script cannot be written.
    pub fn find(directory: &Path) -> anyhow::Result<Self> {
        if let Some(python) = find_python() {
            std::fs::write(directory.join("fetch.py"), FETCH_SCRIPT)?;
            return Ok(Self::Python(python));
        }
        let own_executable = std::env::current_exe()?.canonicalize()?;
        let page = own_executable.parent().context("no directory")?.join("examples/page");
        if !page.exists() {
            bail!(
                "the demo needs python3 (apt install python3) or {} (cargo build --release \
                 -p vipool-cli --example page)",
                page.display()
            );
        }
        Ok(Self::Page(page))
    }

    /// Returns the text of the farm file: the process list, and loopback addresses for two
    /// sessions.
    pub fn farm_text(&self) -> String {
        let (Self::Python(file) | Self::Page(file)) = self;
        format!(
            "[loopback]\n\
             ranges = \"127.200.0.2-127.200.0.5\"  # two per session: for 127.0.0.1 and ::1\n\n\
             [sessions]\n\
             cool-down = 0\n\
             check-in-use = false\n\n\
             [[program]]\n\
             path = {:?}\n\
             features = [\"loopback\"]\n",
            file.display()
        )
    }

    /// Returns the command that serves the directory of `owner` on 127.0.0.1.
    pub fn serve_command(&self, port: u16, owner: &str) -> String {
        match self {
            Self::Python(_) => {
                format!("python3 -u -m http.server {port} --bind 127.0.0.1 --directory {owner}")
            }
            Self::Page(page) => format!("{} serve {port} {owner}/index.html", page.display()),
        }
    }

    /// Returns the command that prints the page of the server on 127.0.0.1.
    pub fn fetch_command(&self, port: u16) -> String {
        match self {
            Self::Python(_) => format!("python3 fetch.py {port}"),
            Self::Page(page) => format!("{} fetch {port}", page.display()),
        }
    }
}

/// Returns the executable file of the interpreter that the command `python3` starts.
fn find_python() -> Option<PathBuf> {
    let script = "import sys; print(sys.executable)";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    PathBuf::from(path.trim()).canonicalize().ok()
}
