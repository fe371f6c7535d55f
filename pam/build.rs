//! Keeps the module in memory once it is loaded: a PAM application may unload modules between two
//! logons, and nothing of ours may be pulled from under a function that still runs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
