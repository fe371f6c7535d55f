//! Links the module so that it is never unloaded. Otherwise a PAM application could unload the
//! module between two logons while one of its functions is still running.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
