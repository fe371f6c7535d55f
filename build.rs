//! Sets the SONAME of the shared library with the C ABI. Without a SONAME, a linked program would
//! record the path or the name of the library file, which contains no version.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_elf = matches!(&*var("CARGO_CFG_TARGET_OS").unwrap_or_default(), "linux" | "android");
    if !is_elf || var("CARGO_FEATURE_CAPI").is_err() {
        return;
    }
    let version_part = |name| var(name).unwrap_or_default();
    let major = version_part("CARGO_PKG_VERSION_MAJOR");
    let minor = version_part("CARGO_PKG_VERSION_MINOR");
    // Until 1.0, a new minor version may break programs.
    let soname_version = if major == "0" { format!("0.{minor}") } else { major };
    // `rustc-cdylib-link-arg` is not available, because only `cargo rustc --crate-type cdylib`
    // makes this package a cdylib. The tests and examples get the SONAME too. It has no effect on
    // them.
    println!("cargo::rustc-link-arg=-Wl,-soname,libvipool.so.{soname_version}");
}
