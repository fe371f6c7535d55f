//! `include/vipool.h`, generated from `src/capi/` by cbindgen as `cbindgen.toml` says.
//!
//! The header is checked in, and building the crate never runs cbindgen: who embeds vipool does
//! not build a parser.

use std::fs;

use crate::Error;
use crate::run::root;

/// Writes the header, or only compares it.
pub fn run(check: bool) -> Result<(), Error> {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml"))?;
    let mut header = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_crate(root())
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
