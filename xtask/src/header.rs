//! `include/vipool.h`, generated from `src/capi/` by cbindgen as `cbindgen.toml` says.
//!
//! The header is checked in, and building the crate never runs cbindgen: who embeds vipool does
//! not build a parser. Its parts come in the order in which `src/capi/mod.rs` names its modules.

use std::fs;

use crate::Error;
use crate::run::root;

/// Writes the header, or only compares it.
pub fn run(check: bool) -> Result<(), Error> {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml"))?;
    let folder = root().join("src/capi");
    let modules = fs::read_to_string(folder.join("mod.rs"))?;
    let names = modules.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let mut header = Vec::new();
    names
        .fold(cbindgen::Builder::new().with_config(config), |builder, name| {
            builder.with_src(folder.join(name).with_extension("rs"))
        })
        .generate()
        .map_err(|error| format!("cbindgen: {error}"))?
        .write(&mut header);
    let path = root().join("include/vipool.h");
    if check {
        if fs::read(&path).unwrap_or_default() != header {
            return Err(
                "include/vipool.h is not what src/capi/ says: run `cargo xtask header`".into()
            );
        }
    } else {
        fs::create_dir_all(root().join("include"))?;
        fs::write(path, header)?;
    }
    Ok(())
}
